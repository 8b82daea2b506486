"""What is learnt on top of finished weights: an embedding for similar cases, and a text encoder."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

from medgem_node.commands.common import Command, configured, model_arguments, say


def add(command: Command) -> None:
    """train-embedding, train-text."""
    embedding = command("train-embedding", _train_embedding, "Give a model's weights an embedding for similar cases.")
    embedding.add_argument("--dimensions", type=int, default=256, metavar="N", help="default: 256")
    embedding.add_argument(
        "--copies", type=int, default=1, metavar="N", help="of each film, otherwise taken; default: 1"
    )
    text = command("train-text", _train_text, "Train a text encoder that finds what a phrase names; for research.")
    for made in (embedding, text):
        made.add_argument("data_folder", type=Path, metavar="IMAGES", help="laid out as the model's train.toml says")
        made.add_argument(
            "--out", type=Path, required=True, metavar="DIR", help="what was learnt, and what it is worth"
        )
        model_arguments(made)


def _train_embedding(options: argparse.Namespace) -> int:
    from medgem_node.card import find_card
    from medgem_node.train.embedding import train_embedding

    card = find_card(configured(options).models, options.model, options.version_of_model)
    result = train_embedding(
        card, options.data_folder, options.out, dimensions=options.dimensions, copies=options.copies, report=_told
    )
    say(json.dumps(result, indent=2))
    digest = hashlib.sha256((options.out / "weights.safetensors").read_bytes()).hexdigest()
    _told(f'to ship: [network] embedding = {options.dimensions}, [weights] sha256 = "{digest}"')
    return 0


def _train_text(options: argparse.Namespace) -> int:
    from medgem_node.card import find_card
    from medgem_node.train.text import train_text

    card = find_card(configured(options).models, options.model, options.version_of_model)
    say(json.dumps(train_text(card, options.data_folder, options.out, report=_told), indent=2))
    return 0


def _told(text: str) -> None:
    say(text, sys.stderr)
