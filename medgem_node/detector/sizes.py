"""Networks by name: a manifest's `[network]` says `named = "hiera-s"` and what it wants otherwise.

`lite-s` starts from ImageNet and is for hundreds of films, `hiera-*` for ten thousands, `vit-l24` the plain
transformer of the literature, kept for comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SIZES: Mapping[str, Mapping[str, Any]] = {
    "lite-s": {  # 3.6 million weights
        "trunk": "lite0", "stem": (16, 24), "widths": (40, 192, 256), "depths": (0, 2, 2), "heads": (1, 6, 8),
        "window": 8, "mlp_ratio": 3.0, "drop_path": 0.1, "decoder": (96, 64, 48),
    },
    "hiera-t": {  # 4.1
        "trunk": "hiera", "stem": (16, 32), "widths": (96, 192, 256), "depths": (2, 3, 2), "heads": (3, 6, 8),
        "window": 8, "mlp_ratio": 4.0, "drop_path": 0.1, "decoder": (96, 64, 32, 16),
    },
    "hiera-s": {  # 11
        "trunk": "hiera", "stem": (24, 48), "widths": (128, 256, 384), "depths": (2, 4, 3), "heads": (4, 8, 12),
        "window": 8, "mlp_ratio": 4.0, "drop_path": 0.15, "decoder": (128, 96, 48, 24),
    },
    "hiera-b": {  # 31
        "trunk": "hiera", "stem": (32, 64), "widths": (192, 384, 576), "depths": (2, 6, 4), "heads": (6, 12, 18),
        "window": 8, "mlp_ratio": 4.0, "drop_path": 0.25, "decoder": (160, 128, 64, 32),
    },
    "vit-l24": {  # 171
        "trunk": "vit", "stem": (24, 48), "widths": (96, 768, 384), "depths": (0, 24, 0), "heads": (1, 12, 1),
        "window": 8, "mlp_ratio": 4.0, "drop_path": 0.3, "decoder": (128, 96, 48, 24),
    },
}  # fmt: skip
