"""JSRT (Shiraishi et al. 2000): 154 films with one nodule each, 93 without; `.IMG` and `CLNDAT_EN.txt`.

A row of the list, parted by tabs: name, subtlety, size in mm, age, sex, x, y, malignant or benign, site, diagnosis (the
users' guide tells another order). x and y are the nodule's centre in pixels of 0.175 mm. Films lie anywhere below.

References: Shiraishi et al. 2000, doi:10.2214/ajr.174.1.1740071.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from medgem_node.errors import ConfigError
from medgem_node.train.catalogues.catalogue import Licence, Marked, Record

LICENCE = Licence("JSRT: research and education only, no redistribution", "http://db.jsrt.or.jp/eng.php")
LABELS = ("Nodule",)
_SIDE = 2048
_PIXEL_MM = 0.175
_ROW = re.compile(r"(JPCLN\d{3})\.IMG\s+\d\s+(\d+)\s+\S+\s+\S+\s+(\d+)\s+(\d+)\s", re.IGNORECASE)
_NAME = re.compile(r"JPC[LN]N\d{3}")


def records(place: Path) -> Iterator[Record]:
    """Every film below `place`; each is of another patient."""
    marked = _marked(place)
    for image in sorted(p for p in place.rglob("*") if p.suffix.lower() == ".img" and _NAME.fullmatch(p.stem.upper())):
        name = image.stem.upper()
        ill = name.startswith("JPCLN")
        if ill and name not in marked:
            raise ConfigError(f"{place}: CLNDAT_EN.txt has no row of a film with a nodule; is the list complete?")
        yield Record(image, name, "PA", {"Nodule": int(ill)}, (marked[name],) if ill else ())


def _marked(place: Path) -> Mapping[str, Marked]:
    path = next(iter(sorted(p for p in place.rglob("*") if p.name.lower() == "clndat_en.txt")), None)
    if path is None:
        raise ConfigError(f"{place}: there is no CLNDAT_EN.txt, which says where the nodules are")
    found = {}
    for name, size_mm, x, y in _ROW.findall(path.read_text("utf-8", errors="replace") + "\n"):
        half = float(size_mm) / _PIXEL_MM / 2
        box = (float(x) - half, float(y) - half, float(x) + half, float(y) + half)
        found[name.upper()] = Marked("Nodule", (box[0] / _SIDE, box[1] / _SIDE, box[2] / _SIDE, box[3] / _SIDE))
    return found
