"""A radiologist's look: studies opened in the OHIF viewer by a headless Chromium, with pictures to keep."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from harness.pacs import viewer_folder
from numpy.typing import NDArray
from PIL import Image


def missing() -> str:
    """What is not installed, as a reason to skip; empty if all is there."""
    if not (viewer_folder() / "ohif/dist/index.html").exists():
        return "OHIF is not installed: run scripts/install-viewer"
    if not (viewer_folder() / "node_modules/playwright-core").exists():
        return "playwright-core is not installed: run scripts/install-viewer"
    absent = [name for name in ("node", "chromium") if shutil.which(name) is None]
    return f"{absent[0]} is not installed: run scripts/install-viewer" if absent else ""


@dataclass(frozen=True, eq=False)
class Shot:
    """One picture of the page, and where on it the image lies.

    `drawn` are the corners of what the page's own drawing holds, by measurement, in coordinates of the image shown.
    """

    name: str
    file: Path
    image: str
    frame: int
    drawn: Mapping[str, NDArray[np.float64]]
    pressed: str
    _origin: NDArray[np.float64]
    _axes: NDArray[np.float64]

    @property
    def rgb(self) -> NDArray[np.uint8]:
        """The picture: (rows, columns, 3)."""
        return np.asarray(Image.open(self.file).convert("RGB"))

    def on_page(self, points: Any) -> NDArray[np.float64]:
        """(n, 2) image coordinates as positions on the page."""
        return np.asarray(np.asarray(points, np.float64) @ self._axes + self._origin)

    def colours(self, points: Any) -> NDArray[np.int64]:
        """(n, 3): what the page shows at points of the image; those beside the page are left out."""
        at = np.floor(self.on_page(points)).astype(int)
        rgb = self.rgb
        inside = ((at >= 0) & (at < (rgb.shape[1], rgb.shape[0]))).all(axis=1)
        return np.asarray(rgb[at[inside, 1], at[inside, 0]], np.int64)


@dataclass(frozen=True, eq=False)
class Seen:
    """All that one look at a study found; `missing` is what was asked for and did not come."""

    display_sets: Sequence[Mapping[str, Any]]
    measurements: Sequence[Mapping[str, Any]]
    segments: Mapping[str, Mapping[str, Any]]
    shots: Mapping[str, Shot]
    panel: Sequence[str]
    missing: Sequence[str]
    warnings: Sequence[str]
    errors: Sequence[str]
    blocked_requests: Sequence[str]

    def measurement(self, label: str) -> Mapping[str, Any]:
        """The one whose label begins so."""
        (found,) = (m for m in self.measurements if m["label"].startswith(label))
        return found

    def mask(self, segment: str, image: str, frame: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """(rows, columns): the pixels of a segment as the viewer holds them."""
        pixels = np.zeros(shape[0] * shape[1], bool)
        runs = self.segments[segment]["runs"].get(f"{image}/{frame}", ())
        for start, length in zip(runs[::2], runs[1::2], strict=True):
            pixels[start : start + length] = True
        return pixels.reshape(shape)


class Viewer(AbstractContextManager["Viewer"]):
    """One Chromium, from `with` to its end; the second study opens faster than the first."""

    def __init__(self, width: int = 1600, height: int = 1000) -> None:
        self._size = width, height

    def __enter__(self) -> Viewer:
        width, height = self._size
        options = {"tools": viewer_folder(), "chromium": shutil.which("chromium"), "width": width, "height": height}
        script = str(Path(__file__).with_suffix(".mjs"))
        self._process = subprocess.Popen(
            ["node", script, *(f"--{name}={value}" for name, value in options.items())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "NODE_NO_WARNINGS": "1"},
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()  # it closes its browser and ends
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        self._process.stdout.close()

    def look(
        self,
        base_url: str,
        study_uid: str,
        out: Path,
        show: Sequence[str] = ("OT", "SEG", "SR"),
        *,
        jump: str = "",
        at: Sequence[str] = (),
        previews: bool = False,
        timeout_seconds: float = 90,
    ) -> Seen:
        """Opens a study, shows its series of the kinds `show` in this order, presses OHIF's own buttons.

        Parameters
        ----------
        out
            The folder for the PNG files.
        show
            Modalities; `OT` is a Secondary Capture and `PM` a Parametric Map, whatever modality they name.
        jump
            Goes to the first measurement and segment whose label holds this.
        at
            SOP Instance UIDs: scrolls to the first of them in a series of images.
        previews
            Takes a picture of a report and a segmentation before they are opened, too.
        """
        out.mkdir(parents=True, exist_ok=True)
        asked = {"base": base_url, "study": study_uid, "out": str(out / "ohif"), "show": list(show)}
        return _seen(
            self._ask({**asked, "jump": jump, "at": list(at), "previews": previews, "timeout": timeout_seconds})
        )

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        watch = threading.Timer(4 * question["timeout"], self._process.kill)
        watch.start()
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        finally:
            watch.cancel()
        if not line:
            raise RuntimeError("the viewer said nothing; its complaint is on stderr")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _seen(answer: dict[str, Any]) -> Seen:
    segments = {s["label"]: s for seg in answer.pop("segmentations") for s in seg["segments"]}
    shots = {shot["name"]: _shot(shot) for shot in answer.pop("shots")}
    return Seen(segments=segments, shots=shots, **answer)


def _shot(shot: Mapping[str, Any]) -> Shot:
    view = shot["view"] or {"image": "", "frame": 0, "origin": (0, 0), "across": (0, 0), "down": (0, 0)}
    return Shot(
        shot["name"],
        Path(shot["file"]),
        view["image"],
        view["frame"],
        {uid: np.asarray(points) for uid, points in shot.get("drawn", {}).items()},
        shot.get("pressed", ""),
        np.asarray(view["origin"], np.float64),
        np.asarray([view["across"], view["down"]], np.float64),
    )
