"""What broken and hostile senders do: each ends in a clear status or a coded reason, and the node stays up."""

from __future__ import annotations

import hashlib
import json
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from harness import wire
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)
from test_path import Whole, whole

from medgem_node import config as configuration
from medgem_node import part10, testing
from medgem_node.config import shipped
from medgem_node.job import JobState
from medgem_node.node import now
from medgem_node.peer import Peer
from medgem_node.study import StudyState

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of what it writes and reads here

DX = str(DigitalXRayImageStorageForPresentation)
IDLE_SECONDS = 3.0
RULES = """
[[rule]]
name = "chest X-ray"
model = "chest-xray"
send_to = []
match = [
    { keyword = "Modality", operator = "in", value = ["CR", "DX"] },
    { keyword = "BodyPartExamined", operator = "is not", value = "KNEE" },
]
"""

Bytes = Callable[[Dataset], bytes]


@dataclass(frozen=True)
class Damage:
    """One way to be malformed. `make` gets a good film of its own and answers the bytes to send."""

    make: Bytes
    syntax: str = ExplicitVRLittleEndian
    refused: int | None = None  # the status to expect; None: kept, and answered by the pipeline


@dataclass(frozen=True)
class Answer:
    """How it ended."""

    status: int | None
    comment: str
    state: StudyState | None
    reason: str
    report: str


def with_(**attributes: object) -> Bytes:
    """The film with other values, written without a check."""
    return lambda film: wire.encoded(changed(film, attributes))


def changed(film: Dataset, attributes: dict[str, object]) -> Dataset:
    for keyword, value in attributes.items():
        if value is None:
            del film[keyword]
        else:
            setattr(film, keyword, value)
    return film


def raw(tag: int, vr: str, value: bytes, length: int | None = None) -> Bytes:
    """The film with one element as these bytes, in the place of its own."""

    def make(film: Dataset) -> bytes:
        before, after = Dataset(), Dataset()
        for each in film:
            if each.tag != tag:
                (before if each.tag < tag else after).add(each)
        return wire.encoded(before) + wire.element(tag, vr, value, length) + wire.encoded(after)

    return make


def cut(share: float) -> Bytes:
    def make(film: Dataset) -> bytes:
        data = wire.encoded(film)
        return data[: int(len(data) * share)]

    return make


def cut_in_header(at: int) -> Bytes:
    return lambda film: wire.encoded(film)[:at]


def nested(levels: int, undefined: bool) -> Bytes:
    """Request Attributes Sequence within itself."""

    def make(film: Dataset) -> bytes:
        inner = b""
        for _ in range(levels):
            if undefined:
                item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF) + inner + struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
                inner = wire.element(0x00400275, "SQ", item + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0), 0xFFFFFFFF)
            else:
                inner = wire.element(0x00400275, "SQ", struct.pack("<HHL", 0xFFFE, 0xE000, len(inner)) + inner)
        pixels = Dataset()
        pixels.add(film["PixelData"])
        del film.PixelData
        return wire.encoded(film) + inner + wire.encoded(pixels)

    return make


def frames(*fragments: bytes) -> Bytes:
    """The film with compressed pixels that are these fragments."""

    def make(film: Dataset) -> bytes:
        film.PixelData = (
            encapsulate(list(fragments)) if fragments else struct.pack("<HHLHHL", 0xFFFE, 0xE000, 0, 0xFFFE, 0xE0DD, 0)
        )
        film["PixelData"].VR = "OB"
        film["PixelData"].is_undefined_length = True
        return wire.encoded(film)

    return make


def deflated(film: Dataset, more: bytes = b"") -> bytes:
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return packer.compress(wire.encoded(film)) + packer.compress(more) + packer.flush()


