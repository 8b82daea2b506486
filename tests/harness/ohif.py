"""A radiologist's look: a study opened in the OHIF viewer by a headless Chromium, with pictures to keep."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.pacs import viewer_folder


def missing() -> str:
    """What is not installed, as a reason to skip; empty if all is there."""
    if not (viewer_folder() / "ohif/dist/index.html").exists():
        return "OHIF is not installed: run scripts/install-viewer"
    if not (viewer_folder() / "node_modules/playwright-core").exists():
        return "playwright-core is not installed: run scripts/install-viewer"
    absent = [name for name in ("node", "chromium") if shutil.which(name) is None]
    return f"{absent[0]} is not installed: run scripts/install-viewer" if absent else ""


def inspect(
    base_url: str,
    study_uid: str,
    out: Path,
    *,
    min_measurements: int,
    min_segments: int,
    show: Sequence[str] = ("OT", "SEG", "SR"),
    timeout_seconds: float = 90,
) -> dict[str, Any]:
    """Opens a study, shows its series of the modalities `show` in this order, presses OHIF's own buttons.

    Returns
    -------
    What was seen: `displaySets`, `measurements`, `segmentations`, `panel`, `shots` (PNG files in `out`), `warnings`,
    `errors`, `blockedRequests`, and `missing`: what was asked for and not seen.
    """
    out.mkdir(parents=True, exist_ok=True)
    options = {
        "base": base_url,
        "study": study_uid,
        "out": out / "ohif",
        "tools": viewer_folder(),
        "chromium": shutil.which("chromium"),
        "show": ",".join(show),
        "min-measurements": min_measurements,
        "min-segments": min_segments,
        "timeout": timeout_seconds,
    }
    done = subprocess.run(
        ["node", str(Path(__file__).with_suffix(".mjs")), *(f"--{name}={value}" for name, value in options.items())],
        capture_output=True,
        text=True,
        timeout=4 * timeout_seconds,
        env={**os.environ, "NODE_NO_WARNINGS": "1"},
    )
    if not done.stdout.strip():
        raise RuntimeError(f"the viewer said nothing (exit {done.returncode}): {done.stderr[-1500:]}")
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen
