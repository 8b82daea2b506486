"""The documents say what the code does: a command, option, setting, state or reason not described fails here."""

from __future__ import annotations

import argparse
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import UID
from pynetdicom import AE, AllStoragePresentationContexts

from medgem_node import cli, errors, evidence, job, study
from medgem_node.card import _SECTIONS
from medgem_node.config import Config, read_config
from medgem_node.deid import profile
from medgem_node.dimse import contexts, scu
from medgem_node.inbox import Mismatch
from medgem_node.rule import OPERATORS, Rule

CHECKOUT = Path(__file__).parent.parent
PAGES = sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md"), *CHECKOUT.glob("models/**/*.md")])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:sudo (?:-u \w+ )?)?(?:\S*/)?(medgem-node .+)")
COMMON = ("--config", "--data", "--set", "--verbose")


def page(name: str) -> str:
    return (CHECKOUT / name).read_text("utf-8")


def section(text: str, heading: str) -> str:
    """From a heading to the next of its level or above."""
    level = heading.split(" ")[0]
    start = text.index(f"{heading}\n")
    end = re.search(rf"^#{{1,{len(level)}}} ", text[start + len(heading) :], re.MULTILINE)
    return text[start : start + len(heading) + end.start()] if end else text[start:]


def rows(text: str) -> dict[str, list[str]]:
    """Table rows that begin with a word in backticks, by that word."""
    found = re.findall(r"^\| `([^`]+)` \|(.*)\|$", text, re.MULTILINE)
    return {word: [cell.strip() for cell in rest.split(" | ")] for word, rest in found}


