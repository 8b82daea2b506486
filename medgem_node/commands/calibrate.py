"""Operating points: a site's own, and those that a release's manifest states."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import date
from pathlib import Path

from medgem_node.commands.common import Command, configured, model_arguments, say
from medgem_node.config import Config


def add(command: Command) -> None:
    """calibrate."""
    text = "Choose from which probability on a mark is reported, on films of this site that are free of lesions."
    calibrate = command("calibrate", _calibrate, text)
    calibrate.add_argument("images", type=Path, metavar="IMAGES", help="a folder of DICOM or PNG files")
    model_arguments(calibrate)
    calibrate.add_argument("--false-marks", type=_rate, default=0.5, metavar="N", help="a film, at most; default 0.5")
    calibrate.add_argument(
        "--normals", default="all", metavar="CSV", help="which are free of lesions: image,normal (0 or 1); default: all"
    )
    calibrate.add_argument("--write", action="store_true", help="let the node use it from the next job on")
    calibrate.add_argument(
        "--release",
        action="store_true",
        help="IMAGES are the training recipe's: print what the manifest should state, chosen on its validation films",
    )
    calibrate.add_argument("--json", type=Path, metavar="FILE", help="with --release: every figure behind it")


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value <= 10:
        raise argparse.ArgumentTypeError("must be above 0 and at most 10")
    return value


def _calibrate(options: argparse.Namespace) -> int:
    config = configured(options)
    return _release(options, config) if options.release else _site(options, config)


def _site(options: argparse.Namespace, config: Config) -> int:
    from tqdm import tqdm

    from medgem_node.card import find_card
    from medgem_node.site import to_toml, write_site
    from medgem_node.train.calibrate import analysed, calibrated, normals

    card = find_card(config.models, options.model, options.version_of_model)
    paths = normals(options.images, options.normals)
    with tqdm(total=len(paths), unit="film", disable=not sys.stderr.isatty()) as bar:
        films = analysed(card, paths, bar.update)
    for reason, n in sorted(films.left_out.items()):
        say(f"{n} left out: {reason}", sys.stderr)
    site = calibrated(card, films, options.false_marks, date.today().isoformat())
    say(to_toml(site))
    if options.write:
        say(f"{write_site(config.data, site)} written; it counts from the next job on", sys.stderr)
    else:
        say("nothing was written; --write lets the node use it", sys.stderr)
    return 0


def _release(options: argparse.Namespace, config: Config) -> int:
    from medgem_node.card import find_card
    from medgem_node.train.choose import manifest_lines, release

    card = find_card(config.models, options.model, options.version_of_model)
    chosen = release(card, options.images, options.false_marks, report=lambda text: say(text, sys.stderr))
    for label, found in chosen.items():
        say("\n".join(manifest_lines(label, found)))
    if options.json:
        options.json.write_text(json.dumps(chosen, indent=2), "utf-8")
    return 0
