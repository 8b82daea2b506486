"""A first stage of training, from pictures without labels."""

from __future__ import annotations

import argparse

from medgem_node.commands.common import Command, as_asked, recipe_of, say, training_arguments


def add(command: Command) -> None:
    """pretrain."""
    training_arguments(command("pretrain", _pretrain, "Let a network's trunk learn from pictures without labels."))


def _pretrain(options: argparse.Namespace) -> int:
    from medgem_node.train.pretrain import pretrain

    kept = pretrain(
        recipe_of(options),
        options.data_folder,
        options.out,
        **as_asked(options),
        fold=options.fold,
    )
    say(f"train it further: medgem-node train ... --first-stage {kept}")
    return 0
