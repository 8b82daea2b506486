"""What broken and hostile peers do to the port: each is ended, and the acceptor stays up."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO

import pytest
from harness import wire
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE

from medgem_node import testing
from medgem_node.config import ReceiveSection
from medgem_node.dimse import scu
from medgem_node.dimse.scp import Acceptor
from medgem_node.peer import Peer

DX = str(DigitalXRayImageStorageForPresentation)


@pytest.fixture(scope="module")
def sizes() -> list[int]:
    return []


@pytest.fixture(scope="module")
def peer(sizes: list[int]) -> Iterator[Peer]:
    options = ReceiveSection(host="127.0.0.1", port=0, idle_seconds=2.0, maximum_associations=4, maximum_instance_mb=8)
    acceptor = Acceptor("MEDGEM", options, lambda received: sizes.append(len(received.dataset)))
    yield Peer("MEDGEM", "127.0.0.1", acceptor.port)
    acceptor.stop()


@pytest.fixture
def kept(sizes: list[int]) -> list[int]:
    """The sizes of the instances that came through."""
    sizes.clear()
    return sizes


@pytest.fixture
def wire_to(peer: Peer) -> Iterator[Callable[[bytes], socket.socket]]:
    """A bare connection with these bytes written."""
    opened: list[socket.socket] = []

    def connect(data: bytes) -> socket.socket:
        opened.append(socket.create_connection((peer.host, peer.port), timeout=30))
        opened[-1].sendall(data)
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


def ends(connection: socket.socket) -> bool:
    """Whether the node closes it, at most with an A-ABORT (7) before."""
    connection.settimeout(30)
    try:
        answered = b"".join(iter(lambda: connection.recv(4096), b""))
    except ConnectionResetError:
        return True
    return answered[:1] in (b"", b"\x07")


PDUS = {
    "junk": b"\xff" * 1000,
    "HTTP": b"GET / HTTP/1.1\r\nHost: node\r\n\r\n",
    "half a request for an association": struct.pack(">BxL", 1, 200) + b"x" * 50,
    "a PDU of 4 GB": struct.pack(">BxL", 1, 0xFFFFFFFF) + b"x" * 50,
    "P-DATA without an association": struct.pack(">BxLLBB", 4, 6, 2, 1, 3),
    "a request of zeros": struct.pack(">BxL", 1, 68) + bytes(68),
    "an abort": struct.pack(">BxL", 7, 4) + bytes(4),
}


@pytest.mark.parametrize("name", PDUS)
def test_what_is_no_association_is_ended(wire_to: Callable[[bytes], socket.socket], peer: Peer, name: str) -> None:
    assert ends(wire_to(PDUS[name]))
    scu.echo(peer, "MODALITY", 30)


@contextmanager
def associated(peer: Peer) -> Iterator[Association]:
    """An association whose socket a test writes to itself."""
    with scu.associate(peer, "MODALITY", [build_context(DX, ExplicitVRLittleEndian)], 30) as association:
        yield association


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # so pynetdicom meets junk
@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">BxL", 4, 100_000) + b"x" * 50,
        struct.pack(">BxL", 4, 0xFFFFFFFF) + b"x" * 50,
        struct.pack(">BxLLBB", 4, 8, 4, 1, 3) + b"??",
        struct.pack(">BxLLBB", 4, 8, 4, 99, 3) + b"??",
    ],
    ids=["half a PDU, then silence", "4 GB", "a command of junk", "another context"],
)
def test_an_association_that_breaks_off_leaves_nothing_behind(peer: Peer, data: bytes) -> None:
    with associated(peer) as association:
        association.dul.socket.socket.sendall(data)
        testing.wait_for(lambda: not association.is_established, 30)

    testing.wait_for(lambda: not acceptors(), 30)  # pynetdicom alone would wait for the rest of the PDU for ever
    scu.echo(peer, "MODALITY", 30)


def acceptors() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "AcceptorThread" in thread.name]


def test_an_abort_within_an_instance_keeps_nothing_of_it(peer: Peer, kept: list[int]) -> None:
    data = bytes(20_000)
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = DX, "1.2.3"
    request.DataSet = BytesIO(data)
    message = C_STORE_RQ()
    message.primitive_to_message(request)

    with associated(peer) as association:
        fragments = list(message.encode_msg(association.accepted_contexts[0].context_id, 2048))
        for fragment in fragments[: len(fragments) // 2]:
            association.dul.send_pdu(fragment)
        association.abort()

    testing.wait_for(lambda: not acceptors(), 30)
    assert kept == []
    assert len(fragments) > 4


def test_an_instance_above_the_limit_is_answered_out_of_resources(peer: Peer, kept: list[int]) -> None:
    with wire.sender(peer, DX) as send:
        large = send(bytes(20 << 20), "1.2.3")  # receive.maximum_instance_mb is 8 here
        small = send(bytes(1000), "1.2.3")

    assert (large.Status, small.Status) == (0xA700, 0x0000)
    assert kept == [1000]


def test_connections_that_say_nothing_keep_nobody_out(peer: Peer, wire_to: Callable[[bytes], socket.socket]) -> None:
    silent = [wire_to(b"") for _ in range(12)]  # receive.maximum_associations is 4 here

    scu.echo(peer, "MODALITY", 30)

    assert all(ends(connection) for connection in silent)


def test_associations_above_the_limit_are_rejected_until_one_ends(peer: Peer) -> None:
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(associated(peer))
        with pytest.raises(scu.Rejected, match="limit of associations"):
            scu.echo(peer, "MODALITY", 30)

    testing.wait_for(lambda: not acceptors(), 30)
    scu.echo(peer, "MODALITY", 30)


@pytest.mark.parametrize("syntax", ["1.3.6.1.4.1.99999.1", "1.2.840.113619.5.2", DX])
def test_a_private_or_unknown_syntax_is_not_accepted(peer: Peer, syntax: str) -> None:
    accepted = scu.accepted_contexts(peer, "MODALITY", [build_context(DX, syntax)], 30)

    assert DX not in {abstract for abstract, _ in accepted}
