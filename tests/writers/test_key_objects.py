from __future__ import annotations

from dataclasses import replace

import highdicom
import pytest
from harness import chest, volume
from harness.chest import as_bytes, as_sent
from pydicom import Dataset
from pydicom.uid import SegmentationStorage

from medgem_node import evidence as ev
from medgem_node.errors import ConfigError
from medgem_node.evidence import Earlier
from medgem_node.finding import Analysis, not_analysed
from medgem_node.writers import key_objects, presentation_state, segmentation


def written(analysis: Analysis, originals: list[Dataset], earlier: Earlier | None = None) -> dict[str, Dataset]:
    """Segmentation, presentation state and selection by their modality, read back from bytes."""
    source = replace(chest.SOURCE, earlier=earlier)
    sent = [as_sent(original) for original in originals]
    made: list[Dataset] = []
    for module in (segmentation, presentation_state, key_objects):
        made.extend(module.create(source).write(analysis, sent, made, chest.uid))
    return {f"{m.Modality} {m.InstanceNumber}".removesuffix(" 1"): as_sent(m) for m in made}


def references(selection: Dataset) -> dict[str, Dataset]:
    """What is selected, by SOP Instance UID."""
    items = [i for i in selection.ContentSequence if i.ValueType in ("IMAGE", "COMPOSITE")]
    return {i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID: i for i in items}


def description(selection: Dataset) -> str:
    (text,) = [i.TextValue for i in selection.ContentSequence if i.ValueType == "TEXT" and "Key" in _name(i)]
    return text


def _name(item: Dataset) -> str:
    return item.ConceptNameCodeSequence[0].CodeMeaning


def test_only_images_with_a_finding_are_selected_with_what_we_made() -> None:
    films = [chest.film(64, 48, uid_seed="abnormal"), chest.film(64, 48, uid_seed="normal")]
    found = chest.analysis(*films)
    found = replace(found, findings=(found.findings[0], replace(found.findings[1], present=False, probability=0.1)))

    objects = written(found, films)

    selected = references(objects["KO"])
    assert selected.keys() == {films[0].SOPInstanceUID} | {
        objects[name].SOPInstanceUID for name in ("SEG", "SEG 2", "PR")
    }
    assert selected[films[0].SOPInstanceUID].ValueType == "IMAGE"
    assert selected[objects["PR"].SOPInstanceUID].ValueType == "COMPOSITE"
    assert selected[objects["SEG"].SOPInstanceUID].ReferencedSOPSequence[0].ReferencedSOPClassUID == SegmentationStorage


def test_the_reason_is_coded_and_says_whose_selection_it_is() -> None:
    film = chest.film(64, 48)

    selection = written(chest.analysis(film), [film])["KO"]

    title = selection.ConceptNameCodeSequence[0]
    assert (title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning) == ("113000", "DCM", "Of Interest")
    assert description(selection) == f"{ev.WARNING}. Selected by AI chest-heart 1.2.3. Cardiomegaly 71%"
    assert "research use only" in selection.SeriesDescription
    observers = {_name(i): i for i in selection.ContentSequence if i.RelationshipType == "HAS OBS CONTEXT"}
    assert observers["Observer Type"].ConceptCodeSequence[0].CodeMeaning == "Device"
    device_uid = observers["Device Observer UID"].UID
    assert device_uid == chest.CARD.device_uid


def test_nothing_is_selected_where_nothing_is_present() -> None:
    film = chest.film(64, 48)

    assert "KO" not in written(chest.analysis(film, probability=0.12), [film])
    assert "KO" not in written(not_analysed(chest.CARD.name, chest.CARD.version, "lateral-view", "lateral"), [film])


def test_of_a_volume_only_the_key_slices_or_frames_are_selected() -> None:
    slices, whole = volume.study(), volume.enhanced()
    of_slices, of_whole = volume.analysis(*slices), volume.analysis(whole)
    key_frames = sorted({f.frame for f in of_whole.findings if f.present})

    selected = references(written(of_slices, slices)["KO"])
    (of_frames,) = [i for u, i in references(written(of_whole, [whole])["KO"]).items() if u == whole.SOPInstanceUID]

    of_series = {str(s.SOPInstanceUID) for s in slices} & set(selected)
    assert of_series == {f.image for f in of_slices.findings if f.present}
    assert list(of_frames.ReferencedSOPSequence[0].ReferencedFrameNumber) == key_frames


def test_every_reference_is_in_the_evidence() -> None:
    film = chest.film(64, 48)

    selection = written(chest.analysis(film), [film])["KO"]

    read = highdicom.ko.KeyObjectSelectionDocument.from_dataset(selection)
    for sop_instance_uid in references(selection):
        study, _, _ = read.resolve_reference(sop_instance_uid)
        assert study == film.StudyInstanceUID


def test_it_says_that_it_replaces_what_was_delivered_before() -> None:
    film = chest.film(64, 48)
    delivered = Earlier(lambda role: f"2.25.1.{role}", {"2.25.1.ko": "1.2.840.10008.5.1.4.1.1.88.59"})

    again = written(chest.analysis(film), [film], delivered)["KO"]
    unknown = written(chest.analysis(film), [film], replace(delivered, sop_class_uid={}))["KO"]

    assert description(again).endswith("Replaces the selection of an earlier revision")
    assert "Replaces" not in description(unknown)


def test_a_second_run_writes_the_same_bytes() -> None:
    film = chest.film(64, 48)

    first, second = (as_bytes(written(chest.analysis(film), [film])["KO"]) for _ in range(2))

    assert first == second


def test_an_unknown_variant_is_rejected() -> None:
    with pytest.raises(ConfigError, match="of-interest"):
        key_objects.create(chest.SOURCE, "for-teaching")
