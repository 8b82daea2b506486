"""The report of one evaluation: `evaluation.json`, and `index.html` made of nothing else.

The page holds no picture and no name of a film, loads nothing from anywhere, and is the same for the same figures.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from medgem_node.train.report import sections
from medgem_node.train.report.style import STYLE

Figures = Mapping[str, Any]


def write(folder: Path, figures: Figures) -> Path:
    """Both files, each replaced whole; the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / "evaluation.json", json.dumps(figures, indent=2, allow_nan=False) + "\n")
    page = folder / "index.html"
    replace_text(page, render(figures))
    return page


def render(figures: Figures) -> str:
    """The page. Figures that an evaluation lacks leave their section out."""
    title = f"Evaluation of {figures['model']} {figures['version']}, {figures['split']} split"
    return document(title, "".join(section(figures) for section in sections.ALL))


def document(title: str, body: str) -> str:
    """A page that needs no other file."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main><h1>{escape(title)}</h1>"
        '<p class="warning">Research use only. Not a medical device; these figures hold for the films named here.</p>'
        f"{body}</main></body></html>\n"
    )


def replace_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(text, "utf-8")
    os.replace(part, path)
