"""Refining on films drawn in code, by a small network that has learnt nothing else."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness.toy_training import LITE, PLAN, write_recipe
from PIL import Image
from safetensors.torch import load_file, save_file

from medgem_node.commands.refine import add
from medgem_node.detector.network import ChestNetwork
from medgem_node.detector.queries import QueryDecoder
from medgem_node.errors import ConfigError, ModelRejected
from medgem_node.train import evaluate_queries, refine
from medgem_node.train.data import Film, read_recipe
from medgem_node.train.evaluate_queries import compare, table
from medgem_node.train.lesions import Lesion
from medgem_node.train.loop import network_config

NETWORK = LITE.replace('views = ["PA", "AP"]\n', "")
RECIPE = (
    PLAN.replace("gate = 0.3 }", "gate = 0.3, lesions = 1.0, geometry = 0.3 }").replace(
        "validation = 0", "validation = 40"
    )
    + """
[[sources]]
name = "drawn"
kind = "frontal"
images = "films/*.png"
lesion_kind = "centres"
lesions = "lesions.csv"
share = 3
lesion_share = 2
[[sources]]
name = "unknown"
kind = "frontal"
images = "films/*.png"
share = 1
"""
)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals from few draws: nothing here depends on their last digit."""
    monkeypatch.setattr(evaluate_queries, "_REPEATS", 50)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve films, of which nine have a bright spot."""
    rng = np.random.default_rng(0)
    (tmp_path / "films").mkdir()
    lines = ["image,nodule,x,y"]
    for n in range(12):
        grey = rng.normal(90, 12, (80, 80))
        x, y = rng.integers(15, 65, 2)
        if n % 4:
            grey[y - 3 : y + 3, x - 3 : x + 3] += 100
        Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).save(tmp_path / f"films/f{n}.png")
        lines.append(f"f{n}.png,{int(n % 4 > 0)},{x / 80},{y / 80}")
    (tmp_path / "lesions.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "model", NETWORK, RECIPE)


@pytest.fixture
def weights(recipe: Path, tmp_path: Path) -> Path:
    return random_weights(recipe, tmp_path / "finished.safetensors", seed=0)


def random_weights(recipe: Path, path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    save_file(ChestNetwork(network_config(recipe)).state_dict(), path)
    return path


def run(
    recipe: Path, data: Path, weights: Path, out: Path, said: list[str] | None = None, **options: Any
) -> dict[str, torch.Tensor]:
    options = {"steps": 3, "queries": 6, "resume": False, "minutes": 5, **options}
    report = (lambda line: None) if said is None else said.append
    return load_file(refine.refine(recipe, data, weights, out, threads=1, report=report, **options))


def test_only_the_queries_learn(recipe: Path, data: Path, weights: Path, tmp_path: Path) -> None:
    before = load_file(weights)

    after = run(recipe, data, weights, tmp_path / "out")

    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert {name.split(".")[0] for name in after.keys() - before.keys()} == {"queries"}
    assert after["queries.change.weight"].any()


def test_the_weights_fit_the_network_with_its_queries(recipe: Path, data: Path, weights: Path, tmp_path: Path) -> None:
    after = run(recipe, data, weights, tmp_path / "out")
    (recipe.parent / "model.toml").write_text(NETWORK + "queries = 6\n")

    ChestNetwork(network_config(recipe)).load_state_dict(after, strict=True)


def test_a_killed_refinement_goes_on_as_if_it_had_not_been(
    recipe: Path, data: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(recipe, data, weights, tmp_path / "whole")
    learn = refine.Refining.learn

    def two_steps(own: refine.Refining, *batch: Any) -> dict[str, float]:
        if own.step == 2:
            raise KeyboardInterrupt
        parts = learn(own, *batch)
        own.save(tmp_path / "parts")
        return parts

    monkeypatch.setattr(refine.Refining, "learn", two_steps)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, data, weights, tmp_path / "parts")
    monkeypatch.setattr(refine.Refining, "learn", learn)
    parts = run(recipe, data, weights, tmp_path / "parts", resume=True)

    assert all(torch.equal(parts[name], value) for name, value in whole.items())


def test_weights_of_another_network_are_refused(recipe: Path, data: Path, weights: Path, tmp_path: Path) -> None:
    (recipe.parent / "model.toml").write_text(NETWORK.replace("decoder = [8, 8, 8]", "decoder = [8, 8, 16]"))

    with pytest.raises(ModelRejected, match="not the weights"):
        run(recipe, data, weights, tmp_path / "out")


def test_weights_that_miss_a_head_are_refused(recipe: Path, data: Path, weights: Path, tmp_path: Path) -> None:
    without = {name: value for name, value in load_file(weights).items() if not name.startswith("boxes.")}
    save_file(without, weights)

    with pytest.raises(ModelRejected, match="boxes"):
        run(recipe, data, weights, tmp_path / "out")


def test_the_checkpoint_of_other_weights_is_refused(recipe: Path, data: Path, weights: Path, tmp_path: Path) -> None:
    run(recipe, data, weights, tmp_path / "out", steps=1)
    random_weights(recipe, weights, seed=1)

    with pytest.raises(ConfigError, match="weights"):
        run(recipe, data, weights, tmp_path / "out", steps=1, resume=True)


def test_a_recipe_without_known_lesions_is_refused(recipe: Path, data: Path, weights: Path, tmp_path: Path) -> None:
    recipe.write_text(RECIPE.replace("lesion_share = 2\n", ""))

    with pytest.raises(ConfigError, match="lesion_share"):
        run(recipe, data, weights, tmp_path / "out")


def test_films_of_sources_without_lesions_are_not_learnt_from(recipe: Path) -> None:
    plan = refine.refining_plan(read_recipe(recipe), 40)

    assert [s.name for s in plan.sources] == ["drawn"]
    assert (plan.turned_share, plan.steps) == (0, 40)


def test_the_comparison_is_written_and_told(recipe: Path, data: Path, weights: Path, tmp_path: Path) -> None:
    said: list[str] = []

    run(recipe, data, weights, tmp_path / "out", said, steps=1)

    written = json.loads((tmp_path / "out/comparison.json").read_text())
    assert written["sources"]["drawn"]["films"] == written["sources"]["drawn"]["lesions"] > 0
    assert [line for line in said if "at 1 false marks a film" in line]


def test_untaught_queries_are_found_to_be_no_better_and_no_worse(recipe: Path, weights: Path) -> None:
    films = [film(n, Lesion((0.4, 0.4, 0.6, 0.6))) for n in range(4)] + [film(9)]

    found = compare(refine.frozen(_with_queries(recipe), weights), films, seed=1)

    assert {
        row[key] for own in found.values() for row in own["sensitivity"] for key in ("low", "difference", "high")
    } == {0}
    assert [own["films"] for own in found.values()] == [4, 5]


def test_queries_that_find_every_lesion_are_found_to_be_better(
    recipe: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_in_the_middle(decoder: QueryDecoder, boxes: torch.Tensor, *maps: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[[0.0, 8.0, 8.0, 9.0, 0.0, 0.0, 1.2, 1.2]]])

    monkeypatch.setattr(QueryDecoder, "forward", all_in_the_middle)
    films = [film(n, Lesion((0.4, 0.4, 0.6, 0.6))) for n in range(4)]

    found = compare(refine.frozen(_with_queries(recipe), weights), films, seed=1)

    assert {(row["dense"], row["refined"], row["low"]) for row in found["nih"]["sensitivity"][:2]} == {(0.0, 1.0, 1.0)}
    assert found["nih"]["average_precision"]["refined"] == 1.0
    assert "difference +1.000 (+1.000 to +1.000)" in table(found)[1]


def test_the_command_refines_and_tells(recipe: Path, data: Path, weights: Path, tmp_path: Path, capsys: Any) -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text)
        made.set_defaults(run=run)
        return made

    add(command)
    given = ["refine", recipe, data, "--weights", weights, "--out", tmp_path / "out", "--steps=1", "--threads=1"]
    options = parser.parse_args([str(word) for word in given])

    assert options.run(options) == 0
    assert "difference" in capsys.readouterr().out
    assert (tmp_path / "out/weights.safetensors").exists()


def film(n: int, *lesions: Lesion) -> Film:
    pixels = np.random.default_rng(n).normal(100, 20, (64, 64)).astype(np.float32)
    return Film(f"f{n}", f"f{n}", "nih", "frontal", pixels, lesions=lesions)


def _with_queries(recipe: Path) -> Any:
    path = recipe.with_name("model.toml")
    path.write_text(NETWORK + "queries = 6\n")
    return network_config(recipe)
