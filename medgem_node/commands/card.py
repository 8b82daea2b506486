"""A model's card: whether its figures are those of its evaluation, and writing them into it."""

from __future__ import annotations

import argparse

from medgem_node.commands.common import Command, configured, model_arguments, say


def add(command: Command) -> None:
    """card."""
    made = command("card", _card, "Compare a model's card with its evaluation, or fill it in.")
    model_arguments(made)
    made.add_argument("--write", action="store_true", help="write the figures into README.md and card.json")


def _card(options: argparse.Namespace) -> int:
    from medgem_node.card import find_card
    from medgem_node.train.report import card as figures

    model = find_card(configured(options).models, options.model, options.version_of_model)
    differ = list(figures.differences(model))
    if options.write:
        for name, text in zip(("README.md", "card.json"), figures.fill(model), strict=True):
            (model.folder / name).write_text(text, "utf-8")
    for name in differ:
        say(f"{name} {'written' if options.write else 'differs from evaluation/test.json; --write mends it'}")
    if not differ:
        say("README.md and card.json say what evaluation/test.json says")
    return 0 if options.write or not differ else 1
