"""No film and no patient is both learnt from and measured on."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from medgem_node.commands import data as data_command
from medgem_node.errors import ConfigError
from medgem_node.train.data import Recipe, Source, read_films, read_recipe
from medgem_node.train.leaks import ALIKE, look, refuse_leaks, survey
from medgem_node.train.pictures import shrunk

RECIPE = """
seed = 1
cycle_ends = [4]
validation_joins = 4
learning_rate = 1e-3
warmup_steps = 1
weight_decay = 0.0
ema_decay = 0.9
turned_share = 0
loss = {}
split = { validation = 0, test = 0 }
augment = {}
[[sources]]
name = "own"
catalogue = "csv"
accept_licence = true
licence = "the hospital's own films"
images = "own.csv"
share = 1
"""


def film(seed: int, side: int = 160) -> NDArray[np.uint8]:
    """Clouds of many sizes, others for each seed."""
    rng = np.random.default_rng(seed)
    grey = sum(shrunk(rng.normal(0, 1 / n, (n, n)).astype(np.float32), (side, side)) for n in (4, 8, 16, 32))
    return np.asarray((grey - grey.min()) / np.ptp(grey) * 255, np.uint8)


def site(folder: Path, *rows: tuple[str, str, str, NDArray[np.uint8]]) -> Recipe:
    """Films of (name, patient, split, pixels) as a table, and a recipe that reads it."""
    lines = ["image,patient,view,split,Edema"]
    for name, patient, split, pixels in rows:
        Image.fromarray(pixels).save(folder / name)
        lines.append(f"{name},{patient},PA,{split},1")
    (folder / "own.csv").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "train.toml").write_text(RECIPE, "utf-8")
    return read_recipe(folder / "train.toml")


def silent(line: str) -> None:
    """Reports nothing."""


def test_films_of_one_patient_in_two_splits_are_refused_before_any_is_read(tmp_path: Path) -> None:
    plan = site(tmp_path, ("a.png", "Mustermann", "train", film(1)), ("b.png", "Mustermann", "test", film(2)))
    (tmp_path / "a.png").write_bytes(b"not read")

    with pytest.raises(ConfigError, match="1 patients have films in two splits") as told:
        read_films(plan, tmp_path, "train", training=True)

    assert "Mustermann" not in str(told.value)


def test_the_same_picture_under_two_patients_in_two_splits_is_refused(tmp_path: Path) -> None:
    plan = site(tmp_path, ("a.png", "p1", "train", film(1)), ("b.png", "p2", "test", film(1)))

    (leak,) = survey(plan, tmp_path).leaks

    assert (leak.kind, leak.into_test) == ("picture", True)
    with pytest.raises(ConfigError, match=r"1 pairs of films lie in two splits \(1 by picture\), 1 of them in test"):
        refuse_leaks(plan, tmp_path, silent)


def test_the_same_picture_twice_in_one_split_is_no_leak(tmp_path: Path) -> None:
    plan = site(tmp_path, ("a.png", "p1", "train", film(1)), ("b.png", "p2", "train", film(1)))

    assert survey(plan, tmp_path).leaks == ()
    refuse_leaks(plan, tmp_path, silent)


def test_other_films_are_not_alike(tmp_path: Path) -> None:
    looks = np.stack([look(film(seed)) for seed in range(12)])

    likeness = looks @ looks.T

    assert (likeness - 2 * np.eye(12)).max() < ALIKE - 0.2
    assert np.diag(likeness) == pytest.approx(np.ones(12))


def _jpeg(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=30)
    return np.asarray(Image.open(buffer))


@pytest.mark.parametrize(
    "saved_again",
    [
        _jpeg,
        lambda p: np.asarray(Image.fromarray(p).resize((90, 90), Image.Resampling.BILINEAR)),
        lambda p: np.asarray(255 * (p / 255) ** 0.7, np.uint8),
        lambda p: np.asarray(np.clip(p * 1.2 - 20, 0, 255), np.uint8),
        lambda p: np.asarray(Image.fromarray(p).filter(ImageFilter.GaussianBlur(1))),
        lambda p: p[1:-1, 1:-1],
    ],
    ids=["jpeg", "smaller", "gamma", "window", "blurred", "cut"],
)
def test_a_film_saved_otherwise_is_found(
    tmp_path: Path, saved_again: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
) -> None:
    again = np.ascontiguousarray(saved_again(film(1)))
    plan = site(tmp_path, ("a.png", "p1", "train", film(1)), ("b.png", "p2", "validation", again))

    (leak,) = survey(plan, tmp_path).leaks

    assert leak.kind == "alike"
    assert leak.likeness >= ALIKE


def test_twins_of_training_and_validation_may_stay_if_the_recipe_names_them_but_never_those_of_test(
    tmp_path: Path,
) -> None:
    plan = site(tmp_path, ("a.png", "p1", "train", film(1)), ("b.png", "p2", "validation", film(1)))
    named = replace(plan, twins=("b",))

    with pytest.raises(ConfigError, match="0 of them in test"):
        refuse_leaks(plan, tmp_path, silent)
    refuse_leaks(named, tmp_path, silent)
    site(tmp_path, ("a.png", "p1", "train", film(1)), ("b.png", "p2", "test", film(1)))
    with pytest.raises(ConfigError, match="1 of them in test"):
        refuse_leaks(named, tmp_path, silent)


def test_numbers_of_two_hospitals_are_not_taken_for_one_patient(tmp_path: Path) -> None:
    plan = site(tmp_path, ("a.png", "1", "train", film(1)))
    (tmp_path / "other.csv").write_text("image,patient,view,split\nb.png,1,PA,test\n")
    Image.fromarray(film(2)).save(tmp_path / "b.png")
    other = replace(plan.sources[0], name="other", images="other.csv")

    apart = replace(plan, sources=(*plan.sources, other))
    shared = replace(apart, sources=tuple(replace(s, patients="trust") for s in apart.sources))

    assert survey(apart, tmp_path).leaks == ()
    assert [leak.kind for leak in survey(shared, tmp_path).leaks] == ["patient"]


def test_folders_are_looked_through_as_well_and_what_is_for_evaluation_only_may_be_absent(tmp_path: Path) -> None:
    plan = site(tmp_path, ("a.png", "p1", "train", film(1)))
    for folder in ("films", "kept"):
        (tmp_path / folder).mkdir()
    Image.fromarray(film(1)).save(tmp_path / "kept/c.png")
    kept = Source(name="kept", kind="frontal", images="kept/*", share=0, evaluate_only=True)
    absent = replace(kept, name="absent", images="nowhere/*")

    found = survey(replace(plan, sources=(*plan.sources, kept, absent)), tmp_path)

    assert [leak.kind for leak in found.leaks] == ["picture"]
    assert found.absent == ["absent"]


def test_the_command_tells_counts_licences_and_leaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site(
        tmp_path, ("a.png", "p1", "train", film(1)), ("b.png", "p1", "train", film(2)), ("c.png", "p2", "test", film(1))
    )
    (tmp_path / "own.csv").write_text((tmp_path / "own.csv").read_text() + "d.png,p3,PA,train,1\n")
    (tmp_path / "d.png").write_bytes(b"torn")

    code = run("data", str(tmp_path / "train.toml"), str(tmp_path))

    told = capsys.readouterr().out.splitlines()
    assert code == 1
    assert told == [
        "licence of own: the hospital's own films",
        "own train: 2 films of 1 patients",
        "    Edema: present 2",
        "own test: 1 films of 1 patients",
        "    Edema: present 1",
        "own: 1 files hold no readable picture",
        "LEAK picture: own a (train), own c (test)",
        "1 leaks, 1 of them into test",
    ]


def run(*arguments: str) -> int:
    """The command alone, without the others."""
    commands = argparse.ArgumentParser().add_subparsers()

    def command(name: str, runs: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text)
        made.set_defaults(run=runs)
        return made

    data_command.add(command)
    options = commands.choices["data"].parse_args(arguments[1:])
    return int(options.run(options))
