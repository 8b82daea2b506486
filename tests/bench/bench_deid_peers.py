"""De-identifiers side by side, in one run: what they let through, what they lose, and what they cost.

    python tests/bench/bench_deid_peers.py [--instances 200] [--few] [--peers FOLDER]

Installs the other tools into a virtual environment of their own (`--peers`, made when it is not there), writes the
planted corpus (tests/deid/planted.py) and a folder of CT instances of 0.5 MB, runs each tool over both with its own
defaults, and prints a table. CPU seconds are those of the tool's process, its start included; ratios are to reading
and writing the same bytes in one more process.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "deid"), str(HERE)]

from bench_deid import ct  # noqa: E402
from planted import FEW, WHOLE, Corpus, write_corpus  # noqa: E402
from scoring import Score, score  # noqa: E402

PEERS = ("dicognito==0.19.0", "dicom-anonymizer==2.1.0", "deid==0.4.13", "dcm-anonymizer==0.5.0", "dcmanon==0.3.1")
COPY = """
import pathlib, sys
for source in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    with open(source, "rb") as file: data = file.read()
    with open(sys.argv[2] + "/" + source.name, "wb") as file: file.write(data)
"""


@dataclass(frozen=True, slots=True)
class Run:
    """What a tool made of the corpus, and its CPU seconds over the CT instances."""

    name: str
    found: Score
    cpu_s: float
    instances: int


def main() -> None:
    """Run all of them and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--instances", type=int, default=200)
    options.add_argument("--peers", type=Path, default=Path.home() / ".cache" / "medgem-node-peers")
    options.add_argument("--few", action="store_true", help="18 files instead of 88")
    asked = options.parse_args()
    python = _installed(asked.peers)
    with tempfile.TemporaryDirectory(prefix="deid-") as name:
        folder = Path(name)
        corpus = write_corpus(folder / "corpus", FEW if asked.few else WHOLE)
        (folder / "ct").mkdir()
        for n in range(asked.instances):
            (folder / "ct" / f"{n:04d}.dcm").write_bytes(ct(n))
        runs = [_run(tool, [str(python), str(HERE / "deid_peers.py"), tool], folder, corpus)
                for tool in (peer.partition("==")[0] for peer in PEERS)]  # fmt: skip
        command = [sys.executable, "-m", "medgem_node.cli", "deidentify", "--processes", "1", "--data", str(folder)]
        runs.append(_run("medgem-node", command, folder, corpus))
        _print(runs, _cpu([sys.executable, "-c", COPY], folder / "ct", folder / "plain"), len(corpus.planted))


def _installed(folder: Path) -> Path:
    """The Python of the other tools' own environment."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "pillow", *PEERS], check=True)
    return python


def _run(name: str, command: list[str], folder: Path, corpus: Corpus) -> Run:
    _cpu(command, folder / "corpus", folder / name / "corpus")
    cpu_s = _cpu(command, folder / "ct", folder / name / "ct")
    made = sum(1 for path in (folder / name / "ct").rglob("*") if path.is_file())
    found = score(corpus, folder / name / "corpus")
    shutil.rmtree(folder / name)
    return Run(name, found, cpu_s, made)


def _cpu(command: list[str], source: Path, target: Path) -> float:
    """CPU seconds of a command and its children."""
    target.mkdir(parents=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    subprocess.run([*command, str(source), str(target)], check=True, env=environment,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _print(runs: list[Run], plain_s: float, planted: int) -> None:
    print(f"{planted} planted values; read and write: {plain_s:.2f} s CPU for {runs[-1].instances} instances\n")
    print("| tool | files written | leaks | attributes lost | references broken (dropped) | CPU ms/instance | x copy |")
    print("|---|---|---|---|---|---|---|")
    for run in runs:
        found, each = run.found, run.cpu_s / max(run.instances, 1)
        references = f"{len(found.broken)} ({len(found.dropped)}) of {found.references}"
        cost = f"{each * 1000:.1f} | {run.cpu_s / plain_s:.1f}" if run.instances else "- | -"
        print(f"| {run.name} | {found.written} | {len(found.leaks)} | {len(found.lost)} | {references} | {cost} |")


if __name__ == "__main__":
    main()
