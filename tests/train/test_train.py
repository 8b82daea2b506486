"""Training on a handful of films drawn in code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from medgem_node.detector.hiera import NetworkConfig
from medgem_node.detector.network import ChestNetwork
from medgem_node.errors import ConfigError
from medgem_node.train import loop, run
from medgem_node.train.data import read_films, read_recipe, split_of
from medgem_node.train.loss import loss

SHIPPED = Path(__file__).parents[2] / "models/chest-xray/1.0.0/train.toml"
NETWORK = """
[network]
size = 64
stem = [8, 8]
widths = [16, 16, 16]
depths = [1, 1, 1]
heads = [2, 2, 2]
window = 4
mlp_ratio = 2.0
drop_path = 0.1
decoder = [8, 8, 8, 8]
masks = ["right-lung", "left-lung", "heart"]
points = ["heart-right", "heart-left", "thorax-right", "thorax-left"]
classes = ["frontal", "rotated", "upside-down", "mirrored", "inverted", "other"]
"""
RECIPE = """
seed = 7
cycle_ends = [3, 4]
validation_joins = 3
learning_rate = 1e-3
warmup_steps = 2
weight_decay = 0.05
ema_decay = 0.9
turned_share = 1
loss = { masks = 1.0, points = 0.3, gate = 0.3 }
split = { validation = 0, test = 0 }
[augment]
rotation_degrees = 5.0
scale = 0.1
shift = 0.05
aspect = 0.05
gamma = 0.3
window = 0.1
noise = 0.02
blur = 1.0
[[sources]]
name = "drawn"
kind = "contours"
images = "films/*.png"
truth = "contours.json"
share = 2
[[sources]]
name = "lungs"
kind = "lungs"
images = "lungs/*"
truth = "_lungs.png"
share = 1
"""
LITE = (
    NETWORK.replace("stem = [8, 8]", "stem = [16, 24]")
    .replace("widths = [16, 16, 16]", "widths = [40, 16, 16]")
    .replace("decoder = [8, 8, 8, 8]", "decoder = [8, 8, 8]")
    + 'trunk = "lite0"\nboxes = ["nodule-or-mass"]\nviews = ["PA", "AP"]\n'
)
LITE_RECIPE = (
    RECIPE.replace("loss = { masks = 1.0,", "loss = { lesions = 1.0, geometry = 0.3, views = 0.1, masks = 1.0,")
    .replace("warmup_steps", "mirror_lesions = 0.5\nsmall_size = 32\nsmall_steps = 2\nstem_rate = 0.3\nwarmup_steps")
    .replace('truth = "_lungs.png"', 'truth = "_lungs.png"\npaste = 1.0\nlesion_kind = "none"\nview = "PA"')
)
CONTOURS = {
    "RL": [[0.15, 0.2], [0.4, 0.2], [0.4, 0.8], [0.15, 0.8]],
    "LL": [[0.6, 0.2], [0.85, 0.2], [0.85, 0.8], [0.6, 0.8]],
    "H": [[0.38, 0.5], [0.7, 0.5], [0.7, 0.8], [0.38, 0.8]],
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four films with contours, one with a lung mask."""
    rng = np.random.default_rng(0)
    for folder in ("films", "lungs"):
        (tmp_path / folder).mkdir()
    chest = np.full((80, 80), 200.0)
    chest[16:64, 12:32] = chest[16:64, 48:68] = 60
    for n in range(4):
        grey = np.clip(chest + rng.normal(0, 8, chest.shape), 0, 255).astype(np.uint8)
        Image.fromarray(grey).save(tmp_path / f"films/f{n}.png")
    Image.fromarray(chest.astype(np.uint8)).save(tmp_path / "lungs/g.png")
    Image.fromarray((chest < 100).astype(np.uint8) * 255).save(tmp_path / "lungs/g_lungs.png")
    (tmp_path / "contours.json").write_text(json.dumps({f"f{n}": CONTOURS for n in range(4)}))
    return tmp_path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.toml").write_text(NETWORK)
    (folder / "train.toml").write_text(RECIPE)
    return folder / "train.toml"


def train(recipe: Path, data: Path, out: Path, *, minutes: float = 5, resume: bool = False) -> dict[str, torch.Tensor]:
    return load_file(loop.train(recipe, data, out, minutes=minutes, threads=1, resume=resume, report=lambda line: None))


def test_the_same_recipe_gives_the_same_weights(recipe: Path, data: Path, tmp_path: Path) -> None:
    first, second = (train(recipe, data, tmp_path / name) for name in ("a", "b"))

    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(
    recipe: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(recipe, data, tmp_path / "whole")
    learn = run.Run.learn

    def two_steps(own: run.Run, *batch: object) -> dict[str, float]:
        if own.step == 2:
            raise KeyboardInterrupt
        parts = learn(own, *batch)
        own.save(tmp_path / "parts")
        return parts

    monkeypatch.setattr(run.Run, "learn", two_steps)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, data, tmp_path / "parts")
    monkeypatch.setattr(run.Run, "learn", learn)
    parts = train(recipe, data, tmp_path / "parts", resume=True)

    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-5, atol=1e-6)


