"""Refining the boxes of a finished network, and whether that finds more."""

from __future__ import annotations

import argparse
from pathlib import Path

from medgem_node.commands.common import Command, as_asked


def add(command: Command) -> None:
    """refine."""
    text = "Teach a finished network to look again at its best boxes, and compare with the boxes as they were."
    refine = command("refine", _refine, text)
    refine.add_argument("recipe", type=Path, metavar="TRAIN.TOML", help="of the network, model.toml beside it")
    refine.add_argument("data_folder", type=Path, metavar="IMAGES")
    refine.add_argument("--weights", type=Path, required=True, metavar="FILE", help="of the finished network")
    refine.add_argument("--out", type=Path, required=True, metavar="DIR", help="checkpoint, weights, comparison.json")
    refine.add_argument("--queries", type=int, default=20, metavar="N", help="boxes to look at again; default 20")
    refine.add_argument("--steps", type=int, default=160, help="default 160")
    refine.add_argument("--minutes", type=float, default=60.0, help="stop after so long; --resume goes on")
    refine.add_argument("--threads", type=int, default=0, help="0: all cores")
    refine.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")


def _refine(options: argparse.Namespace) -> int:
    from medgem_node.train.refine import refine

    refine(
        options.recipe,
        options.data_folder,
        options.weights,
        options.out,
        **as_asked(options),
        steps=options.steps,
        queries=options.queries,
    )
    return 0
