"""A trained network as an ONNX graph, which ONNX Runtime computes without torch's code; checked against torch.

Needs `pip install 'medgem-node[export]'`. The graph stands beside the weights and is as much the model as they are: its
digest goes into the manifest, and a graph that strays from torch by more than `PARITY` is not kept.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from medgem_node.card import ModelCard
from medgem_node.detector import runtime
from medgem_node.detector.network import ChestNetwork
from medgem_node.detector.onnx import FILE, OnnxNetwork
from medgem_node.errors import ConfigError, ModelRejected

OPSET = 18
PARITY = 1e-4
"""The largest difference of any output, logits as they are, between torch and the graph."""


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
    """Write `model.onnx` beside the weights of `card`, replaced whole.

    Raises
    ------
    ModelRejected
        The graph does not compute the same, and is not kept.
    ConfigError
        A package that is needed is not installed.
    """
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]:
        raise ConfigError(f"{missing[0]} is not installed: pip install 'medgem-node[export]'")
    network = runtime.load(card).cpu()
    size = network.config.size
    images = torch.randn(3, 1, size, size, generator=torch.Generator().manual_seed(0))
    path = card.folder / FILE
    draft = path.with_suffix(".draft")
    try:
        _write(network, images[:1], draft)
        apart = _checked(OnnxNetwork(draft.read_bytes(), network.config), network, images, card)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return Exported(path, hashlib.sha256(path.read_bytes()).hexdigest(), apart)


def _write(network: ChestNetwork, images: Tensor, path: Path) -> None:
    """For one image at a time: more at once gain nothing on a CPU, and the query decoder traces for one number only."""
    with torch.inference_mode():
        outputs = network(images)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of operators of libraries that are not there
        torch.onnx.export(
            _Listed(network),
            (images,),
            str(path),
            input_names=["image"],
            output_names=[name for name, output in zip(outputs._fields, outputs, strict=True) if output is not None],
            opset_version=OPSET,
            external_data=False,
            dynamo=True,
            verbose=False,
        )


def _checked(graph: OnnxNetwork, network: ChestNetwork, images: Tensor, card: ModelCard) -> float:
    """How far the graph is from torch, one image at a time and several. Raises ModelRejected."""
    apart = max(_apart(network, graph, images[:n]) for n in (1, len(images)))
    if not apart <= PARITY:
        raise ModelRejected(f"{card.folder}: the graph strays from torch by {apart:.2g}, {PARITY:.0e} is allowed")
    runtime.check_golden(graph, card)
    return apart


def _apart(network: ChestNetwork, graph: OnnxNetwork, images: Tensor) -> float:
    with torch.inference_mode():
        expected = network(images)
    found = graph(images)
    pairs = [(a, b) for a, b in zip(expected, found, strict=True) if a is not None and b is not None]
    return max(float(np.abs(a.numpy() - b.numpy()).max()) for a, b in pairs)
