"""The acceptor on a real socket, with pynetdicom and dcmtk as requestors."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)
from pynetdicom import AE, AllStoragePresentationContexts, build_context

from medgem_node import testing
from medgem_node.config import Config
from medgem_node.dimse import contexts, scu
from medgem_node.dimse.scp import Acceptor
from medgem_node.node import Node, open_node, start_acceptor
from medgem_node.peer import Peer


@pytest.fixture
def listening(node: Node) -> Iterator[tuple[Node, Peer]]:
    acceptor = start_acceptor(node)
    yield node, Peer("MEDGEM", "127.0.0.1", acceptor.port)
    acceptor.stop()


def kept(node: Node) -> list[bytes]:
    return [node.archive.get(i.key) for s in node.ledger.studies() for i in s.instances]


def status_of(peer: Peer, instance: Dataset) -> int:
    with scu.associate(peer, "MODALITY", contexts.proposed([instance]), 10) as association:
        return int(association.send_c_store(instance).Status)


def test_c_echo_is_answered(listening: tuple[Node, Peer]) -> None:
    scu.echo(listening[1], "MODALITY")


def test_an_instance_is_kept_as_the_bytes_that_came(listening: tuple[Node, Peer]) -> None:
    node, peer = listening
    film = testing.dx_instance()
    sent = DicomBytesIO()
    sent.is_little_endian, sent.is_implicit_VR = True, False
    write_dataset(sent, film)

    scu.store(peer, "MODALITY", [film])

    (bytes_kept,) = kept(node)
    assert bytes_kept.endswith(sent.getvalue())
    assert dcmread(DicomBytesIO(bytes_kept)).PatientName == film.PatientName


def test_every_storage_class_and_syntax_is_accepted(listening: tuple[Node, Peer]) -> None:
    wanted = [str(cx.abstract_syntax) for cx in AllStoragePresentationContexts]
    syntaxes = [
        str(s) for s in (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, JPEG2000Lossless)
    ]

    for chunk in (wanted[:100], wanted[100:]):
        asked = [build_context(uid, syntaxes[n % 4]) for n, uid in enumerate(chunk)]
        accepted = scu.accepted_contexts(listening[1], "MODALITY", asked)
        assert {a for a, _ in accepted} >= set(chunk)


def test_a_duplicate_is_accepted_once(listening: tuple[Node, Peer]) -> None:
    node, peer = listening
    film = testing.dx_instance()

    for _ in range(3):
        scu.store(peer, "MODALITY", [film])

    assert len(kept(node)) == 1


def test_the_same_uid_with_other_bytes_is_kept_beside_the_first(listening: tuple[Node, Peer]) -> None:
    node, peer = listening
    film = testing.dx_instance()
    scu.store(peer, "MODALITY", [film])
    film.BodyPartExamined = "THORAX"

    scu.store(peer, "MODALITY", [film])

    assert [dcmread(DicomBytesIO(b)).BodyPartExamined for b in kept(node)] == ["CHEST", "THORAX"]


@pytest.mark.parametrize(
    ("damage", "status"),
    [
        ({"StudyInstanceUID": ""}, 0xC000),
        ({"SeriesInstanceUID": None}, 0xC000),
        ({"StudyInstanceUID": "../../etc/passwd"}, 0xC000),
        ({"StudyInstanceUID": "1." + "2" * 70}, 0xC000),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_filed_is_answered_with_a_status(
    listening: tuple[Node, Peer], damage: dict[str, str | None], status: int
) -> None:
    node, peer = listening

    assert status_of(peer, testing.dx_instance(**damage)) == status
    assert kept(node) == []
    scu.echo(peer, "MODALITY")


def test_a_full_disk_is_answered_out_of_resources(make_config: Callable[..., Config]) -> None:
    node = open_node(make_config(settings=("receive.minimum_free_mb=100000000",)))
    acceptor = start_acceptor(node)

    status = status_of(Peer("MEDGEM", "127.0.0.1", acceptor.port), testing.dx_instance())

    acceptor.stop()
    node.ledger.close()
    assert status == 0xA700


def test_an_instance_over_the_limit_is_answered_out_of_resources(make_config: Callable[..., Config]) -> None:
    node = open_node(make_config(settings=("receive.maximum_instance_mb=1",)))
    acceptor = start_acceptor(node)
    large = testing.dx_instance(testing.chest_film(rows=1024, columns=1024))

    status = status_of(Peer("MEDGEM", "127.0.0.1", acceptor.port), large)

    acceptor.stop()
    node.ledger.close()
    assert status == 0xA700


def test_an_error_that_nobody_foresaw_is_answered_and_the_node_stays_up(config: Config) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("Doe^John")

    acceptor = Acceptor("MEDGEM", config.receive, broken)
    peer = Peer("MEDGEM", "127.0.0.1", acceptor.port)
    film = testing.dx_instance()
    with scu.associate(peer, "MODALITY", contexts.proposed([film]), 10) as association:
        answer = association.send_c_store(film)

    scu.echo(peer, "MODALITY")
    acceptor.stop()
    assert answer.Status == 0x0110
    assert "Doe" not in str(answer)


@pytest.mark.parametrize(
    ("settings", "calling", "called", "accepted"),
    [
        ((), "ANYBODY", "MEDGEM", True),
        ((), "ANYBODY", "OTHER", False),
        (('receive.called_ae=["OTHER"]',), "ANYBODY", "OTHER", True),
        (('receive.called_ae=["OTHER"]',), "ANYBODY", "MEDGEM", True),
        (('receive.called_ae=["*"]',), "ANYBODY", "WHATEVER", True),
        (('receive.calling_ae=["CT1"]',), "CT1", "MEDGEM", True),
        (('receive.calling_ae=["CT1"]',), "CT2", "MEDGEM", False),
    ],
)
def test_the_lists_of_titles_decide_who_may_send(
    make_config: Callable[..., Config], settings: tuple[str, ...], calling: str, called: str, accepted: bool
) -> None:
    config = make_config(settings=settings)
    acceptor = Acceptor("MEDGEM", config.receive, lambda _: None)

    ae = AE(calling)
    association = ae.associate("127.0.0.1", acceptor.port, [build_context("1.2.840.10008.1.1")], ae_title=called)
    established = association.is_established
    if established:
        association.release()
    acceptor.stop()

    assert established is accepted


def test_the_title_that_was_called_is_known(make_config: Callable[..., Config]) -> None:
    node = open_node(make_config(settings=('receive.called_ae=["CHEST"]',)))
    acceptor = start_acceptor(node)

    scu.store(Peer("CHEST", "127.0.0.1", acceptor.port), "CT1", [testing.dx_instance()])

    acceptor.stop()
    (study,) = node.ledger.studies()
    node.ledger.close()
    assert (study.called_ae, study.instances[0].calling_ae) == ("CHEST", "CT1")


@pytest.mark.skipif(not shutil.which("storescu"), reason="dcmtk is not installed")
def test_dcmtk_can_send(listening: tuple[Node, Peer], tmp_path: Path) -> None:
    node, peer = listening
    testing.dx_instance().save_as(tmp_path / "film.dcm", enforce_file_format=True)

    command = ["storescu", "-aec", "MEDGEM", "127.0.0.1", str(peer.port), str(tmp_path / "film.dcm")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert done.returncode == 0, done.stderr
    assert len(kept(node)) == 1


def test_every_syntax_that_the_model_side_can_decode_is_accepted() -> None:
    from medgem_node.frame import TRANSFER_SYNTAXES

    offered = {str(syntax) for syntax in contexts.accepted()[1].transfer_syntax}

    assert {str(syntax) for syntax in TRANSFER_SYNTAXES} <= offered
