"""Generate medgem_node/deid/safe_private.json from a JSON copy of PS3.15 Table E.3.10-1.

    python scripts/generate_safe_private.py SOURCE.json medgem_node/deid/safe_private.json

The source is one object: `source` (the table and its edition) and `rows`, each with `group` (four hexadecimal digits),
`element` (`xx` and two), `creator`, `VR`, `VM` and `meaning`. The table in this repository was made on 2026-11-23 from
the 87 rows of edition 2025b.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

EDITION = "2025b"


def generate(source: dict) -> str:
    """The table as JSON, one row a line, so that a new edition reads as a diff."""
    rows = [_row(row) for row in source["rows"]]
    if len({(row[0], row[1]) for row in rows}) != len(rows):
        raise SystemExit("an attribute stands in the source twice")
    head = {"edition": EDITION, "source": source["source"], "columns": ["creator", "tag", "vr", "vm", "meaning"]}
    lines = [json.dumps(head)[:-1] + ', "rows": [']
    lines += [json.dumps(row) + "," for row in sorted(rows)]
    lines[-1] = lines[-1].rstrip(",")
    return "\n".join([*lines, "]}"]) + "\n"


def _row(row: dict) -> list:
    tag = f"{row['group']}{row['element']}".upper().replace("X", "x")
    if not re.fullmatch(r"[0-9A-F]{3}[13579BDF]xx[0-9A-F]{2}", tag):
        raise SystemExit(f"{tag} is no tag of a private attribute")
    return [row["creator"], tag, row["VR"], row["VM"], row["meaning"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("table", type=Path)
    arguments = parser.parse_args()
    source = json.loads(arguments.source.read_text(encoding="utf-8"))
    arguments.table.write_text(generate(source), encoding="utf-8")


if __name__ == "__main__":
    main()
