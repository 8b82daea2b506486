"""Every row of Table E.1-1, on top and inside a sequence."""

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from pydicom import Dataset
from stranger import raw_file, raw_film, raw_item

from medgem_node import part10
from medgem_node.deid.profile import deidentify_bytes
from medgem_node.deid.pseudonym import Pseudonyms

TABLE = json.loads(files("medgem_node.deid").joinpath("table_e1.json").read_text(encoding="utf-8"))
HOLDER = 0x00409096  # Real World Value Mapping Sequence: without a row, so its items are looked into
PLANTED = {
    "AS": b"041Y", "DA": b"19410203", "DS": b"41.414243", "DT": b"19410203040506.77", "IS": b"414243",
    "OB": b"XYLOPHON", "TM": b"040506.778899", "UI": b"1.3.999.19410203.7.7", "UN": b"XYLOPHON", "US": b"XY",
}  # fmt: skip


@pytest.mark.parametrize("row", TABLE["rows"], ids=lambda row: f"{row[0]}-{row[4]}")
def test_a_row_does_what_it_says_at_every_depth(row: list, pseudonyms: Pseudonyms) -> None:
    tag, vr, action = _tag(row[0]), _vr(row[3]), row[4]
    value = _value(vr)
    film = [e for e in raw_film() if e[0] != tag]
    if tag in (0x00080018, 0x0020000D, 0x0020000E):  # the instance needs them on top
        film = raw_film()
        value = next(e[2] for e in film if e[0] == tag)
    else:
        film.append((tag, vr, value))
    film.append((HOLDER, "SQ", raw_item([(0x00280010, "US", b"\1\0"), (tag, vr, value)])))

    copy = deidentify_bytes(raw_file(film), pseudonyms)

    ds = part10.decode(copy)
    assert value not in copy
    for place in (ds, ds[HOLDER].value[0]):
        _judge(place, tag, action)


def test_the_table_is_the_whole_of_its_edition() -> None:
    actions = [row[4] for row in TABLE["rows"]]

    assert TABLE["edition"] == "2026c"
    assert len(actions) == 656
    assert {a: actions.count(a) for a in sorted(set(actions))} == {
        "D": 93, "U": 55, "X": 416, "X/D": 23, "X/Z": 11, "X/Z/D": 8, "X/Z/U*": 2, "Z": 42, "Z/D": 6
    }  # fmt: skip


def test_the_generator_makes_the_table_from_its_source_again(tmp_path: Path) -> None:
    rows = [dict(zip(("tag", "name", "keyword", "VR", "basic", "options"), row, strict=True)) for row in TABLE["rows"]]
    (tmp_path / "source.json").write_text(json.dumps({"source": TABLE["source"], "rows": rows}))
    script = Path(__file__).parents[2] / "scripts" / "generate_table_e1.py"

    subprocess.run([sys.executable, script, tmp_path / "source.json", tmp_path / "table.json"], check=True)

    assert json.loads((tmp_path / "table.json").read_text(encoding="utf-8")) == TABLE


def _tag(text: str) -> int:
    return 0x00111010 if text == "PRIVATE" else int(text.replace("xxxxxx", "021004").replace("60xx", "6002"), 16)


def _vr(text: str) -> str:
    return {"": "LO", "any": "LO", "OB or OW": "OB"}.get(text, text)


def _value(vr: str) -> bytes:
    if vr == "SQ":
        return raw_item([(0x00081090, "LO", b"XYLOPHON"), (0x0040A160, "UT", b"XYLOPHON"), (0x00280011, "US", b"XY")])
    return PLANTED.get(vr, b"XYLOPHON")


def _judge(place: Dataset, tag: int, action: str) -> None:
    found = place.get(tag)
    if action == "X" or tag >> 16 in (0, 2):
        assert found is None
    elif action == "U":
        assert found.value.startswith("2.25.")
    elif action == "D":
        assert not found.is_empty
    elif action == "Z":
        assert found.is_empty or tag in (0x00100010, 0x00080050)
    else:
        assert found is not None or "X" in action
