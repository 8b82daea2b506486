from __future__ import annotations

import io
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from harness import chest

from medgem_node.finding import Analysis, Bits, Heatmap, Mask, packed
from medgem_node.job import BadOutcome, Outcome, decode_outcome, encode_outcome


def a_mask(frames: int = 3, rows: int = 5, columns: int = 7) -> Mask:
    pixels = np.random.default_rng(1).random((frames, rows, columns)) > 0.5
    return Mask("Heart", chest.ORGAN, chest.HEART, ("1.2",) * frames, pixels, frames=tuple(range(1, frames + 1)))


def an_analysis(**parts: object) -> Analysis:
    return Analysis("m", "1.0.0", images=("1.2",), **parts)


def through_the_codec(analysis: Analysis) -> Analysis:
    back = decode_outcome(encode_outcome(Outcome("j", analysis))).analysis
    assert back is not None
    return back


def rewritten(blob: bytes, fields: dict | None = None, **arrays: np.ndarray | None) -> bytes:
    """The outcome with other arrays, and other fields of its first mask."""
    with np.load(io.BytesIO(blob)) as held:
        parts = {name: held[name] for name in held.files} | arrays
    outcome = json.loads(parts["outcome"].tobytes())
    outcome["analysis"]["masks"][0] |= fields or {}
    parts["outcome"] = np.frombuffer(json.dumps(outcome).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: part for name, part in parts.items() if part is not None})
    return buffer.getvalue()


@pytest.mark.parametrize("columns", [7, 8])
def test_packed_frames_read_like_the_array_they_were_made_of(columns: int) -> None:
    pixels = np.random.default_rng(0).random((3, 5, columns)) > 0.5

    for bits in (packed(pixels), Bits.from_frames(pixels)):
        assert bits.shape == (3, 5, columns)
        assert np.array_equal(np.asarray(bits), pixels)
        assert bits[-1].dtype == bool
        assert bits.any()
        assert not packed(np.zeros((2, 5, columns), bool)).any()


def test_a_packed_frame_takes_one_bit_a_pixel() -> None:
    assert packed(np.ones((2, 512, 512), bool)).data.nbytes == 2 * 512 * 512 // 8


@pytest.mark.parametrize(
    ("data", "rows", "columns"),
    [
        (np.zeros((1, 4), np.uint8), 5, 7),
        (np.zeros((1, 5), np.uint16), 5, 7),
        (np.zeros(5, np.uint8), 5, 7),
        (np.zeros((1, 0), np.uint8), 0, 7),
        (np.full((1, 5), 255, np.uint8), 5, 7),
    ],
)
def test_bytes_that_are_not_the_frames_they_say_are_refused(data: np.ndarray, rows: int, columns: int) -> None:
    with pytest.raises(ValueError, match=r"bits|bytes"):
        Bits(data, rows, columns)


def test_frames_of_two_sizes_are_no_mask() -> None:
    with pytest.raises(ValueError, match="2 sizes"):
        Bits.from_frames([np.ones((2, 2), bool), np.ones((2, 3), bool)])


def test_masks_come_out_of_an_outcome_packed_frame_by_frame() -> None:
    mask = a_mask()

    for sent in (mask, replace(mask, pixels=packed(mask.pixels))):
        back = through_the_codec(an_analysis(masks=(sent,))).masks[0]

        assert isinstance(back.pixels, Bits)
        assert back.frames == (1, 2, 3)
        assert np.array_equal(back.plane("1.2", 2), mask.pixels[1])
        assert back.plane("1.2", 4) is None


def test_the_heatmaps_of_frames_survive_an_outcome() -> None:
    values = np.random.default_rng(2).random((3, 4, 6)).astype(np.float32)
    heatmap = Heatmap("Heart", ("1.2",) * 3, values, "why", (1, 2, 3))

    back = through_the_codec(an_analysis(heatmaps=(heatmap,))).heatmaps[0]

    assert (back.frames, back.images, back.values.dtype) == ((1, 2, 3), heatmap.images, np.float32)
    assert back.plane("1.2", 3) == pytest.approx(values[2], abs=1e-3)


def test_an_outcome_of_before_masks_were_packed_by_frames_is_read() -> None:
    mask = replace(a_mask(), frames=())
    blob = encode_outcome(Outcome("j", an_analysis(masks=(mask,))))
    old = {k: v for k, v in asdict(replace(mask, pixels=None)).items() if k != "frames"}

    with np.load(io.BytesIO(blob)) as held:
        outcome = json.loads(held["outcome"].tobytes())
    outcome["analysis"]["masks"] = [old | {"pixels": [3, 5, 7]}]
    buffer = io.BytesIO()
    parts = {"outcome": np.frombuffer(json.dumps(outcome).encode(), np.uint8), "mask0": np.packbits(mask.pixels)}
    np.savez_compressed(buffer, **parts)

    back = decode_outcome(buffer.getvalue()).analysis
    assert back is not None
    assert np.array_equal(np.asarray(back.masks[0].pixels), mask.pixels)


@pytest.mark.parametrize(
    "fields",
    [
        {"pixels": [3, 5, 9]},
        {"pixels": [3, 5, 800000]},
        {"pixels": [4, 5, 7]},
        {"pixels": [-3, -5, 7]},
        {"images": ["1.2"] * 4},
        {"frames": [1]},
    ],
)
@pytest.mark.parametrize("old", [False, True])
def test_sizes_that_a_worker_made_up_are_a_bad_outcome(fields: dict, old: bool) -> None:
    blob = encode_outcome(Outcome("j", an_analysis(masks=(a_mask(),))))
    arrays = {"bits0": None, "mask0": np.packbits(a_mask().pixels)} if old else {}

    decode_outcome(rewritten(blob, **arrays))
    with pytest.raises(BadOutcome):
        decode_outcome(rewritten(blob, fields, **arrays))


def test_an_outcome_that_unpacks_to_gigabytes_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medgem_node.job.MAXIMUM_BYTES", 1 << 20)
    blob = encode_outcome(Outcome("j", an_analysis(masks=(a_mask(),))))

    with pytest.raises(BadOutcome):
        decode_outcome(rewritten(blob, more=np.zeros(2 << 20, np.uint8)))
