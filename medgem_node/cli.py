"""The command `medgem-node`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from medgem_node import __version__
from medgem_node.config import Config, read_config, shipped
from medgem_node.errors import ConfigError, MedgemError
from medgem_node.peer import Peer

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded; see engines/local.py


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 failed, 2 wrong use or configuration."""
    options = _parser().parse_args(arguments)
    if not options.verbose:
        warnings.simplefilter("ignore")  # libraries warn of what strangers' headers hold, with the values
    try:
        run: Callable[[argparse.Namespace], int] = options.run
        return run(options)
    except MedgemError as exc:
        say(f"medgem-node: {exc}", sys.stderr)
        return exc.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 1
    except Exception as exc:  # an edge: the last word, without what the exception may quote of a patient
        if options.verbose:
            raise
        say(f"medgem-node: internal error: {type(exc).__name__} (--verbose shows where)", sys.stderr)
        return 1


def say(text: str, stream: TextIO | None = None) -> None:
    """One line for whoever called."""
    print(text, file=stream or sys.stdout, flush=True)


# -- commands ------------------------------------------------------------------------------------------------------


def _start(options: argparse.Namespace) -> int:
    from medgem_node import node

    config = _config(options)
    node.set_up_logging(config.node.log_level)
    if options.role:
        node.run_role(config, options.role)
        return 0
    command = [sys.executable, "-m", "medgem_node.cli", "start"]
    if options.config:
        command += ["--config", str(options.config)]
    for setting in _settings(options):
        command += ["--set", setting]
    return node.supervise(config, command)


def _status(options: argparse.Namespace) -> int:
    from medgem_node import status

    for line in status.lines(_config(options), full=options.all):
        say(line)
    return 0


def _agreement(options: argparse.Namespace) -> int:
    from medgem_node import agreement

    models = agreement.read_agreement(_config(options), options.model)
    for line in [json.dumps([m.to_dict() for m in models], indent=2)] if options.json else agreement.lines(models):
        say(line)
    return 0


def _retry(options: argparse.Namespace) -> int:
    from medgem_node.node import open_node
    from medgem_node.study import StudyState

    node = open_node(_config(options))
    waiting = node.ledger.studies(StudyState.HELD, StudyState.UNMATCHED)
    moved = sum(node.ledger.move(study, StudyState.RECEIVING) for study in waiting)
    node.ledger.close()
    say(f"{moved} of {len(waiting)} held or unmatched studies go through the rules again")
    return 0


