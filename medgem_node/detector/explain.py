"""Where in an image a mark comes from: Grad-CAM, Grad-CAM++ and attention rollout on the network's own maps.

Each gives a map in 0..1 at the resolution of stride 16. Whether one of them deserves to be called an explanation is
measured (train/metrics/explanation.py), not assumed.

References: Selvaraju et al. 2017, arXiv:1610.02391; Chattopadhay et al. 2018 (++), arXiv:1710.11063; Abnar and Zuidema
2020 (rollout), arXiv:2005.00928.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgem_node.detector.hiera import Attention, LiteHiera
from medgem_node.detector.network import ChestNetwork

_STRIDE_16 = 3  # of the trunk's five maps
Map = NDArray[np.float32]


def grad_cam(network: ChestNetwork, image: Tensor, kind: int = 0) -> Map:
    """Channels that raise the highest score of a kind of box, weighed by their mean gradient; (1, 1, H, W) in."""
    features, gradient = _towards_score(network, image, kind)
    weights = gradient.mean(dim=(2, 3), keepdim=True)  # (1, C, 1, 1)
    return _scaled((weights * features).sum(dim=1)[0].relu())


def grad_cam_pp(network: ChestNetwork, image: Tensor, kind: int = 0) -> Map:
    """As `grad_cam`, weighed so that several lesions each count."""
    features, gradient = _towards_score(network, image, kind)
    square, cube = gradient**2, gradient**3
    below = 2 * square + features.sum(dim=(2, 3), keepdim=True) * cube
    share = square / torch.where(below.abs() > 1e-12, below, torch.ones_like(below))  # (1, C, h, w)
    weights = (share * gradient.relu()).sum(dim=(2, 3), keepdim=True)
    return _scaled((weights * features).sum(dim=1)[0].relu())


@torch.no_grad()
def rollout(network: ChestNetwork, image: Tensor, kind: int = 0) -> Map:
    """What the token of the highest score has attended to, through all blocks at stride 16."""
    assert isinstance(network.trunk, LiteHiera)
    kept: list[Tensor] = []
    hooks = [
        module.register_forward_pre_hook(lambda own, inputs: kept.append(attention(own, inputs[0])))
        for module in network.trunk.stage16.modules()
        if isinstance(module, Attention)
    ]
    try:
        boxes = network(image).boxes
    finally:
        for hook in hooks:
            hook.remove()
    assert boxes is not None
    rows, columns = image.shape[2] // 16, image.shape[3] // 16
    flow = torch.eye(rows * columns)
    for weights in kept:
        flow = (0.5 * weights + 0.5 * torch.eye(len(weights))) @ flow  # half goes round each block, as its input does
    peak = int(boxes[0, kind].argmax())
    row, column = peak // boxes.shape[3] // 4, peak % boxes.shape[3] // 4
    return _scaled(flow[row * columns + column].reshape(rows, columns))


def attention(module: Attention, x: Tensor) -> Tensor:
    """Its weights over the whole image, the mean of its heads: (tokens, tokens) of a (1, H, W, C) input."""
    tokens = x.flatten(1, 2)  # (1, N, C)
    n, c = tokens.shape[1:]
    q, k, _ = module.qkv(tokens).reshape(n, 3, module.heads, c // module.heads).permute(1, 2, 0, 3)  # (heads, N, C/h)
    return (q @ k.transpose(1, 2) / (c // module.heads) ** 0.5).softmax(dim=-1).mean(dim=0)  # type: ignore[no-any-return]


METHODS: Mapping[str, Callable[..., Map]] = {"grad-cam": grad_cam, "grad-cam++": grad_cam_pp, "rollout": rollout}


def _towards_score(network: ChestNetwork, image: Tensor, kind: int) -> tuple[Tensor, Tensor]:
    """The map at stride 16 and the gradient, on it, of the highest logit of a kind of box."""
    assert network.boxes is not None
    with torch.enable_grad():
        features: list[Any] = [f.detach() for f in network.trunk(image)]
        features[_STRIDE_16].requires_grad_(True)
        score = network.boxes(network.decoder(features)[2])[0, kind].amax()
        (gradient,) = torch.autograd.grad(score, features[_STRIDE_16])
    return features[_STRIDE_16].detach(), gradient


def _scaled(values: Tensor) -> Map:
    low, high = float(values.min()), float(values.max())
    return ((values - low) / max(high - low, 1e-12)).numpy().astype(np.float32)
