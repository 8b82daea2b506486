"""The sections of the report, each made of the figures that it needs, empty where these are missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from medgem_node.train.report import detection, gate
from medgem_node.train.report.plots import SHARE, Axis, Series, chart
from medgem_node.train.report.tables import figure, number, share, table

Figures = Mapping[str, Any]


def origin(figures: Figures) -> str:
    """What was measured, on what, by which code."""
    data, code = figures["data"], figures["code"]
    sources = ", ".join(f"{name} {n}" for name, n in data["by_source"].items())
    rows = [
        ("model", f"{figures['model']} {figures['version']}"),
        ("weights, SHA-256", figures["weights_sha256"]),
        ("code", f"medgem-node {code['version']}, commit {code['commit'] or 'not known'}"),
        ("split", figures["split"]),
        ("films", f"{data['films']} of {data['patients']} patients: {sources}"),
        ("data, SHA-256", data["sha256"]),
        ("seed of the intervals", figures["seed"]),
        ("date of run", figures.get("date", "not known")),
        ("intervals", figures["interval"]),
    ]
    return _section("What was measured", table("Origin of every figure below", ("", ""), rows))


def masks(figures: Figures) -> str:
    """Overlap and distance of borders."""
    far = figures.get("border_distance_hd95", {})
    rows = [
        (
            f"{source}, {name}", figure(own), number(own["worst_twentieth"]), figure(far.get(source, {}).get(name), 2),
            far.get(source, {}).get(name, {}).get("missing", 0), own["films"],
        )
        for source, structures in figures.get("overlap_dice", {}).items()
        for name, own in structures.items()
    ]  # fmt: skip
    note = (
        "Dice: 1 where both masks are empty. HD95: the larger of the two 95th percentiles of the distances between "
        "borders, in per cent of the film's width; 0 where both masks are empty; where one is, the film is counted as "
        "missing, not averaged. Refused films are not in this table, but in that of the gate."
    )
    head = ("source, structure", "Dice (95 %)", "worst twentieth", "HD95, % of width (95 %)", "missing", "films")
    return _section("Lungs and heart", _note(note) + table("Masks against readers' contours", head, rows))


def ratio(figures: Figures) -> str:
    """The cardiothoracic ratio, and what rests on it."""
    rows = [
        (
            source, figure(own.get("mean_absolute_error"), 4), figure(own.get("bias"), 4),
            number(own.get("largest_error")), share(own["not_reported"]),
            own.get("mean_absolute_error", {}).get("films", 0),
        )
        for source, own in figures.get("cardiothoracic_ratio", {}).items()
    ]  # fmt: skip
    head = ("source", "mean absolute error (95 %)", "bias (95 %)", "largest error", "not reported", "films")
    parts = [table("Measured ratio against the ratio on the readers' contours", head, rows)]
    found = {name: own for name, own in figures.items() if name.startswith("finding_")}
    points = [
        (
            _name(name),
            own["truth"],
            number(own["operating_point"]),
            share(own["sensitivity"]),
            share(own["specificity"]),
        )
        for name, own in found.items()
    ]
    if points:
        titles = ("finding", "truth", "operating point", "sensitivity (Wilson)", "specificity (Wilson)")
        parts.append(table("At the operating point", titles, points))
    return _section("Cardiothoracic ratio", "".join(parts))


def boxes(figures: Figures) -> str:
    """Every kind of box."""
    kinds = {name: own for name, own in figures.items() if name.startswith("boxes_") and own}
    return "".join(_section(f"Marks: {_name(name)}", detection.marks(own)) for name, own in kinds.items())


def certainty(figures: Figures) -> str:
    """Reliability, calibration errors and risk-coverage of everything that has a probability."""
    found = {
        _name(name): own
        for name, own in figures.items()
        if name.startswith(("certainty_", "finding_")) and own.get("answers")
    }
    if not found:
        return ""
    rows = [
        (
            name, own["answers"], own["true"], number(own["expected_error"]),
            number(own["expected_error_equal_counts"]), number(own["brier"]), number(own["mean_risk"]),
        )
        for name, own in found.items()
    ]  # fmt: skip
    head = ("finding", "answers", "true", "ECE, equal widths", "ECE, equal counts", "Brier", "mean risk")
    note = (
        "A mark's probability should be how often such a mark lies on a lesion; a film's, how often the finding is "
        "there. Dots are larger where they rest on more answers. Risk: wrong answers among those kept, surest first."
    )
    plots = f'<div class="charts">{_reliability(found)}{_risk(found)}</div>'
    return _section("Certainty", _note(note) + table("Calibration", head, rows) + plots)


def groups(figures: Figures) -> str:
    """One table for each factor."""
    rows = figures.get("subgroups", [])
    factors = dict.fromkeys(row["factor"] for row in rows)
    tables = (_factor(name, [row for row in rows if row["factor"] == name]) for name in factors)
    note = "Frontal films only. A figure that rests on fewer than ten films is not shown; no group is pooled silently."
    return _section("Subgroups", _note(note) + "".join(tables)) if rows else ""


def the_gate(figures: Figures) -> str:
    """What was shown against what was answered."""
    return _section("The gate", gate.confusion(figures["gate"])) if "gate" in figures else ""


def again(figures: Figures) -> str:
    """The same films, placed and exposed otherwise."""
    found = figures.get("same_films_placed_and_exposed_otherwise")
    if not found:
        return ""
    rows = [
        (f"{source}, {name}", figure(own), own["films"])
        for source, structures in found["overlap_dice"].items()
        for name, own in structures.items()
    ]
    errors = [
        (source, figure(own.get("mean_absolute_error"), 4), share(own["not_reported"]))
        for source, own in found["cardiothoracic_ratio"].items()
    ]
    note = "The films above, each shown three times with another placing, exposure, sharpness and noise (computed)."
    return _section(
        "Computed variants of the same films",
        _note(note)
        + table("Masks", ("source, structure", "Dice (95 %)", "films"), rows)
        + table("Cardiothoracic ratio", ("source", "mean absolute error (95 %)", "not reported"), errors),
    )


def weak(figures: Figures) -> str:
    """Against labels that were mined from reports: a hint, no truth."""
    rows = [
        (f"{name.removeprefix('weak_labels_')}, {view}", figure(own["auc_cardiomegaly"]), own["positive"])
        for name, views in figures.items()
        if name.startswith("weak_labels_")
        for view, own in views.items()
    ]
    note = "Labels mined from report texts are often wrong, and say nothing of how large a heart is."
    head = ("source, view", "area under the ROC of the ratio (95 %)", "films labelled")
    return _section("Weak labels: cardiomegaly", _note(note) + table("Ratio", head, rows)) if rows else ""


ALL: tuple[Callable[[Figures], str], ...] = (
    origin, masks, ratio, boxes, certainty, groups, the_gate, again, weak
)  # fmt: skip
"""In the order of the page."""


def _reliability(found: Mapping[str, Figures]) -> str:
    axis = Axis("probability", 0, 1, SHARE)
    series = [
        Series(
            name,
            [(b["probability"], b["frequency"]) for b in own["reliability"]],
            weights=[b["cases"] for b in own["reliability"]],
        )
        for name, own in found.items()
    ]
    return chart("Reliability", axis, Axis("how often true", 0, 1, SHARE), series, diagonal=True)


def _risk(found: Mapping[str, Figures]) -> str:
    series = [
        Series(name, [(p["coverage"], p["risk"]) for p in own["risk_coverage"]], dots=False)
        for name, own in found.items()
    ]
    return chart(
        "Risk and coverage", Axis("share of answers kept", 0, 1, SHARE), Axis("share wrong", 0, 1, SHARE), series
    )


def _factor(name: str, rows: Sequence[Figures]) -> str:
    shown = list(dict.fromkeys(key for row in rows for key in row.get("figures", {})))
    body = [
        (row["group"], row["films"], row.get("patients", ""), *_cells(row.get("figures", {}), shown)) for row in rows
    ]
    return table(f"By {name}", (name, "films", "patients", *shown), body)


def _cells(figures: Figures, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        own = figures.get(name)
        if own is None:
            yield ""
        elif "value" not in own:
            yield str(own["films"])
        else:
            yield share(own) if "hits" in own else f"{figure(own)}, n = {own['films']}"


def _name(key: str) -> str:
    return key.split("_", 1)[1].replace("-", " ")


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'