def _send(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from medgem_node import analyze, part10
    from medgem_node.dimse import scu

    config = _config(options)
    files = list(analyze.find_files(options.paths))
    if not files:
        raise ConfigError("no files there; name DICOM files or folders")
    instances = []
    for path in files:
        try:
            instance = part10.decode(path.read_bytes())
            part10.check_depth(instance)
            instances.append(instance)
        except MedgemError as exc:
            say(f"{path}: left out: {exc}", sys.stderr)
    instances = [i for i in instances if "SOPClassUID" in i and "SOPInstanceUID" in i]
    with tqdm(total=len(instances), unit="instance", disable=not sys.stderr.isatty()) as bar:
        scu.store(_peer(options.to, config), config.node.ae_title, instances, sent=lambda _: bar.update())
    say(f"{len(instances)} of {len(files)} files sent")
    return 0 if instances else 1


def _echo(options: argparse.Namespace) -> int:
    from medgem_node.dimse import scu

    config = _config(options)
    peer = _peer(options.peer, config)
    scu.echo(peer, config.node.ae_title)
    say(f"{peer} answers")
    return 0


def _analyze(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from medgem_node import analyze
    from medgem_node.card import find_card

    config = _config(options)
    card = find_card(config.models, options.model, options.version_of_model)
    files = list(analyze.find_files(options.paths))
    lines = analyze.analyze(files, card, options.out, config, options.candidates)
    sink = open(options.json, "w", encoding="utf-8") if options.json else None  # noqa: SIM115
    try:
        for line in tqdm(lines, unit="study", disable=not sys.stderr.isatty()):
            if sink is not None:
                sink.write(json.dumps(line) + "\n")
                sink.flush()
            else:
                say(json.dumps(line))
    finally:
        if sink is not None:
            sink.close()
    return 0


def _deidentify(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from medgem_node import analyze
    from medgem_node.deid.profile import deidentify_bytes
    from medgem_node.deid.pseudonym import Pseudonyms, read_or_make_key

    config = _config(options)
    config.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    pseudonyms = Pseudonyms(read_or_make_key(config.key_file))
    held = 0
    files = list(analyze.find_files([options.input]))
    for n, path in enumerate(tqdm(files, unit="file", disable=not sys.stderr.isatty()), 1):
        target = options.output / f"{n:06d}.dcm"  # a file's name may hold a name
        try:
            copy = deidentify_bytes(path.read_bytes(), pseudonyms)
        except MedgemError as exc:
            held += 1
            say(f"{path}: held: {exc}", sys.stderr)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(copy)
    say(f"{len(files) - held} of {len(files)} files de-identified into {options.output}, {held} held")
    return 1 if held else 0


def _demo(options: argparse.Namespace) -> int:
    from medgem_node.demo import run_demo

    return run_demo(say, options.data and options.data.absolute(), options.stay)


def _doctor(options: argparse.Namespace) -> int:
    from medgem_node import doctor

    marks = {"ok": "ok     ", "warning": "WARNING", "wrong": "WRONG  "}
    worst = 0
    for check in doctor.examine(options.config, tuple(_settings(options))):
        say(f"{marks[check.state]} {check.subject}: {check.says}")
        if check.mend:
            say(f"        -> {check.mend}")
        worst = max(worst, 1 if check.state == "wrong" else 0)
    return worst


def _models(options: argparse.Namespace) -> int:
    from medgem_node.card import find_cards

    for card in find_cards(_config(options).models):
        say(f"{card.name} {card.version}  {card.title}  ({card.status})  {card.folder}")
    return 0


def _train(options: argparse.Namespace) -> int:
    from medgem_node.train.loop import train

    out = train(
        options.recipe,
        options.data_folder,
        options.out,
        minutes=options.minutes,
        threads=options.threads,
        resume=options.resume,
        report=say,
    )
    say(f"weights in {out}")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from medgem_node.card import find_card
    from medgem_node.train.evaluate import evaluate

    card = find_card(_config(options).models, options.model, options.version_of_model)
    result = evaluate(card, options.data_folder, split=options.split, report=lambda text: say(text, sys.stderr))
    say(json.dumps(result, indent=2))
    return 0


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


# -- arguments -----------------------------------------------------------------------------------------------------


def _config(options: argparse.Namespace) -> Config:
    return read_config(options.config, _settings(options))


def _settings(options: argparse.Namespace) -> list[str]:
    settings = list(options.set)
    if options.data is not None:
        settings.append(f"node.data={json.dumps(str(options.data))}")
    return settings


def _peer(text: str, config: Config) -> Peer:
    return Peer.parse(config.destinations.get(text, text))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="medgem-node",
        description="A DICOM node that puts an AI detector into a hospital's workflow. Research use only.",
    )
    parser.add_argument("--version", action="version", version=f"medgem-node {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config", type=Path, metavar="FILE", help="node.toml; default: the one that came with the package"
    )
    common.add_argument("--data", type=Path, metavar="DIR", help="data folder, instead of node.data")
    common.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="put one setting over the file's"
    )
    common.add_argument("--verbose", action="store_true", help="show where an internal error came from")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, parents=[common])
        made.set_defaults(run=run)
        return made

    def model(made: argparse.ArgumentParser) -> None:
        made.add_argument("--model", required=True, metavar="NAME", help="as `medgem-node models` lists it")
        made.add_argument(
            "--model-version", dest="version_of_model", default="", metavar="X.Y.Z", help="default: newest"
        )

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
    send = command("send", _send, "Send DICOM files by C-STORE.")
    send.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="DICOM files, or folders of them")
    send.add_argument(
        "--to", required=True, metavar="PEER", help="a name of [destinations], or dimse://AETITLE@host:port"
    )
    command("echo", _echo, "Ask a peer whether it is there (C-ECHO).").add_argument("peer", metavar="PEER")
    analyze = command("analyze", _analyze, "Analyse DICOM files without a network.")
    analyze.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="DICOM files, or folders of them")
    model(analyze)
    analyze.add_argument("--out", type=Path, metavar="DIR", help="write the result objects there")
    analyze.add_argument("--json", type=Path, metavar="FILE", help="write one line for each study there")
    analyze.add_argument("--candidates", action="store_true", help="also every finding down to probability 0.01")
    deidentify = command("deidentify", _deidentify, "De-identify DICOM files (PS3.15 Basic Profile).")
    deidentify.add_argument("input", type=Path, metavar="IN")
    deidentify.add_argument("output", type=Path, metavar="OUT")
    command("demo", _demo, "A PACS, this node and a real X-ray on this machine.").add_argument(
        "--stay", action="store_true", help="stay up until Ctrl-C"
    )
    command("doctor", _doctor, "What is wrong, in plain words, and how to mend it.")
    command("models", _models, "The models that are installed.")
    train = command("train", _train, "Train a model from its recipe.")
    train.add_argument("recipe", type=Path, metavar="TRAIN.TOML")
    train.add_argument("data_folder", type=Path, metavar="IMAGES")
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="checkpoints and weights")
    train.add_argument("--minutes", type=float, default=60.0, help="stop after so long; --resume goes on")
    train.add_argument("--threads", type=int, default=0, help="0: all cores")
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    evaluate = command("evaluate", _evaluate, "Measure a model on labelled images.")
    evaluate.add_argument("data_folder", type=Path, metavar="IMAGES")
    model(evaluate)
    evaluate.add_argument("--split", default="test", help="train, validation or test; the recipe says who is in which")
    command("init", _init, "Write a configuration to edit.").add_argument("folder", type=Path, metavar="DIR")
    return parser


if __name__ == "__main__":
    sys.exit(main())
