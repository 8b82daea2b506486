"""Where in an image a mark comes from: the box head's own map, Grad-CAM, Grad-CAM++ and attention rollout.

Each gives a map in 0..1, rollout at stride 16, the others at stride 4. Whether one of them deserves to be called an
explanation is measured (train/evaluate_explanations.py), not assumed. At run time only the box head's is there: the
others need gradients or the inside of the network, which ONNX Runtime has not.

References: Selvaraju et al. 2017, arXiv:1610.02391; Chattopadhay et al. 2018 (++), arXiv:1710.11063; Abnar and Zuidema
2020 (rollout), arXiv:2005.00928.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgem_node.detector.hiera import Attention, LiteHiera
from medgem_node.detector.network import ChestNetwork

Map = NDArray[np.float32]


@torch.no_grad()
def lesions(network: ChestNetwork, image: Tensor, kind: int = 0) -> Map:
    """The box head's own score of each cell, not stretched: what marks are read from; (1, 1, H, W) in."""
    boxes = network(image).boxes
    assert boxes is not None
    return boxes[0, kind].float().sigmoid().cpu().numpy()  # type: ignore[no-any-return]


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
    itself = torch.eye(rows * columns, device=image.device)
    flow = itself
    for weights in kept:
        flow = (0.5 * weights + 0.5 * itself) @ flow  # half goes round each block, as its input does
    peak = int(boxes[0, kind].argmax())
    row, column = peak // boxes.shape[3] // 4, peak % boxes.shape[3] // 4
    return _scaled(flow[row * columns + column].reshape(rows, columns))


def attention(module: Attention, x: Tensor) -> Tensor:
    """Its weights over the whole image, the mean of its heads: (tokens, tokens) of a (1, H, W, C) input."""
    tokens = x.flatten(1, 2)  # (1, N, C)
    n, c = tokens.shape[1:]
    q, k, _ = module.qkv(tokens).reshape(n, 3, module.heads, c // module.heads).permute(1, 2, 0, 3)  # (heads, N, C/h)
    return (q @ k.transpose(1, 2) / (c // module.heads) ** 0.5).softmax(dim=-1).mean(dim=0)  # type: ignore[no-any-return]


METHODS: Mapping[str, Callable[..., Map]] = {
    "lesions": lesions,
    "grad-cam": grad_cam,
    "grad-cam++": grad_cam_pp,
    "rollout": rollout,
}


def methods_of(network: ChestNetwork) -> tuple[str, ...]:
    """Those that there are for this trunk: rollout wants attention over the whole image in all that it passes."""
    return tuple(name for name in METHODS if name != "rollout" or isinstance(network.trunk, LiteHiera))


def _towards_score(network: ChestNetwork, image: Tensor, kind: int) -> tuple[Tensor, Tensor]:
    """The decoder's map at stride 4, (1, C, h, w), and the gradient on it of the highest logit of a kind of box.

    It is the last map before the head, and all that is coarser has come into it.
    """
    assert network.boxes is not None
    with torch.enable_grad():
        features = network.decoder(network.trunk(image))[2].detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(network.boxes(features)[0, kind].amax(), features)
    return features.detach(), gradient


def _scaled(values: Tensor) -> Map:
    low, high = float(values.min()), float(values.max())
    return ((values - low) / max(high - low, 1e-12)).cpu().numpy().astype(np.float32)
