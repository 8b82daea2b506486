"""Draw docs/images/face-*.png: an invented head as anyone could render it from the images, before and after.

python scripts/faces_gallery.py            # about a minute
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "deid"))

from head_phantom import Scan, encoded, series  # noqa: E402

from medgem_node.deid.faces import face_masks  # noqa: E402

_VIEWS_DEGREES = (0.0, 35.0, 90.0)


def main() -> None:
    """Writes face-ct.png and face-mr.png: above before, below after, from three sides."""
    for scan, threshold in ((Scan("CT", pixel_mm=1.0, slice_mm=1.0), 724.0), (Scan("MR", "sagittal", 1.0, 1.0), 80.0)):
        images, truths = series(scan)
        masks = face_masks(encoded(images))
        before = np.stack([_values(image) for image in images])
        after = before.copy()
        changed = 0
        for n, image in enumerate(images):
            mask = masks[str(image.SOPInstanceUID)]
            after[n][mask] = before[n].min()
            changed += int((after[n] != before[n])[truths[n].brain].sum())
        rows = [_renderings(_upright(volume, scan), threshold) for volume in (before, after)]
        slices = [_middle(_upright(volume, scan)) for volume in (before, after)]
        name = ROOT / "docs" / "images" / f"face-{scan.modality.lower()}.png"
        Image.fromarray(np.vstack([np.hstack([row, cut]) for row, cut in zip(rows, slices, strict=True)])).save(
            name, optimize=True
        )
        print(f"{name.name}: brain pixels changed: {changed} of {sum(int(t.brain.sum()) for t in truths)}")


def render(volume: NDArray[np.float32], threshold: float, degrees: float) -> NDArray[np.uint8]:
    """The surface of a volume (z, y, x), foot to head and front to back, from so far to the left, lit from there."""
    _, height, width = volume.shape
    a = np.radians(degrees)
    y, x = np.mgrid[:height, :width] - np.array([height / 2, width / 2])[:, None, None]
    ys = np.rint(np.cos(a) * y - np.sin(a) * x + height / 2).astype(int)
    xs = np.rint(np.sin(a) * y + np.cos(a) * x + width / 2).astype(int)
    known = (ys >= 0) & (ys < height) & (xs >= 0) & (xs < width)
    turned = np.where(known, volume[:, ys.clip(0, height - 1), xs.clip(0, width - 1)], volume.min())
    tissue = turned > threshold
    depth = tissue.argmax(axis=1).astype(np.float32)
    seen = tissue.any(axis=1)
    smooth = _smoothed(np.where(seen, depth, height))
    down, across = np.gradient(smooth)
    light = (1.0 + 0.25 * across - 0.45 * down) / np.sqrt(1 + down**2 + across**2) / 1.15
    shade = np.clip(light, 0.05, 1.0) * (1.1 - 0.7 * depth / height)
    found: NDArray[np.uint8] = np.where(seen, np.clip(shade * 235, 12, 255), 0).astype(np.uint8)[::-1]
    return found


def _renderings(volume: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    return np.hstack([render(volume, threshold, degrees) for degrees in _VIEWS_DEGREES])


def _middle(volume: NDArray[np.float32]) -> NDArray[np.uint8]:
    cut = volume[::-1, :, volume.shape[2] // 2 + 2]
    found: NDArray[np.uint8] = np.clip((cut - 900 if cut.max() > 1500 else cut) / 700 * 255, 0, 255).astype(np.uint8)
    return found


def _upright(volume: NDArray[np.float32], scan: Scan) -> NDArray[np.float32]:
    """(z, y, x) without the table, from axial slices or from sagittal ones with the head up."""
    return volume[:, :234] if scan.plane == "axial" else np.ascontiguousarray(volume.transpose(1, 2, 0)[::-1])


def _values(image: Dataset) -> NDArray[np.float32]:
    return np.frombuffer(image.PixelData, "<u2").reshape(image.Rows, image.Columns).astype(np.float32)


def _smoothed(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    for axis in (0, 1):
        depth = (np.roll(depth, 1, axis) + depth + np.roll(depth, -1, axis)) / 3
    return depth


if __name__ == "__main__":
    main()
