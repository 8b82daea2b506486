"""export: a model's network as an ONNX graph."""

from __future__ import annotations

import argparse
import sys

from medgem_node.commands.common import Command, configured, model_arguments, say


def add(command: Command) -> None:
    """export."""
    model_arguments(command("export", _export, "Write a model's network as an ONNX graph, checked against torch."))


def _export(options: argparse.Namespace) -> int:
    from medgem_node.card import find_card
    from medgem_node.train.export import export

    made = export(find_card(configured(options).models, options.model, options.version_of_model))
    say(f"{made.path}: at most {made.apart:.1e} from torch; write this into [weights] of its model.toml:", sys.stderr)
    say(f'onnx = "{made.path.name}"\nonnx_sha256 = "{made.sha256}"')
    return 0
