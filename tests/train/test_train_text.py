"""Words for films, what is learnt from them on a frozen trunk, and how it is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medgem_node.detector.embedding import EmbeddingHead
from medgem_node.detector.hiera import NetworkConfig
from medgem_node.detector.network import ChestNetwork
from medgem_node.detector.preprocess import letterbox
from medgem_node.detector.text import TextConfig, Tokeniser
from medgem_node.errors import ConfigError, ModelRejected
from medgem_node.train import embedding, text
from medgem_node.train.data import Film, Source
from medgem_node.train.evaluate_text import attended, evaluated
from medgem_node.train.frozen import Seen
from medgem_node.train.metrics.retrieval import missed_not, precision_at, recall_at
from medgem_node.train.phrases import Lungs, Phrase, teller

LUNGS = Lungs(right=(0.1, 0.1, 0.4, 0.7), left=(0.6, 0.1, 0.9, 0.7))
CORNERS = {"right upper": (0, 0), "left upper": (0, 1), "right lower": (1, 0), "left lower": (1, 1)}
SQUARE = letterbox(64, 64, 64)


def film(name: str, view: str = "PA") -> Film:
    return Film(name, name, "x", "frontal", np.zeros((64, 64), np.float32), view=view)


def told(tmp_path: Path, name: str, lungs: Lungs | None = LUNGS, **source: str) -> dict[str, tuple[object, ...]]:
    phrases = teller(Source(name="x", kind="frontal", images="*", share=1, **source), tmp_path)(film(name), lungs)  # type: ignore[arg-type]
    return {p.text: p.boxes for p in phrases}


def seen(name: str, phrases: tuple[Phrase, ...], fine: torch.Tensor, view: str = "PA") -> Seen:
    coarse = torch.nn.functional.avg_pool2d(fine, 2)
    summary = torch.cat((fine.mean(dim=(1, 2)), fine.amax(dim=(1, 2))))[None]
    return Seen(name, "x", name, view, None, phrases, SQUARE, summary, LUNGS, (), fine, coarse)


def corner_films(n: int, seed: int) -> list[Seen]:
    """Films of noise with a bright quarter, told by its name."""
    rng, films = np.random.default_rng(seed), []
    for i in range(n):
        name, (row, column) = list(CORNERS.items())[i % 4]
        fine = torch.from_numpy(rng.normal(0, 0.3, (6, 4, 4)).astype(np.float32))
        fine[0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += 4
        box = (column / 2, row / 2, column / 2 + 0.5, row / 2 + 0.5)
        films.append(seen(f"{seed}-{i}", (Phrase(f"mass in the {name} zone", (box,)),), fine))
    return films


def test_view_labels_and_places_become_words(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("image,view,nih_labels\na.jpg,PA,Pleural_Thickening|Mass\n", "utf-8")
    (tmp_path / "b.csv").write_text("image,label,x0,y0,x1,y1\na.jpg,Mass,.2,.12,.3,.2\n", "utf-8")

    words = told(tmp_path, "a", labels="l.csv", lesions="b.csv", lesion_kind="boxes")

    box = (0.2, 0.12, 0.3, 0.2)
    assert words == {
        "PA view": (), "pleural thickening": (), "mass": (box,), "mass in the right upper zone": (box,),
    }  # fmt: skip


def test_a_place_is_not_named_where_no_lungs_were_found(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("image,nodule,x,y\na.jpg,1,0.7,0.6\nb.jpg,0,,\n", "utf-8")

    source = {"lesions": "c.csv", "lesion_kind": "centres"}

    assert set(told(tmp_path, "a", None, **source)) == {"PA view", "nodule"}
    assert set(told(tmp_path, "a", **source)) == {"PA view", "nodule", "nodule in the left lower zone"}
    assert set(told(tmp_path, "b", **source)) == {"PA view"}


def test_no_finding_is_told_of_no_film(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("image,view,nih_labels\na.jpg,AP,No Finding\n", "utf-8")

    assert set(told(tmp_path, "a", labels="l.csv")) == {"PA view"}


def test_reports_of_a_site_are_told_sentence_by_sentence(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text('image,text\na.png,"Small effusion  on the left. No pneumothorax."\n', "utf-8")

    assert set(told(tmp_path, "a", reports="r.csv")) == {"PA view", "small effusion on the left", "no pneumothorax"}


def test_right_is_the_patients_right_and_heights_are_thirds_of_the_lung() -> None:
    assert LUNGS.zone((0.2, 0.12, 0.3, 0.2)) == "right upper zone"
    assert LUNGS.zone((0.7, 0.38, 0.8, 0.42)) == "left middle zone"
    assert LUNGS.zone((0.7, 0.9, 0.8, 1.0)) == "left lower zone"


def test_lungs_are_bounded_in_parts_of_the_film() -> None:
    right, left = np.zeros((10, 20), bool), np.zeros((10, 20), bool)
    right[2:8, 2:6] = left[1:9, 10:18] = True

    assert Lungs.of(right, left) == Lungs((0.1, 0.2, 0.3, 0.8), (0.5, 0.1, 0.9, 0.9))
    assert Lungs.of(right, np.zeros_like(left)) is None


def test_contrast_of_sure_and_true_scores_is_nothing_and_of_equal_ones_is_chance() -> None:
    true = torch.eye(4, dtype=torch.bool)

    assert text.contrast(100 * true.float(), true).item() == pytest.approx(0, abs=1e-6)
    assert text.contrast(torch.zeros(4, 4), true).item() == pytest.approx(np.log(4))


def test_a_phrase_that_is_true_of_two_films_wants_both() -> None:
    true = torch.tensor([[True, True], [False, False]])

    assert text.contrast(torch.zeros(2, 2), true).item() == pytest.approx(np.log(2))


def test_pointing_is_the_surprise_that_the_place_is_in_the_box() -> None:
    maps = torch.tensor([[[0.5, 0.5], [0.0, 0.0]]])

    assert text.pointing(maps, torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])).item() == pytest.approx(np.log(2))


def test_a_box_covers_the_cells_that_it_lies_in_by_their_parts() -> None:
    covered = text.covered(((0.25, 0.0, 0.75, 0.25),), letterbox(64, 64, 64), 4)

    assert covered.tolist() == [[0, 1, 1, 0], [0] * 4, [0] * 4, [0] * 4]
    assert text.covered(((0.0, 0.0, 0.125, 0.125),), SQUARE, 4)[0, 0].item() == pytest.approx(0.25)


def test_in_a_narrow_film_boxes_lie_where_the_film_lies_in_the_square() -> None:
    covered = text.covered(((0.0, 0.0, 1.0, 1.0),), letterbox(64, 32, 64), 4)

    assert covered.tolist() == [[0, 1, 1, 0]] * 4


def test_words_that_name_a_place_are_learnt_and_their_attention_goes_there(tmp_path: Path) -> None:
    taught, held_out = corner_films(16, seed=1), corner_films(8, seed=2)
    tokeniser = Tokeniser.build([p.text for f in taught for p in f.phrases])
    config = TextConfig(channels=(6, 6), pieces=len(tokeniser.pieces), width=16, heads=2, layers=1)

    grounding = text.taught_grounding(taught, tokeniser, config, seed=3, steps=150)
    result = evaluated(grounding, tokeniser, held_out, taught, seed=3)

    found = result["all that is told"]["image_to_text@1"]
    assert found["chance"] == 0.25
    assert found["value"] >= 0.75
    assert result["pointing"]["attention"]["value"] >= 0.75
    x, y = attended(grounding, tokeniser, held_out[3], "mass in the left lower zone")
    assert x > 0.5
    assert y > 0.5
    text.write(grounding, tokeniser, "ab" * 32, tmp_path)
    again, pieces = text.read(tmp_path, "ab" * 32)
    assert attended(again, pieces, held_out[3], "mass in the left lower zone") == (x, y)
    with pytest.raises(ModelRejected, match="other weights"):
        text.read(tmp_path, "cd" * 32)
    (tmp_path / text.WEIGHTS).write_bytes(b"altered")
    with pytest.raises(ModelRejected, match="altered"):
        text.read(tmp_path, "ab" * 32)


def test_without_a_phrase_there_is_nothing_to_learn() -> None:
    with pytest.raises(ConfigError, match="no film"):
        text.taught_grounding([], Tokeniser.build([]), TextConfig((6, 6), 2), seed=0)


def test_recall_of_equal_scores_is_chance() -> None:
    scores, relevant = np.zeros((1, 10), np.float32), np.zeros((1, 10), bool)
    relevant[0, :2] = True

    hit, chance = recall_at(scores, relevant, 3)[0]

    assert chance == pytest.approx(1 - (8 * 7 * 6) / (10 * 9 * 8))
    assert hit == pytest.approx(chance)
    assert missed_not(10, 10, 1) == 1
    assert missed_not(4, 1, 10) == 1


def test_recall_counts_who_stands_above_the_best_relevant_one() -> None:
    scores = np.array([[0.9, 0.8, 0.7, 0.1]], np.float32)
    relevant = np.array([[False, False, True, True]])

    assert [recall_at(scores, relevant, k)[0, 0] for k in (1, 2, 3)] == [0, 0, 1]
    assert np.isnan(recall_at(scores, np.zeros((1, 4), bool), 1)).all()


def test_precision_is_of_those_that_take_part() -> None:
    scores = np.array([[9.0, 4.0, 3.0, 2.0]], np.float32)
    relevant, asked = np.array([[True, False, True, True]]), np.array([[False, True, True, True]])

    precision, chance = precision_at(scores, relevant, asked, 2)[0]

    assert (precision, chance) == (0.5, pytest.approx(2 / 3))


def test_films_are_as_alike_as_what_is_told_of_them() -> None:
    fine = torch.zeros(6, 4, 4)
    ill = seen("a", (Phrase("PA view"), Phrase("mass"), Phrase("mass in the left upper zone")), fine)
    other = seen("b", (Phrase("PA view"), Phrase("effusion")), fine)
    silent = seen("c", (Phrase("PA view"),), fine)

    alike = embedding.likeness([ill, other, silent])

    assert alike[0, 1].item() == pytest.approx(1 / 3)
    assert alike.diag().tolist() == [1, 1, 1]
    assert torch.isnan(alike[0, 2])  # that no finding is told does not mean that there is none


def test_an_embedding_learns_to_put_alike_films_together() -> None:
    rng, films = np.random.default_rng(0), []
    for n in range(40):
        fine = torch.from_numpy(rng.normal(0, 1, (6, 4, 4)).astype(np.float32))
        fine[n % 2] += 1.2
        films.append(seen(str(n), (Phrase("mass" if n % 2 else "effusion"),), fine, view="AP" if n % 2 else "PA"))

    head = embedding.taught_head(films[:28], 6, 8, seed=1, steps=60)

    result = embedding.measured(films[28:], head, seed=1)["same view"]
    assert result["precision_at_5"]["value"] > 0.8
    assert 0.4 < result["chance"] < 0.5


def test_a_head_is_added_to_finished_weights_and_changes_nothing_else() -> None:
    config = NetworkConfig.read({
        "size": 64, "stem": [8, 8], "widths": [16, 16, 16], "depths": [1, 1, 1], "heads": [2, 2, 2], "window": 4,
        "mlp_ratio": 2.0, "drop_path": 0.0, "decoder": [8, 8, 8, 8], "masks": ["a"], "points": ["p"],
        "classes": ["frontal", "other"],
    })  # fmt: skip
    torch.manual_seed(0)
    before, image = ChestNetwork(config).eval(), torch.randn(1, 1, 64, 64)

    after = embedding.with_head(before, EmbeddingHead(16, 12))

    assert after.config.embedding == 12
    assert torch.equal(before(image).masks, after(image).masks)
    assert after(image).embedding.shape == (1, 12)  # type: ignore[union-attr]
