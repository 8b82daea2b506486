"""The report of an evaluation made by hand, and of one that was run on films drawn in code."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medgem_node.card import ModelCard, read_card
from medgem_node.cli import main
from medgem_node.detector import runtime
from medgem_node.detector.hiera import NetworkConfig
from medgem_node.detector.network import ChestNetwork
from medgem_node.finding import Analysis, Box, Code, Finding
from medgem_node.train.cases import Case
from medgem_node.train.data import Film, read_films, read_recipe
from medgem_node.train.evaluate import Measured, measure
from medgem_node.train.lesions import Lesion
from medgem_node.train.report import gallery, page
from medgem_node.train.report.plots import SHARE, Axis, Series, chart
from medgem_node.train.report.tables import NONE, area, figure, share, table

MODEL = Path(__file__).parents[2] / "models/chest-xray/1.0.0"
LABEL = "Nodule or mass"
CODE = Code("52988006", "SCT", "Lesion")
SMALL = {"size": 64, "stem": [8, 8], "widths": [16, 16, 16], "depths": [1, 1, 1], "heads": [2, 2, 2], "window": 4}
RECIPE = """
[[sources]]
name = "drawn"
kind = "contours"
images = "films/*.png"
truth = "contours.json"
labels = "labels.csv"
lesion_kind = "none"
share = 1
[[sources]]
name = "other"
kind = "other"
images = "other/*.png"
share = 1
shows = { hand = "hand <of> a doll" }
"""


class Tags(HTMLParser):
    """Whether every tag is closed, what a page would load, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.asked: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)
        self.asked += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three chests drawn with boxes, and a picture that is none."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    chest = np.full((80, 80), 200.0)
    chest[16:64, 12:32] = chest[16:64, 48:68] = 60
    (folder / "films").mkdir()
    (folder / "other").mkdir()
    for n in range(3):
        grey = np.clip(chest + rng.normal(0, 8, chest.shape), 0, 255).astype(np.uint8)
        Image.fromarray(grey).save(folder / f"films/Secret^Name{n}.png")
    Image.fromarray(rng.integers(0, 255, (80, 80), np.uint8)).save(folder / "other/hand1.png")
    box = {"RL": (0.15, 0.2, 0.4, 0.8), "LL": (0.6, 0.2, 0.85, 0.8), "H": (0.38, 0.5, 0.7, 0.8)}
    corners = {k: [[x0, y0], [x1, y0], [x1, y1], [x0, y1]] for k, (x0, y0, x1, y1) in box.items()}
    (folder / "contours.json").write_text(json.dumps({f"Secret^Name{n}": corners for n in range(3)}))
    (folder / "labels.csv").write_text(
        "image,view,nih_labels\n" + "".join(f"Secret^Name{n}.png,PA,\n" for n in range(3))
    )
    return folder


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> ModelCard:
    """The shipped manifest, with a gate that lets everything through and a recipe of the films drawn here."""
    shipped = read_card(MODEL)
    folder = tmp_path_factory.mktemp("model")
    text = (MODEL / "train.toml").read_text("utf-8")
    plan = re.sub(r"(?m)^(validation|test) = \d+", r"\1 = 0", text[: text.index("\n[[sources]]")])
    (folder / "train.toml").write_text(plan + RECIPE)
    network = {**shipped.network, **SMALL, "mlp_ratio": 2.0, "decoder": [8, 8, 8, 8]}
    ends = {"lung_area": [0, 9], "heart_area": [0, 9], "lungs_ratio_at_most": 1e9, "largest_part_at_least": 0.0}
    gate = {**shipped.gate, **ends, "frontal_at_least": 0.0, "certain_at_least": 0.0}
    return replace(shipped, folder=folder, network=network, gate=gate)


@pytest.fixture(scope="module")
def measured(card: ModelCard, data: Path) -> Measured:
    return run(card, data)


