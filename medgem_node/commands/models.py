"""Models: what is installed, training, measuring."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medgem_node.commands.common import (
    Command,
    as_asked,
    configured,
    model_arguments,
    recipe_of,
    say,
    training_arguments,
)
from medgem_node.config import BACKENDS
from medgem_node.errors import ConfigError

if TYPE_CHECKING:
    from medgem_node.card import ModelCard


def add(command: Command) -> None:
    """models, train, evaluate."""
    command("models", _models, "The models that are installed.")
    train = command("train", _train, "Train a model from its recipe.")
    training_arguments(train)
    train.add_argument("--first-stage", type=Path, metavar="FILE", help="start from this trunk of `pretrain`")
    train.add_argument("--leaks-known", action="store_true", help="start although films may lie in two splits")
    evaluate = command("evaluate", _evaluate, "Measure a model on labelled images.")
    evaluate.add_argument("data_folder", type=Path, metavar="IMAGES")
    model_arguments(evaluate)
    evaluate.add_argument("--split", default="test", help="train, validation or test; the recipe says who is in which")
    evaluate.add_argument("--backend", choices=BACKENDS, default="torch", help="what computes the network")
    evaluate.add_argument("--report", type=Path, metavar="DIR", help="write evaluation.json and index.html there too")
    evaluate.add_argument(
        "--explanations", action="store_true", help="also whether the model's maps show where the lesions are; slow"
    )
    evaluate.add_argument(
        "--gallery", type=int, default=0, metavar="N", help="in DIR, gallery.html with the N worst films of each kind"
    )


def _models(options: argparse.Namespace) -> int:
    from medgem_node.card import find_cards
    from medgem_node.site import read_site

    config = configured(options)
    for card in find_cards(config.models):
        say(f"{card.name} {card.version}  {card.title}  ({card.status})  {card.folder}")
        if site := read_site(config.data, card.name, card.version):
            points = ", ".join(f"{p.output} from {p.operating_point:g}" for p in site.points)
            used = "" if site.fits(card) else "; with another manifest, not used"
            say(f"  calibrated for this site {site}: {points}{used}")
    return 0


def _train(options: argparse.Namespace) -> int:
    from medgem_node.train.loop import train

    out = train(
        recipe_of(options),
        options.data_folder,
        options.out,
        **as_asked(options),
        fold=options.fold,
        first_stage=options.first_stage,
        look_for_leaks=not options.leaks_known,
    )
    say(f"weights in {out}")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    if options.gallery and options.report is None:
        raise ConfigError("--gallery writes pictures into the folder of --report DIR, which was not given")
    from datetime import UTC, datetime

    from medgem_node.card import find_card
    from medgem_node.train.evaluate import measure
    from medgem_node.train.report import gallery, page

    card = find_card(configured(options).models, options.model, options.version_of_model)
    explained = _explanations(card, options) if options.explanations else {}  # first: it may say that there is nothing
    measured = measure(
        card,
        options.data_folder,
        split=options.split,
        backend=options.backend,
        report=lambda text: say(text, sys.stderr),
    )
    figures = {"date": datetime.now(UTC).date().isoformat(), **measured.figures, **explained}
    if options.report is not None:
        say(f"report: {page.write(options.report, figures)}", sys.stderr)
    if options.gallery:
        say(f"gallery: {gallery.write(options.report, measured.cases, card, options.gallery)}", sys.stderr)
        say(f"warning: {gallery.WARNING}", sys.stderr)
    say(json.dumps(figures, indent=2))
    return 0


def _explanations(card: ModelCard, options: argparse.Namespace) -> dict[str, Any]:
    from medgem_node.train.evaluate_explanations import evaluate_explanations

    figures = evaluate_explanations(
        card, options.data_folder, split=options.split, report=lambda text: say(text, sys.stderr)
    )
    return {"explanations": figures}
