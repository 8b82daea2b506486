"""How fast, and in how much memory, a big segmentation is written; beside dcmqi's itkimage2segimage on the same masks.

    python tests/bench/bench_segmentation.py [--size 512] [--slices 400] [--segments 5] [--runs 3]

Each run is a process of its own, since peak memory is a process's; on a busy machine its CPU time says more. Our time
is from packed masks to the bytes of the file; the CPU time of the whole process, with its start, the headers and the
packing, stands beside it. dcmqi's is the run of its command, on masks in NRRD and the same source slices. It is
the one that scripts/install-viewer installs, else the one on PATH.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_NRRD = """NRRD0004
type: unsigned char
dimension: 3
space: left-posterior-superior
sizes: {columns} {rows} {slices}
space directions: (0.7,0,0) (0,0.7,0) (0,0,2.5)
space origin: (0,0,0)
encoding: raw

"""


def main() -> int:
    """Print medians of time and peak memory, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("size", 512), ("slices", 400), ("segments", 5), ("runs", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.folder:
        _prepare(asked.folder, asked.size, asked.slices, asked.segments)
        return 0
    if asked.one:
        print(json.dumps(_ours(asked.one, asked.segments)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        _compare(asked, Path(folder))
    return 0


def _compare(asked: argparse.Namespace, folder: Path) -> None:
    same = [sys.executable, __file__, "--segments", str(asked.segments)]
    subprocess.run([*same, "--folder", folder, "--size", str(asked.size), "--slices", str(asked.slices)], check=True)
    print(f"{asked.size} x {asked.size} x {asked.slices}, {asked.segments} segments; medians of {asked.runs} runs")
    command = _tool(folder)
    ours, theirs = [], []
    for _ in range(asked.runs):  # in turn, so that a busy machine is busy for both
        answer = subprocess.run([*same, "--one", folder], check=True, capture_output=True, text=True)
        ours.append(json.loads(answer.stdout))
        if command is not None:
            theirs.append(_timed(command))
    _say("medgem-node", ours, folder / "ours.dcm")
    if not theirs:
        print("dcmqi        absent: run scripts/install-viewer")
        return
    _say("dcmqi", theirs, folder / "theirs.dcm")
    keys = ("seconds", "cpu_seconds", "process_cpu_seconds", "peak_mb")
    ratios = [statistics.median(t[k] for t in theirs) / statistics.median(o[k] for o in ours) for k in keys]
    print("dcmqi / ours {:7.1f}   {:7.1f}       {:7.1f}           {:7.1f}".format(*ratios))


def _say(name: str, runs: list[dict[str, float]], file: Path) -> None:
    seconds, cpu, whole, mb = (
        statistics.median(r[k] for r in runs) for k in ("seconds", "cpu_seconds", "process_cpu_seconds", "peak_mb")
    )
    size_mb = file.stat().st_size / 1e6
    print(
        f"{name:12} {seconds:7.2f} s {cpu:7.2f} s CPU {whole:7.2f} s CPU process {mb:5.0f} MB peak,"
        f" file of {size_mb:.0f} MB"
    )


def _prepare(folder: Path, size: int, slices: int, segments: int) -> None:
    """Slices of an invented CT, and balls that do not touch one another, as labels: what dcmqi needs."""
    import numpy as np

    from medgem_node import testing

    (folder / "slices").mkdir()
    for n, image in enumerate(testing.ct_study(slices, size, size)):
        image.save_as(folder / "slices" / f"{n:04}.dcm", enforce_file_format=True)
    y, x = np.ogrid[0:size, 0:size]
    labels = np.zeros((slices, size, size), np.uint8)
    for k in range(segments):
        wide = (x - (k + 0.5) * size / segments) ** 2 / (0.45 * size / segments) ** 2
        labels[:, wide + (y - size / 2) ** 2 / (0.45 * size) ** 2 < 1] = k + 1  # in every slice: the most frames
    np.save(folder / "labels.npy", labels)
    codes = {
        "SegmentedPropertyCategoryCodeSequence": _code("91723000", "Anatomical Structure"),
        "SegmentedPropertyTypeCodeSequence": _code("39607008", "Lung"),
    }
    named = [
        {"labelID": k, "SegmentLabel": f"S{k}", "SegmentAlgorithmType": "AUTOMATIC", "SegmentAlgorithmName": "a"}
        | codes
        for k in range(1, segments + 1)
    ]
    meta = {"SeriesDescription": "S", "SeriesNumber": "1", "InstanceNumber": "1", "segmentAttributes": [named]}
    (folder / "meta.json").write_text(json.dumps(meta), "utf-8")


def _code(value: str, meaning: str) -> dict[str, str]:
    return {"CodeValue": value, "CodingSchemeDesignator": "SCT", "CodeMeaning": meaning}


def _ours(folder: Path, segments: int) -> dict[str, float]:
    import numpy as np
    from pydicom import dcmread

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from harness import chest

    from medgem_node import part10
    from medgem_node.finding import Analysis, Bits, Mask
    from medgem_node.writers import segmentation

    originals = [dcmread(path, stop_before_pixels=True) for path in sorted((folder / "slices").iterdir())]
    images = tuple(str(o.SOPInstanceUID) for o in originals)
    labels = np.load(folder / "labels.npy", mmap_mode="r")
    masks = tuple(
        Mask(f"S{k}", chest.ORGAN, chest.LUNG, images, Bits.from_frames(plane == k for plane in labels))
        for k in range(1, segments + 1)
    )
    del labels
    analysis = Analysis(chest.CARD.name, chest.CARD.version, images=images, masks=masks)
    film = chest.film(64, 48)  # a first small one, as in a running node: highdicom reads its tables at the first object
    segmentation.create(chest.SOURCE).write(chest.analysis(film), [film], (), chest.uid)
    begun, cpu = time.perf_counter(), time.process_time()
    (made,) = segmentation.create(chest.SOURCE).write(analysis, originals, (), chest.uid)
    data = part10.encode(made)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    (folder / "ours.dcm").write_bytes(data)
    whole = time.process_time()
    return {"seconds": seconds, "cpu_seconds": cpu, "process_cpu_seconds": whole, "peak_mb": peak_mb}


def _tool(folder: Path) -> list[str] | None:
    """The command of dcmqi, with its masks written; None if it is not there."""
    import numpy as np

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from harness import validators

    command = validators.program("itkimage2segimage")
    if command is None:
        return None
    labels = np.load(folder / "labels.npy")
    slices, rows, columns = labels.shape
    head = _NRRD.format(slices=slices, rows=rows, columns=columns).encode()
    (folder / "labels.nrrd").write_bytes(head + labels.tobytes())
    inputs = ["--inputImageList", folder / "labels.nrrd", "--inputDICOMDirectory", folder / "slices"]
    outputs = ["--inputMetadata", folder / "meta.json", "--outputDICOM", folder / "theirs.dcm"]
    return [str(part) for part in (command, *inputs, *outputs)]


def _timed(command: list[str]) -> dict[str, float]:
    """What a command took."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{command[0]} ended with {status}")
    cpu = usage.ru_utime + usage.ru_stime
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "cpu_seconds": cpu, "process_cpu_seconds": cpu, "peak_mb": usage.ru_maxrss / 1024}


if __name__ == "__main__":
    sys.exit(main())
