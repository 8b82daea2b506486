"""Clean Recognizable Visual Features (PS3.15 E.3.2): which pixels of a head's CT or MR show the face.

A series is laid into one volume in the patient's own directions (`cubes`); `head` finds head, brain and face there;
what is to be blanked comes back as a mask for each image. What may show a face, but cannot be judged, is held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from medgem_node import part10
from medgem_node.deid.cubes import AIR, Cubes, Slice, extent_mm
from medgem_node.deid.head import (
    Head,
    NoHead,
    TooLarge,
    air_below,
    depth_map,
    facial_rays,
    hull,
    is_capped,
    skull_share,
)
from medgem_node.deid.surface import Mask
from medgem_node.errors import CannotDeidentify, MedgemError
from medgem_node.geometry import frames
from medgem_node.header import text_of

WANTED = frozenset({0x00080016, 0x00080060, 0x00180015})
"""The top attributes that `needed` reads."""

_ELSEWHERE = frozenset(
    """
    ABDOMEN ABDOMENPELVIS PELVIS BREAST HEART LIVER KIDNEY PANCREAS SPLEEN PROSTATE UTERUS BLADDER HIP LEG THIGH KNEE
    CALF ANKLE FOOT TOE ARM ELBOW FOREARM WRIST HAND FINGER HUMERUS FEMUR TIBIA EXTREMITY LSPINE LUMBARSPINE SSPINE
    SACRUM COCCYX COLON RECTUM
    """.split()  # noqa: SIM905
)
"""Body Part Examined that no head is imaged with; CSPINE, NECK and WHOLEBODY are not among them."""
_TRUNK = frozenset("CHEST THORAX LUNG AORTA CHESTABDOMEN CHESTABDPELVIS TSPINE SHOULDER RIB STERNUM".split())  # noqa: SIM905
"""Above which a head may lie in CT: looked at where there is a volume."""
_HEAD = ("HEAD", "BRAIN", "SKULL", "FACE", "FACIAL", "ORBIT", "SINUS", "CRANI", "EYE", "EAR", "JAW", "MAXILL", "NECK")
_CRANIOFACIAL = "1.2.840.10008.5.1.4.1.1.13.1.2"  # X-Ray 3D Craniofacial Image Storage
_SHALLOW_MM = 25.0  # a thinner stack of axial or coronal slices gives no face when rendered
_LEFT_OVER = 0.05  # of the rays onto a face that may end where they ended
_MOVED_CUBES = 3  # by how much a ray must end deeper to count as changed
_SKULL_SHARE = 0.5


def needed(values: Mapping[int, bytes]) -> bool:
    """Whether an instance, by its header, may belong to a series that shows a face. Reads `WANTED`."""
    read = {tag: values.get(tag, b"").decode("latin-1").strip("\0 ") for tag in WANTED}
    return _place(read[0x00080016], read[0x00080060], read[0x00180015]) != "elsewhere"


def face_masks(instances: Sequence[bytes], seed: int = 0) -> dict[str, NDArray[np.bool_]]:
    """What to blank in the images of one series so that no face can be rendered from it; never the brain.

    Parameters
    ----------
    instances
        Part 10 files of the whole series, in any order.
    seed
        Roughens the new surface; the same seed gives the same masks.

    Returns
    -------
    By original SOP Instance UID, for every instance that may show the head: (rows, columns), or (frames, rows,
    columns) for a multi-frame image, True where to blank. Empty when the series shows no face.

    Raises
    ------
    CannotDeidentify
        If it may show a face, and none could be removed with certainty. The message holds no identity.
    """
    try:
        return _face_masks(instances, seed)
    except CannotDeidentify:
        raise
    except (MedgemError, *part10.UNPARSABLE) as exc:
        raise CannotDeidentify(f"the series cannot be searched for a face ({type(exc).__name__})") from None


def _face_masks(instances: Sequence[bytes], seed: int) -> dict[str, NDArray[np.bool_]]:
    slices: list[Slice] = []
    places: set[str] = set()
    is_ct = False
    shapes: dict[str, int] = {}  # frames of a multi-frame image, 0 of a plain one
    for data in instances:
        image = part10.decode(data)
        place = _checked_place(image)
        if place == "elsewhere":
            continue
        places.add(place)
        is_ct = text_of(image, "Modality") == "CT"
        shapes[str(image.SOPInstanceUID)] = frames(image) if "NumberOfFrames" in image else 0
        slices += Slice.all_of(image, is_ct)
    if not slices:
        return {}
    thickness, axis = extent_mm(slices)
    if axis != 0 and thickness < _SHALLOW_MM:
        return {}
    return _searched(slices, shapes, is_ct, "head" if "head" in places else min(places), seed)


def _searched(
    slices: Sequence[Slice], shapes: Mapping[str, int], is_ct: bool, place: str, seed: int
) -> dict[str, NDArray[np.bool_]]:
    cubes = Cubes.of(slices, is_ct)
    head = _head(cubes, is_ct, place)
    if head is None:
        return {}
    mask = head.face(np.random.default_rng(seed))
    if not is_ct:
        mask |= head.background()
    _verify(cubes, head, mask, is_ct)
    found: dict[str, list[Mask]] = {uid: [] for uid in shapes}
    for one in slices:
        found[one.uid].append(cubes.onto(mask, one.place, one.size))
    return {uid: np.stack(masks) if shapes[uid] else masks[0] for uid, masks in found.items()}


def _place(sop_class_uid: str, modality: str, body_part: str) -> str:
    """What the header says of where this is: head, trunk, elsewhere, or unsaid."""
    if sop_class_uid == _CRANIOFACIAL:
        return "head"
    part = body_part.upper().replace(" ", "").replace("_", "")
    if modality not in ("CT", "MR") or part in _ELSEWHERE or (modality == "MR" and part in _TRUNK):
        return "elsewhere"
    if part in _TRUNK:
        return "trunk"
    return "head" if any(word in part for word in _HEAD) else "unsaid"


def _checked_place(image: Dataset) -> str:
    """As `_place`. Raises CannotDeidentify for a picture of a head that is no slice of a volume."""
    sop_class_uid = text_of(image, "SOPClassUID")
    place = _place(sop_class_uid, text_of(image, "Modality"), text_of(image, "BodyPartExamined"))
    is_localizer = "LOCALIZER" in text_of(image, "ImageType").upper()
    if sop_class_uid == _CRANIOFACIAL or (is_localizer and place in ("head", "unsaid")):
        raise CannotDeidentify("a projection or localizer that may show a face")
    return "elsewhere" if is_localizer else place


def _head(cubes: Cubes, is_ct: bool, place: str) -> Head | None:
    """The head, None where there is none. Raises CannotDeidentify where that cannot be told."""
    try:
        head = Head.of(cubes.values, cubes.known, is_ct)
    except NoHead as exc:
        if place == "trunk" or (place == "unsaid" and isinstance(exc, TooLarge)):
            return None
        raise CannotDeidentify(f"a head cannot be told from the rest: {exc}") from None
    if place == "head":
        return head
    if is_ct and skull_share(cubes.values, head) < _SKULL_SHARE:
        if place == "trunk":
            return None
        raise CannotDeidentify("it is not said which part of the body this is, and it may be a head")
    if not is_ct and not is_capped(head):
        raise CannotDeidentify("it is not said which part of the body this is, and it may be a head")
    return head


def _verify(cubes: Cubes, head: Head, mask: Mask, is_ct: bool) -> None:
    """Look again: no brain in the mask, and rays onto the face end deeper. Raises CannotDeidentify."""
    if (mask & head.brain).any():
        raise CannotDeidentify("the face cannot be told from the brain")
    threshold = air_below(cubes.values, is_ct)
    blank = np.where(mask, np.float32(AIR if is_ct else 0.0), cubes.values)
    for level in (threshold, threshold + 250.0) if is_ct else (threshold, 2 * threshold):
        before, after = depth_map(cubes.values, level), depth_map(blank, level)
        met = facial_rays(head) & np.isfinite(before)
        left = after[met] < hull(before)[met] + _MOVED_CUBES
        if met.any() and left.mean() > _LEFT_OVER:
            raise CannotDeidentify("a part of the face would still be there")
