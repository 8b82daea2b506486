import logging
import socket

import pytest
from pydicom.uid import ComprehensiveSRStorage, SegmentationStorage

from medgem_node import testing
from medgem_node.dimse import scu
from medgem_node.errors import DeliveryFailed, Refused
from medgem_node.peer import Peer

DX = "1.2.840.10008.5.1.4.1.1.1.1"


def test_every_instance_arrives_as_it_was() -> None:
    films = [testing.dx_instance(), testing.dx_instance()]

    with testing.FakePacs() as pacs:
        scu.store(pacs.peer, "MEDGEM", films)

    assert set(pacs.instances) == {str(f.SOPInstanceUID) for f in films}
    assert pacs.instances[str(films[0].SOPInstanceUID)].PixelData == films[0].PixelData


def test_only_what_is_sent_is_proposed() -> None:
    from medgem_node.dimse.contexts import proposed

    assert [str(cx.abstract_syntax) for cx in proposed([testing.dx_instance(), testing.dx_instance()])] == [DX]


def test_a_refused_sop_class_is_told_apart_and_the_rest_arrives() -> None:
    film, slice_ = testing.dx_instance(), testing.ct_study(1)[0]

    with testing.FakePacs(refuse=[DX]) as pacs, pytest.raises(Refused, match="Digital X-Ray") as raised:
        scu.store(pacs.peer, "MEDGEM", [film, slice_])

    assert raised.value.delivered == {str(slice_.SOPInstanceUID)}
    assert set(pacs.instances) == {str(slice_.SOPInstanceUID)}


@pytest.mark.parametrize(
    ("status", "error"), [(0xA700, DeliveryFailed), (0x0110, DeliveryFailed), (0xA900, Refused), (0xC123, Refused)]
)
def test_every_failure_status_is_looked_at(status: int, error: type[Exception]) -> None:
    with testing.FakePacs(status=lambda _: status) as pacs, pytest.raises(error, match=f"0x{status:04X}"):
        scu.store(pacs.peer, "MEDGEM", [testing.dx_instance()])


@pytest.mark.parametrize("status", [0xB000, 0xB007, 0x0111])
def test_a_warning_and_a_known_duplicate_are_deliveries(status: int) -> None:
    with testing.FakePacs(status=lambda _: status) as pacs:
        scu.store(pacs.peer, "MEDGEM", [testing.dx_instance()])


def test_a_pacs_that_is_not_there_is_a_failure_to_retry() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    with pytest.raises(DeliveryFailed, match="not reachable"):
        scu.store(Peer("PACS", "127.0.0.1", port), "MEDGEM", [testing.dx_instance()], timeout_seconds=2)


def test_a_pacs_that_accepts_nothing_we_send_is_told() -> None:
    with testing.FakePacs(refuse=[DX]) as pacs, pytest.raises((DeliveryFailed, Refused), match="accept"):
        scu.store(pacs.peer, "MEDGEM", [testing.dx_instance()])


def test_a_peer_tells_which_classes_it_takes() -> None:
    from pynetdicom import build_context

    asked = [build_context(SegmentationStorage), build_context(ComprehensiveSRStorage)]
    with testing.FakePacs(refuse=[SegmentationStorage]) as pacs:
        accepted = scu.accepted_contexts(pacs.peer, "MEDGEM", asked)

    assert SegmentationStorage not in {a for a, _ in accepted}
    assert ComprehensiveSRStorage in {a for a, _ in accepted}


def test_no_log_line_names_the_patient(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "medgem_node")

    with testing.FakePacs(status=lambda _: 0xA900) as pacs, pytest.raises(Refused):
        scu.store(pacs.peer, "MEDGEM", [testing.dx_instance()])

    assert "Invented" not in caplog.text
    assert "DEMO-4711" not in caplog.text


def test_no_response_is_lost_while_the_processor_is_busy() -> None:
    import threading

    stop = threading.Event()

    def burn() -> None:
        while not stop.is_set():
            sum(range(2000))

    burners = [threading.Thread(target=burn) for _ in range(3)]
    small = testing.ct_study(1, rows=16, columns=16) * 25
    try:
        with testing.FakePacs() as pacs:
            for burner in burners:
                burner.start()
            scu.store(pacs.peer, "MEDGEM", small, timeout_seconds=10)
    finally:
        stop.set()
        for burner in burners:
            burner.join()

    assert len(pacs.arrivals) == 25
