"""What a recipe would be trained on: films by source, split and label, their licences, and leaks between splits."""

from __future__ import annotations

import argparse
from pathlib import Path

from medgem_node.commands.common import Command, say


def add(command: Command) -> None:
    """data."""
    data = command("data", _data, "Count a recipe's films, show their licences, and look for leaks between splits.")
    data.add_argument("recipe", type=Path, metavar="TRAIN.TOML")
    data.add_argument("data_folder", type=Path, metavar="IMAGES")


def _data(options: argparse.Namespace) -> int:
    from medgem_node.train import leaks
    from medgem_node.train.data import licences, read_recipe

    recipe = read_recipe(options.recipe)
    for line in licences(recipe):
        say(f"licence of {line}")
    found = leaks.survey(recipe, options.data_folder)
    for line in found.lines():
        say(line)
    for leak in found.leaks:
        say(f"LEAK {leak}" + (" (named in `twins`)" if leaks.is_known(leak, recipe) else ""))
    say(f"{len(found.leaks)} leaks, {sum(leak.into_test for leak in found.leaks)} of them into test")
    return 1 if any(not leaks.is_known(leak, recipe) for leak in found.leaks) else 0
