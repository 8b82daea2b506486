"""Everything that can go wrong, as one tree.

MedgemError
├── ConfigError            a file, key and value that cannot be used (exit code 2)
├── NotStored              a store has no such key
├── NotUnderstood          an instance that cannot be kept as DICOM (0xC000 range)
├── OutOfResources         no room to keep an instance (0xA700)
├── NotAnalysable          answered with a coded reason, never retried
│   ├── NotApplicable      the model is not meant for this study
│   └── Unreadable         pixels or headers cannot be decoded
├── CannotDeidentify       held: nothing leaves
│   └── LeakFound          the proof found the patient in a copy: the whole study stops
├── ModelRejected          weights missing or altered, manifest unusable
├── EngineUnavailable      the ledger retries
├── DeliveryFailed         the peer may take it later (retry)
└── Refused                the peer will never take it (do not retry)
"""

from __future__ import annotations

from collections.abc import Collection


class MedgemError(Exception):
    """Something this node knows how to name."""

    exit_code = 1
    retryable = False
    dimse_status = 0xC000

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (self.__doc__ or "").strip().splitlines()[0])


class ConfigError(MedgemError):
    """The configuration cannot be used."""

    exit_code = 2


class NotStored(MedgemError):
    """The store has no such key."""


class NotUnderstood(MedgemError):
    """The instance cannot be understood."""

    dimse_status = 0xC000


class OutOfResources(MedgemError):
    """There is no room to keep the instance."""

    retryable = True
    dimse_status = 0xA700


class NotAnalysable(MedgemError):
    """The study cannot be analysed by this model; `reason` is a short identifier, `str()` a sentence."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class NotApplicable(NotAnalysable):
    """The model is not meant for this study."""


class Unreadable(NotAnalysable):
    """The pixels or headers cannot be decoded."""


class CannotDeidentify(MedgemError):
    """The instance cannot be de-identified with certainty, so nothing leaves."""


class LeakFound(CannotDeidentify):
    """The proof found something of the patient in a finished copy: a fault of ours, so the whole study stops."""


class ModelRejected(MedgemError):
    """The model cannot be used: its manifest or weights are missing or altered."""

    exit_code = 2


class EngineUnavailable(MedgemError):
    """The engine cannot take a job now."""

    retryable = True


class _Undelivered(MedgemError):
    """Not every result was delivered; `delivered` holds the SOP Instance UIDs that were."""

    def __init__(self, message: str = "", delivered: Collection[str] = ()) -> None:
        super().__init__(message)
        self.delivered = frozenset(delivered)


class DeliveryFailed(_Undelivered):
    """The peer did not take the results now."""

    retryable = True


class Refused(_Undelivered):
    """The peer will not take the results, however often they are sent."""