def subcommands() -> dict[str, argparse.ArgumentParser]:
    (action,) = [a for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(action.choices)


def written_commands() -> Iterator[tuple[str, str]]:
    """Every command line of ours in a fenced block, with its page."""
    for path in PAGES:
        for _, block in FENCE.findall(path.read_text("utf-8")):
            for line in block.splitlines():
                if found := COMMAND.fullmatch(line.split("  #")[0].strip()):
                    yield path.name, found[1]


@pytest.mark.parametrize("name", sorted(subcommands()))
def test_every_command_and_option_is_described(name: str) -> None:
    described = section(page("docs/commands.md"), f"## `medgem-node {name}`")

    for action in subcommands()[name]._actions:
        options = [o for o in action.option_strings if o.startswith("--") and o not in (*COMMON, "--help")]
        for option in options:
            assert re.search(rf"`{option}[` ]", described), f"{name} {option}"


def test_no_command_is_described_that_is_not_there() -> None:
    described = set(re.findall(r"^## `medgem-node ([\w-]+)`$", page("docs/commands.md"), re.MULTILINE))

    assert described == set(subcommands())


def test_the_options_of_every_command_are_described() -> None:
    described = section(page("docs/commands.md"), "## Options of every command")

    assert all(f"| `{option}" in described for option in COMMON)


def test_every_command_line_in_the_documents_can_be_run() -> None:
    lines = list(written_commands())

    assert len(lines) > 20
    for name, line in lines:
        assert _is_accepted(shlex.split(line)[1:]), f"{name}: {line}"


def test_every_setting_is_described_with_its_default() -> None:
    text = page("docs/configuration.md")

    for part in fields(Config):
        value = getattr(Config(), part.name)
        if not hasattr(value, "__dataclass_fields__"):
            continue
        described = rows(section(text, f"### `[{part.name}]`"))
        assert set(described) == {f.name for f in fields(value)}
        for name, (default, *_) in described.items():
            assert _toml(default) == getattr(value, name), f"{part.name}.{name}"


def test_every_key_of_the_shipped_configuration_is_described() -> None:
    text = page("docs/configuration.md")

    for name, table in tomllib.loads(page("conf/node.toml")).items():
        described = section(text, f"### `[{name}]`")
        assert name == "destinations" or all(f"| `{key}` |" in described for key in table)
    for key in tomllib.loads(page("conf/deid.toml")):
        assert f"`{key} = " in section(text, "## `deid.toml`")


def test_every_key_of_a_rule_and_every_operator_is_described() -> None:
    described = rows(section(page("docs/configuration.md"), "## `rules.toml`"))

    assert set(described) == {f.name for f in fields(Rule)} | set(OPERATORS)
    for entry in fields(Rule):
        default = described[entry.name][0]
        assert default == "required" if entry.default is MISSING else _toml(default) == entry.default


def test_the_rules_in_the_documents_are_valid(tmp_path: Path) -> None:
    blocks = [block for kind, block in FENCE.findall(page("docs/configuration.md")) if kind == "toml"]
    (tmp_path / "rules.toml").write_text("\n".join(blocks), "utf-8")
    (tmp_path / "node.toml").write_text('[destinations]\nPACS = "dimse://PACS@10.0.0.5:104"\n', "utf-8")

    assert read_config(tmp_path / "node.toml").rules


def test_the_node_toml_of_the_how_to_is_valid(tmp_path: Path) -> None:
    blocks = [block for kind, block in FENCE.findall(page("docs/connect-a-pacs.md")) if kind == "toml"]
    (tmp_path / "rules.toml").write_text("", "utf-8")
    (tmp_path / "node.toml").write_text("\n".join(blocks), "utf-8")

    assert read_config(tmp_path / "node.toml").destinations


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(CHECKOUT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    text = FENCE.sub("", path.read_text("utf-8"))

    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        leads_to = (path.parent / name).resolve() if name else path
        assert leads_to.exists(), target
        assert not anchor or anchor in _anchors(leads_to.read_text("utf-8")), target


@pytest.mark.parametrize(
    ("heading", "transitions"),
    [("## States of a study", study.TRANSITIONS), ("## States of a job", job.TRANSITIONS)],
)
def test_every_state_and_transition_is_described(heading: str, transitions: dict[Any, frozenset[Any]]) -> None:
    described = rows(section(page("docs/operate.md"), heading))

    assert set(described) == {str(state) for state in transitions}
    for state, followers in transitions.items():
        assert set(re.findall(r"`(\w+)`", described[state][-1])) == {str(f) for f in followers}, state


def test_every_reason_to_hold_a_study_is_described() -> None:
    text = " ".join(page("docs/operate.md").split())
    reasons = re.findall(r'StudyState\.HELD, now, reason="([^"]+)"', page("medgem_node/pipeline.py"))

    assert len(reasons) >= 3
    assert all(f"*{reason}*" in text for reason in reasons)


def test_every_state_of_a_delivery_is_described() -> None:
    described = rows(section(page("docs/operate.md"), "## States of a delivery"))

    assert set(described) == {str(state) for state in job.DeliveryState}


def test_every_reason_why_not_is_described() -> None:
    source = "\n".join(p.read_text("utf-8") for p in (CHECKOUT / "medgem_node").rglob("*.py") if "train" not in p.parts)
    given = re.findall(r'\b(?:NotApplicable|Unreadable|Failure|coded)\(\s*"([a-z-]+)"', source)
    given += re.findall(r'not_analysed\([^()]*?"([a-z]+-[a-z-]+)"', source)
    gate = tomllib.loads(page("models/chest-xray/1.0.0/model.toml"))["gate"]["refusals"]
    renamed = {"other": "not-a-frontal-chest", "inverted": "inverted-polarity"}

    described = rows(section(page("docs/models.md"), "## Reasons why not"))

    assert {*given, *(renamed.get(seen, seen) for seen in gate), "failed"} - set(described) == set()


def test_every_section_of_a_manifest_is_described() -> None:
    described = section(page("docs/models.md"), "## `model.toml`")

    assert all(re.search(rf"^\| `\[+{name}\]+` \|", described, re.MULTILINE) for name in _SECTIONS)


def test_the_conformance_statement_names_our_implementation_and_classes() -> None:
    text = page("docs/conformance.md")
    ae = AE()

    assert str(ae.implementation_class_uid) in text
    assert str(ae.implementation_version_name) in text
    assert profile.IMPLEMENTATION_CLASS_UID in text
    assert f"({len(AllStoragePresentationContexts)} in all)" in text
    assert len(contexts.accepted()) == len(AllStoragePresentationContexts) + 1
    for sop_class in ("1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.7"):
        assert f"{UID(sop_class).name} ({sop_class})" in text
    assert all(str(number) in text for number in evidence.SERIES_NUMBER.values())


def test_the_conformance_statement_names_every_status() -> None:
    text = page("docs/conformance.md")
    answered = section(text, "### C-STORE")

    for kind in (errors.OutOfResources, errors.NotUnderstood, Mismatch):
        assert f"| 0x{kind.dimse_status:04X} |" in answered
    taken = section(text, "## 4. As requestor (Verification and Storage SCU)")
    for status in (0x0000, 0x0110, 0x0111, 0x0210, 0x0213, 0xA700, 0xA7FF, 0xB000, 0xBFFF):
        verdict = {"delivered": "delivered", "later": "not now"}[scu._verdict(status, "an object")[0]]
        (row,) = [line for line in taken.splitlines() if line.startswith("|") and f"0x{status:04X}" in line]
        assert row.split("|")[2].strip().startswith(verdict)


def _is_accepted(arguments: list[str]) -> bool:
    try:
        cli._parser().parse_args(arguments)
    except SystemExit as end:
        return not end.code  # --help and --version end here
    return True


def _toml(cell: str) -> Any:
    value = tomllib.loads(f"v = {cell.strip('`')}")["v"]
    return tuple(value) if isinstance(value, list) else value


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
