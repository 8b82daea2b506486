"""A job: one model on one revision of one study; its outcome; the delivery of its results."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

import numpy as np

from medgem_node.errors import MedgemError
from medgem_node.finding import Analysis, Bits, Box, Code, Finding, Heatmap, Mask, Measurement, Point, packed
from medgem_node.site import SiteCalibration


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"  # waits for its turn, or for the end of its back-off
    SUBMITTED = "submitted"  # an engine has it until the lease ends
    ANALYSED = "analysed"  # its outcome was collected
    PUBLISHED = "published"  # its results lie in the archive, deliveries are open
    DONE = "done"  # every delivery ended, or nobody wants the results
    FAILED = "failed"  # nothing was sent: no report could be written, or the study is another patient's meanwhile

    @property
    def ups_state(self) -> str:
        """The Unified Procedure Step state that means the same (PS3.4 CC.1.1)."""
        if self is JobState.QUEUED:
            return "SCHEDULED"
        if self is JobState.DONE:
            return "COMPLETED"
        return "CANCELED" if self is JobState.FAILED else "IN PROGRESS"


TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.SUBMITTED}),
    JobState.SUBMITTED: frozenset({JobState.ANALYSED, JobState.QUEUED}),
    JobState.ANALYSED: frozenset({JobState.PUBLISHED, JobState.DONE, JobState.FAILED}),
    JobState.PUBLISHED: frozenset({JobState.DONE}),
    JobState.DONE: frozenset(),
    JobState.FAILED: frozenset(),
}


class DeliveryState(StrEnum):
    """Where one object on its way to one destination stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    REFUSED = "refused"  # the peer will never take it