def run(card: ModelCard, data: Path) -> Measured:
    """A whole evaluation by a network that was not trained, with few draws."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "load", untrained)
        patch.setattr("medgem_node.train.evaluate_gate._MADE_OF_A_KIND", 1)
        patch.setattr("medgem_node.train.evaluate_gate._ALTERED_AT_MOST", 1)
        patch.setattr("medgem_node.train.metrics.interval._REPEATS", 40)
        return measure(card, data, split="train", report=lambda line: None)


def untrained(card: ModelCard, *backend: str) -> ChestNetwork:
    torch.manual_seed(0)
    return ChestNetwork(NetworkConfig.read(card.network)).eval().requires_grad_(False)


def test_two_runs_give_the_same_figures(measured: Measured, card: ModelCard, data: Path) -> None:
    again = run(card, data)

    assert json.dumps(again.figures, allow_nan=False) == json.dumps(measured.figures, allow_nan=False)


def test_the_page_says_what_was_measured(measured: Measured, card: ModelCard, tmp_path: Path) -> None:
    html = page.write(tmp_path, {"date": "2026-11-23", **measured.figures}).read_text("utf-8")

    tags = Tags(html)
    assert tags.open == []
    for told in (card.weights_sha256, measured.figures["data"]["sha256"], "2026-11-23", "Research use only"):
        assert told in tags.text
    assert json.loads((tmp_path / "evaluation.json").read_text("utf-8")) == {
        "date": "2026-11-23", **json.loads(json.dumps(measured.figures))
    }  # fmt: skip


def test_the_page_loads_nothing_and_holds_no_picture_and_no_name(measured: Measured) -> None:
    html = page.render(measured.figures)

    assert Tags(html).asked == []
    assert not re.search(r"url\(|@import|https?:|<script|<img", html)
    assert "Secret" not in html
    assert "Secret" not in json.dumps(measured.figures)


def test_words_of_a_recipe_are_no_markup(measured: Measured) -> None:
    html = page.render(measured.figures)

    assert "hand &lt;of&gt; a doll" in html
    assert "<of>" not in html


def test_the_page_knows_the_dark_and_paper(measured: Measured) -> None:
    html = page.render(measured.figures)

    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_pictures_are_written_only_when_asked_for_and_with_a_warning(
    measured: Measured, card: ModelCard, tmp_path: Path
) -> None:
    page.write(tmp_path, measured.figures)
    before = sorted(p.name for p in tmp_path.iterdir())
    html = gallery.write(tmp_path, measured.cases, card, 2).read_text("utf-8")

    assert before == ["evaluation.json", "index.html"]
    assert gallery.WARNING in html
    assert all(asked.startswith("data:image/png;base64,") for asked in Tags(html).asked)
    assert "Secret" not in html


def case(name: str, *marks: tuple[float, float, float, float], refused: bool = False) -> Case:
    lesion = Lesion((0.2, 0.2, 0.3, 0.3))
    film = Film(name, name, "nih", "frontal", np.arange(20000.0).reshape(100, 200), lesions=(lesion,))
    found = tuple(Finding(CODE, LABEL, 0.9, True, 0.5, "1.2.3", Box(*mark)) for mark in marks)
    return Case(film, None if refused else Analysis("m", "1.0.0", candidates=found), "mirrored" if refused else "")


def test_pictures_without_a_folder_to_lie_in_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "films", "--model", "chest-xray", "--gallery", "3"]) == 2
    assert "--report" in capsys.readouterr().err


def test_the_worst_come_first_and_what_is_right_is_no_failure(card: ModelCard) -> None:
    marks = replace(card, findings=({"label": LABEL, "output": "nodule-or-mass"},))
    right, off = (40.0, 20.0, 60.0, 30.0), (150.0, 60.0, 170.0, 80.0)
    cases = [case("a", right), case("b", off, off), case("c", off), case("d", refused=True)]

    found = {title: gallery.failures(cases, worst) for title, worst in gallery.kinds(marks).items()}

    assert [c.film.name for _, c in found[f"{LABEL}: most false marks"]] == ["b", "c"]
    assert [c.film.name for _, c in found[f"{LABEL}: most missed"]] == ["b", "c", "d"]
    assert [c.film.name for _, c in found["Frontal films that were refused"]] == ["d"]


def test_a_mark_is_drawn_where_it_lies() -> None:
    picture = gallery.picture(case("a", (100.0, 50.0, 150.0, 75.0)))

    assert picture.size == (480, 240)
    assert picture.getpixel((240, 150)) == (255, 190, 60)
    assert picture.getpixel((96, 60)) == (80, 200, 255)  # left side of the lesion's box


def test_a_figure_is_never_without_its_interval() -> None:
    assert figure({"value": 0.5, "low": 0.25, "high": 0.75}) == "0.500 (0.250 to 0.750)"
    assert share({"value": 0.5, "low": 0.095, "high": 0.905, "hits": 1, "films": 2}) == "1 of 2: 50.0 % (9.5 to 90.5)"
    assert area({"value": 1.0, "low": 1.0, "high": 1.0}) == "1.000 (no interval: every case in order)"


@pytest.mark.parametrize("value", [None, {"value": None, "low": 0.0, "high": 1.0, "films": 0}, {"positive": 0}])
def test_what_was_not_measured_is_said_so(value: dict[str, Any] | None) -> None:
    assert figure(value) == share(value) == NONE
    assert NONE in table("Nothing", ("a",), [])


def test_a_chart_puts_a_point_where_its_axes_say() -> None:
    x = Axis("rate", 0.125, 8, (0.125, 1.0, 8.0), logarithmic=True)

    svg = chart("FROC", x, Axis("share", 0, 1, SHARE), [Series("jsrt", [(1.0, 0.5)], bars=[(0.0, 1.0)])])

    # half of three of six doublings; the plot is 376 wide from 52, 246 high from 10
    assert '<circle class="s0" cx="240.0" cy="133.0"' in svg
    assert 'y1="256.0" x2="240.0" y2="10.0"' in svg
    assert ">1/8<" in svg


def test_a_value_beyond_an_axis_lies_on_its_end() -> None:
    assert Axis("a", 0, 1, ()).place(7.0) == 1.0
    assert Axis("a", 0.125, 8, (), logarithmic=True).place(0.0) == 0.0


def test_the_data_digest_changes_with_the_data(card: ModelCard, data: Path, measured: Measured) -> None:
    from medgem_node.train.provenance import data_sha256

    films = read_films(read_recipe(card.folder / "train.toml"), data, "train")

    altered = [replace(films[0], pixels=films[0].pixels + 1), *films[1:]]
    assert data_sha256(altered) != data_sha256(films)
