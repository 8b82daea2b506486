"""Two processes that train one network together, by gloo on the CPU."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from harness.toy_training import NETWORK, RECIPE, made_batch
from safetensors.torch import load_file

from medgem_node.errors import ConfigError
from medgem_node.train import loop
from medgem_node.train.distributed import Ranks


def train(recipe: Path, data: Path, out: Path) -> dict[str, torch.Tensor]:
    weights = loop.train(recipe, data, out, minutes=5, threads=1, resume=False, report=lambda line: None)
    assert weights.exists()
    return load_file(out / "checkpoint-2.safetensors")


def test_two_ranks_learn_what_one_process_learns(
    recipe: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what is drawn inside the network differs between ranks; without it only the order of additions does
    (recipe.parent / "model.toml").write_text(NETWORK.replace("drop_path = 0.1", "drop_path = 0.0"))
    # the gate's dropout stays, but teaches nothing
    recipe.write_text(RECIPE.replace("gate = 0.3", "gate = 0.0").replace("cycle_ends = [3, 4]", "cycle_ends = [1, 2]"))
    alone = train(recipe, data, tmp_path / "alone")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ranks = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}  # as torchrun sets them
    out = tmp_path / "together"
    command = ["-m", "medgem_node.cli", "train", recipe, data, "--out", out, "--threads", "1", "--verbose"]
    other = subprocess.Popen([sys.executable, *map(str, command)], env={**os.environ, **ranks, "RANK": "1"})
    try:
        for name, value in {**ranks, "RANK": "0"}.items():
            monkeypatch.setenv(name, value)
        together = train(recipe, data, out)
        assert other.wait(60) == 0
    finally:
        other.kill()
        other.wait()

    apart = {name: (together[name] - value).abs().max().item() for name, value in alone.items()}
    gradients = [name for name in alone if name.endswith("exp_avg")]
    assert max(alone[name].abs().max().item() for name in gradients) > 1e-2
    assert max(apart[name] for name in gradients) < 1e-6
    assert max(apart.values()) < 5e-5  # AdamW moves each weight by 1e-3, and the more by rounding the less it matters


def test_each_film_of_a_batch_is_one_ranks() -> None:
    _, target = made_batch()
    images = torch.arange(5.0)[:, None, None, None].expand(5, 1, 4, 4)

    parts = [Ranks(rank, 2, torch.device("cpu")).part(images, target) for rank in (0, 1)]

    assert [part[0][:, 0, 0, 0].tolist() for part in parts] == [[0, 2, 4], [1, 3]]
    assert [part[1].gate.tolist() for part in parts] == [target.gate[0::2].tolist(), target.gate[1::2].tolist()]
    assert [len(part[1].masks) for part in parts] == [2, 1]


def test_a_batch_too_small_for_the_ranks_is_an_error() -> None:
    _, target = made_batch()

    with pytest.raises(ConfigError, match="6 ranks"):
        Ranks(0, 6, torch.device("cpu")).part(torch.zeros(5, 1, 4, 4), target)
