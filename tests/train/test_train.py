"""Training on a handful of films drawn in code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from harness.toy_training import LITE, LITE_RECIPE, RECIPE
from safetensors.torch import load_file

from medgem_node import cli
from medgem_node.detector.hiera import Block, NetworkConfig
from medgem_node.detector.network import ChestNetwork
from medgem_node.errors import ConfigError
from medgem_node.train import loop, run
from medgem_node.train.data import read_films, read_recipe, split_of
from medgem_node.train.loss import Target, loss

SHIPPED = Path(__file__).parents[2] / "models/chest-xray/1.0.0/train.toml"


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


STOPPING = RECIPE.replace("cycle_ends = [3, 4]", "cycle_ends = [6]").replace(
    "validation_joins = 3", 'validation_joins = 6\nstop_by = "heart"\npatience = 2'
)


@pytest.fixture
def judged(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The figure at each step of a training that stops by it: best at the second."""
    figures = [0.5, 0.7, 0.6, 0.7, 0.9, 0.9]
    monkeypatch.setattr(loop, "_VALIDATE_STEPS", 1)
    monkeypatch.setattr(loop, "validated", lambda average, films, size: {"heart": figures[seen.pop(0)]})
    seen = list(range(6))
    recipe.write_text(STOPPING)
    return seen


@pytest.mark.usefixtures("judged")
def test_training_ends_when_its_figure_is_no_better_and_ships_the_best(
    recipe: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    averages, learn = {}, run.Run.learn

    def watched(own: run.Run, *batch: Any) -> dict[str, float]:
        parts = learn(own, *batch)
        averages[own.step] = {name: value.clone() for name, value in own.average.state_dict().items()}
        return parts

    monkeypatch.setattr(run.Run, "learn", watched)
    shipped = train(recipe, data, tmp_path / "out")

    assert max(averages) == 4  # the second step's figure was the best, two more brought nothing
    assert all(torch.equal(shipped[name], value) for name, value in averages[2].items())
    assert not all(torch.equal(shipped[name], value) for name, value in averages[4].items())


def test_a_killed_training_still_knows_its_best(
    recipe: Path, data: Path, tmp_path: Path, judged: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(recipe, data, tmp_path / "whole")
    judged[:] = range(6)
    learn = run.Run.learn

    def killed(own: run.Run, *batch: Any) -> dict[str, float]:
        if own.step == 3:
            own.save(tmp_path / "parts")
            raise KeyboardInterrupt
        return learn(own, *batch)

    monkeypatch.setattr(run.Run, "learn", killed)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, data, tmp_path / "parts")
    monkeypatch.setattr(run.Run, "learn", learn)
    parts = train(recipe, data, tmp_path / "parts", resume=True)
    again = train(recipe, data, tmp_path / "parts", resume=True)

    assert json.loads((tmp_path / "parts/checkpoint.json").read_text())["step"] == 4
    assert all(torch.equal(parts[name], value) for name, value in whole.items())
    assert all(torch.equal(again[name], value) for name, value in whole.items())


@pytest.mark.usefixtures("judged")
def test_a_figure_that_the_validation_does_not_have_is_an_error(recipe: Path, data: Path, tmp_path: Path) -> None:
    recipe.write_text(STOPPING.replace('"heart"', '"jsrt@1"'))

    with pytest.raises(ConfigError, match=r"jsrt@1.*heart"):
        train(recipe, data, tmp_path / "out")


@pytest.fixture
def first_batch(recipe: Path, data: Path) -> tuple[torch.Tensor, Target]:
    plan, config = read_recipe(recipe), loop.network_config(recipe)
    films = [loop.prepared(film, config.size) for film in read_films(plan, data, "train")]
    return loop.Batches(plan, config, films).batch(0)


def learnt(recipe: Path, batch: tuple[torch.Tensor, Target], key: str) -> tuple[dict[str, float], run.Run]:
    """One step by a recipe with another key."""
    recipe.write_text(RECIPE.replace("seed = 7", f"seed = 7\n{key}"))
    torch.manual_seed(0)
    own = run.Run.new(read_recipe(recipe), loop.network_config(recipe))
    return own.learn(*batch), own


def test_checkpointed_attention_gives_the_same_loss_and_gradients(
    recipe: Path, first_batch: tuple[torch.Tensor, Target]
) -> None:
    kept, keeping = learnt(recipe, first_batch, "checkpointing = false")
    again, twice = learnt(recipe, first_batch, "checkpointing = true")

    assert any(block.checkpointing for block in twice.network.modules() if isinstance(block, Block))
    assert again == pytest.approx(kept, abs=1e-6)
    for one, other in zip(keeping.network.parameters(), twice.network.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=0, atol=1e-6)


def test_checkpointed_attention_keeps_less_for_the_gradient(
    recipe: Path, first_batch: tuple[torch.Tensor, Target]
) -> None:
    held = {}
    for key in ("checkpointing = false", "checkpointing = true"):
        _, own = learnt(recipe, first_batch, key)
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.numel()) or t, lambda t: t):
            own.network.trunk(first_batch[0])
        held[key] = sum(kept)

    assert held["checkpointing = true"] < 0.9 * held["checkpointing = false"]


def test_bfloat16_learns_nearly_what_float32_does_and_keeps_float32_weights(
    recipe: Path, first_batch: tuple[torch.Tensor, Target]
) -> None:
    exact, _ = learnt(recipe, first_batch, 'precision = "float32"')
    rough, own = learnt(recipe, first_batch, 'precision = "bfloat16"')

    assert rough == pytest.approx(exact, rel=0.03)
    assert rough != exact
    assert {p.dtype for p in own.network.parameters()} == {torch.float32}
    assert not own.scaler.is_enabled()


def test_an_unknown_precision_is_an_error(recipe: Path, first_batch: tuple[torch.Tensor, Target]) -> None:
    with pytest.raises(ConfigError, match="float8"):
        learnt(recipe, first_batch, 'precision = "float8"')


def test_the_last_step_is_reported(recipe: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_REPORT_STEPS", 2)
    train(recipe, data, tmp_path / "out")

    lines = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [2, 4]


@pytest.mark.parametrize("way", ["positional", "config"])
def test_a_recipe_is_named_before_the_images_or_by_config(way: str, recipe: Path, data: Path, tmp_path: Path) -> None:
    named = [str(recipe)] if way == "positional" else ["--config", str(recipe)]

    command = ["train", *named, str(data), "--out", str(tmp_path / "out"), "--minutes", "0", "--fold", "1"]

    assert cli.main([*command, "--leaks-known"]) == 0
    assert json.loads((tmp_path / "out/run.json").read_text())["fold"] == 1


def test_films_that_are_alike_in_two_splits_stop_a_training_before_its_first_step(
    recipe: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", str(recipe), str(data), "--out", str(tmp_path / "out"), "--minutes", "5", "--fold", "1"]

    assert cli.main(command) == 2

    assert "lie in two splits" in capsys.readouterr().err
    assert not (tmp_path / "out/weights.safetensors").exists()


def test_two_recipes_are_one_too_many(recipe: Path, data: Path, tmp_path: Path) -> None:
    given = ["train", str(recipe), str(data), "--config", str(recipe), "--out", str(tmp_path / "out")]

    assert cli.main(given) == 2
