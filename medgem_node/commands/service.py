"""Running a node, and what it has: start, status, retry, agreement, doctor, demo, init."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from medgem_node.commands.common import Command, configured, say, settings
from medgem_node.config import shipped


def add(command: Command) -> None:
    """start, status, agreement, retry, doctor, demo, init."""
    start = command("start", _start, "Run the node until it is stopped.")
    start.add_argument(
        "--role", choices=("receive", "pipeline"), help="run one role only, for example on its own machine"
    )
    command("status", _status, "What the node has and does.").add_argument(
        "--all", action="store_true", help="every study"
    )
    agreement = command(
        "agreement", _agreement, "How far radiologists agree with each model, from what they sent back."
    )
    agreement.add_argument("--model", default="", metavar="NAME", help="this model only")
    agreement.add_argument("--json", action="store_true", help="as JSON")
    command("retry", _retry, "Let held and unmatched studies go through the rules again, after the cause was mended.")
    command("doctor", _doctor, "What is wrong, in plain words, and how to mend it.")
    command("demo", _demo, "A PACS, this node and a real X-ray on this machine.").add_argument(
        "--stay", action="store_true", help="stay up until Ctrl-C"
    )
    command("init", _init, "Write a configuration to edit.").add_argument("folder", type=Path, metavar="DIR")


def _start(options: argparse.Namespace) -> int:
    from medgem_node import node

    config = configured(options)
    node.set_up_logging(config.node.log_level)
    if options.role:
        node.run_role(config, options.role)
        return 0
    command = [sys.executable, "-m", "medgem_node.cli", "start"]
    if options.config:
        command += ["--config", str(options.config)]
    for setting in settings(options):
        command += ["--set", setting]
    return node.supervise(config, command)


def _status(options: argparse.Namespace) -> int:
    from medgem_node import status

    for line in status.lines(configured(options), full=options.all):
        say(line)
    return 0


def _agreement(options: argparse.Namespace) -> int:
    from medgem_node import agreement

    models = agreement.read_agreement(configured(options), options.model)
    for line in [json.dumps([m.to_dict() for m in models], indent=2)] if options.json else agreement.lines(models):
        say(line)
    return 0


def _retry(options: argparse.Namespace) -> int:
    from medgem_node.node import open_node
    from medgem_node.study import StudyState

    node = open_node(configured(options))
    waiting = node.ledger.studies(StudyState.HELD, StudyState.UNMATCHED)
    moved = sum(node.ledger.move(study, StudyState.RECEIVING) for study in waiting)
    node.ledger.close()
    say(f"{moved} of {len(waiting)} held or unmatched studies go through the rules again")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from medgem_node import doctor

    marks = {"ok": "ok     ", "warning": "WARNING", "wrong": "WRONG  "}
    worst = 0
    for check in doctor.examine(options.config, tuple(settings(options))):
        say(f"{marks[check.state]} {check.subject}: {check.says}")
        if check.mend:
            say(f"        -> {check.mend}")
        worst = max(worst, 1 if check.state == "wrong" else 0)
    return worst


def _demo(options: argparse.Namespace) -> int:
    from medgem_node.demo import run_demo

    return run_demo(say, options.data and options.data.absolute(), options.stay)


def _init(options: argparse.Namespace) -> int:
    options.folder.mkdir(parents=True, exist_ok=True)
    for source in sorted(shipped("conf").glob("*.toml")):
        target = options.folder / source.name
        if target.exists():
            say(f"{target} is there already; left as it is")
        else:
            shutil.copyfile(source, target)
            say(f"{target} written")
    say(f"Edit {options.folder / 'node.toml'}, then: medgem-node doctor --config {options.folder / 'node.toml'}")
    return 0
