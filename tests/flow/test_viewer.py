"""What a radiologist sees: our objects in a real PACS, shown by a real viewer, at the right place.

Positions are read from the page: the corners that the viewer holds, and the rectangle that it drew; both are turned
back into coordinates of the image and compared with what was written. That the page shows the image itself where we
take it to be is checked on its pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import chest, ohif, pacs, volume
from harness.ohif import Seen, Shot
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ParametricMapStorage, SecondaryCaptureImageStorage

from medgem_node.config import shipped
from medgem_node.finding import Analysis, Box, not_analysed
from medgem_node.geometry import plane
from medgem_node.publication import write_objects
from medgem_node.viewer_profile import read_profile

pytestmark = [
    pytest.mark.viewer,
    pytest.mark.skipif(bool(pacs.missing() or ohif.missing()), reason=pacs.missing() or ohif.missing()),
]

PROFILE = replace(read_profile(shipped("conf") / "profiles" / "ohif.toml"), instead={})
TOLERANCE_PIXELS = 0.5


@dataclass
class Room:
    """A PACS and a browser that stay open for all tests."""

    orthanc: pacs.Orthanc
    viewer: ohif.Viewer
    folder: Path

    def store(self, analysis: Analysis, *originals: Dataset, region: str = PROFILE.region) -> list[Dataset]:
        """Puts a study and its results into the PACS; the results."""
        study = str(originals[0].StudyInstanceUID)
        source = replace(chest.SOURCE, region=region)
        written = write_objects(analysis, originals, source, lambda role: chest.uid(study + role), PROFILE)
        results = [thing.instance for thing in written]
        self.orthanc.upload(*originals, *results)
        return results

    def look(self, original: Dataset, show: Sequence[str], **more: Any) -> Seen:
        """What the viewer shows of the study of an image."""
        study = str(original.StudyInstanceUID)
        seen = self.viewer.look(self.orthanc.web_url, study, self.folder / study[-12:], show, **more)
        assert seen.missing == []
        assert not seen.blocked_requests
        return seen


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    folder = tmp_path_factory.mktemp("viewer")
    with pacs.Orthanc(folder / "orthanc") as orthanc, ohif.Viewer() as viewer:
        yield Room(orthanc, viewer, folder / "shots")


def corners(box: Box) -> NDArray[np.float64]:
    """In the order of the viewer's rectangle."""
    x0, y0, x1, y1 = box.xyxy
    return np.array([(x0, y0), (x1, y0), (x0, y1), (x1, y1)])


def in_image(measurement: Mapping[str, Any], original: Dataset, frame: int) -> NDArray[np.float64]:
    """The corners that the viewer holds, in image coordinates: by our geometry where the image lies in space."""
    place = plane(original, frame)
    if place is None:
        return np.asarray(measurement["corners"])
    world = np.asarray(measurement["world"])
    assert np.abs((world - place.position_mm) @ place.normal).max() < 0.01  # mm: in this frame and in no other
    return place.to_image(world)


def assert_drawn(seen: Seen, label: str, box: Box, original: Dataset, frame: int = 1) -> None:
    """A finding's box is held and drawn where it was written, on the image that it was found in."""
    shot, measurement = seen.shots["SR"], seen.measurement(label)

    assert (shot.image, shot.frame) == (str(original.SOPInstanceUID), frame)
    assert np.abs(in_image(measurement, original, frame) - corners(box)).max() < TOLERANCE_PIXELS
    assert np.abs(shot.drawn[measurement["uid"]] - corners(box)).max() < TOLERANCE_PIXELS


