"""What is done with DICOM files by hand: send, echo, analyze."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from medgem_node.commands.common import Command, configured, model_arguments, named_peer, say
from medgem_node.errors import ConfigError, MedgemError


def add(command: Command) -> None:
    """send, echo, analyze."""
    send = command("send", _send, "Send DICOM files by C-STORE.")
    send.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="DICOM files, or folders of them")
    send.add_argument(
        "--to", required=True, metavar="PEER", help="a name of [destinations], or dimse://AETITLE@host:port"
    )
    command("echo", _echo, "Ask a peer whether it is there (C-ECHO).").add_argument("peer", metavar="PEER")
    analyze = command("analyze", _analyze, "Analyse DICOM files without a network.")
    analyze.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="DICOM files, or folders of them")
    model_arguments(analyze)
    analyze.add_argument("--out", type=Path, metavar="DIR", help="write the result objects there")
    analyze.add_argument("--json", type=Path, metavar="FILE", help="write one line for each study there")
    analyze.add_argument("--candidates", action="store_true", help="also every finding down to probability 0.001")


def _send(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from medgem_node import analyze, part10
    from medgem_node.dimse import scu

    config = configured(options)
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
        scu.store(named_peer(options.to, config), config.node.ae_title, instances, sent=lambda _: bar.update())
    say(f"{len(instances)} of {len(files)} files sent")
    return 0 if instances else 1


def _echo(options: argparse.Namespace) -> int:
    from medgem_node.dimse import scu

    config = configured(options)
    peer = named_peer(options.peer, config)
    scu.echo(peer, config.node.ae_title)
    say(f"{peer} answers")
    return 0


def _analyze(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from medgem_node import analyze
    from medgem_node.card import find_card

    config = configured(options)
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
