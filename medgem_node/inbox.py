"""Receiving: durable first, then known, then acknowledged.

An instance is understood far enough to be filed (its UIDs, its patient), and kept as the bytes that came. A crash
between the store and the ledger leaves a file that nobody was told of: the sender got no success and sends again,
and `put` replaces whole.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from pydicom import Dataset

from medgem_node import part10
from medgem_node.deid.pseudonym import Pseudonyms
from medgem_node.dimse.scp import Received
from medgem_node.errors import NotStored, NotUnderstood, OutOfResources
from medgem_node.feedback import is_document
from medgem_node.ledger.ledger import Ledger
from medgem_node.seams import Store
from medgem_node.study import Instance, newest

log = logging.getLogger(__name__)

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


class Mismatch(NotUnderstood):
    """The data set is not the instance that the request names (PS3.4 B.2.3)."""

    dimse_status = 0xA900


@dataclass(frozen=True, slots=True)
class Inbox:
    """Keeps what is received. `free_bytes` tells how much room the disk has left."""

    archive: Store
    ledger: Ledger
    pseudonyms: Pseudonyms
    free_bytes: Callable[[], int]
    minimum_free_bytes: int = 0
    maximum_instance_bytes: int = 2**31

    def receive(self, received: Received, now: datetime) -> Instance:
        """Keep one instance; when this returns it is durable and known. Safe to call twice with the same bytes.

        Raises
        ------
        NotUnderstood
            If the data set cannot be filed: no usable UIDs, or not the instance that the request names.
        OutOfResources
            If there is no room for it.
        """
        self._check_room(received)
        instance = self._understood(received, now)
        if self.ledger.is_result(instance.sop_instance_uid):
            log.debug("one of our own results came back; it is in the archive already")  # not an image of the study
            return instance
        if self.ledger.knows(instance.study_instance_uid, instance.sop_instance_uid, instance.sha256):
            log.debug("instance received again, %d bytes: known already", instance.size_bytes)
            return instance
        self.archive.put(instance.key, received.header + received.dataset)  # 0x0000 lets the sender delete its copy
        self.ledger.record(instance)
        return instance

    def _check_room(self, received: Received) -> None:
        size = len(received.dataset)
        if size > self.maximum_instance_bytes:
            raise OutOfResources(f"instance of {size} bytes is larger than receive.maximum_instance_mb allows")
        if self.free_bytes() - size < self.minimum_free_bytes:
            raise OutOfResources("disk nearly full: below receive.minimum_free_mb")

    def _understood(self, received: Received, now: datetime) -> Instance:
        header = part10.decode(received.header + received.dataset, headers_only=True)
        part10.check_depth(header)
        sop_instance_uid = _uid(header, "SOPInstanceUID")
        if sop_instance_uid != received.sop_instance_uid.rstrip("\0 "):
            raise Mismatch("SOP Instance UID of the data set is not that of the request")
        sop_class_uid = _uid(header, "SOPClassUID")
        if sop_class_uid != received.sop_class_uid.rstrip("\0 "):
            raise Mismatch("SOP Class UID of the data set is not that of the request")
        study_instance_uid = _uid(header, "StudyInstanceUID")
        digest = hashlib.sha256(received.transfer_syntax_uid.encode() + received.dataset).hexdigest()
        return Instance(
            sop_instance_uid=sop_instance_uid,
            sop_class_uid=sop_class_uid,
            series_instance_uid=_uid(header, "SeriesInstanceUID"),
            study_instance_uid=study_instance_uid,
            transfer_syntax_uid=received.transfer_syntax_uid,
            modality=_text(header, "Modality")[:16],
            patient_key=self.pseudonyms.digest("patient", self._patient(header, sop_class_uid, study_instance_uid)),
            key=f"studies/{study_instance_uid}/{sop_instance_uid}-{digest[:16]}.dcm",
            sha256=digest,
            size_bytes=len(received.dataset),
            calling_ae=received.calling_ae,
            called_ae=received.called_ae,
            received_at=now,
        )

    def _patient(self, header: Dataset, sop_class_uid: str, study_instance_uid: str) -> str:
        """Who the header names; a document without an issuer (viewers copy none) means that of its study's images."""
        identifier = _text(header, "PatientID")
        if not is_document(sop_class_uid) or not identifier or _text(header, "IssuerOfPatientID"):
            return patient(header)
        study = self.ledger.study(study_instance_uid)
        images = [i for i in newest(study.instances) if not is_document(i.sop_class_uid)] if study else []
        with suppress(NotStored, NotUnderstood, IndexError):
            image = part10.decode(self.archive.get(images[-1].key), headers_only=True)
            if _text(image, "PatientID") == identifier:
                return patient(image)
        return patient(header)


def patient(header: Dataset) -> str:
    """What tells one patient from another: the identifier with its issuer, else the name and birth date.

    Raises NotUnderstood.
    """
    identifier = _text(header, "PatientID")
    if identifier:
        return f"{identifier}\\{_text(header, 'IssuerOfPatientID')}"
    return f"{_text(header, 'PatientName')}\\{_text(header, 'PatientBirthDate')}"


def _uid(header: Dataset, keyword: str) -> str:
    value = _text(header, keyword)
    if not value:
        raise NotUnderstood(f"{keyword} is missing or empty")
    if len(value) > 64 or not _UID.fullmatch(value):
        raise NotUnderstood(f"{keyword} is no UID")
    return value


def _text(header: Dataset, keyword: str) -> str:
    part10.check(header, [keyword])
    value = header.get(keyword)
    return "" if value is None else str(value).strip("\0 ")
