"""A convolutional patch stem that has seen ImageNet: strides 2 to 16 of EfficientNet-Lite0.

A few hundred films do not teach a network what an edge or a texture is; these eleven blocks know it already. Their
batch normalisation is folded into the convolutions (`train/imagenet.py`), so that an image's answer does not depend
on its neighbours and there is nothing left to fold when the model is shipped.

References: Tan and Le 2019 (EfficientNet), arXiv:1905.11946; Sandler et al. 2018 (inverted residuals),
arXiv:1801.04381. "Lite" leaves out squeeze-and-excitation and takes ReLU6.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

# (kernel, stride, expansion, channels out) of each block; the last of a stride is what the decoder takes
_BLOCKS = (
    (3, 1, 1, 16),  # stride 2
    (3, 2, 6, 24), (3, 1, 6, 24),  # stride 4
    (5, 2, 6, 40), (5, 1, 6, 40),  # stride 8
    (3, 2, 6, 80), (3, 1, 6, 80), (3, 1, 6, 80), (5, 1, 6, 112), (5, 1, 6, 112), (5, 1, 6, 112),  # stride 16
)  # fmt: skip
_FIRST = 32
CHANNELS = (16, 24, 40, 112)
"""Of the maps at strides 2, 4, 8 and 16."""
_LAST_OF_STRIDE = (0, 2, 4, 10)


class LiteStem(nn.Module):
    """Maps at strides 2, 4, 8 and 16 of a (B, 1, H, W) image."""

    def __init__(self) -> None:
        super().__init__()
        self.first = SameConv(1, _FIRST, 3, stride=2)
        blocks, width = [], _FIRST
        for kernel, stride, expansion, out in _BLOCKS:
            blocks.append(Inverted(width, out, kernel, stride, expansion))
            width = out
        self.blocks = nn.ModuleList(blocks)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Four maps (B, C, H, W), finest first."""
        x, maps = functional.relu6(self.first(image)), []  # (B, 32, H/2, W/2)
        for n, block in enumerate(self.blocks):
            x = block(x)
            if n in _LAST_OF_STRIDE:
                maps.append(x)  # (B, 16, H/2, W/2), (B, 24, H/4, W/4), (B, 40, H/8, W/8), (B, 112, H/16, W/16)
        return maps


class Inverted(nn.Module):
    """Wider, then each channel by itself in space, then narrow again; the input carried around it where it fits."""

    def __init__(self, width: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = width * expansion
        self.expand = nn.Conv2d(width, inner, 1) if expansion > 1 else None
        self.depthwise = SameConv(inner, inner, kernel, stride=stride, groups=inner)
        self.project = nn.Conv2d(inner, out, 1)
        self.carries = stride == 1 and width == out

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H/stride, W/stride)."""
        wide = x if self.expand is None else functional.relu6(self.expand(x))  # (B, C * expansion, H, W)
        made: Tensor = self.project(functional.relu6(self.depthwise(wide)))  # (B, C', H/stride, W/stride)
        return x + made if self.carries else made


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow pads, which those weights were learnt with: at stride 2 more right and below.

    Rows and columns must be multiples of the stride.
    """

    def __init__(self, width: int, out: int, kernel: int, *, stride: int, groups: int = 1) -> None:
        total = kernel - stride
        even = total % 2 == 0
        super().__init__(width, out, kernel, stride, padding=total // 2 if even else 0, groups=groups)
        self.uneven = None if even else (total // 2, total - total // 2) * 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H/stride, W/stride)."""
        return super().forward(functional.pad(x, self.uneven) if self.uneven else x)
