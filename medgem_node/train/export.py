"""A trained network as an ONNX graph, which ONNX Runtime computes without torch's code; checked against torch.

Needs `pip install 'medgem-node[export]'`. The graph stands beside the weights and is as much the model as they are: its
digest goes into the manifest, and a graph that strays from torch by more than `PARITY` is not kept.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from medgem_node.card import ModelCard
from medgem_node.detector import runtime
from medgem_node.detector.network import ChestNetwork
from medgem_node.detector.onnx import FILE, OnnxNetwork
from medgem_node.errors import ModelRejected

OPSET = 18
PARITY = 1e-4
"""The largest difference of any output, logits as they are, between torch and the graph."""
_MOST_IMAGES = 64


@dataclass(frozen=True, slots=True)
class Exported:
    """What `export` made."""

    path: Path
    sha256: str
    apart: float  # the largest difference from torch, over all outputs


class _Listed(nn.Module):
    """The network with its outputs as a tuple of those that it has."""

    def __init__(self, network: ChestNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(output for output in self.network(image) if output is not None)


def export(card: ModelCard) -> Exported:
    """Write `model.onnx` beside the weights of `card`. Raises ModelRejected when it does not compute the same."""
    network = runtime.load(card).cpu()
    size = network.config.size
    images = torch.randn(3, 1, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        outputs = network(images)
    path = card.folder / FILE
    draft = path.with_suffix(".draft")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of operators of libraries that are not there
        torch.onnx.export(
            _Listed(network),
            (images[:2],),
            str(draft),
            input_names=["image"],
            output_names=[name for name, output in zip(outputs._fields, outputs, strict=True) if output is not None],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=_MOST_IMAGES)},),
            opset_version=OPSET,
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    graph = OnnxNetwork(draft.read_bytes(), network.config)
    apart = max(_apart(network, graph, images[:n]) for n in (1, 3))
    if not apart <= PARITY:
        draft.unlink()
        raise ModelRejected(f"{path}: the graph strays from torch by {apart:.2g}, {PARITY:.0e} is allowed")
    draft.replace(path)
    return Exported(path, hashlib.sha256(path.read_bytes()).hexdigest(), apart)


def _apart(network: ChestNetwork, graph: OnnxNetwork, images: Tensor) -> float:
    with torch.inference_mode():
        expected = network(images)
    found = graph(images)
    pairs = [(a, b) for a, b in zip(expected, found, strict=True) if a is not None and b is not None]
    return max(float(np.abs(a.numpy() - b.numpy()).max()) for a, b in pairs)