def bomb(film: Dataset) -> bytes:
    """300 MB of zeros in a private element behind a good header: less than a megabyte on the wire."""
    del film.PixelData
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    size = 300 << 20
    parts = [packer.compress(wire.encoded(film) + wire.element(0x7FE00010, "OW", b"", size))]
    parts += [packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b"".join((*parts, packer.flush()))


def lut(descriptor: list[int], data: bytes) -> Bytes:
    def make(film: Dataset) -> bytes:
        item = Dataset()
        item.add_new("LUTDescriptor", "US", descriptor)
        item.add_new("ModalityLUTType", "LO", "US")
        item.add_new("LUTData", "OW", data)
        film.ModalityLUTSequence = [item]
        del film.RescaleSlope, film.RescaleIntercept, film.RescaleType
        return wire.encoded(film)

    return make


def only_nested_pixels(film: Dataset) -> bytes:
    icon = Dataset()
    icon.add(film["PixelData"])
    icon.Rows, icon.Columns = film.Rows, film.Columns
    del film.PixelData
    film.IconImageSequence = [icon]
    return wire.encoded(film)


def huge_but_empty(film: Dataset) -> bytes:
    film.Rows = film.Columns = 65535
    return wire.encoded(film)


DAMAGES: dict[str, Damage] = {
    "nothing at all": Damage(lambda _: b"", refused=0xC000),
    "cut within the first element": Damage(cut_in_header(5), refused=0xC000),
    **{f"cut after {at} bytes": Damage(cut_in_header(at), refused=0xC000) for at in (13, 60, 222, 333)},
    **{f"cut after {share:.0%}": Damage(cut(share)) for share in (0.1, 0.5, 0.999)},
    "cut within its UID": Damage(cut_in_header(101), refused=0xA900),
    "junk": Damage(lambda _: b"\xff\xfe\x00\x01" * 999, refused=0xC000),
    "text": Damage(lambda _: b"GET / HTTP/1.1\r\n\r\n" * 99, refused=0xC000),
    "a wrong group length": Damage(lambda f: wire.element(0x00080000, "UL", struct.pack("<L", 7)) + wire.encoded(f)),
    "an element beyond the end": Damage(raw(0x00081030, "LO", b"short", 60000), refused=0xC000),
    "three gigabytes announced": Damage(raw(0x7FE00010, "OW", b"\0" * 99, 3_000_000_000)),
    "three gigabytes in the header": Damage(raw(0x00080006, "UT", b"\0" * 99, 3_000_000_000), refused=0xC000),
    **{
        f"{how} {keyword}": Damage(with_(**{keyword: value}), refused=0xC000)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID")
        for how, value in (("no", None), ("empty", ""), ("dotted", "1..2"), ("climbing", "../../x"))
    },
    "another SOP Instance UID": Damage(with_(SOPInstanceUID="1.2.3.4"), refused=0xA900),
    "another SOP Class UID": Damage(with_(SOPClassUID="1.2.840.10008.5.1.4.1.1.2"), refused=0xA900),
    "no SOP Instance UID": Damage(with_(SOPInstanceUID=None), refused=0xC000),
    "no SOP Class UID": Damage(with_(SOPClassUID=None), refused=0xC000),
    "empty SOP Class UID": Damage(with_(SOPClassUID=""), refused=0xC000),
    "too few pixels": Damage(with_(PixelData=b"\0" * 100)),
    "no pixels": Damage(with_(PixelData=None)),
    "empty pixels": Damage(with_(PixelData=b"")),
    "implicit under explicit": Damage(lambda f: wire.encoded(f, implicit=True)),
    "explicit under implicit": Damage(wire.encoded, ImplicitVRLittleEndian),
    "big endian under little": Damage(lambda f: wire.encoded(f, little=False), refused=0xC000),
    "little endian under big": Damage(wire.encoded, ExplicitVRBigEndian, refused=0xC000),
    "not deflated": Damage(wire.encoded, DeflatedExplicitVRLittleEndian, refused=0xC000),
    "deflated and cut": Damage(lambda f: deflated(f)[:-999], DeflatedExplicitVRLittleEndian, refused=0xC000),
    "a deflated bomb": Damage(bomb, DeflatedExplicitVRLittleEndian, refused=0xC000),
    "no rows": Damage(with_(Rows=0)),
    "rows missing": Damage(with_(Rows=None)),
    "65535 x 65535": Damage(huge_but_empty),
    **{f"{bits} bits allocated": Damage(with_(BitsAllocated=bits)) for bits in (0, 7, 128)},
    "bits in an odd number of bytes": Damage(raw(0x00280100, "US", b"\1", 1)),
    "a modality of numbers": Damage(raw(0x00080060, "US", b"DX\0", 3), refused=0xC000),
    "a body part of numbers": Damage(raw(0x00180015, "UL", b"CHEST")),
    "a patient of numbers": Damage(raw(0x00100020, "UL", b"DEMO-"), refused=0xC000),
    "bits as text": Damage(raw(0x00280100, "LO", b"SIXTEEN")),
    **{f"{n} frames": Damage(raw(0x00280008, "IS", n.encode())) for n in ("abc", "0", "-1", "1000000000", "1e400")},
    "40 levels": Damage(nested(40, undefined=True)),
    "2000 levels": Damage(nested(2000, undefined=True), refused=0xC000),
    "2000 levels of defined length": Damage(nested(2000, undefined=False), refused=0xC000),
    "300 levels": Damage(nested(300, undefined=False), refused=0xC000),
    "a sequence without end": Damage(raw(0x00081140, "SQ", b"", 0xFFFFFFFF), refused=0xC000),
    "an item within nothing": Damage(raw(0x00081140, "LO", struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF), 8)),
    "garbage behind": Damage(lambda f: wire.encoded(f) + b"\xde\xad\xbe\xef" * 9),
    "a VR that is none": Damage(raw(0x00081030, "??", b"what"), refused=0xC000),
    "zero bytes for a VR": Damage(raw(0x00081030, "\0\0", b"what"), refused=0xC000),
    "an unknown character set": Damage(raw(0x00080005, "CS", b"KLINGON")),
    "a name in another character set": Damage(raw(0x00100010, "PN", b"\xff\xfe\x1b$B\x80")),
    "a broken escape": Damage(
        lambda f: raw(0x00100010, "PN", b"\x1b$B;3\x1b(J^\x1b$")(changed(f, {"SpecificCharacterSet": "ISO 2022 IR 87"}))
    ),
    "a centre that is no number": Damage(raw(0x00281050, "DS", b"NaN")),
    "a centre of text": Damage(raw(0x00281050, "DS", b"middle")),
    "a negative width": Damage(raw(0x00281051, "DS", b"-400")),
    "a width of bytes": Damage(raw(0x00281051, "DS", b"\xff\xff")),
    "a slope that is no number": Damage(raw(0x00281053, "DS", b"NaN")),
    "a slope of text": Damage(raw(0x00281053, "DS", b"steep")),
    "a slope without end": Damage(raw(0x00281053, "DS", b"-1e999")),
    "an intercept of bytes": Damage(raw(0x00281052, "DS", b"\xff\xff")),
    "a spacing of text": Damage(raw(0x00280030, "DS", b"wide\\high")),
    "a table that is longer than its data": Damage(lut([4096, 0, 16], b"\0\1" * 10)),
    "a table of no bits": Damage(lut([0, 0, 0], b"\0\1")),
    "a table without a description": Damage(lut([1], b"\0\1")),
    "no fragments": Damage(frames(), JPEG2000Lossless),
    "fragments without end": Damage(lambda f: frames(b"\xff\x4f\xff\x51" + b"x" * 90)(f)[:-40], JPEG2000Lossless),
    "JPEG 2000 of garbage": Damage(frames(b"\xff\x4f\xff\x51" + b"garbage!" * 50), JPEG2000Lossless),
    "JPEG-LS of garbage": Damage(frames(b"\xff\xd8\xff\xf7" + b"garbage!" * 50), JPEGLSLossless),
    "run lengths of garbage": Damage(frames(b"\x01\0\0\0\x40\0\0\0" + b"garbage!" * 50), RLELossless),
    "native under compressed": Damage(wire.encoded, JPEG2000Lossless),
    "compressed under native": Damage(frames(b"\xff\x4f\xff\x51" + b"garbage!" * 50)),
    "a patient ID of 5 KB": Damage(with_(PatientID="4711" * 1250)),
    "no patient": Damage(with_(PatientID=None, PatientName=None, PatientBirthDate=None)),
    "two patients in one ID": Damage(with_(PatientID=["A", "B"])),
    "a date that is none": Damage(raw(0x00080020, "DA", b"tomorrow")),
    "pixels in a sequence only": Damage(only_nested_pixels),
    "the same element twice": Damage(lambda f: wire.element(0x00080005, "CS", b"ISO_IR 100") + wire.encoded(f)),
    "a modality in two": Damage(with_(Modality=["DX", "CT"])),
    "overlays in disguise": Damage(raw(0x60000102, "SQ", b"")),
    "a study UID with padding": Damage(
        lambda f: raw(0x0020000D, "UI", str(f.StudyInstanceUID).encode() + b"\0 \0 ")(f)
    ),
    "a study UID with a blank before": Damage(
        lambda f: raw(0x0020000D, "UI", b" " + str(f.StudyInstanceUID).encode())(f)
    ),
}


