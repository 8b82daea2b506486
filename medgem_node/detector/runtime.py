"""The network with its weights, on the device that is there, and the proof that it computes what it should.

Two things compute it, and each has to pass the golden case: torch, and ONNX Runtime where the model has a graph. On a
CPU the graph takes less time than torch: of 256 pixels, two thirds for the network alone, five sixths for a whole film
(tests/bench/bench_detector.py). A GPU is torch's.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Literal, overload

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from medgem_node.card import ModelCard
from medgem_node.detector import labels
from medgem_node.detector.hiera import NetworkConfig
from medgem_node.detector.network import ChestNetwork, Outputs
from medgem_node.detector.onnx import OnnxNetwork
from medgem_node.errors import ConfigError, ModelRejected

log = logging.getLogger(__name__)
MOST_FILMS = 4
"""So many films go through a GPU at once: what they take of its memory is bounded by that."""
_GOLDEN = "golden/golden.json"

Network = ChestNetwork | OnnxNetwork
Image = np.ndarray[Any, np.dtype[np.float32]]  # (1, H, W), as `preprocess.to_tensor` makes it


@overload
def load(card: ModelCard, backend: Literal["torch"] = "torch") -> ChestNetwork: ...
@overload
def load(card: ModelCard, backend: str) -> Network: ...
def load(card: ModelCard, backend: str = "torch") -> Network:
    """Ready to use: digests checked, every tensor in its place, golden case computed again.

    Parameters
    ----------
    backend
        `torch`, which alone gives gradients; `onnx`; `auto`, see `chosen`.

    Raises
    ------
    ModelRejected
        Also if `onnx` is asked for and the model has no graph or this machine no ONNX Runtime.
    """
    weights = card.checked_weights()  # also where the graph is run: the results name their digest
    labels.asked(card)
    backend = chosen(backend, card)
    network: Network = _from_graph(card) if backend == "onnx" else _from_weights(weights, card)
    check_golden(network, card)
    log.info("model %s %s loaded: %s", card.name, card.version, described(network))
    return network


def chosen(backend: str, card: ModelCard) -> str:
    """`torch` or `onnx`. `auto`: torch on a GPU; on a CPU onnx if model and machine have it. Raises ConfigError."""
    if backend in ("torch", "onnx"):
        return backend
    if backend != "auto":
        raise ConfigError(f'backend "{backend}" is not one of auto, torch, onnx')
    if not card.onnx or device().type != "cpu":
        return "torch"
    if find_spec("onnxruntime") is None:
        log.info("ONNX Runtime is not installed: %s %s is computed by torch, which is slower", card.name, card.version)
        return "torch"
    return "onnx"


def _from_weights(weights: bytes, card: ModelCard) -> ChestNetwork:
    network = ChestNetwork(NetworkConfig.read(card.network))
    try:
        network.load_state_dict(load_tensors(weights), strict=True)
    except (SafetensorError, RuntimeError) as exc:
        raise ModelRejected(f"{card.folder}: the weights are not those of this network ({type(exc).__name__})") from exc
    return network.to(device()).eval().requires_grad_(False)


def _from_graph(card: ModelCard) -> OnnxNetwork:
    return OnnxNetwork(card.checked_onnx(), NetworkConfig.read(card.network), torch.get_num_threads())


def device() -> torch.device:
    """The first GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def described(network: Network) -> str:
    """What computes it, as results say: `torch 2.13.0 cpu`, `onnxruntime 1.32.0 cpu`."""
    if isinstance(network, OnnxNetwork):
        return network.runtime
    return f"torch {torch.__version__.partition('+')[0]} {_device_of(network).type}"


def films_at_once(network: Network) -> int:
    """`MOST_FILMS` on a GPU, 1 on a CPU.

    There a batch of 2 to 8 saved nothing (by torch a film took a seventh longer), and a film's answer would depend on
    its neighbours in the seventh digit.
    """
    return 1 if _device_of(network).type == "cpu" else MOST_FILMS


def run(network: Network, image: Image) -> Outputs:
    """The outputs for one image, on the CPU."""
    return run_batch(network, [image])[0]


