"""Tables in HTML: every figure with its interval and with what it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

NONE = "not measured"


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows of cells; the first cell of each names the row. A table without rows says so."""
    if not rows:
        return f"<p><b>{escape(caption)}</b>: {NONE} on these films.</p>"
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(_row(row) for row in rows)
    return (
        f'<div class="wide"><table><caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def figure(value: Mapping[str, Any] | None, digits: int = 3) -> str:
    """`0.974 (0.971 to 0.978)`; what is not known is not measured."""
    if value is None or value.get("value") is None:
        return NONE
    return f"{number(value['value'], digits)} ({number(value['low'], digits)} to {number(value['high'], digits)})"


def area(value: Mapping[str, Any] | None) -> str:
    """An area under a ROC. DeLong's interval has no width where no case is out of order, however few there are."""
    if value and value.get("value") in (0.0, 1.0) and value["low"] == value["high"]:
        return f"{number(value['value'])} (no interval: every case in order)"
    return figure(value)


def share(value: Mapping[str, Any] | None) -> str:
    """`21 of 24: 87.5 % (69.0 to 95.7)`."""
    if value is None or not value.get("films"):
        return NONE
    low, middle, high = (f"{100 * value[key]:.1f}" for key in ("low", "value", "high"))
    return f"{value['hits']} of {value['films']}: {middle} % ({low} to {high})"


def number(value: float | None, digits: int = 3) -> str:
    """With so many digits behind the point."""
    return NONE if value is None else f"{value:.{digits}f}"


def _row(row: Sequence[Any]) -> str:
    first, *others = (escape(str(cell)) for cell in row)
    return f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in others)}</tr>'
