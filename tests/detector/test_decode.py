"""From outputs drawn by hand to words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom.sr.codedict import codes

from medgem_node.card import ModelCard, read_card
from medgem_node.detector import decode
from medgem_node.detector.network import Outputs
from medgem_node.detector.preprocess import letterbox
from medgem_node.errors import ModelRejected, NotApplicable
from medgem_node.finding import Analysis, Code
from medgem_node.job import Outcome, decode_outcome, encode_outcome

FOLDER = Path(__file__).parents[2] / "models/chest-xray/1.0.0"
CHEST = {"right": (40, 200, 30, 110), "left": (40, 200, 146, 226), "heart": (120, 200, 90, 180)}  # y0, y1, x0, x1


@pytest.fixture(scope="module")
def card() -> ModelCard:
    return read_card(FOLDER)


def outputs(gate: str = "frontal", shift: float = 0, **parts: tuple[int, int, int, int]) -> Outputs:
    """Of a square image; heatmaps peak at the borders of the masks, those of the heart `shift` pixels off."""
    masks = torch.full((1, 3, 256, 256), -8.0)
    chest = {**CHEST, **parts}
    for logits, (y0, y1, x0, x1) in zip(masks[0], chest.values(), strict=True):
        logits[y0:y1, x0:x1] = 8.0
    points = torch.full((1, 4, 64, 64), -9.0)
    ends = (chest["heart"][2] + shift, chest["heart"][3] + shift, chest["right"][2], chest["left"][3])
    for logits, x in zip(points[0], ends, strict=True):
        logits[40, int(x / 4)] = 3.0
    classes = ["frontal", "rotated", "upside-down", "mirrored", "inverted", "other"]
    chances = torch.zeros(1, len(classes))
    chances[0, classes.index(gate)] = 8.0
    return Outputs(masks, points, chances)


def decoded(out: Outputs, card: ModelCard, rows: int = 1024, columns: int = 1024, spacing=(0.4, 0.4)) -> Analysis:
    return decode.decode(out, letterbox(rows, columns), "1.2.3", rows, columns, spacing, card)


def values(analysis: Analysis) -> dict[str, float]:
    return {m.label: m.value for m in analysis.measurements}


def test_masks_come_in_the_images_own_geometry(card: ModelCard) -> None:
    analysis = decoded(outputs(), card, rows=1000, columns=800)

    assert [m.pixels.shape for m in analysis.masks] == [(1, 1000, 800)] * 3
    assert [m.label for m in analysis.masks] == ["Right lung", "Left lung", "Heart"]


def test_ratio_and_widths_are_those_of_the_drawing(card: ModelCard) -> None:
    found = values(decoded(outputs(), card))

    assert found["Cardiothoracic ratio"] == pytest.approx(90 / 196, abs=0.005)
    assert found["Cardiac width"] == pytest.approx(90 * 4 * 0.4, abs=2)
    assert found["Thoracic width"] == pytest.approx(196 * 4 * 0.4, abs=2)
    assert found["Right lung area"] == pytest.approx(160 * 80 * 16 * 0.16, rel=0.02)


def test_points_lie_where_the_drawing_has_its_borders(card: ModelCard) -> None:
    ratio = decoded(outputs(), card).measurements[0]

    assert [p.x for p in ratio.points] == pytest.approx([360, 720, 120, 904], abs=3)


@pytest.mark.parametrize("spacing", [None, (0.0, 0.0), (0.4, float("nan"))])
def test_without_a_spacing_there_are_no_millimetres(card: ModelCard, spacing: tuple[float, float] | None) -> None:
    analysis = decoded(outputs(), card, spacing=spacing)

    assert {m.unit.value for m in analysis.measurements} == {"{ratio}", "{pixels}"}
    assert values(analysis)["Cardiac width"] == pytest.approx(360, abs=3)


def test_a_wide_heart_is_cardiomegaly_and_a_slim_one_is_not(card: ModelCard) -> None:
    wide = decoded(outputs(heart=(120, 200, 70, 190)), card).findings[0]
    slim = decoded(outputs(heart=(120, 200, 100, 170)), card).findings[0]

    assert (wide.present, slim.present) == (True, False)
    assert wide.probability > 0.99 > 0.01 > slim.probability
    assert (wide.mask, wide.box is not None) == ("Heart", True)


def test_the_probability_is_a_half_at_the_corrected_limit() -> None:
    fields = {"ratio_above": 0.5, "bias": 0.004, "sigma": 0.01}

    assert decode.probability_above(0.504, fields) == pytest.approx(0.5)
    assert decode.probability_above(0.514, fields) == pytest.approx(0.8413, abs=1e-4)


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        ("rotated", "rotated"),
        ("upside-down", "upside-down"),
        ("mirrored", "mirrored"),
        ("inverted", "inverted-polarity"),
        ("other", "not-a-frontal-chest"),
    ],
)
def test_what_is_no_upright_frontal_chest_is_refused(card: ModelCard, seen: str, reason: str) -> None:
    with pytest.raises(NotApplicable) as refusal:
        decoded(outputs(gate=seen), card)

    assert refusal.value.reason == reason


@pytest.mark.parametrize(
    "parts",
    [
        {"right": (0, 0, 0, 0)},  # no right lung
        {"right": (100, 120, 30, 110)},  # far smaller than the left
        {"heart": (0, 0, 0, 0)},
        {"right": CHEST["left"], "left": CHEST["right"]},  # sides swapped
        {"heart": (120, 200, 20, 60)},  # beside the lungs
    ],
)
def test_anatomy_that_cannot_be_is_refused(card: ModelCard, parts: dict[str, tuple[int, int, int, int]]) -> None:
    with pytest.raises(NotApplicable) as refusal:
        decoded(outputs(**parts), card)

    assert refusal.value.reason == "implausible-anatomy"


@pytest.mark.parametrize("lungs", [(0, 200), (56, 256)], ids=["above", "below"])
def test_half_a_chest_is_refused(card: ModelCard, lungs: tuple[int, int]) -> None:
    strict = replace(card, gate={**card.gate, "cut_at_most": 0.3})
    cut = outputs(right=(*lungs, 30, 110), left=(*lungs, 146, 226))

    with pytest.raises(NotApplicable, match="cut off") as refusal:
        decoded(cut, strict)

    assert refusal.value.reason == "implausible-anatomy"
    assert decoded(cut, card).masks
    assert decoded(outputs(), strict).masks


def test_when_heatmap_and_mask_disagree_no_ratio_is_reported(card: ModelCard) -> None:
    analysis = decoded(outputs(shift=40), card)

    assert analysis.applicable
    assert analysis.findings == ()
    assert set(values(analysis)) == {"Right lung area", "Left lung area"}
    assert "disagree" in analysis.detail


def test_a_lung_cut_by_the_edge_gives_no_ratio(card: ModelCard) -> None:
    analysis = decoded(outputs(right=(40, 200, 0, 80)), card)

    assert analysis.findings == ()
    assert "edge" in analysis.detail


def test_specks_beside_a_structure_are_dropped(card: ModelCard) -> None:
    out = outputs()
    out.masks[0, 2, 10:14, 240:244] = 8.0

    box = decoded(out, card).findings[0].box

    assert box is not None
    assert box.x1 == pytest.approx(720, abs=3)


def test_an_analysis_travels_as_python_numbers(card: ModelCard) -> None:
    analysis = decoded(outputs(), card)

    back = decode_outcome(encode_outcome(Outcome(job_id="job", analysis=analysis))).analysis

    assert back is not None
    assert back.measurements == analysis.measurements
    assert back.findings == analysis.findings


def test_the_heatmap_is_spread_over_the_image_alone(card: ModelCard) -> None:
    values = decoded(outputs(), card, rows=1000, columns=800).heatmaps[0].values

    assert values.shape == (1, 256, 205)
    assert values.dtype == np.float32
    assert 0 <= values.min() < values.max() <= 1


def test_every_code_of_the_manifest_is_pydicoms(card: ModelCard) -> None:
    known = {
        ("SCT", getattr(codes.SCT, k).value): getattr(codes.SCT, k).meaning
        for k in ("AnatomicalStructure", "Heart", "Lung", "Right", "Left", "Area")
    } | {
        ("UCUM", getattr(codes.UCUM, k).value): getattr(codes.UCUM, k).meaning
        for k in ("Millimeter", "SquareMillimeter", "Ratio")
    }
    ours = {
        ("99MEDGEM", v): m
        for v, m in (
            ("CTR", "Cardiothoracic ratio"),
            ("CARDIACWIDTH", "Cardiac width"),
            ("THORACICWIDTH", "Thoracic width"),
        )
    }
    ours[("UCUM", "{pixels}")] = "pixels"
    ours[("SCT", "8186001")] = "Cardiomegaly"  # SNOMED CT disorder; DICOM's own list has none for adults
    tables = [t for group in (card.masks, card.measurements, card.findings) for table in group for t in table.values()]

    for code in (Code(**t) for t in tables if isinstance(t, dict) and "scheme" in t):
        assert (known | ours)[code.scheme, code.value] == code.meaning


def test_a_manifest_may_ask_for_more_certainty(card: ModelCard) -> None:
    strict = replace(card, gate={**card.gate, "frontal_at_least": 0.99999})

    with pytest.raises(NotApplicable):
        decoded(outputs(), strict)


@pytest.mark.parametrize(
    ("probability", "present", "tier"),
    [
        (0.97, True, "high"),
        (0.9, True, "high"),
        (0.75, True, "medium"),
        (0.55, True, "review"),
        (0.45, False, "review"),
        (0.25, False, "medium"),
        (0.02, False, "high"),
        (0.4, True, "review"),  # above a low operating point
    ],
)
def test_a_tier_is_how_probably_the_answer_is_true(probability: float, present: bool, tier: str) -> None:
    assert decode.tier(probability, present, {"high": 0.9, "medium": 0.7}) == tier


def test_what_is_not_calibrated_has_no_tier() -> None:
    assert decode.tier(0.99, True, None) == ""


@pytest.mark.parametrize(
    "tiers", ['"high"', "{ high = 0.9 }", "{ high = 0.6, medium = 0.7 }", "{ high = 1.2, medium = 0.7 }"]
)
def test_a_card_with_tiers_that_make_no_sense_is_rejected(tmp_path: Path, tiers: str) -> None:
    folder = tmp_path / FOLDER.parent.name / FOLDER.name
    folder.mkdir(parents=True)
    text = (
        (FOLDER / "model.toml").read_text("utf-8").replace("tiers = { high = 0.9, medium = 0.7 }", f"tiers = {tiers}")
    )
    (folder / "model.toml").write_text(text, "utf-8")

    with pytest.raises(ModelRejected, match="tiers"):
        read_card(folder)


def test_the_chest_model_may_not_say_normal(card: ModelCard) -> None:
    assert card.may_say_normal is False
