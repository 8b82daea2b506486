"""The acceptor: C-ECHO and C-STORE. Bytes as they were sent; no decoding, no encoding, no state of its own."""

from __future__ import annotations

import errno
import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pydicom import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.dsutils import encode_file_meta

from medgem_node.config import ReceiveSection
from medgem_node.dimse import contexts
from medgem_node.errors import ConfigError, MedgemError, OutOfResources

log = logging.getLogger(__name__)

PROCESSING_FAILURE = 0x0110
"""PS3.7 C.5.13; for what we cannot name."""

_LONGEST_PDU_BYTES = 64 << 20  # far above what we offer; a length of 4 GB is an attack or a lost byte
_LONGEST_COMMAND_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Received:
    """One C-STORE request. `dataset` are the bytes of the data set as sent, `header` the Part 10 header for them."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae: str
    called_ae: str
    header: bytes
    dataset: bytes


class Acceptor:
    """Listens until `stop`. `receive` keeps an instance durably, or raises what is answered instead of 0x0000."""

    def __init__(self, title: str, options: ReceiveSection, receive: Callable[[Received], None]) -> None:
        self._titles = {title, *options.called_ae}
        self._receive = receive
        self._maximum_instance_bytes = options.maximum_instance_mb << 20
        self._idle_seconds = options.idle_seconds
        _config.LOG_HANDLER_LEVEL = "none"  # pynetdicom's own log lines hold UIDs and names
        ae = _Entity(ae_title=title)
        ae.require_called_aet = "*" not in self._titles
        ae.require_calling_aet = list(options.calling_ae)
        ae.maximum_associations = options.maximum_associations
        ae.maximum_pdu_size = options.maximum_pdu_bytes
        ae.network_timeout = options.idle_seconds
        ae.dimse_timeout = options.idle_seconds
        ae.acse_timeout = options.idle_seconds
        ae.supported_contexts = contexts.accepted()
        handlers = [
            (evt.EVT_CONN_OPEN, self._prepare_connection),
            (evt.EVT_REQUESTED, self._answer_to_our_titles),
            (evt.EVT_PDU_RECV, self._keep_within_limits),
            (evt.EVT_REJECTED, _log_rejected),
            (evt.EVT_C_STORE, self._store),
        ]
        try:
            self._server = ae.start_server((options.host, options.port), block=False, evt_handlers=handlers)
        except OSError as exc:
            raise ConfigError(_cannot_listen(options, exc)) from exc

    @property
    def port(self) -> int:
        """The port that it listens on; useful when 0 was asked for."""
        return int(self._server.socket.getsockname()[1])

    def stop(self) -> None:
        """End every association and the listening."""
        self._server.shutdown()

    def _prepare_connection(self, event: evt.Event) -> None:
        connection: Any = event.assoc.dul.socket
        # an answer in two small writes would wait 40 ms for the peer's delayed acknowledgement
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # pynetdicom 3.0.4 waits without end for the rest of a PDU, and such an association counts until a restart
        connection.socket.settimeout(self._idle_seconds)
        receive: Callable[[int], bytearray] = connection.recv

        def receive_bounded(size_bytes: int) -> bytearray:
            if size_bytes > _LONGEST_PDU_BYTES:
                raise ConnectionAbortedError("PDU too long")
            return receive(size_bytes)

        connection.recv = receive_bounded

    def _keep_within_limits(self, event: evt.Event) -> None:
        """What grows above the limit is counted no further and not kept; `_store` then answers 0xA700."""
        message = event.assoc.dimse.message
        if message is None:
            return
        if message.data_set.tell() > self._maximum_instance_bytes:
            message.data_set = _Overflow()
        if message.encoded_command_set.tell() > _LONGEST_COMMAND_BYTES:
            message.encoded_command_set = _Overflow()  # cannot be decoded then, which ends the association

    def _answer_to_our_titles(self, event: evt.Event) -> None:
        # pynetdicom compares the called title with one of ours; there may be several (PS3.8 9.3.4, diagnostic 7)
        called = event.assoc.requestor.primitive.called_ae_title.strip()
        if called in self._titles:
            event.assoc.acceptor.ae_title = called

    def _store(self, event: evt.Event) -> int | Dataset:
        try:
            if isinstance(event.request.DataSet, _Overflow):
                raise OutOfResources("instance is larger than receive.maximum_instance_mb allows")
            self._receive(_received(event))
        except MedgemError as exc:
            log.warning("instance refused with 0x%04X: %s", exc.dimse_status, exc)
            return _status(exc.dimse_status, str(exc))
        except Exception as exc:  # an edge: whatever happens, the sender is told and the node stays up
            log.error("instance refused with 0x%04X: %s", PROCESSING_FAILURE, type(exc).__name__)
            return _status(PROCESSING_FAILURE, f"internal error: {type(exc).__name__}")
        return 0x0000


class _Entity(AE):  # type: ignore[misc]
    """Counts associations and not connections: who connects and says nothing keeps nobody out."""

    @property
    def active_associations(self) -> list[Association]:
        """Those that are established, and the one that asks."""
        asking = threading.current_thread()
        return [a for a in super().active_associations if a.is_established or a is asking]


class _Overflow(BytesIO):
    """Takes the rest of what is too large, and keeps none of it."""

    def write(self, data: Any) -> int:
        """Forget `data`."""
        return len(data)


def _received(event: evt.Event) -> Received:
    meta = event.file_meta
    primitive = event.assoc.requestor.primitive
    return Received(
        sop_class_uid=str(meta.MediaStorageSOPClassUID),
        sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
        transfer_syntax_uid=str(meta.TransferSyntaxUID),
        calling_ae=primitive.calling_ae_title.strip(),
        called_ae=primitive.called_ae_title.strip(),
        header=b"\x00" * 128 + b"DICM" + encode_file_meta(meta),
        dataset=event.encoded_dataset(include_meta=False),
    )


def _status(code: int, comment: str) -> Dataset:
    answer = Dataset()
    answer.Status = code
    answer.ErrorComment = comment.encode("ascii", "replace").decode("ascii").replace("\\", "/")[:64]
    return answer


def _log_rejected(event: evt.Event) -> None:
    log.warning("association rejected: calling or called AE title is not one of ours, or too many associations")


def _cannot_listen(options: ReceiveSection, exc: OSError) -> str:
    where = f"receive.port = {options.port} on {options.host}"
    if exc.errno == errno.EADDRINUSE:
        return f"{where}: in use by another program; stop it or choose another port"
    if exc.errno in (errno.EACCES, errno.EPERM):
        return f"{where}: not permitted; choose a port above 1023 or give the service the privilege"
    return f"{where}: cannot listen ({exc.strerror or exc}); check receive.host"