def film() -> Dataset:
    return testing.dx_instance(testing.chest_film(rows=64, columns=64), AccessionNumber=generate_uid()[-12:])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model with weights of chance: what it answers is nothing, that it answers is the point."""
    import torch
    from safetensors.torch import save

    from medgem_node.card import read_card
    from medgem_node.detector.hiera import NetworkConfig
    from medgem_node.detector.network import ChestNetwork

    folder = tmp_path_factory.mktemp("models") / "chest-xray" / "1.0.0"
    (folder / "golden").mkdir(parents=True)
    (folder / "golden" / "golden.json").write_text(json.dumps({"expected": {}, "tolerance": 1}))
    manifest = (shipped("models") / "chest-xray" / "1.0.0" / "model.toml").read_text("utf-8")
    (folder / "model.toml").write_text(manifest, "utf-8")
    torch.manual_seed(0)
    weights = save(ChestNetwork(NetworkConfig.read(read_card(folder).network)).state_dict())
    (folder / "weights.safetensors").write_bytes(weights)
    digest = hashlib.sha256(weights).hexdigest()
    (folder / "model.toml").write_text(re.sub(r'sha256 = "[0-9a-f]{64}"', f'sha256 = "{digest}"', manifest), "utf-8")
    return folder.parent.parent


@pytest.fixture(scope="module")
def us(models: Path) -> Iterator[Whole]:
    """A node that keeps its files in memory where it can: a hundred studies are synced to the disk many times each."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        folder = Path(name)
        (folder / "node.toml").write_text(
            f'[node]\ndata = "{folder / "data"}"\nmodels = "{models}"\n[receive]\nhost = "127.0.0.1"\nport = 0\n'
            f"minimum_free_mb = 1\nmaximum_instance_mb = 8\nidle_seconds = {IDLE_SECONDS}\n"
            '[pipeline]\nquiet_seconds = 0.0\n[results]\nprofile = "generic"\n'
        )
        (folder / "rules.toml").write_text(RULES)
        with whole(configuration.read_config(folder / "node.toml")) as opened:
            yield opened


