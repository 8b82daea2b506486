"""A model card's figures, filled in from the evaluation that stands beside them.

`README.md` of a model holds its tables between two markers, `card.json` (RSNA ATLAS) holds them under "Model
performance". Both are written by `medgem-node card --write` and are never typed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medgem_node.card import ModelCard
from medgem_node.errors import ModelRejected
from medgem_node.train.report.tables import NONE, area, figure, number, share

BEGIN = "<!-- figures: written by `medgem-node card --write` from evaluation/test.json -->"
END = "<!-- end of figures -->"
_NAMES = {
    "jsrt": "JSRT",
    "nih": "NIH",
    "openist": "OpenIST",
    "gbseg": "COVID/pneumonia (gbseg)",
    "children": "children",
}
_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)

Figures = Mapping[str, Any]


def fill(card: ModelCard) -> tuple[str, str]:
    """README.md and card.json of a model as they should be. Raises ModelRejected."""
    try:
        test = json.loads((card.folder / "evaluation/test.json").read_text("utf-8"))
        peers = _beside(card.folder / "evaluation/baseline.json")
        readme = (card.folder / "README.md").read_text("utf-8")
        told = json.loads((card.folder / "card.json").read_text("utf-8"))
    except (OSError, ValueError) as exc:
        raise ModelRejected(f"{card.folder}: the card cannot be made: {exc}") from exc
    if test["weights_sha256"] != card.weights_sha256:
        raise ModelRejected(
            f"{card.folder}: evaluation/test.json is of other weights; run `medgem-node evaluate` again"
        )
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise ModelRejected(f"{card.folder}/README.md: needs one line {BEGIN} and, below it, one line {END}")
    above, _, rest = readme.partition(BEGIN)
    _, _, below = rest.partition(END)
    told |= {"Model performance": performance(test), "weights_sha256": card.weights_sha256}
    page = f"{above}{BEGIN}\n\n{markdown(test, peers)}\n{END}{below}"
    return page, json.dumps(told, indent=2, ensure_ascii=False) + "\n"


def markdown(test: Figures, peers: Figures) -> str:
    """Every figure of an evaluation as tables, with those of a baseline beside where there is one."""
    parts = [_masks(test, peers), _ratio(test, peers)]
    for key in sorted(k for k in test if k.startswith("boxes_")):
        kind = key.removeprefix("boxes_")
        parts += [_found(kind, test[key], peers), _free(kind, test[key], peers)]
        parts.append(_certain(kind, test.get(f"certainty_{kind}")))
    parts += [_gate(test), _altered(test)]
    return "\n".join(filter(None, parts))


def performance(test: Figures) -> dict[str, Any]:
    """What card.json says of it."""
    known = ("overlap_dice", "cardiothoracic_ratio", "frontal_films_refused", "other_pictures_refused")
    boxes = tuple(sorted(k for k in test if k.startswith(("boxes_", "certainty_", "explanation"))))
    return {
        "split": test["split"],
        "command": f"medgem-node evaluate <images> --model {test['model']} --model-version {test['version']}",
        "file": "evaluation/test.json",
        "interval": test["interval"],
        **{key: _short(test[key]) for key in (*known, *boxes) if key in test},
    }


def _short(value: Any) -> Any:
    """Without the curves, which evaluation/test.json has."""
    if isinstance(value, dict):
        return {k: _short(v) for k, v in value.items() if k not in ("curve", "reliability", "risk_coverage")}
    return value


def _beside(path: Path) -> Figures:
    found: Figures = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found


def _masks(test: Figures, peers: Figures) -> str:
    rows = []
    for source, own in test["overlap_dice"].items():
        for name, value in own.items():
            far = test.get("border_distance_hd95", {}).get(source, {}).get(name)
            of_peer = peers.get("dice", {}).get(source, {}).get(name, "")
            rows.append(
                (
                    _name(source),
                    value["films"],
                    name,
                    figure(value),
                    number(value["worst_twentieth"]),
                    figure(far, 1),
                    of_peer,
                )
            )
    head = ("films of", "n", "structure", "Dice", "worst twentieth", "HD95, % of the width", "baseline's Dice")
    return _table("Overlap with hand-drawn outlines", head, rows)


def _ratio(test: Figures, peers: Figures) -> str:
    again = test.get("same_films_placed_and_exposed_otherwise", {}).get("cardiothoracic_ratio", {})
    rows = []
    for source, own in test["cardiothoracic_ratio"].items():
        for key in ("mean_absolute_error", "bias", "standard_deviation", "correlation"):
            other = again.get(source, {}).get(key)
            of_peer = peers.get("ratio", {}).get(source, {}).get(key, "")
            rows.append(
                (
                    _name(source),
                    own[key]["films"],
                    key.replace("_", " "),
                    figure(own[key], 4),
                    figure(other, 4),
                    of_peer,
                )
            )
        withheld = own["not_reported"]
        rows.append(
            (
                _name(source),
                withheld["films"],
                "withheld",
                share(withheld),
                share(again.get(source, {}).get("not_reported")),
                "",
            )
        )
    head = ("films of", "n", "figure", "as they are", "placed and exposed otherwise", "baseline")
    return _table("Cardiothoracic ratio against that of the outlines", head, rows)


def _found(kind: str, boxes: Figures, peers: Figures) -> str:
    rows = []
    for source, own in boxes.items():
        if "sensitivity" not in own:
            continue
        by_rate = {row["false_marks_a_film"]: row for row in own["sensitivity"]}
        cells = [figure(by_rate.get(rate), 2) for rate in _RATES]
        n = f"{own['sensitivity'][0]['lesions']} in {own['films_with_lesions']} films"
        rows.append((_name(source), n, own["hit"], *cells))
        if of_peer := peers.get("found", {}).get(source):
            rows.append(
                (
                    f"{_name(source)}: baseline",
                    of_peer["n"],
                    of_peer["hit"],
                    *(of_peer["at"].get(f"{r:g}", "") for r in _RATES),
                )
            )
    head = ("films of", "lesions", "counts as found", *(f"{rate:g}" for rate in _RATES))
    return _table(f"{kind}: sensitivity at so many false marks a film with lesions", head, rows)


def _free(kind: str, boxes: Figures, peers: Figures) -> str:
    rows = []
    for source, own in boxes.items():
        point = own.get("operating_point", {})
        free = own.get("false_marks_a_film_without_lesions")
        rows.append((
            _name(source), figure(point.get("lesions_found"), 2), free["films"] if free else 0, figure(free, 2),
            share(own.get("films_without_lesions_marked")), area(own.get("auc_with_against_without")),
            peers.get("free", {}).get(source, ""),
        ))  # fmt: skip
    head = (
        "films of", "lesions found", "films without", "false marks on each", "of them with a mark",
        "AUC, with against without", "baseline's false marks, at its own threshold",
    )  # fmt: skip
    return _table(f"{kind}: at the shipped operating point", head, rows)


def _certain(kind: str, certainty: Figures | None) -> str:
    if not certainty:
        return ""
    rows = [
        (certainty["marks"], certainty["on_lesions"], number(certainty["expected_error"]), number(certainty["brier"]))
    ]
    return _table(f"{kind}: is a mark's probability true?", ("marks", "on lesions", "ECE", "Brier"), rows)


def _gate(test: Figures) -> str:
    """Real pictures by what they show: how many were analysed, and why not."""
    gate = test.get("gate")
    if not gate:
        return ""
    rows = [
        (
            row["group"],
            _name(row["shown"]),
            row["n"],
            row["answers"].get("analysed", 0),
            _reasons(row["answers"]),
            share(row["right"]),
        )
        for row in gate["real"]
    ]
    return _table("The gate, on real pictures", ("group", "shown", "n", "analysed", "refused as", "right"), rows)


def _altered(test: Figures) -> str:
    gate = test.get("gate")
    if not gate:
        return ""
    rows = [
        (row["shown"], row["n"], row["answers"].get("analysed", 0), _reasons(row["answers"])) for row in gate["made"]
    ]
    curves = "; ".join(f"{name}: AUC {area(roc)}" for name, roc in gate["roc"].items() if "value" in roc)
    table = _table(
        "The gate, on made pictures: films altered, and pictures of nothing",
        ("shown", "n", "analysed", "refused as"),
        rows,
    )
    return table + (f"\nThe gate's probability, frontal films against {curves}.\n" if curves else "")


def _reasons(answers: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {n}" for reason, n in sorted(answers.items()) if reason != "analysed") or "-"


def _name(source: str) -> str:
    return _NAMES.get(source, source)


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    rows = list(rows)
    if not rows:
        return f"**{caption}**: {NONE}.\n"
    return "\n".join((f"**{caption}**", "", _line(head), _line(["---"] * len(head)), *map(_line, rows), ""))


def _line(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(value: Any) -> str:
    return str(value).replace("|", "/")


def differences(card: ModelCard) -> Iterator[str]:
    """The files of a model whose figures are not those of its evaluation. Raises ModelRejected."""
    for name, text in zip(("README.md", "card.json"), fill(card), strict=True):
        if (card.folder / name).read_text("utf-8") != text:
            yield name
