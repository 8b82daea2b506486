"""Arbitrary bytes in a C-STORE: what a broken or hostile sender puts on the wire."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO

from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.dimse_primitives import C_STORE

from medgem_node.dimse import scu
from medgem_node.peer import Peer

LONG = ("OB", "OW", "SQ", "UN", "UT")


def encoded(dataset: Dataset, *, implicit: bool = False, little: bool = True) -> bytes:
    """The data set without file meta information."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = implicit, little
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def element(tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    """One explicit little endian element, padded; `length` is what it says of itself, true or not."""
    value += b" " * (len(value) & 1)
    length = len(value) if length is None else length
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    return head + (struct.pack("<xxL", length) if vr in LONG else struct.pack("<H", length)) + value


@contextmanager
def sender(
    peer: Peer, sop_class_uid: str, syntax: str = ExplicitVRLittleEndian, timeout_seconds: float = 60.0
) -> Iterator[Callable[[bytes, str], Dataset]]:
    """An association, and what sends `data` as they are under a SOP Instance UID and answers the response's status."""
    with scu.associate(peer, "MODALITY", [build_context(sop_class_uid, syntax)], timeout_seconds) as association:

        def send(data: bytes, sop_instance_uid: str) -> Dataset:
            request = C_STORE()
            request.MessageID, request.Priority = 1, 2
            request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class_uid, sop_instance_uid
            request.DataSet = BytesIO(data) if data else None
            association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
            _, response = association.dimse.get_msg(block=True)
            answer = Dataset()
            answer.Status = response.Status if response else None
            answer.ErrorComment = (getattr(response, "ErrorComment", None) or "") if response else "no answer"
            return answer

        yield send
