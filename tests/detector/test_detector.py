from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset

from medgem_node.card import ModelCard, find_card, read_card
from medgem_node.detector import decode, detector, runtime
from medgem_node.detector.detector import ProjectionDetector, create
from medgem_node.detector.preprocess import Letterbox
from medgem_node.errors import ModelRejected, NotAnalysable, NotApplicable, Unreadable
from medgem_node.finding import Analysis, Code, Finding, Heatmap, Mask, Measurement
from medgem_node.testing import chest_film, dx_instance, real_film

MODELS = Path(__file__).parents[2] / "models"
CODE = Code("1", "99TEST", "test")
DENSE = 0.8  # the mean grey value from which the stand-in below refuses a film


@pytest.fixture
def card() -> ModelCard:
    return read_card(MODELS / "chest-xray" / "1.0.0")


@pytest.fixture(params=[1, 3])
def projection(
    card: ModelCard, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[ProjectionDetector]:
    """Real in all but the network, which is trained elsewhere: it answers with the mean grey value of its input.

    Films go to it one by one, and three at a time.
    """
    monkeypatch.setattr(runtime, "load", lambda card, backend: card.name)
    monkeypatch.setattr(runtime, "run_batch", lambda network, images: [float(i.mean()) * 0.25 + 0.5 for i in images])
    monkeypatch.setattr(runtime, "described", lambda network: "a stand-in")
    monkeypatch.setattr(decode, "decode", one_finding)
    ticks = count()
    return ProjectionDetector(card, at_once=request.param, clock=lambda: float(next(ticks)))


def one_finding(
    grey: float, box: Letterbox, uid: str, rows: int, columns: int, spacing: Any, card: ModelCard
) -> Analysis:
    if grey > DENSE:
        raise NotApplicable("not-a-frontal-chest", "the image does not look like a chest")
    finding = Finding(CODE, "Test", grey, True, 0.5, uid)
    measurement = Measurement(CODE, spacing[0] if spacing else 0.0, CODE, "Spacing", uid)
    return Analysis(
        card.name,
        card.version,
        detail="in doubt" if uid.endswith("9") else "",
        images=(uid,),
        findings=(finding,),
        candidates=(finding,),
        measurements=(measurement,),
        masks=(Mask("Test", CODE, CODE, (uid,), np.ones((1, rows, columns), bool)),),
        heatmaps=(Heatmap("Test", (uid,), np.ones((1, 8, 8), np.float32)),),
        parameters={"grey": f"{grey:.1f}", "operating point": "0.5"},
    )


def film(n: int, **attributes: Any) -> Dataset:
    return dx_instance(chest_film(seed=n), SOPInstanceUID=f"2.25.{n}", **attributes)


def refusal(projection: ProjectionDetector, *instances: Dataset) -> NotAnalysable:
    with pytest.raises(NotAnalysable) as error:
        projection.detect(instances)
    return error.value


def test_one_film_gives_one_analysis(projection: ProjectionDetector, card: ModelCard) -> None:
    analysis = projection.detect([film(1)])

    assert analysis.applicable
    assert (analysis.model, analysis.version) == (card.name, card.version)
    assert analysis.images == ("2.25.1",)
    assert analysis.detail == ""
    assert analysis.masks[0].pixels.shape == (1, 512, 512)
    assert analysis.measurements[0].value == pytest.approx(350 / 512, abs=1e-3)
    assert analysis.seconds == 1
    assert analysis.parameters["weights sha256"] == card.weights_sha256[:16]
    assert analysis.parameters["operating point"] == "0.5"


def test_every_film_is_analysed_in_the_order_of_its_uid(projection: ProjectionDetector) -> None:
    films = [film(3), film(1), film(2)]

    analysis = projection.detect(films)
    again = projection.detect(films[::-1])

    assert analysis.images == again.images == ("2.25.1", "2.25.2", "2.25.3")
    for found in (analysis.findings, analysis.candidates, analysis.measurements):
        assert tuple(f.image for f in found) == analysis.images
    assert tuple(m.images for m in analysis.masks) == (("2.25.1",), ("2.25.2",), ("2.25.3",))
    assert len(analysis.heatmaps) == 3
    assert analysis.findings == again.findings
    assert dict(analysis.parameters) == dict(again.parameters)


def test_a_film_that_fails_does_not_keep_the_others_from_their_analysis(projection: ProjectionDetector) -> None:
    analysis = projection.detect(
        [film(1), film(2, ViewPosition="LL"), film(3, PixelData=b""), film(4, Modality="SR"), film(9)]
    )

    assert analysis.images == ("2.25.1", "2.25.9")
    assert analysis.detail == "in doubt; 3 of 5 images not analysed (lateral-view 1, modality 1, no-pixel-data 1)"


def test_a_single_film_gives_its_own_reason(projection: ProjectionDetector) -> None:
    lateral = refusal(projection, film(1, ViewPosition="LL"))

    assert isinstance(lateral, NotApplicable)
    assert lateral.reason == "lateral-view"
    assert str(lateral) == "the view is LL; the model is meant for frontal films"
    assert isinstance(refusal(projection, film(1, Rows=9)), Unreadable)


def test_of_several_reasons_the_most_telling_is_given(projection: ProjectionDetector) -> None:
    report, hand = film(1, Modality="SR"), film(2, BodyPartExamined="HAND")
    lateral, empty = film(3, ViewPosition="LL"), film(4, PixelData=b"")

    assert refusal(projection, report, hand).reason == "body-part"
    assert refusal(projection, lateral, report, hand).reason == "lateral-view"
    error = refusal(projection, lateral, report, hand, empty)
    assert isinstance(error, Unreadable)
    assert error.reason == "no-pixel-data"
    assert str(error) == (
        "the instance holds no pixel data; 4 of 4 images not analysed "
        "(body-part 1, lateral-view 1, modality 1, no-pixel-data 1)"
    )


def test_what_the_model_saw_counts_more_than_headers(projection: ProjectionDetector) -> None:
    bright = chest_film()
    bright[:, 20:] = 4095
    bright[:, :20] = 100

    error = refusal(projection, film(1, ViewPosition="LL"), dx_instance(bright))

    assert error.reason == "not-a-frontal-chest"


def test_a_study_without_images_gives_a_reason(projection: ProjectionDetector) -> None:
    assert refusal(projection).reason == "no-image"
    assert refusal(projection, Dataset()).reason == "modality"


def test_the_instances_are_left_as_they_were(projection: ProjectionDetector) -> None:
    instance = film(1)
    before = instance.to_json()

    projection.detect([instance])

    assert instance.to_json() == before


@pytest.mark.parametrize("section", ["selection", "preprocessing"])
def test_a_manifest_that_cannot_be_used_is_rejected(
    card: ModelCard, monkeypatch: pytest.MonkeyPatch, section: str
) -> None:
    monkeypatch.setattr(runtime, "load", lambda _card, _backend: None)

    with pytest.raises(ModelRejected, match=section):
        ProjectionDetector(replace(card, **{section: {"unknown": 1}}))


@pytest.fixture(scope="module")
def trained() -> ProjectionDetector:
    card = find_card(MODELS, "chest-xray")
    if not (card.folder / card.weights).exists():
        pytest.skip("the weights of chest-xray are not there")
    return create(card)


def test_the_shipped_model_measures_a_real_chest_film(trained: ProjectionDetector) -> None:
    instance = real_film()

    analysis = trained.detect([instance])
    again = trained.detect([instance])

    assert analysis.images == (instance.SOPInstanceUID,)
    assert analysis.masks[0].pixels.shape == (1, instance.Rows, instance.Columns)
    assert analysis.findings == again.findings
    assert analysis.measurements == again.measurements


def test_the_shipped_model_refuses_a_film_of_noise(trained: ProjectionDetector) -> None:
    noise = np.random.default_rng(0).integers(0, 4096, (600, 500)).astype(np.uint16)

    assert refusal(trained, dx_instance(noise)).reason not in detector._BY_HEADER