def test_a_killed_training_of_boxes_goes_on_as_if_it_had_not_been(
    recipe: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.Run, "start_from_imagenet", lambda own: None)
    (recipe.parent / "model.toml").write_text(LITE)
    recipe.write_text(LITE_RECIPE)
    whole = train(recipe, data, tmp_path / "whole")
    learn = run.Run.learn

    def three_steps(own: run.Run, *batch: Any) -> dict[str, float]:
        if own.step == 3:
            raise KeyboardInterrupt
        parts = learn(own, *batch)
        own.save(tmp_path / "parts")
        return parts

    monkeypatch.setattr(run.Run, "learn", three_steps)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, data, tmp_path / "parts")
    monkeypatch.setattr(run.Run, "learn", learn)
    parts = train(recipe, data, tmp_path / "parts", resume=True)

    assert all(torch.equal(parts[name], value) for name, value in whole.items())


def test_a_run_notes_what_its_weights_come_from(recipe: Path, data: Path, tmp_path: Path) -> None:
    train(recipe, data, tmp_path / "out")

    origin = json.loads((tmp_path / "out/run.json").read_text())
    assert origin["seed"] == 7
    assert len(origin["data_sha256"]) == len(origin["recipe_sha256"]) == 64


def test_a_fold_moves_no_film_of_the_test_split(recipe: Path, data: Path) -> None:
    recipe.write_text(RECIPE.replace("split = { validation = 0, test = 0 }", "split = { validation = 20, test = 30 }"))
    plan = read_recipe(recipe)

    tests = [{f.name for f in read_films(plan, data, "test", fold=fold)} for fold in (None, 0, 1, 2)]
    held = [{f.name for f in read_films(plan, data, "validation", fold=fold)} for fold in (0, 1, 2)]
    taught = [{f.name for f in read_films(plan, data, "train", fold=fold)} for fold in (0, 1, 2)]

    assert tests.count(tests[0]) == 4
    assert sum(map(len, held)) == len(set().union(*held))
    assert all(not own & others and not (own | others) & tests[0] for own, others in zip(held, taught, strict=True))


def test_the_checkpoint_of_another_recipe_is_refused(recipe: Path, data: Path, tmp_path: Path) -> None:
    train(recipe, data, tmp_path / "out")
    recipe.write_text(RECIPE.replace("seed = 7", "seed = 8"))

    with pytest.raises(ConfigError, match="seed"):
        train(recipe, data, tmp_path / "out", resume=True)


def test_the_weights_fit_the_network_of_the_manifest(recipe: Path, data: Path, tmp_path: Path) -> None:
    weights = train(recipe, data, tmp_path / "out")

    ChestNetwork(loop.network_config(recipe)).load_state_dict(weights, strict=True)


def test_a_small_network_learns_four_films_by_heart(recipe: Path, data: Path) -> None:
    torch.manual_seed(0)
    films = read_films(read_recipe(recipe), data, "train")[:4]
    plan = loop.read_recipe(recipe)
    config = loop.network_config(recipe)
    images, target = loop.Batches(plan, config, [loop.prepared(f, config.size) for f in films]).batch(0)
    network = ChestNetwork(NetworkConfig(**{**{k: getattr(config, k) for k in config.__slots__}, "drop_path": 0.0}))
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)

    costs = []
    for _ in range(40):
        parts = loss(network(images, len(target.masks)), target)
        optimiser.zero_grad()
        torch.stack(list(parts.values())).sum().backward()
        optimiser.step()
        costs.append(parts["masks"].item())

    assert costs[-1] < 0.4 * costs[0]


def test_the_truth_of_contours_has_their_size_and_sides(recipe: Path, data: Path) -> None:
    film = next(f for f in read_films(read_recipe(recipe), data, "train") if f.kind == "contours")

    assert film.truth is not None
    areas = film.truth.sum(axis=(1, 2)) / film.pixels.size
    assert areas == pytest.approx([0.15, 0.15, 0.096], abs=0.002)
    assert film.truth[0, :, :40].sum() > 0 == film.truth[0, :, 40:].sum()


def test_a_mask_of_both_lungs_is_split_by_side_and_says_nothing_of_the_heart(recipe: Path, data: Path) -> None:
    film = next(f for f in read_films(read_recipe(recipe), data, "train") if f.kind == "lungs")

    assert film.truth is not None
    assert film.known == (True, True, False)
    assert film.truth[0, :, 40:].sum() == 0 == film.truth[1, :, :40].sum()


def test_a_patient_never_changes_its_split() -> None:
    shares = {"validation": 14, "test": 20}

    splits = [split_of(f"film{n}", shares) for n in range(2000)]

    assert splits == [split_of(f"film{n}", shares) for n in range(2000)]
    assert splits.count("test") / 2000 == pytest.approx(0.20, abs=0.03)
    assert splits.count("validation") / 2000 == pytest.approx(0.14, abs=0.03)


def test_the_shipped_recipe_can_be_read_and_keeps_what_is_for_evaluation_out() -> None:
    recipe = read_recipe(SHIPPED)

    assert recipe.split == {"validation": 14, "test": 20}
    assert [s.name for s in recipe.sources if s.evaluate_only] == ["gbseg", "children"]


def test_an_unknown_key_of_a_recipe_is_an_error(recipe: Path) -> None:
    recipe.write_text(RECIPE.replace("warmup_steps", "warmup_stpes"))

    with pytest.raises(ConfigError, match="warmup_stpes"):
        read_recipe(recipe)


def test_a_source_without_films_is_an_error(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"films/\*\.png"):
        read_films(read_recipe(recipe), tmp_path / "model", "train")
