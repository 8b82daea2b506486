"""The requestor: C-ECHO and C-STORE to a peer."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from pydicom import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import Verification

from medgem_node.dimse import contexts
from medgem_node.errors import DeliveryFailed, MedgemError, Refused
from medgem_node.peer import Peer

log = logging.getLogger(__name__)


class Unreachable(MedgemError):
    """No connection to the peer."""

    retryable = True


class Rejected(MedgemError):
    """The peer rejected the association."""


class NothingAccepted(Rejected):
    """The peer takes none of the kinds of object that were proposed."""


@contextmanager
def associate(
    peer: Peer, calling: str, proposed: list[PresentationContext], timeout_seconds: float
) -> Iterator[Association]:
    """An association with `peer`, released at the end. Raises Unreachable, Rejected, NothingAccepted."""
    _config.LOG_HANDLER_LEVEL = "none"
    ae = AE(ae_title=peer.calling or calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = timeout_seconds
    ae.requested_contexts = proposed
    ae.maximum_pdu_size = 1_048_576
    handlers = [(evt.EVT_CONN_OPEN, _prepare)]
    try:
        association = ae.associate(peer.host, peer.port, ae_title=peer.ae_title, evt_handlers=handlers)
    except OSError as exc:  # a host name that nobody knows
        raise Unreachable(f"{peer} is not reachable: {type(exc).__name__}; check the host's name") from exc
    if association.is_rejected:
        primitive = association.acceptor.primitive
        diagnostic = primitive.diagnostic if primitive else None
        raise Rejected(
            f"{peer} rejected our association: {_rejection(primitive.result_source if primitive else 0, diagnostic)}"
        )
    if not association.is_established:
        if association.acceptor.primitive is not None and not association.accepted_contexts:
            raise NothingAccepted(f"{peer} accepted none of the presentation contexts that were proposed")
        raise Unreachable(f"{peer} is not reachable: no answer to a connection or an association request")
    try:
        yield association
    finally:
        association.release()


def echo(peer: Peer, calling: str, timeout_seconds: float = 10.0) -> None:
    """C-ECHO. Raises Unreachable, Rejected, DeliveryFailed."""
    with associate(peer, calling, [build_context(Verification)], timeout_seconds) as association:
        status = association.send_c_echo()
    if "Status" not in status or status.Status != 0x0000:
        raise DeliveryFailed(f"{peer} did not answer C-ECHO with success")


def accepted_contexts(
    peer: Peer, calling: str, proposed: list[PresentationContext], timeout_seconds: float = 10.0
) -> tuple[tuple[str, str], ...]:
    """The (abstract syntax, transfer syntax) pairs that the peer takes of `proposed`; none when it rejects all."""
    contexts_and_echo = [build_context(Verification), *proposed]
    with suppress(NothingAccepted), associate(peer, calling, contexts_and_echo, timeout_seconds) as association:
        return tuple((str(cx.abstract_syntax), str(cx.transfer_syntax[0])) for cx in association.accepted_contexts)
    return ()


def store(
    peer: Peer,
    calling: str,
    instances: Sequence[Dataset],
    timeout_seconds: float = 30.0,
    sent: Callable[[Dataset], None] = lambda _: None,
) -> None:
    """C-STORE every instance in one association; returns when the peer answered success for each.

    `sent` is called after each that was taken. Raises DeliveryFailed when at least one may be taken later, else
    Refused when at least one never will; both name what was delivered.
    """
    delivered: set[str] = set()
    later: list[str] = []
    never: list[str] = []
    try:
        with associate(peer, calling, contexts.proposed(instances), timeout_seconds) as association:
            for instance in instances:
                verdict, reason = _store_one(association, instance)
                if verdict == "delivered":
                    delivered.add(str(instance.SOPInstanceUID))
                    sent(instance)
                else:
                    (never if verdict == "refused" else later).append(reason)
    except NothingAccepted as exc:
        names = "; ".join(dict.fromkeys(f"{i.SOPClassUID.name} is not accepted" for i in instances))
        raise Refused(f"{peer}: {names}") from exc
    except (Unreachable, Rejected) as exc:
        if not delivered:
            raise DeliveryFailed(str(exc)) from exc
        later.append(str(exc))
    if later:
        raise DeliveryFailed(f"{peer}: {'; '.join(dict.fromkeys(later))}", delivered)
    if never:
        raise Refused(f"{peer}: {'; '.join(dict.fromkeys(never))}", delivered)


def _store_one(association: Association, instance: Dataset) -> tuple[str, str]:
    name = instance.SOPClassUID.name
    if not association.is_established:
        return "later", "the peer ended the association"
    try:
        status = association.send_c_store(instance)
    except ValueError:
        return "refused", f"{name} is not accepted"
    except (RuntimeError, OSError) as exc:
        return "later", f"{name} could not be sent ({type(exc).__name__})"
    if "Status" not in status:
        return "later", f"no answer to {name}"
    return _verdict(int(status.Status), name)


def _verdict(status: int, name: str) -> tuple[str, str]:
    """PS3.4 B.2.3: success and warnings are delivered; a full peer may take it later; the rest never.

    0x0111, duplicate SOP instance (PS3.7 C.5.6): the peer has it, since no one else makes our UIDs.
    """
    if status in (0x0000, 0x0111) or 0xB000 <= status <= 0xBFFF:
        return "delivered", ""
    if 0xA700 <= status <= 0xA7FF or status in (0x0110, 0x0210, 0x0213):
        return "later", f"{name} was answered 0x{status:04X}"
    return "refused", f"{name} was answered 0x{status:04X}"


class _PatientDimse(DIMSEServiceProvider):  # type: ignore[misc]
    """Leaves every response to the `send_*` that waits for it.

    pynetdicom 3.0.4's own reactor can take a C-STORE response away from `send_c_store` when it comes fast
    (upstream #850, #875): the call then runs into its timeout. As a requestor of C-ECHO and C-STORE we expect no
    requests, so the reactor, the only non-blocking reader, need never take a message.
    """

    def __init__(self, association: Association) -> None:
        super().__init__(association)
        self._pause = threading.Event()

    def get_msg(self, block: bool = False) -> Any:
        """The next message for a waiting `send_*`; nothing for the reactor."""
        if block:
            return super().get_msg(True)
        self._pause.wait(0.001)
        return None, None


def _prepare(event: evt.Event) -> None:
    association = event.assoc
    association.dimse = _PatientDimse(association)
    connection: Any = association.dul.socket
    connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _rejection(source: int, diagnostic: int | None) -> str:
    """PS3.8 9.3.4, in words."""
    texts = {
        (1, 2): "application context not supported",
        (1, 3): "it does not know our AE title; add it there",
        (1, 7): "it does not answer to the AE title we called; check its spelling",
        (3, 1): "it is congested for the moment",
        (3, 2): "its limit of associations is reached",
    }
    return texts.get((source, diagnostic or 0), "it gave no reason")
