"""How fast the results of one radiograph of a real size are written: segmentation, heatmap, measurement report.

    python tests/bench/bench_film.py [--rows 3000] [--columns 2500] [--runs 5]

A DX of 12 bits made in code, with three masks, a heatmap and measurements, for the viewer profile `generic`. A run goes
from the analysis as the worker answers it, and the original as it lies in the archive, to the bytes of every object;
medians. The time of a processor is told too, which a busy machine changes less. The limit is for what is sent; what is
written to be sent only in place of something that a peer refuses comes after it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom import Dataset

    from medgem_node.seams import Writer

LIMIT_SECONDS = 0.5
TESTS = Path(__file__).resolve().parents[1]


def main() -> int:
    """Print the medians; 1 if they are above the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 3000), ("columns", 2500), ("runs", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    sys.path.insert(0, str(TESTS))
    from harness import chest

    from medgem_node import part10, plug
    from medgem_node.job import Outcome, decode_outcome, encode_outcome
    from medgem_node.publication import write_objects
    from medgem_node.viewer_profile import read_profile

    film = chest.film(asked.rows, asked.columns)
    analysis = decode_outcome(encode_outcome(Outcome("job", chest.analysis(film)))).analysis
    assert analysis is not None
    sent, generic = part10.encode(film), read_profile(TESTS.parent / "conf" / "profiles" / "generic.toml")
    print(f"DX {asked.rows} x {asked.columns}, profile {generic.name}, medians of {asked.runs} runs")

    def written(spares: bool) -> int:
        profile = generic if spares else replace(generic, instead={})
        made = write_objects(analysis, [part10.decode(sent)], chest.SOURCE, chest.uid, profile)
        return sum(len(part10.encode(thing.instance)) for thing in made)

    size_mb = written(spares=True) / 1e6  # imports, fonts
    made: list[Dataset] = []
    for kind in generic.objects:
        name, _, variant = kind.partition("/")
        writer = plug.load("writers", name).create(chest.SOURCE, *([variant] if variant else []))

        def alone(writer: Writer = writer, earlier: tuple[Dataset, ...] = tuple(made)) -> list[Dataset]:
            things = list(writer.write(analysis, [part10.decode(sent)], earlier, chest.uid))
            assert all(map(part10.encode, things))
            return things

        _tell(kind, asked.runs, alone)
        made += alone()
    whole = _tell("all that is sent", asked.runs, lambda: written(spares=False))
    _tell(f"with spares, {size_mb:.1f} MB", asked.runs, lambda: written(spares=True))
    print(f"  limit {LIMIT_SECONDS} s: {'kept' if whole < LIMIT_SECONDS else 'exceeded'}")
    return int(whole >= LIMIT_SECONDS)


def _tell(what: str, runs: int, work: Callable[[], object]) -> float:
    """Print and return the median."""
    walls, processors = [], []
    for _ in range(runs):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    wall, processor = statistics.median(walls), statistics.median(processors)
    print(f"  {what:<38} {wall:6.3f} s, {processor:6.3f} s of a processor", flush=True)
    return wall


if __name__ == "__main__":
    raise SystemExit(main())
