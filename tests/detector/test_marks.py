"""From a box head drawn by hand to findings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medgem_node.card import ModelCard, read_card
from medgem_node.detector import marks
from medgem_node.detector.boxes import Truth, encode
from medgem_node.detector.confidence import probability
from medgem_node.detector.network import Outputs
from medgem_node.detector.preprocess import Letterbox, letterbox
from medgem_node.errors import ModelRejected
from medgem_node.train.metrics.calibration import fit_isotonic

FOLDER = Path(__file__).parents[2] / "models/chest-xray/1.0.0"
KIND = {
    "label": "Nodule or mass",
    "output": "nodule-or-mass",
    "code": {"value": "27925004", "scheme": "SCT", "meaning": "Nodule"},
    "site": {"value": "39607008", "scheme": "SCT", "meaning": "Lung"},
    "right": {"value": "24028007", "scheme": "SCT", "meaning": "Right"},
    "left": {"value": "7771000", "scheme": "SCT", "meaning": "Left"},
    "operating_point": 0.5,
}


@pytest.fixture(scope="module")
def card() -> ModelCard:
    shipped = read_card(FOLDER)
    network = {**shipped.network, "boxes": ["nodule-or-mass"]}
    return replace(shipped, network=network, findings=(*shipped.findings, KIND))


def outputs(*lesions: tuple[tuple[float, float, float, float], float]) -> Outputs:
    """A box and its score each, of a square of 256 pixels."""
    heat, geometry = np.full((1, 64, 64), 1e-4, np.float32), np.zeros((4, 64, 64), np.float32)
    for box, score in lesions:
        made = encode([Truth(box)], 1, 64, 64)
        heat[made.heat > 0.99] = score
        geometry += made.geometry
    maps = torch.from_numpy(np.concatenate((np.log(heat / (1 - heat)), geometry)))[None]
    empty = torch.zeros(1, 1, 1, 1)
    return Outputs(empty, empty, torch.zeros(1, 6), maps.float())


def lungs(box: Letterbox) -> dict[str, np.ndarray]:
    right = np.zeros((box.rows, box.columns), bool)
    right[:, : box.columns // 3] = True
    return {"right-lung": right, "left-lung": right[:, ::-1]}


def found(card: ModelCard, out: Outputs, rows: int = 512, columns: int = 512) -> tuple[marks.Finding, ...]:
    box = letterbox(rows, columns)
    return marks.candidates(out, box, lungs(box), "1.2.3", card)


def test_a_box_lies_in_the_images_own_geometry(card: ModelCard) -> None:
    (finding,) = found(card, outputs(((40, 60, 60, 84), 0.9)))

    assert finding.box is not None
    assert finding.box.xyxy == pytest.approx((80, 120, 120, 168), abs=0.1)
    assert finding.present


def test_a_box_is_cut_at_the_images_edge(card: ModelCard) -> None:
    (finding,) = found(card, outputs(((60, 60, 100, 84), 0.9)), rows=512, columns=256)

    assert finding.box is not None
    assert finding.box.x0 == 0.0


def test_a_mark_beside_the_image_is_none(card: ModelCard) -> None:
    assert found(card, outputs(((10, 60, 30, 84), 0.9)), rows=512, columns=256) == ()


def test_the_side_is_that_of_the_nearer_lung(card: ModelCard) -> None:
    findings = found(card, outputs(((40, 60, 60, 84), 0.9), ((190, 60, 220, 84), 0.8)))

    assert [f.laterality.meaning for f in findings if f.laterality] == ["Right", "Left"]


def test_a_mark_outside_of_both_lungs_is_said_to_be_in_none(card: ModelCard) -> None:
    box = letterbox(512, 512)
    upper_half = {name: mask & (np.arange(512) < 256)[:, None] for name, mask in lungs(box).items()}

    (below,) = marks.candidates(outputs(((40, 200, 60, 220), 0.9)), box, upper_half, "1.2.3", card)
    (within,) = marks.candidates(outputs(((40, 60, 60, 84), 0.9)), box, upper_half, "1.2.3", card)

    assert (below.site, below.laterality) == (None, None)
    assert below.present
    assert within.site is not None
    assert within.laterality is not None


def test_a_score_becomes_a_probability_by_the_manifests_calibration(card: ModelCard) -> None:
    calibrated = {**KIND, "slope": 1.0, "offset": -2.0}

    (finding,) = found(replace(card, findings=(calibrated,)), outputs(((40, 60, 60, 84), 0.9)))

    assert finding.probability == pytest.approx(1 / (1 + np.exp(-(np.log(9) - 2))), abs=1e-3)
    assert finding.present


def test_what_was_looked_for_and_not_found_is_said(card: ModelCard) -> None:
    weak = found(card, outputs(((40, 60, 60, 84), 0.3)))

    (finding,) = marks.reported(weak, "1.2.3", card)

    assert not finding.present
    assert finding.box is None
    assert finding.probability == pytest.approx(0.3, abs=1e-3)


def test_all_boxes_above_the_operating_point_are_reported(card: ModelCard) -> None:
    all_found = found(card, outputs(((40, 60, 60, 84), 0.9), ((190, 60, 220, 84), 0.8), ((100, 160, 120, 180), 0.2)))

    assert len(all_found) == 3
    assert [f.present for f in marks.reported(all_found, "1.2.3", card)] == [True, True]


def test_a_model_without_boxes_finds_none(card: ModelCard) -> None:
    assert found(card, outputs()._replace(boxes=None)) == ()


TIERS = {"high": 0.9, "medium": 0.7}


@pytest.mark.parametrize(("offset", "tier"), [(1.0, "high"), (-1.0, "medium"), (-2.0, "review")])
def test_a_calibrated_box_says_how_sure_it_is(card: ModelCard, offset: float, tier: str) -> None:
    calibrated = {**KIND, "slope": 1.0, "offset": offset, "tiers": TIERS}

    (finding,) = found(replace(card, findings=(calibrated,)), outputs(((40, 60, 60, 84), 0.9)))

    assert (finding.tier, finding.calibrated) == (tier, True)


@pytest.mark.parametrize("how", [{}, {"slope": 1.0, "offset": 1.0, "calibrated": False}])
def test_a_box_that_is_not_calibrated_has_a_score_and_no_tier(card: ModelCard, how: dict[str, object]) -> None:
    (finding,) = found(replace(card, findings=({**KIND, **how, "tiers": TIERS},)), outputs(((40, 60, 60, 84), 0.9)))

    assert finding.present
    assert (finding.tier, finding.calibrated) == ("", False)


def test_that_nothing_was_found_has_neither_probability_nor_tier(card: ModelCard) -> None:
    calibrated = replace(card, findings=({**KIND, "slope": 1.0, "offset": 0.0, "tiers": TIERS},))

    (finding,) = marks.reported(found(calibrated, outputs(((40, 60, 60, 84), 0.1))), "1.2.3", calibrated)

    assert (finding.present, finding.tier, finding.calibrated) == (False, "", False)


@pytest.mark.parametrize(("score", "expected"), [(0.05, 0.02), (0.2, 0.02), (0.4, 0.26), (0.6, 0.5), (0.9, 0.5)])
def test_an_isotonic_line_is_level_beyond_its_ends(score: float, expected: float) -> None:
    fields = {"isotonic": [[0.2, 0.02], [0.6, 0.5]]}

    assert probability(score, fields) == pytest.approx(expected)


def test_an_isotonic_line_of_a_fit_says_what_the_fit_says() -> None:
    scores = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    line = fit_isotonic(scores, [False, True, False, False, True, True])
    fields = {"isotonic": [list(knot) for knot in zip(line.scores, line.probabilities, strict=True)]}

    for score in np.linspace(0, 1, 21):
        assert probability(float(score), fields) == pytest.approx(line(float(score)))


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("operating_point = 1.5", "operating_point must be"),
        ("operating_point = 0.5\nslope = 1.0", "slope and offset must be two numbers"),
        ("operating_point = 0.5\nslope = -1.0\noffset = 0.0", "slope above 0"),
        ("operating_point = 0.5\nisotonic = [[0.1, 0.2], [0.3, 0.1]]", "rising pairs"),
        ("operating_point = 0.5\nisotonic = [[0.1, 0.2]]", "rising pairs"),
        ("operating_point = 0.5\nisotonic = [[0.1, 0.2], [0.3, 0.4]]\nslope = 1\noffset = 0", "without slope"),
        ('operating_point = 0.5\ncalibrated = "no"', "true or false"),
    ],
)
def test_a_manifest_that_cannot_be_meant_is_refused(tmp_path: Path, lines: str, says: str) -> None:
    folder = tmp_path / "chest-xray/1.0.0"
    folder.mkdir(parents=True)
    manifest = (FOLDER / "model.toml").read_text("utf-8")
    (folder / "model.toml").write_text(f'{manifest}\n[[findings]]\nlabel = "Nodule"\n{lines}\n', "utf-8")

    with pytest.raises(ModelRejected, match=says):
        read_card(folder)


@pytest.mark.parametrize(
    ("old", "new", "told"), [("right = {", "rihgt = {", "right"), ('"nodule-or-mass"\ncode', '"nodul"\ncode', "nodul")]
)
def test_a_box_that_cannot_be_reported_is_refused_before_the_first_film(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    folder = tmp_path / "chest-xray/2.0.0"
    folder.mkdir(parents=True)
    text = (FOLDER.parent / "2.0.0/model.toml").read_text("utf-8")
    assert old in text
    (folder / "model.toml").write_text(text.replace(old, new), "utf-8")

    with pytest.raises(ModelRejected, match=told):
        read_card(folder)