@torch.inference_mode()
def run_batch(network: Network, images: Sequence[Image]) -> list[Outputs]:
    """The outputs for each image, on the CPU, each of a batch of one; all go through the network together.

    On a CPU they are those of `run` to 1e-5, logits as they are, and bit-identical to it for a single image. Raises
    ArithmeticError where one is not a finite number.
    """
    outputs = network(torch.from_numpy(np.stack(images)).to(_device_of(network)))  # (B, 1, H, W)
    ready = [None if output is None else output.float().cpu() for output in outputs]
    if not all(bool(output.isfinite().all()) for output in ready if output is not None):
        raise ArithmeticError("the network's outputs are not finite")  # nothing may be decided by comparing with them
    return [Outputs._make(None if o is None else o[n : n + 1] for o in ready) for n in range(len(images))]


def _device_of(network: Network) -> torch.device:
    return torch.device("cpu") if isinstance(network, OnnxNetwork) else next(network.parameters()).device


def check_golden(network: Network, card: ModelCard) -> None:
    """Compares the made-up case with what it gave when the model was released. Raises ModelRejected."""
    path = card.folder / _GOLDEN
    try:
        golden = json.loads(path.read_text("utf-8"))
        expected, tolerance = golden["expected"], float(golden["tolerance"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ModelRejected(f"{path}: golden case cannot be read ({type(exc).__name__}); reinstall the model") from exc
    found = golden_case(network)
    for name, values in expected.items():
        apart = float(np.abs(np.asarray(found[name]) - np.asarray(values)).max())
        if not apart <= tolerance:
            raise ModelRejected(
                f"{path}: {name} differs by {apart:.4f} from the released model's, {tolerance} is allowed; "
                "this machine does not compute it as it should"
            )


def golden_case(network: Network) -> dict[str, list[Any]]:
    """What the network makes of a chest drawn with ellipses: coarse probability maps and the gate."""
    outputs = run(network, golden_input(network.config.size))
    coarse = torch.nn.functional.adaptive_avg_pool2d
    case = {
        "masks": _rounded(coarse(outputs.masks.sigmoid(), 8)[0]),
        "points": _rounded(coarse(outputs.points.sigmoid(), 8)[0]),
        "gate": _rounded(outputs.gate.softmax(dim=1)[0]),
    }
    if outputs.boxes is not None:
        kinds = len(network.config.boxes)
        case["boxes"] = _rounded(coarse(outputs.boxes[:, :kinds].sigmoid(), 8)[0])
        case["box geometry"] = _rounded(coarse(outputs.boxes[:, kinds:], 8)[0])
    if outputs.queries is not None:
        case["queries"] = _rounded(outputs.queries[0, :, 3].sigmoid().sort(descending=True).values)
    if outputs.views is not None:
        case["views"] = _rounded(outputs.views.softmax(dim=1)[0])
    if outputs.embedding is not None:
        case["embedding"] = _rounded(outputs.embedding[0])
    if outputs.labels is not None:
        case["labels"] = _rounded(outputs.labels[0].sigmoid())
    return case


def golden_input(size: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(1, size, size): body, lungs and heart as ellipses, with noise of a fixed seed. No patient's image."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    grey = np.where(((x - 0.5) / 0.46) ** 2 + ((y - 0.55) / 0.6) ** 2 < 1, 0.75, 0.02)
    for centre in (0.3, 0.7):
        lung = ((x - centre) / 0.16) ** 2 + ((y - 0.46) / 0.32) ** 2
        grey = np.where(lung < 1, 0.2 + 0.15 * lung, grey)
    grey = np.where(((x - 0.54) / 0.16) ** 2 + ((y - 0.62) / 0.16) ** 2 < 1, 0.85, grey)
    grey = grey + np.random.default_rng(0).normal(0, 0.01, grey.shape)
    return ((np.clip(grey, 0, 1) - 0.5) / 0.25).astype(np.float32)[None]


def _rounded(values: Tensor) -> list[Any]:
    rounded: list[Any] = np.round(values.double().numpy(), 5).tolist()
    return rounded
