"""The first stage: what is hidden, that it is learnt, and that a killed one goes on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch
from harness.toy_training import NETWORK, RECIPE, write_recipe
from safetensors.torch import load_file

from medgem_node.commands import pretrain as command
from medgem_node.errors import ConfigError
from medgem_node.train import loop, pretrain
from medgem_node.train.pretrain import Pretraining, blocks, hidden_error

FIRST = "\n[pretrain]\nsteps = 4\nmasked = 0.5\nblock = 16\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "model", recipe=RECIPE + FIRST)


def learn(recipe: Path, data: Path, out: Path, *, resume: bool = False) -> dict[str, torch.Tensor]:
    return load_file(
        pretrain.pretrain(recipe, data, out, minutes=5, threads=1, resume=resume, report=lambda line: None)
    )


def test_the_same_share_of_each_image_is_hidden_in_whole_blocks() -> None:
    hidden = blocks((3, 1, 64, 96), 0.5, 16, torch.Generator().manual_seed(0))

    assert hidden.shape == (3, 1, 64, 96)
    assert hidden.float().mean(dim=(1, 2, 3)).tolist() == [0.5, 0.5, 0.5]
    whole = hidden.reshape(3, 4, 16, 6, 16).float().mean(dim=(2, 4))
    assert set(whole.flatten().tolist()) == {0.0, 1.0}


def test_only_hidden_pixels_cost() -> None:
    image, imagined = torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 0.5)
    imagined[..., 2:] = 7.0
    hidden = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    hidden[..., :2] = True

    assert hidden_error(imagined, image, hidden).item() == 0.5


def test_what_is_hidden_does_not_reach_the_network(recipe: Path) -> None:
    network = Pretraining.new(loop.read_recipe(recipe), loop.network_config(recipe)).network.eval()
    hidden = blocks((1, 1, 64, 64), 0.5, 16, torch.Generator().manual_seed(0))
    image = torch.randn(1, 1, 64, 64)

    assert torch.equal(network(image, hidden), network(image + 5 * hidden, hidden))


def test_the_first_stage_learns_what_hidden_blocks_hold(recipe: Path, data: Path) -> None:
    recipe.write_text((RECIPE + FIRST).replace("steps = 4", "steps = 25").replace("1e-3", "1e-2"))
    plan, config = loop.read_recipe(recipe), loop.network_config(recipe)
    films = [loop.prepared(film, config.size) for film in loop.read_films(plan, data, "train")]
    images, _ = loop.Batches(plan, config, films).batch(0)
    torch.manual_seed(0)
    stage = Pretraining.new(plan, config)

    errors = [stage.learn(images) for _ in range(25)]

    one_grey = (images - images.median()).abs().mean().item()  # what a network that sees nothing can reach
    assert errors[0] > one_grey
    assert sum(errors[-5:]) / 5 < 0.7 * one_grey


def test_a_killed_first_stage_goes_on_as_if_it_had_not_been(
    recipe: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = learn(recipe, data, tmp_path / "whole")
    unbroken = Pretraining.learn

    def killed(own: Pretraining, images: torch.Tensor) -> float:
        if own.step == 2:
            own.save(tmp_path / "parts")
            raise KeyboardInterrupt
        return unbroken(own, images)

    monkeypatch.setattr(Pretraining, "learn", killed)
    with pytest.raises(KeyboardInterrupt):
        learn(recipe, data, tmp_path / "parts")
    monkeypatch.setattr(Pretraining, "learn", unbroken)
    parts = learn(recipe, data, tmp_path / "parts", resume=True)

    assert all(torch.equal(parts[name], value) for name, value in whole.items())


def test_training_starts_from_the_trunk_of_the_first_stage(recipe: Path, data: Path, tmp_path: Path) -> None:
    options = argparse.ArgumentParser()
    command.add(lambda name, run, text: options)
    given = options.parse_args([str(recipe), str(data), "--out", str(tmp_path / "first"), "--threads", "1"])
    given.config = None
    assert command._pretrain(given) == 0
    trunk = tmp_path / "first/first-stage.safetensors"

    weights = loop.train(
        recipe, data, tmp_path / "out", minutes=0, threads=1, resume=False, report=lambda line: None, first_stage=trunk
    )

    started = load_file(weights)  # of no step
    assert all(torch.equal(started[f"trunk.{name}"], value) for name, value in load_file(trunk).items())
    assert len(json.loads((tmp_path / "out/run.json").read_text())["first_stage_sha256"]) == 64


def test_the_trunk_of_another_network_is_refused(recipe: Path, data: Path, tmp_path: Path) -> None:
    learn(recipe, data, tmp_path / "first")
    wider = write_recipe(tmp_path / "wider", NETWORK.replace("widths = [16, 16, 16]", "widths = [16, 16, 32]"))

    run = loop.Run.new(loop.read_recipe(wider), loop.network_config(wider))
    with pytest.raises(ConfigError, match="not the trunk"):
        run.start_from(tmp_path / "first/first-stage.safetensors")


def test_a_recipe_without_a_first_stage_says_so(tmp_path: Path, data: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[pretrain\]"):
        learn(write_recipe(tmp_path / "plain"), data, tmp_path / "out")
