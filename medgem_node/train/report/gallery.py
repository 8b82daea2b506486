"""Where the model fails, in pictures: `gallery.html`, written only when it is asked for.

It shows the site's own images, so it belongs where those may lie, and in no repository. Films are named by the first
figures of the SHA-256 of their name, by which a site that has the names finds them.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from medgem_node.card import ModelCard
from medgem_node.train.cases import Case
from medgem_node.train.data import Film
from medgem_node.train.evaluate_lesions import found_and_missed
from medgem_node.train.metrics.overlap import border, dice
from medgem_node.train.report.page import document, replace_text

WARNING = (
    "This page shows the images of the films that were measured: keep it as you keep these, and publish it nowhere."
)
_SIDE = 480  # pixels of a picture's longer side
_TRUTH, _FOUND, _MISSED = (80, 200, 255), (255, 190, 60), (255, 90, 90)
Worst = Callable[[Case], float]


def write(folder: Path, cases: Sequence[Case], card: ModelCard, most: int) -> Path:
    """`gallery.html` in `folder`, replaced whole: at most so many films of each way to fail, the worst first."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "gallery.html"
    told = "Blue: the truth, red where the film was refused. Yellow: what was found. Score behind each film's key."
    body = f'<p class="warning">{escape(WARNING)}</p><p class="note">{told}</p>' + "".join(
        _wall(title, failures(cases, worst)[:most]) for title, worst in kinds(card).items()
    )
    replace_text(page, document(f"Failures of {card.name} {card.version}", body))
    return page


def kinds(card: ModelCard) -> Mapping[str, Worst]:
    """Each way to fail, with how badly a film does; 0 or less is no failure."""
    found: dict[str, Worst] = {
        "Frontal films that were refused": lambda c: float(c.film.is_frontal and c.analysis is None) * (1 - c.frontal),
        "Other pictures that were analysed": lambda c: float(c.film.kind == "other" and c.analysis is not None),
        "Least overlap of the lungs": _apart,
        "Largest error of the cardiothoracic ratio": lambda c: float(np.nan_to_num(abs(c.ratio - c.true_ratio))),
    }
    for fields in card.findings:
        if "output" in fields:
            found[f"{fields['label']}: most missed"] = partial(_count, label=fields["label"], place=1)
            found[f"{fields['label']}: most false marks"] = partial(_count, label=fields["label"], place=2)
    return found


def failures(cases: Sequence[Case], worst: Worst) -> list[tuple[float, Case]]:
    """Those that fail, the worst first; of equals, by name."""
    scored = [(worst(case), case) for case in cases]
    return sorted((s for s in scored if s[0] > 0), key=lambda s: (-s[0], s[1].film.source, s[1].film.name))


def _apart(case: Case) -> float:
    if case.film.truth is None or case.analysis is None or not any(case.film.known):
        return 0.0
    right, left, _ = (mask.pixels[0] for mask in case.analysis.masks)
    return 1 - dice(right | left, case.film.truth[:2].max(axis=0) > 0.5)


def _count(case: Case, label: str, place: int) -> float:
    if case.film.lesions is None or not case.film.is_frontal:
        return 0.0
    return float(found_and_missed(case.film, case.analysis, label)[place])


def _wall(title: str, chosen: Sequence[tuple[float, Case]]) -> str:
    if not chosen:
        return f"<section><h2>{escape(title)}</h2><p>None.</p></section>"
    pictures = "".join(_figure(score, case) for score, case in chosen)
    return f'<section><h2>{escape(title)}</h2><div class="charts">{pictures}</div></section>'


def _figure(score: float, case: Case) -> str:
    told = f"{case.film.source} {film_key(case.film)}: {score:.3f}; {case.answer}"
    data = base64.b64encode(_png(picture(case))).decode()
    return f'<figure><figcaption>{escape(told)}</figcaption><img alt="" src="data:image/png;base64,{data}"></figure>'


def film_key(film: Film) -> str:
    """Twelve figures of the SHA-256 of a film's name."""
    return hashlib.sha256(film.name.encode()).hexdigest()[:12]


def picture(case: Case) -> Image.Image:
    """The film with the truth in blue (red on a film that was refused), and what was found in yellow."""
    film = case.film.loaded()
    low, high = np.percentile(film.pixels, (0.5, 99.5))
    grey = np.clip((film.pixels - low) / max(float(high - low), 1e-6) * 255, 0, 255).astype(np.uint8)
    factor = _SIDE / max(grey.shape)
    size = (max(1, round(grey.shape[1] * factor)), max(1, round(grey.shape[0] * factor)))
    image = Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR).convert("RGB")
    for mask, colour in _masks(case):
        _outline(image, mask, colour)
    draw = ImageDraw.Draw(image)
    for box, colour in _boxes(case, film):
        draw.rectangle([v * s for v, s in zip(box, (*size, *size), strict=True)], outline=colour, width=2)
    return image


def _masks(case: Case) -> Iterator[tuple[NDArray[np.bool_], tuple[int, int, int]]]:
    if case.film.truth is not None and any(case.film.known):
        yield from ((mask > 0.5, _TRUTH) for mask in case.film.truth)
    yield from ((mask.pixels[0], _FOUND) for mask in (case.analysis.masks if case.analysis else ()))


def _outline(image: Image.Image, mask: NDArray[np.bool_], colour: tuple[int, int, int]) -> None:
    """In place."""
    small = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(image.size)) > 127
    for row, column in border(small).tolist():
        image.putpixel((column, row), colour)


def _boxes(case: Case, film: Film) -> Iterator[tuple[tuple[float, ...], tuple[int, int, int]]]:
    """As parts of width and height."""
    rows, columns = film.pixels.shape
    for lesion in film.lesions or ():
        if lesion.counts:
            yield lesion.box, _TRUTH if case.analysis else _MISSED
    for finding in case.analysis.candidates if case.analysis else ():
        if finding.box and finding.present and not finding.mask:
            x0, y0, x1, y1 = finding.box.xyxy
            yield (x0 / columns, y0 / rows, x1 / columns, y1 / rows), _FOUND


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
