"""Whether an image may show text of a patient, and what is done about it: held, blanked, or let pass.

Burned In Annotation lets nothing pass by saying NO or by being absent: of 30 strings in a corpus, 5 stood under NO and
18 without the attribute. What an image is decides. docs/deid-pixels.md tells what is read when, and what is not seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medgem_node.deid import reader, regions, shape
from medgem_node.deid.layout import Broken, Syntax
from medgem_node.deid.options import Option, Profile
from medgem_node.deid.pixels import Pixels
from medgem_node.deid.reader import Box, Grey, Reader, Text
from medgem_node.deid.shape import UNFIT, Shape
from medgem_node.errors import CannotDeidentify, ConfigError, NotAnalysable

_PALETTE = frozenset({0x00281101, 0x00281102, 0x00281103, 0x00281201, 0x00281202, 0x00281203})
WANTED: frozenset[int] = (
    frozenset({0x00080008, 0x00080016, 0x00080060, 0x00080064, 0x00280301, regions.TAG}) | shape.TAGS | _PALETTE
)
"""Top-level attributes whose raw values `examined` asks for."""

_ROOT = "1.2.840.10008.5.1.4.1.1."
_ULTRASOUND = frozenset(_ROOT + end for end in ("3", "3.1", "6", "6.1", "6.2"))
_FILMS = frozenset(
    _ROOT + end
    for end in (
        *("1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1", "12.1", "12.1.1", "12.2", "12.2.1", "12.3"),
        *("13.1.1", "13.1.2", "13.1.3", "13.1.4", "13.1.5", "481.1"),
    )
)
"""CR, DX, MG, intra-oral, XA, RF, tomosynthesis, RT images."""
_SECTIONS = frozenset(
    _ROOT + end
    for end in (
        *("2", "2.1", "2.2", "4", "4.1", "4.3", "4.4", "20", "128", "128.1", "130"),
        *("30", "66.4", "66.7", "481.2"),
    )
)
"""CT, MR, NM, PET; parametric maps, segmentations, RT doses."""
_SLIDES = _ROOT + "77.1.6"
_SCREEN = re.compile(r"SCREEN|DOSE|REPORT|LABEL|CAPTURE|OVERVIEW|PROT\b")
_MARKERS = frozenset(("L", "R", "LT", "RT", "PA", "AP"))
_MOST_PAGES = 64  # of an image whose frames may all differ
_ROUNDS = 5


class _Kind(Enum):
    """What an image may show: text as a rule, text now and then, or no text but by a rare device."""

    PAGE = "page"
    FILM = "film"
    SECTION = "section"


@dataclass(frozen=True, slots=True)
class Examined:
    """Pixels as they may leave, and what may be said of them; `boxes` is what was blanked in every frame."""

    pixels: Pixels
    said: Literal["not examined", "clean", "masked"]
    boxes: tuple[Box, ...] = ()


def examined(
    pixels: Pixels, values: Mapping[int, bytes], syntax: Syntax, profile: Profile, eyes: Reader | None = None
) -> Examined:
    """Pixels without burned-in text as far as the profile asks to look for it.

    `values` holds raw values of the attributes in WANTED. `eyes` reads in place of the installed reader.

    Raises
    ------
    CannotDeidentify
        If it shows text and Clean Pixel Data was not asked for; if nobody can look, or what was seen cannot be blanked.
    """
    try:
        lies = Shape.of(values, syntax)
        kind = _kind(values, lies)
        is_cleaned = Option.CLEAN_PIXEL_DATA in profile.options
        if kind is _Kind.SECTION:
            return Examined(pixels, "not examined")
        if kind is _Kind.FILM and profile.pixels == "trust" and not is_cleaned:
            return Examined(pixels, "not examined")
        eyes = eyes or reader.installed()
        if eyes is None and kind is _Kind.FILM and not is_cleaned:
            return Examined(pixels, "not examined")
        if eyes is None:
            raise CannotDeidentify(f"it may show text, and nothing here reads it; {reader.INSTALL}")
        look = _Look(pixels, values, syntax, lies, kind, eyes)
        return look.cleaned() if is_cleaned else look.screened()
    except (Broken, NotAnalysable, ConfigError) as exc:
        raise CannotDeidentify(f"whether it shows text cannot be decided: {exc}") from None
    except UNFIT as exc:
        raise CannotDeidentify(f"whether it shows text cannot be decided ({type(exc).__name__})") from None


@dataclass(frozen=True, slots=True)
class _Look:
    pixels: Pixels
    values: Mapping[int, bytes]
    syntax: Syntax
    shape: Shape
    kind: _Kind
    eyes: Reader

    def screened(self) -> Examined:
        """As it is, if nothing is found."""
        found = sum(len(self._texts(picture)) for picture in self._pictures())
        if found:
            raise CannotDeidentify('its pixels show text; add the option "Clean Pixel Data" to have it blanked')
        self._refuse_unseen()
        return Examined(self.pixels, "clean")

    def cleaned(self) -> Examined:
        """Without all that lies outside the regions of ultrasound, and without the text that is found."""
        outside = self._outside()
        boxes = [box for picture in self._pictures() for box in self._boxes(picture, outside)]
        if not boxes and not outside.any():
            self._refuse_unseen()
            return Examined(self.pixels, "clean")
        from medgem_node.deid.masking import blanked

        mask = outside | _mask(boxes, self.shape)
        return Examined(blanked(self.pixels, self.values, self.syntax, mask), "masked", tuple(boxes))

    def _refuse_unseen(self) -> None:
        if _says_text(self.values):
            raise CannotDeidentify("Burned In Annotation says that its pixels hold text, and none was found")

    def _pictures(self) -> Iterable[Grey]:
        from medgem_node.deid import levels  # decoders, which most images do not need

        is_page = self.kind is _Kind.PAGE and _text(self.values, 0x00080016) not in _ULTRASOUND
        if is_page and self.shape.frames > _MOST_PAGES:
            raise Broken("it has more pages than are read")
        return (levels.each if is_page else levels.still)(self.pixels, self.values, self.syntax)

    def _outside(self) -> NDArray[np.bool_]:
        """What an ultrasound image holds around its regions; nothing if it names none."""
        rows, columns, value = self.shape.rows, self.shape.columns, self.values.get(regions.TAG, b"")
        found = regions.regions(value, self.syntax, rows, columns)
        is_ultrasound = _text(self.values, 0x00080016) in _ULTRASOUND
        inside = _mask(found, self.shape) if found and is_ultrasound else np.ones((rows, columns), bool)
        return ~inside

    def _boxes(self, picture: Grey, outside: NDArray[np.bool_]) -> list[Box]:
        """Looks again until nothing legible is found: a line may hide beside a brighter one."""
        picture = np.where(outside, np.uint8(0), picture)
        found: list[Box] = []
        for n in range(_ROUNDS):
            texts = [t for t in self._texts(picture) if n == 0 or t.confidence > reader.LEGIBLE]
            if not texts:
                return found
            boxes = [_padded(text.box) for text in texts]
            found += boxes
            picture[_mask(boxes, self.shape)] = int(np.median(picture))
        raise Broken("text was found again where it had been blanked")

    def _texts(self, picture: Grey) -> list[Text]:
        from medgem_node import frame

        with frame.coded("pixel-data", "the text reader failed"):
            texts = self.eyes.read(picture)
        if any(reader.is_large(t.box, picture.shape) and t.confidence < reader.SURELY for t in texts):
            raise Broken("something as large as no line of text looks like text")
        return [t for t in texts if not (self.kind is _Kind.FILM and _is_marker(t))]


def _kind(values: Mapping[int, bytes], shape: Shape) -> _Kind:
    sop_class_uid, image_type = _text(values, 0x00080016), _text(values, 0x00080008).upper()
    if _says_text(values) or _SCREEN.search(image_type) or _text(values, 0x00080064):
        return _Kind.PAGE  # Conversion Type: a secondary capture, whatever its SOP Class
    if sop_class_uid == _SLIDES:
        return _Kind.SECTION
    if sop_class_uid in _FILMS:
        return _Kind.FILM if shape.samples == 1 else _Kind.PAGE
    if sop_class_uid not in _SECTIONS or shape.samples > 1:
        return _Kind.PAGE  # sections in colour are pictures of a workstation
    return _unusual(values, shape, image_type)


def _unusual(values: Mapping[int, bytes], shape: Shape, image_type: str) -> _Kind:
    """CT and MR that a console made of other images."""
    is_secondary = image_type.split("\\")[1:2] == ["SECONDARY"]
    if is_secondary and "LOCALIZER" in image_type:
        return _Kind.PAGE
    is_ct = _text(values, 0x00080060) == "CT" and shape.allocated > 1
    if is_secondary or (is_ct and (shape.rows != shape.columns or shape.allocated == 8)):
        return _Kind.FILM
    return _Kind.SECTION


def _says_text(values: Mapping[int, bytes]) -> bool:
    return _text(values, 0x00280301).upper() not in ("", "NO")


def _is_marker(text: Text) -> bool:
    """A side marker or a projection on its own, read with certainty. Not initials: those are somebody's."""
    return text.confidence >= reader.SURELY and text.said.strip().upper() in _MARKERS


def _padded(box: Box) -> Box:
    by = max(2, box.height // 5)
    return Box(max(box.top - by, 0), max(box.left - by, 0), box.bottom + by, box.right + by)


def _mask(boxes: Sequence[Box], shape: Shape) -> NDArray[np.bool_]:
    mask = np.zeros((shape.rows, shape.columns), bool)
    for box in boxes:
        mask[box.top : box.bottom, box.left : box.right] = True
    return mask


def _text(values: Mapping[int, bytes], tag: int) -> str:
    return bytes(values.get(tag, b"")).decode("latin-1").strip(" \0")
