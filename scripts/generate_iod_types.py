"""Generate medgem_node/deid/iod_types.json: the Type of every attribute in every IOD of PS3.3.

    python scripts/generate_iod_types.py medgem_node/deid/iod_types.json

The source are the tables of PS3.3 that highdicom carries (`highdicom/_standard/*.json`, about 23 MB). Equal macros are
written once: a node holds attributes as [tag, Type, node of the items or 0], and a SOP Class names the nodes of its
modules, so that nothing is lost and 0.2 MB remain. The modules of a repeating group (60xx) stand under group 6000.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import highdicom
from pydicom._dicom_dict import RepeatersDictionary
from pydicom.datadict import tag_for_keyword

STANDARD = Path(highdicom.__file__).parent / "_standard"
TYPES = ("1", "1C", "2", "2C", "3")
REPEATERS = {entry[4]: int(mask.replace("x", "0"), 16) for mask, entry in RepeatersDictionary.items()}

Node = tuple[tuple[int, str, int], ...]


def generate() -> str:
    """The Types as JSON, one node and one class a line, so that a new edition reads as a diff."""
    attributes = _read("module_attribute_map")
    nodes: dict[Node, int] = {(): 0}
    roots = {module: _node(_tree(rows), nodes) for module, rows in attributes.items()}
    modules_of = _read("iod_module_map")
    missing = sorted({m["key"] for iod in modules_of.values() for m in iod} - set(roots))
    classes = {
        uid: sorted({roots[m["key"]] for m in modules_of[iod] if m["key"] in roots} - {0})
        for uid, iod in sorted(_read("sop_class_iod_map").items())
    }
    source = f"PS3.3 as highdicom {version('highdicom')} carries it; it names these modules and lacks their tables"
    lines = [json.dumps({"source": source, "lacking": missing})[:-1] + ', "nodes": [']
    lines += _lines(json.dumps(node, separators=(",", ":")) for node in nodes)
    lines += ['], "classes": {']
    lines += _lines(f'"{uid}": {json.dumps(numbers, separators=(",", ":"))}' for uid, numbers in classes.items())
    return "\n".join([*lines, "}}"]) + "\n"


def _read(name: str) -> dict:
    return json.loads((STANDARD / f"{name}.json").read_text(encoding="utf-8"))


def _tree(rows: Iterable[dict]) -> dict:
    """The attributes of a module by keyword: [Type, attributes of the items]."""
    tree: dict = defaultdict(lambda: ["", _tree(())])
    for row in rows:
        place = tree
        for keyword in row["path"]:
            place = place[keyword][1]
        place[row["keyword"]][0] = _strictest(place[row["keyword"]][0], row["type"])
    return tree


def _strictest(one: str, other: str) -> str:
    return next((kind for kind in TYPES if kind in (one, other)), "")


def _node(tree: dict, nodes: dict[Node, int]) -> int:
    """The number of a node, equal ones once; the items of a sequence come before it."""
    attributes = ((_tag(keyword), kind, _node(items, nodes)) for keyword, (kind, items) in tree.items())
    return nodes.setdefault(tuple(sorted(attributes)), len(nodes))


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword) or REPEATERS.get(keyword)
    if tag is None:
        raise SystemExit(f"{keyword} is no keyword of PS3.6 as pydicom {version('pydicom')} carries it")
    return tag


def _lines(texts: Iterable[str]) -> list[str]:
    *before, last = texts
    return [*(f"{text}," for text in before), last]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("types", type=Path)
    parser.parse_args().types.write_text(generate(), encoding="utf-8")


if __name__ == "__main__":
    main()
