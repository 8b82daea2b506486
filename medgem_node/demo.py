"""A whole hospital on one machine: a PACS, this node, a real chest X-ray, and what comes back."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

from pydicom import Dataset

from medgem_node import testing
from medgem_node.dimse import scu

EXPECTED = ("SR", "SEG", "OT")
_NAMES = {"SR": "structured report (TID 1500)", "SEG": "segmentation", "OT": "heatmap (secondary capture)"}


def run_demo(say: Callable[[str], None], data: Path | None = None, stay: bool = False, seconds: float = 240.0) -> int:
    """Send the bundled film through a node and show what the PACS got; 0 only if everything came back."""
    folder = data or Path(mkdtemp(prefix="medgem-demo-"))
    film = testing.real_film()
    say(f"medgem-node demo, research use only; everything lies in {folder}")
    with (
        testing.FakePacs(folder=folder / "pacs") as pacs,
        testing.RunningNode(folder, {"PACS": pacs.url}) as node,
    ):
        us, log = node.peer, node.log_file
        say(f"  PACS      {pacs.title} on port {pacs.port}")
        say(f"  node      {us.ae_title} on port {us.port}, log in {log}")
        scu.store(us, "MODALITY", [film])
        sent = time.monotonic()
        say(f"  sent      a real chest X-ray, {film.Rows} x {film.Columns}, as {film.PatientName} {film.PatientID}")
        study = str(film.StudyInstanceUID)
        arrived_after: dict[str, float] = {}

        def everything_came() -> bool:
            for result in pacs.of_study(study):
                arrived_after.setdefault(str(result.SOPInstanceUID), time.monotonic() - sent)
            return {r.Modality for r in pacs.of_study(study)} >= set(EXPECTED)

        try:
            testing.wait_for(everything_came, seconds)
        except TimeoutError:
            say(f"  waited {seconds:.0f} s; see {log}")
        results = pacs.of_study(study)
        complete = _show(say, film, results, arrived_after, folder / "pacs" / study)
        if stay and complete:
            say(
                f"Stays up until Ctrl-C. Send more:  medgem-node send FILES --to dimse://{us.ae_title}@127.0.0.1:{us.port}"
            )
            signal.sigwait({signal.SIGINT, signal.SIGTERM})
    return 0 if complete else 1


def _show(
    say: Callable[[str], None], film: Dataset, results: list[Dataset], after: dict[str, float], folder: Path
) -> bool:
    say("")
    say(f"  {'came back':34}{'after':>8}  {'patient':24}file")
    for result in sorted(results, key=lambda r: after[str(r.SOPInstanceUID)]):
        name = _NAMES.get(result.Modality, result.Modality)
        patient = f"{result.PatientName} {result.PatientID}"
        file = folder / f"{result.Modality}-{result.SOPInstanceUID}.dcm"
        say(f"  {name:34}{after[str(result.SOPInstanceUID)]:6.1f} s  {patient:24}{file}")
    missing = [_NAMES[m] for m in EXPECTED if m not in {r.Modality for r in results}]
    strangers = [r for r in results if (r.PatientID, r.PatientName) != (film.PatientID, film.PatientName)]
    for name in missing:
        say(f"  MISSING   {name}")
    for result in strangers:
        say(f"  WRONG     {result.Modality} is under another patient")
    if missing or strangers:
        return False
    say("")
    say(f"  last C-STORE to last object in the PACS: {max(after.values()):.1f} s (1 s of it is the quiet time)")
    return True
