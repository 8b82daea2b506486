"""Marks on lesions: the FROC curve and its table, average precision, and what is reported at the operating point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medgem_node.train.report.plots import SHARE, Axis, Series, chart
from medgem_node.train.report.tables import NONE, area, figure, number, share, table

Sources = Mapping[str, Mapping[str, Any]]


def marks(sources: Sources) -> str:
    """All of one kind of box, by source."""
    parts = [_curve(sources), _agreement(sources), _operating_point(sources), _films_without(sources), _parted(sources)]
    return "".join(parts)


def _curve(sources: Sources) -> str:
    ill = {name: own for name, own in sources.items() if "sensitivity" in own}
    if not ill:
        return ""
    rates = [point["false_marks_a_film"] for point in next(iter(ill.values()))["sensitivity"]]
    head = ("source", "a hit is", *(f"at {rate:g}" for rate in rates), "lesions", "films")
    rows = [
        (
            name, own["hit"], *(figure(p, 2) for p in own["sensitivity"]), own["sensitivity"][0]["lesions"],
            own["sensitivity"][0]["films"],
        )
        for name, own in ill.items()
    ]  # fmt: skip
    series = [
        Series(
            name,
            [(p["false_marks_a_film"], p["value"]) for p in own["sensitivity"]],
            bars=[(p["low"], p["high"]) for p in own["sensitivity"]],
        )
        for name, own in ill.items()
    ]
    x = Axis("false marks a film", min(rates), max(rates), tuple(rates), logarithmic=True)
    note = '<p class="note">On films with a lesion; a refused film has no mark, so its lesions are missed.</p>'
    drawn = chart("FROC, with intervals by patient", x, Axis("share of lesions found", 0, 1, SHARE), series)
    return note + table("Share of lesions found, by false marks a film (95 %)", head, rows) + drawn


def _agreement(sources: Sources) -> str:
    rows = [
        (name, *(figure(own["average_precision"][key]) for key in own["average_precision"]), _shared(own))
        for name, own in sources.items()
        if "average_precision" in own
    ]
    names = next((list(own["average_precision"]) for own in sources.values() if "average_precision" in own), [])
    titles = ["mAP, mean of these" if name == "mean" else f"average precision, {name}" for name in names]
    head = ("source", *titles, "spatial concordance: reported marks with IoU above 0.3")
    return table("Boxes against readers' boxes", head, rows)


def _shared(own: Mapping[str, Any]) -> str:
    return share(own.get("reported_marks_with_iou_above_0.3"))


def _operating_point(sources: Sources) -> str:
    rows = [
        (
            name, number(own["operating_point"]["value"]),
            f"{figure(own['operating_point']['lesions_found'])}, {own['operating_point']['lesions']} lesions",
            figure(own["operating_point"]["false_marks_a_film_with_lesions"], 2),
            share(own["operating_point"]["sensitivity_by_film"]),
            share(own["operating_point"]["specificity_by_film"]),
            own["operating_point"]["films_with_lesions"],
        )
        for name, own in sources.items()
        if "operating_point" in own
    ]  # fmt: skip
    head = (
        "source", "operating point", "lesions found (95 %)", "false marks a film with lesions (95 %)",
        "films with a lesion that are marked (Wilson)", "films without that are not (Wilson)", "films with lesions",
    )  # fmt: skip
    return table("At the operating point", head, rows)


def _films_without(sources: Sources) -> str:
    key = "false_marks_a_film_without_lesions"
    rows = [
        (name, figure(own[key], 2), share(own["films_without_lesions_marked"]), own[key]["films"])
        for name, own in sources.items()
        if key in own
    ]
    head = ("source", "false marks a film (95 %)", "films marked (Wilson)", "films")
    return table("Films known to be free of lesions, at the operating point", head, rows)


def _parted(sources: Sources) -> str:
    rows = [
        (name, area(own["auc_with_against_without"]), _n(own["auc_with_against_without"]))
        for name, own in sources.items()
        if "auc_with_against_without" in own
    ]
    head = ("source", "area under the ROC (DeLong)", "with, without")
    note = (
        '<p class="note">Films with a lesion and films without often differ in more than the lesion (who picked them, '
        "their size, their compression): within one source this area is no proof that lesions are what is seen.</p>"
    )
    return note + table("Films with a lesion against films without, by the highest mark", head, rows) if rows else ""


def _n(own: Mapping[str, Any]) -> str:
    return f"{own['positive']}, {own['negative']}" if "positive" in own else NONE