def assert_image_lies_there(shot: Shot, bright: NDArray[np.bool_]) -> None:
    """The page shows bright pixels where the image has them; what is drawn over it hides a few."""
    rows, columns = bright.shape
    y, x = np.mgrid[0 : rows : rows // 64, 0 : columns : columns // 64]
    shown = shot.colours(np.column_stack([x.ravel(), y.ravel()]) + 0.5).max(axis=1)
    wanted = bright[y, x].ravel()[: len(shown)]
    assert len(shown) == y.size  # all of it is on the page
    threshold = (np.median(shown[wanted]) + np.median(shown[~wanted])) / 2
    assert ((shown > threshold) == wanted).mean() > 0.96


def assert_overlaid(seen: Seen, mask: NDArray[np.bool_], label: str, image: str, frame: int = 1) -> None:
    """The viewer holds each pixel of a mask's frame as it was written, and shows them in the segment's colour."""
    shot = seen.shots["SEG"]
    assert np.array_equal(seen.mask(label, image, frame, mask.shape), mask)
    assert (shot.image, shot.frame) == (image, frame)

    red, green, blue, _ = seen.segments[label]["colour"]
    hue = np.array([red - green, green - blue], float)
    ys, xs = np.nonzero(mask)
    shown = shot.colours(np.column_stack([xs, ys]) + 0.5)
    tint = np.column_stack([shown[:, 0] - shown[:, 1], shown[:, 1] - shown[:, 2]]) @ hue / np.linalg.norm(hue)
    assert (tint > 0.1 * np.linalg.norm(hue)).mean() > 0.97


def colourful(shot: Shot, shown: Dataset) -> float:
    """The part of an image that the page shows in colour, labels at its rims left out."""
    rows, columns = int(shown.Rows), int(shown.Columns)
    y, x = np.mgrid[rows // 4 : rows * 3 // 4 : 100j, columns // 8 : columns * 7 // 8 : 100j]
    colours = shot.colours(np.column_stack([x.ravel(), y.ravel()]))
    return float((np.ptp(colours, axis=1) > 40).mean())


def picture_of(results: Sequence[Dataset], image: str) -> Dataset:
    """The Secondary Capture that was made from an image."""
    captures = (r for r in results if r.SOPClassUID == SecondaryCaptureImageStorage)
    return next(c for c in captures if c.SourceImageSequence[0].ReferencedSOPInstanceUID == image)


def test_findings_segments_and_heatmap_of_a_film_are_shown_at_their_place(room: Room) -> None:
    film = chest.film(1024, 960)
    analysis = chest.analysis(film)
    picture = picture_of(room.store(analysis, film), film.SOPInstanceUID)

    seen = room.look(film, ("OT", "SEG", "SR"))

    assert len(seen.measurements) == 5
    assert_drawn(seen, "AI: Cardiomegaly 71%, Cardiothoracic ratio 0.55", analysis.findings[0].box, film)
    width = seen.measurement("AI: Cardiac width 127 mm")
    ends = [(p.x, p.y) for p in analysis.measurements[0].points]
    assert np.abs(seen.shots["SR"].drawn[width["uid"]] - ends).max() < TOLERANCE_PIXELS
    assert_image_lies_there(seen.shots["open"], film.pixel_array > 1700)
    assert set(seen.segments) == {"Right lung", "Left lung", "Heart"}
    for mask in analysis.masks:
        assert_overlaid(seen, mask.plane(film.SOPInstanceUID), mask.label, film.SOPInstanceUID)
    assert colourful(seen.shots["open"], film) == 0
    assert colourful(seen.shots["OT"], picture) > 0.05


def test_what_is_absent_in_a_real_film_is_not_shown_as_found(room: Room) -> None:
    film = chest.real_film()
    film.PixelSpacing = [0.2, 0.2]  # zero in the file, and OHIF shows nothing of an image with that
    room.store(chest.analysis(film, probability=0.12, ratio=0.43), film)

    seen = room.look(film, ("SR",))

    assert len(seen.measurements) == 5
    assert not any("Cardiomegaly" in str(m.get("finding")) for m in seen.measurements)
    assert seen.measurement("AI: No cardiomegaly by AI, Cardiothoracic ratio 0.43, probability of cardiomegaly 12%")


def test_the_viewer_shows_why_nothing_was_analysed(room: Room) -> None:
    film = chest.film(
        uid_seed="lateral", StudyInstanceUID=chest.uid("study 2"), SeriesInstanceUID=chest.uid("series 2")
    )
    room.store(not_analysed(chest.CARD.name, chest.CARD.version, "lateral-view", "the image is a lateral view"), film)

    seen = room.look(film, ("SR",))

    assert [m["label"] for m in seen.measurements] == ["AI: Not analysed: the image is a lateral view"]
    assert [m.get("finding") for m in seen.measurements] == ["DCM:111225:Not Attempted"]


def test_findings_segments_and_heatmap_of_a_ct_are_shown_at_their_place(room: Room) -> None:
    slices = volume.study(12, 192, 176, spacing_mm=(3.0, 0.8, 0.8), uid_seed="a CT", StudyInstanceUID=chest.uid("a CT"))
    analysis = volume.analysis(*slices)
    nodule = analysis.findings[0]
    picture = picture_of(room.store(analysis, *slices), nodule.image)

    seen = room.look(slices[0], ("OT", "SEG", "SR"), jump="odule", at=[picture.SOPInstanceUID])

    key = next(s for s in slices if s.SOPInstanceUID == nodule.image)
    labels = " / ".join(m["label"] for m in seen.measurements)
    assert all(said in labels for said in ("Lung nodule 93%", "Coronary calcification 84%", "No pleural effusion"))
    found = seen.measurement("AI: Lung nodule 93%")
    assert (found["finding"], found["sites"]) == ("SCT:427359005:Solitary nodule of lung", ["SCT:39607008:Lung"])
    assert_drawn(seen, "AI: Lung nodule 93%", nodule.box, key)
    assert_image_lies_there(seen.shots["SR"], volume.pixels(key)[0] > -400)
    for mask in analysis.masks:
        for image in slices:
            held = seen.mask(mask.label, image.SOPInstanceUID, 1, (192, 176))
            assert np.array_equal(held, mask.plane(image.SOPInstanceUID))
    assert_overlaid(seen, analysis.masks[0].plane(nodule.image), "Nodule", nodule.image)
    assert seen.segments["Nodule"]["volume"] == pytest.approx(nodule.measurements[0].value, abs=1)  # mm3, by the viewer
    assert colourful(seen.shots["open"], key) == 0
    assert colourful(seen.shots["OT"], picture) > 0.01


@pytest.mark.parametrize("kind", ["slices", "enhanced"])
def test_regions_in_space_are_drawn_right_on_oblique_images_of_unequal_spacing(room: Room, kind: str) -> None:
    """Regions in the image are not, where the spacing between rows is not that between columns: OHIF mixes them up."""
    more = {"oblique": True, "uid_seed": f"oblique {kind}", "StudyInstanceUID": chest.uid(f"an oblique {kind}")}
    images = volume.study(12, 192, 176, **more) if kind == "slices" else [volume.enhanced(12, 192, 176, **more)]
    analysis = volume.analysis(*images)
    nodule = analysis.findings[0]
    room.store(analysis, *images, region="scoord3d")

    seen = room.look(images[0], ("SEG", "SR"), jump="odule")

    key = next(image for image in images if image.SOPInstanceUID == nodule.image)
    assert_drawn(seen, "AI: Lung nodule 93%", nodule.box, key, nodule.frame)
    assert_image_lies_there(seen.shots["SR"], volume.pixels(key)[nodule.frame - 1 if kind == "enhanced" else 0] > -400)
    assert_overlaid(seen, analysis.masks[0].plane(nodule.image, nodule.frame), "Nodule", nodule.image, nodule.frame)


def test_the_parametric_map_is_a_colour_overlay_that_opens(room: Room) -> None:
    slices = volume.study(12, 192, 176, uid_seed="map", StudyInstanceUID=chest.uid("a mapped CT"))
    analysis = volume.analysis(*slices)
    results = room.store(analysis, *slices)
    assert any(r.SOPClassUID == ParametricMapStorage for r in results)

    seen = room.look(slices[0], ("PM",), at=(analysis.findings[0].image,))

    assert colourful(seen.shots["open"], slices[0]) == 0
    assert colourful(seen.shots["PM"], slices[0]) > 0.01
