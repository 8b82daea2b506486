"""The network with its weights, on the device that is there, and the proof that it computes what it should."""

from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from medgem_node.card import ModelCard
from medgem_node.detector import labels
from medgem_node.detector.hiera import NetworkConfig
from medgem_node.detector.network import ChestNetwork, Outputs
from medgem_node.errors import ModelRejected

log = logging.getLogger(__name__)
_GOLDEN = "golden/golden.json"


def load(card: ModelCard) -> ChestNetwork:
    """Ready to use: digest checked, every tensor in its place, golden case computed again. Raises ModelRejected."""
    network = ChestNetwork(NetworkConfig.read(card.network))
    labels.asked(card)
    try:
        network.load_state_dict(load_tensors(card.checked_weights()), strict=True)
    except (SafetensorError, RuntimeError) as exc:
        raise ModelRejected(f"{card.folder}: the weights are not those of this network ({type(exc).__name__})") from exc
    network = network.to(device()).eval().requires_grad_(False)
    check_golden(network, card)
    log.info("model %s %s loaded on %s", card.name, card.version, device())
    return network


def device() -> torch.device:
    """The first GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@torch.inference_mode()
def run(network: ChestNetwork, image: np.ndarray[Any, np.dtype[np.float32]]) -> Outputs:
    """The outputs for one image, (1, H, W), on the CPU."""
    where = next(network.parameters()).device
    outputs = network(torch.from_numpy(image)[None].to(where))
    return Outputs._make(None if o is None else o.float().cpu() for o in outputs)


def check_golden(network: ChestNetwork, card: ModelCard) -> None:
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


def golden_case(network: ChestNetwork) -> dict[str, list[Any]]:
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
