"""The copies that a worker sees of a study, and the certificate of how they were made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any

from medgem_node.deid import certificate
from medgem_node.deid.certificate import Deeds, Written
from medgem_node.deid.deidentifier import Copy, Deidentifier
from medgem_node.deid.options import Option
from medgem_node.errors import CannotDeidentify, LeakFound, NotStored
from medgem_node.seams import Store


@dataclass(frozen=True, slots=True)
class Original:
    """An instance to copy; `read` gives its Part 10 file."""

    sop_instance_uid: str
    series_instance_uid: str
    read: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Copies:
    """Their keys in the exchange. `reason` says why the first that is not there was held.

    `is_leak`: the proof found something of the patient in a copy, so none is there.
    """

    keys: tuple[str, ...] = ()
    reason: str = ""
    is_leak: bool = False
    certificate: Mapping[str, Any] | None = None


def make_copies(
    originals: Sequence[Original], deidentifier: Deidentifier, exchange: Store, folder: str, now: datetime
) -> Copies:
    """Put a copy of each original into `folder`; safe to run twice. What is held is told in the answer.

    A leak takes back what was written, for it is a fault of ours that the other copies may have as well.
    """
    made = _Made()
    try:
        for original, copy in _copied(originals, deidentifier, made):
            data = copy.data()
            key = f"{folder}/{deidentifier.pseudonyms.uid(original.sop_instance_uid)}.dcm"
            exchange.put(key, data)
            made.add(key, copy, data)
    except LeakFound as exc:
        exchange.delete(folder)
        return Copies(reason=str(exc), is_leak=True)
    if not made.keys:
        return Copies(reason=made.reason)
    said = certificate.of_study(made.study_instance_uid, made.written, made.deeds, deidentifier.profile, now)
    return Copies(tuple(made.keys), made.reason, certificate=said)


@dataclass(slots=True)
class _Made:
    """What is there so far."""

    keys: list[str] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    deeds: Deeds = field(default_factory=Deeds)
    study_instance_uid: str = ""
    reason: str = ""

    def add(self, key: str, copy: Copy, data: bytes) -> None:
        self.keys.append(key)
        self.written.append(Written(copy.sop_instance_uid, sha256(data).hexdigest()))
        self.deeds.add(copy.changes, copy.pixels, copy.done.claimed)
        self.study_instance_uid = copy.study_instance_uid

    def hold(self, exc: Exception) -> None:
        self.reason = self.reason or (str(exc) if isinstance(exc, CannotDeidentify) else type(exc).__name__)


def _copied(originals: Sequence[Original], deidentifier: Deidentifier, made: _Made) -> Iterator[tuple[Original, Copy]]:
    """A copy of each that has one. Raises LeakFound, NotStored."""
    cleans_faces = Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES in deidentifier.profile.options
    for series in _by_series(originals) if cleans_faces else [originals]:
        try:
            masks = _face_masks(series, deidentifier) if cleans_faces else {}
        except CannotDeidentify as exc:
            made.hold(exc)
            continue
        for original in series:
            try:
                copy = deidentifier.copy(original.read(), masks.get(original.sop_instance_uid))
            except (LeakFound, NotStored):
                raise
            except Exception as exc:  # an edge: whatever a stranger's header leads to, the image stays and is told of
                made.hold(exc)
                continue
            yield original, copy


def _by_series(originals: Sequence[Original]) -> list[list[Original]]:
    series: dict[str, list[Original]] = defaultdict(list)
    for original in originals:
        series[original.series_instance_uid].append(original)
    return list(series.values())


def _face_masks(series: Sequence[Original], deidentifier: Deidentifier) -> Mapping[str, Any]:
    """What is blanked in the images of a series. Raises CannotDeidentify."""
    from medgem_node.deid.faces import face_masks

    seed = int(deidentifier.pseudonyms.digest("face", series[0].series_instance_uid)[:8], 16)  # nobody can subtract it
    return face_masks([original.read() for original in series], seed)