@pytest.fixture(scope="module")
def peer(us: Whole) -> Peer:
    return Peer("MEDGEM", "127.0.0.1", us.acceptor.port)


@pytest.fixture(scope="module")
def answers(us: Whole, peer: Peer) -> dict[str, Answer]:
    """Every damage sent, then the pipeline run until nothing moves."""
    sent: dict[str, tuple[str, int | None, str]] = {}
    for syntax in {damage.syntax for damage in DAMAGES.values()}:
        with wire.sender(peer, DX, syntax) as send:
            for name, damage in DAMAGES.items():
                if damage.syntax == syntax:
                    good = film()
                    study, sop_instance_uid = str(good.StudyInstanceUID), str(good.SOPInstanceUID)
                    response = send(damage.make(good), sop_instance_uid)
                    sent[name] = study, response.Status, response.ErrorComment
    for minutes in range(5, 9):
        us.run(now() + timedelta(minutes=minutes))
    return {name: answer(us, *what) for name, what in sent.items()}


def answer(us: Whole, uid: str, status: int | None, comment: str) -> Answer:
    study = us.node.ledger.study(uid)
    jobs = us.node.ledger.jobs(study=uid)
    reason = jobs[0].reason if jobs else study.reason if study else ""
    results = us.node.ledger.results(jobs[0].job.job_id) if jobs else ()
    report = str(part10.decode(us.node.archive.get(results[0].key))) if results else ""
    return Answer(status, comment, study.state if study else None, reason, report)


@pytest.mark.parametrize("name", [name for name, damage in DAMAGES.items() if damage.refused])
def test_what_cannot_be_kept_is_refused_with_a_clear_status(answers: dict[str, Answer], name: str) -> None:
    answer = answers[name]

    assert (answer.status, answer.state) == (DAMAGES[name].refused, None)
    assert 5 < len(answer.comment) <= 64
    assert "internal error" not in answer.comment


@pytest.mark.parametrize("name", [name for name, damage in DAMAGES.items() if not damage.refused])
def test_what_is_kept_ends_in_a_coded_reason(answers: dict[str, Answer], name: str) -> None:
    answer = answers[name]

    assert answer.status == 0x0000
    assert answer.state in (StudyState.PREPARED, StudyState.HELD, StudyState.UNMATCHED)
    assert answer.reason
    assert (answer.state is StudyState.PREPARED) == ("not analysed" in answer.report.lower())


def test_no_step_met_what_nobody_foresaw(answers: dict[str, Answer], us: Whole) -> None:
    assert us.pipeline.troubles == set()
    assert {job.state for job in us.node.ledger.jobs()} == {JobState.DONE}
    assert us.node.audit.broken_at() is None


def test_after_all_of_that_a_good_film_is_received_and_answered(answers: dict[str, Answer], us: Whole) -> None:
    good = film()
    us.receive(good)

    us.run(now() + timedelta(minutes=30))

    last = answer(us, str(good.StudyInstanceUID), 0x0000, "")
    assert last.state is StudyState.PREPARED
    assert "research use only" in last.report.lower()
