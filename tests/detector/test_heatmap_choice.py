"""Which map is laid over the image, and what it looks like where there is nothing to see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medgem_node.card import ModelCard, read_card
from medgem_node.detector import heatmap
from medgem_node.detector.confidence import probability
from medgem_node.detector.network import Outputs
from medgem_node.detector.preprocess import letterbox
from medgem_node.errors import ModelRejected
from medgem_node.pen import HEAT_FROM

FOLDER = Path(__file__).parents[2] / "models/chest-xray/1.0.0"
KIND = {"label": "Nodule or mass", "output": "nodule-or-mass", "operating_point": 0.1, "slope": 1.0, "offset": -1.0}
TABLE = {"source": "lesions", "label": "Where a nodule is likely", "meaning": "no outline", "explains": False}


@pytest.fixture(scope="module")
def card() -> ModelCard:
    shipped = read_card(FOLDER)
    network = {**shipped.network, "boxes": ["nodule-or-mass"]}
    return replace(shipped, network=network, findings=(*shipped.findings, KIND), heatmap=TABLE)


def outputs(score: float, row: int = 20, column: int = 40) -> Outputs:
    """Boxes of nearly nothing but around one cell; all points at the cell 10, 10."""
    boxes, points = torch.full((1, 5, 64, 64), 1e-3).logit(), torch.full((1, 4, 64, 64), -9.0)
    boxes[0, 0, row - 1 : row + 2, column - 1 : column + 2] = torch.tensor(score).logit()
    boxes[0, 0, row, column] += 1e-3
    points[0, :, 10, 10] = -3.0
    return Outputs(torch.zeros(1, 3, 1, 1), points, torch.zeros(1, 6), boxes)


def test_a_film_without_a_lesion_shows_nothing_hot(card: ModelCard) -> None:
    values = heatmap.chosen(outputs(0.02), letterbox(512, 512), "1.2.3", card).values

    assert values.max() < HEAT_FROM


def test_a_mark_is_as_hot_as_it_is_probable_whatever_else_is_on_the_film(card: ModelCard) -> None:
    hottest = [
        float(heatmap.chosen(outputs(score), letterbox(256, 256), "1.2.3", card).values.max())
        for score in (0.1, 0.5, 0.9)
    ]

    assert hottest == sorted(hottest)
    assert hottest[0] < 0.5 < hottest[2] < 1


def test_half_of_the_scale_is_the_operating_point() -> None:
    score = 1 / (1 + np.exp(-(np.log(0.1 / 0.9) + 1.0)))  # its probability is 0.1

    assert probability(score, KIND) == pytest.approx(0.1)
    assert heatmap.level(score, KIND) == pytest.approx(0.5)
    assert heatmap.level(0.7, {"operating_point": 0.5}) == pytest.approx(0.7)  # then it is the probability itself


def test_what_is_not_marked_is_too_weak_to_be_painted() -> None:
    assert 0 < heatmap.level(0.49, {"operating_point": 0.5}) < HEAT_FROM


def test_the_hottest_place_is_the_cell_of_the_mark_in_the_images_own_shape(card: ModelCard) -> None:
    made = heatmap.chosen(outputs(0.9), letterbox(1000, 800), "1.2.3", card)  # columns 12 to 115 of 128 show the image

    row, column = np.unravel_index(int(made.values[0].argmax()), made.values[0].shape)
    height, width = made.values[0].shape
    assert width / height == pytest.approx(0.8, abs=0.01)
    assert (row + 0.5) / height == pytest.approx(20.5 / 64, abs=0.02)
    assert (column + 0.5) / width == pytest.approx((40.5 / 64 - 0.1) / 0.8, abs=0.02)
    assert (made.label, made.meaning, made.images) == ("Where a nodule is likely", "no outline", ("1.2.3",))


def test_a_manifest_without_the_table_shows_where_the_ratio_was_measured() -> None:
    made = heatmap.chosen(outputs(0.9), letterbox(256, 256), "1.2.3", read_card(FOLDER))

    assert made.label == "Where the cardiothoracic ratio was measured"
    assert np.unravel_index(int(made.values[0].argmax()), (256, 256)) == pytest.approx((41.5, 41.5), abs=1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"source": "grad-cam"}, "not one of points, lesions"),
        ({"label": "Explanation of the mark"}, "explains is false"),
        ({"explains": "yes"}, "true or false"),
        ({"colour": "red"}, "wants source, label and meaning"),
        ({"source": "lesions"}, "wants boxes"),
    ],
)
def test_a_table_that_promises_what_it_cannot_keep_is_rejected(change: dict, told: str, tmp_path: Path) -> None:
    folder = tmp_path / "chest-xray/1.0.0"
    folder.mkdir(parents=True)
    table = {**TABLE, "source": "points", **change}
    lines = [f'{key} = "{v}"' if isinstance(v, str) else f"{key} = {str(v).lower()}" for key, v in table.items()]
    (folder / "model.toml").write_text((FOLDER / "model.toml").read_text() + "\n[heatmap]\n" + "\n".join(lines))

    with pytest.raises(ModelRejected, match=told):
        read_card(folder)
