"""The gate: what was shown against what was answered, real pictures apart from made ones, and its ROC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medgem_node.train.report.plots import SHARE, Axis, Series, chart
from medgem_node.train.report.tables import area, share, table

_NOTE = (
    '<p class="note">The pixels alone decide here: what a header says, which a node asks first, is left out. '
    "A frontal chest is answered rightly by an analysis, every other picture by a reason why not.</p>"
)
_NO_LATERAL = '<p class="note">No lateral chest film was shown: what the gate does with one is not measured.</p>'


def confusion(found: Mapping[str, Any]) -> str:
    """Both tables, the areas and the curve."""
    told = "" if any("lateral" in row["shown"].lower() for row in found["real"]) else _NO_LATERAL
    real = _table("Real pictures, as they are and altered", found["real"], found["answers"])
    made = _table("Made pictures: nobody's image, computed", found["made"], found["answers"])
    return _NOTE + told + real + made + _roc(found["roc"])


def _table(caption: str, rows: Sequence[Mapping[str, Any]], answers: Sequence[str]) -> str:
    given = [answer for answer in answers if any(row["answers"].get(answer) for row in rows)]
    body = [
        (f"{row['group']}: {row['shown']}", row["n"], *(row["answers"].get(a, 0) for a in given), share(row["right"]))
        for row in rows
    ]
    return table(caption, ("shown", "n", *given, "answered rightly (Wilson)"), body)


def _roc(roc: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [(name, area(own), own["positive"], own["negative"]) for name, own in roc.items()]
    head = ("frontal films against", "area under the ROC (DeLong)", "frontal films", "others")
    note = (
        '<p class="note">Score: the probability of an upright frontal chest. Altered films are of patients who are '
        "among the frontal films too, and one film is altered in several ways: there the interval is a rough one.</p>"
    )
    series = [
        Series(name, [(p[0], p[1]) for p in own["curve"]], dots=False) for name, own in roc.items() if "curve" in own
    ]
    axes = Axis("share of others let through", 0, 1, SHARE), Axis("share of frontal films let through", 0, 1, SHARE)
    drawn = chart("ROC of the gate's probability", *axes, series, diagonal=True) if series else ""
    return note + table("Area under the ROC", head, rows) + drawn
