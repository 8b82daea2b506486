"""How well the weights so far do on films that are held back, every few minutes of a training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from medgem_node.detector import boxes
from medgem_node.detector.network import ChestNetwork
from medgem_node.detector.preprocess import Letterbox, to_tensor
from medgem_node.detector.runtime import run
from medgem_node.train.data import Film
from medgem_node.train.evaluate_lesions import compared
from medgem_node.train.metrics.froc import Box, Marks, sensitivity
from medgem_node.train.metrics.overlap import dice

_RATES = (0.25, 0.5, 1.0, 2.0, 4.0)


@torch.inference_mode()
def validated(network: ChestNetwork, films: Sequence[Film], size: int) -> dict[str, float]:
    """Dice of each mask on films with contours; sensitivity at some rates of false marks, by source.

    `size`: pixels along each side of the square that the films are shown in.
    """
    network.eval()
    overlaps, marked = [], []
    for listed in films:
        whole = listed.kind == "contours" and listed.truth is not None
        if not whole and not (network.config.boxes and listed.lesions and listed.is_frontal):
            continue
        film = listed.loaded()
        tensor, box = to_tensor(film.pixels, size)
        outputs = run(network, tensor)
        if whole and film.truth is not None:
            maps = outputs.masks[0].sigmoid().numpy()
            overlaps.append([dice(box.mask(m), t > 0.5) for m, t in zip(maps, film.truth, strict=True)])
        if outputs.boxes is not None and film.lesions is not None:
            found = boxes.decode(outputs.boxes, len(network.config.boxes), queries=outputs.queries)[0]
            marked.append((film, found, box))
    scores = dict(zip(network.config.masks, np.mean(overlaps, 0).tolist(), strict=True)) if overlaps else {}
    for source in sorted({film.source for film, _, _ in marked}):
        curve = sensitivity([compared(m[0], marks_in_film(*m)) for m in marked if m[0].source == source], _RATES)
        scores |= {f"{source}@{rate:g}": value for rate, value in zip(_RATES, curve, strict=True)}
    return scores


def marks_in_film(film: Film, found: Sequence[boxes.Found], letterbox: Letterbox) -> Marks:
    """Marks and lesions as parts of the film's width."""
    unit = film.pixels.shape[1]
    marks = [_in_film(f.box_xyxy, letterbox, unit) for f in found]
    return Marks(film.group, marks, [f.score for f in found], list(_lesions(film)))


def _in_film(box: Box, letterbox: Letterbox, unit: int) -> Box:
    (x0, y0), (x1, y1) = letterbox.to_image(*box[:2]), letterbox.to_image(*box[2:])
    return x0 / unit, y0 / unit, x1 / unit, y1 / unit


def _lesions(film: Film) -> Iterator[Box]:
    tall = film.pixels.shape[0] / film.pixels.shape[1]
    for lesion in film.lesions or ():
        if lesion.counts:
            x0, y0, x1, y1 = lesion.box
            yield x0, y0 * tall, x1, y1 * tall
