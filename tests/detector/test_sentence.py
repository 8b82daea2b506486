"""A finding in one sentence: only what was measured stands in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from harness import chest

from medgem_node.analyze import answer
from medgem_node.detector.sentence import explained, sentence, third_of
from medgem_node.finding import Box, Code, Finding, Measurement
from medgem_node.job import Outcome, decode_outcome, encode_outcome
from medgem_node.writers import measurement_report

NODULE = Code("52988006", "SCT", "Lesion")
RATIO = Code("{ratio}", "UCUM", "ratio")
MARK = Finding(
    NODULE, "Nodule or mass", 0.62, True, 0.3, "1.2.3", Box(100, 100, 160, 170), chest.LUNG, chest.RIGHT, tier="medium"
)
LUNG = np.zeros((400, 300), bool)
LUNG[60:360, 40:180] = True  # thirds begin at rows 60, 160 and 260
LUNGS = {"right-lung": LUNG, "left-lung": LUNG[:, ::-1]}


def test_a_mark_is_told_by_place_size_probability_and_tier() -> None:
    assert sentence(MARK, (0.2, 0.2)) == (
        "Nodule or mass, right lung, about 14 x 12 mm (not corrected for magnification), probability 0.62, tier medium"
    )


def test_height_and_width_have_each_their_own_spacing() -> None:
    assert "about 35 x 12 mm" in sentence(MARK, (0.5, 0.2))


def test_without_a_spacing_there_are_pixels_and_no_word_of_magnification() -> None:
    told = sentence(MARK, None)

    assert "about 70 x 60 pixels, " in told
    assert "magnification" not in told


def test_what_was_not_measured_is_left_out() -> None:
    bare = replace(MARK, box=None, laterality=None, tier="")

    assert sentence(bare, (0.2, 0.2)) == "Nodule or mass, lung, probability 0.62"
    assert sentence(replace(bare, site=None), None) == "Nodule or mass, probability 0.62"


def test_a_score_that_was_not_calibrated_is_not_called_a_probability() -> None:
    told = sentence(replace(MARK, calibrated=False, tier=""), None)

    assert told.endswith("score 0.62")
    assert "probability" not in told


def test_what_was_not_found_is_not_explained() -> None:
    absent = explained(replace(MARK, present=False), LUNGS, (0.2, 0.2))

    assert (absent.explanation, absent.measurements) == ("", ())


@pytest.mark.parametrize(
    ("y", "third"),
    [(59, ""), (61, "upper"), (159, "upper"), (161, "middle"), (261, "lower"), (359, "lower"), (361, "")],
)
def test_the_third_is_that_of_the_lung_as_it_is_seen(y: float, third: str) -> None:
    assert third_of(Box(90, y - 5, 110, y + 5), LUNG) == third
    assert third_of(Box(90, y - 5, 110, y + 5), np.zeros_like(LUNG)) == ""


def test_the_third_is_counted_on_the_lung_of_the_findings_side() -> None:
    high = np.zeros_like(LUNG)
    high[100:400, 200:290] = True

    told = explained(MARK, {"right-lung": LUNG, "left-lung": high}, None).explanation
    other = explained(replace(MARK, laterality=chest.LEFT), {"right-lung": LUNG, "left-lung": high}, None).explanation

    assert "upper third of the right lung" in told
    assert "upper third of the left lung" in other
    assert "third" not in explained(replace(MARK, laterality=None), LUNGS, None).explanation


def test_a_finding_of_a_mask_tells_its_ratio_and_no_size_of_the_box_around_it() -> None:
    ratio = Measurement(chest.CARDIOTHORACIC, 0.561, RATIO, "Cardiothoracic ratio", "1.2.3")
    heart = Finding(
        chest.CARDIOMEGALY, "Cardiomegaly", 0.97, True, 0.5, "1.2.3", MARK.box, chest.HEART,
        mask="Heart", measurements=(ratio,), tier="high",
    )  # fmt: skip

    made = explained(heart, LUNGS, (0.2, 0.2))

    assert made.explanation == "Cardiomegaly, heart, cardiothoracic ratio 0.56, probability 0.97, tier high"
    assert made.measurements == (ratio,)


def test_width_and_height_are_measurements_of_the_mark() -> None:
    width, height = explained(MARK, LUNGS, (0.5, 0.2)).measurements

    assert (width.code.value, width.value, width.unit.value) == ("103355008", pytest.approx(12), "mm")
    assert (height.code.value, height.value) == ("121207", pytest.approx(35))
    assert explained(MARK, LUNGS, None).measurements[0].unit.value == "{pixels}"


def test_the_sentence_survives_the_way_to_the_node_and_stands_in_the_answer() -> None:
    film = chest.film(64, 48)
    analysis = replace(chest.analysis(film), findings=(explained(MARK, LUNGS, (0.2, 0.2)),))

    back = decode_outcome(encode_outcome(Outcome("1", analysis))).analysis

    assert back is not None
    (told,) = answer("1.2", back)["findings"]
    assert told["explanation"].startswith("Nodule or mass, upper third of the right lung, about 14 x 12 mm")


def test_the_report_tells_the_sentence_and_has_both_sides_as_numbers_of_its_region() -> None:
    film = chest.film()
    mark = replace(MARK, image=str(film.SOPInstanceUID), tier="review")
    whole = chest.analysis(film)
    analysis = replace(whole, findings=(explained(mark, LUNGS, (0.2, 0.2)),), measurements=(), masks=(), heatmaps=())

    (report,) = measurement_report.create(chest.SOURCE).write(analysis, [chest.as_sent(film)], [], chest.uid)

    group = next(item for item in _items(chest.as_sent(report)) if _name(item) == "125007")
    numbers = {_name(item): item for item in group.ContentSequence if item.ValueType == "NUM"}
    assert float(numbers["103355008"].MeasuredValueSequence[0].NumericValue) == pytest.approx(12)
    assert float(numbers["121207"].MeasuredValueSequence[0].NumericValue) == pytest.approx(14)
    region = next(item for item in group.ContentSequence if item.ValueType == "SCOORD").GraphicData
    assert numbers["103355008"].ContentSequence[-1].GraphicData == region
    comment = next(item.TextValue for item in group.ContentSequence if _name(item) == "121106")
    assert comment.endswith("probability 0.62, tier review, to be reviewed")


def _items(content):
    for item in content.get("ContentSequence", ()):
        yield item
        yield from _items(item)


def _name(item) -> str:
    return item.ConceptNameCodeSequence[0].CodeValue if "ConceptNameCodeSequence" in item else ""
