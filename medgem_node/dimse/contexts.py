"""What we accept as acceptor, and propose as requestor."""

from __future__ import annotations

from collections.abc import Iterable

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, build_context
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification

_PREFERRED = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))
_LEGACY = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")  # deflated and big endian: last, but taken


def accepted() -> list[PresentationContext]:
    """Verification, and every storage SOP class with every transfer syntax.

    Of the syntaxes that a context offers the first of ours is taken: uncompressed before compressed, so that a sender
    who offers both need not be decoded.
    """
    others = [ts for ts in ALL_TRANSFER_SYNTAXES if ts not in (*_PREFERRED, *_LEGACY)]
    syntaxes = [*_PREFERRED, *others, *_LEGACY]
    storage = [build_context(str(cx.abstract_syntax), syntaxes) for cx in AllStoragePresentationContexts]
    return [build_context(Verification, list(_PREFERRED)), *storage]


def proposed(instances: Iterable[Dataset]) -> list[PresentationContext]:
    """One context for each SOP class and transfer syntax that is sent, and nothing else.

    An uncompressed instance is offered in both little endian syntaxes; the requestor converts.
    """
    wanted: dict[tuple[str, str], list[str]] = {}
    for instance in instances:
        syntax = str(instance.file_meta.TransferSyntaxUID)
        syntaxes = list(dict.fromkeys((syntax, *_PREFERRED))) if syntax in _PREFERRED else [syntax]
        wanted[str(instance.SOPClassUID), syntax] = syntaxes
    return [build_context(sop_class, syntaxes) for (sop_class, _), syntaxes in wanted.items()]