@dataclass(frozen=True, slots=True)
class Job:
    """What an engine needs to know to run a model; it holds pseudonymous UIDs only.

    `inputs` are keys in the exchange; the Outcome goes to `outcome_key` there. `site` is put in when it is submitted.
    """

    job_id: str
    model: str
    version: str
    inputs: tuple[str, ...]
    attempt: int = 1
    site: SiteCalibration | None = None

    @property
    def outcome_key(self) -> str:
        """Where the worker puts its answer."""
        return f"jobs/{self.job_id}/outcome-{self.attempt}"

    def to_json(self) -> str:
        """One line, for an engine's wire."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The reverse of `to_json`."""
        fields = json.loads(text)
        site = fields.get("site")
        made = SiteCalibration.parse(site, "job") if site else None
        return cls(**{**fields, "inputs": tuple(fields["inputs"]), "site": made})


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a worker has no analysis: a short identifier and a sentence without identity."""

    reason: str
    detail: str
    retryable: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a worker answers: an Analysis or a Failure."""

    job_id: str
    analysis: Analysis | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One result object on its way to one destination; `kind` is what its viewer profile calls it."""

    delivery_id: int
    job_id: str
    destination: str
    sop_instance_uid: str
    sop_class_uid: str
    key: str
    state: DeliveryState
    attempts: int
    due_at: datetime
    reason: str = ""
    kind: str = ""


MAXIMUM_BYTES = 1 << 30
"""No outcome unpacks to more: masks of 1000 frames of 1024 x 1024, eight of them."""


class BadOutcome(MedgemError):
    """The bytes are no outcome."""


def encode_outcome(outcome: Outcome) -> bytes:
    """One blob: JSON, with masks (one bit a pixel) and heatmaps (half floats) beside it. No pickle."""
    arrays: dict[str, Any] = {}
    fields = asdict(replace(outcome, analysis=None))
    if outcome.analysis is not None:
        analysis = asdict(replace(outcome.analysis, masks=(), heatmaps=()))
        analysis["parameters"] = dict(outcome.analysis.parameters)
        analysis["masks"] = []
        for n, mask in enumerate(outcome.analysis.masks):
            arrays[f"bits{n}"] = packed(mask.pixels).data
            analysis["masks"].append(
                {**asdict(replace(mask, pixels=np.empty(0, bool))), "pixels": list(mask.pixels.shape)}
            )
        analysis["heatmaps"] = []
        for n, heatmap in enumerate(outcome.analysis.heatmaps):
            arrays[f"heatmap{n}"] = heatmap.values.astype(np.float16)
            analysis["heatmaps"].append(asdict(replace(heatmap, values=None)))  # type: ignore[arg-type]
        fields["analysis"] = analysis
    arrays["outcome"] = np.frombuffer(json.dumps(fields, default=_no_arrays).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def decode_outcome(blob: bytes) -> Outcome:
    """The reverse of `encode_outcome`. Raises BadOutcome for anything else, so a worker is not trusted."""
    try:
        with np.load(io.BytesIO(blob), allow_pickle=False) as arrays:
            if sum(member.file_size for member in arrays.zip.infolist()) > MAXIMUM_BYTES:
                raise ValueError("more than an outcome holds")
            fields = json.loads(arrays["outcome"].tobytes())
            analysis = fields["analysis"]
            failure = fields["failure"]
            return Outcome(
                job_id=fields["job_id"],
                analysis=_analysis(analysis, arrays) if analysis else None,
                failure=Failure(**failure) if failure else None,
            )
    except Exception as exc:  # an edge: a worker is not trusted, and zip, zlib and numpy raise whatever they like
        raise BadOutcome(f"outcome of {len(blob)} bytes cannot be read: {type(exc).__name__}") from exc


def _no_arrays(value: object) -> Any:
    if isinstance(value, np.ndarray):
        return None
    raise TypeError(f"{type(value).__name__} in a word; words hold Python numbers")


def _analysis(fields: dict[str, Any], arrays: Mapping[str, Any]) -> Analysis:
    masks = tuple(
        Mask(
            **{
                **mask,
                "category": Code(**mask["category"]),
                "code": Code(**mask["code"]),
                "laterality": _code(mask["laterality"]),
                "images": tuple(mask["images"]),
                "frames": tuple(mask.get("frames", ())),
                "colour_rgb": tuple(mask["colour_rgb"]),
                "pixels": _bits(arrays, n, mask),
            }
        )
        for n, mask in enumerate(fields["masks"])
    )
    heatmaps = tuple(
        Heatmap(
            **{
                **heatmap,
                "images": tuple(heatmap["images"]),
                "frames": tuple(heatmap.get("frames", ())),
                "values": _values(arrays, n, heatmap),
            }
        )
        for n, heatmap in enumerate(fields["heatmaps"])
    )
    return Analysis(
        **{
            **fields,
            "images": tuple(fields["images"]),
            "findings": tuple(map(_finding, fields["findings"])),
            "candidates": tuple(map(_finding, fields["candidates"])),
            "measurements": tuple(map(_measurement, fields["measurements"])),
            "masks": masks,
            "heatmaps": heatmaps,
        }
    )


def _bits(arrays: Mapping[str, Any], n: int, mask: dict[str, Any]) -> Bits:
    frames, rows, columns = mask["pixels"]
    if f"bits{n}" in arrays:
        bits = Bits(arrays[f"bits{n}"], rows, columns)
    else:  # as it was written at first: packed in one, with the first pixel the highest bit
        flat = arrays[f"mask{n}"]
        if min(frames, rows, columns) < 1 or flat.size != (frames * rows * columns + 7) // 8:
            raise ValueError("a mask of another size than it says")
        bits = packed(np.unpackbits(flat, count=frames * rows * columns).view(bool).reshape(frames, rows, columns))
    if len(bits) != frames or not _are_named(mask, frames):
        raise ValueError("a mask of other frames than it says")
    return bits


def _values(arrays: Mapping[str, Any], n: int, heatmap: dict[str, Any]) -> Any:
    values = arrays[f"heatmap{n}"]
    if values.ndim != 3 or not _are_named(heatmap, len(values)):
        raise ValueError("a heatmap of other frames than it says")
    return values.astype(np.float32)


def _are_named(fields: dict[str, Any], frames: int) -> bool:
    return len(fields["images"]) == frames and len(fields.get("frames", ())) in (0, frames)


def _code(fields: dict[str, str] | None) -> Code | None:
    return Code(**fields) if fields else None


def _measurement(fields: dict[str, Any]) -> Measurement:
    return Measurement(
        **{
            **fields,
            "code": Code(**fields["code"]),
            "unit": Code(**fields["unit"]),
            "points": tuple(Point(**p) for p in fields["points"]),
        }
    )


def _finding(fields: dict[str, Any]) -> Finding:
    return Finding(
        **{
            **fields,
            "code": Code(**fields["code"]),
            "box": Box(**fields["box"]) if fields["box"] else None,
            "site": _code(fields["site"]),
            "laterality": _code(fields["laterality"]),
            "measurements": tuple(map(_measurement, fields["measurements"])),
        }
    )
