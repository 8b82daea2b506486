"""What is known of lesions, how they move with the film, and what they teach."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medgem_node.train import augment
from medgem_node.train.augment import prepared, with_lesions
from medgem_node.train.data import Film
from medgem_node.train.lesions import Lesion, reader
from medgem_node.train.loss import UNKNOWN, class_loss, geometry_loss, lesion_loss
from medgem_node.train.nodules import usual_lungs, with_nodules

STILL = {
    "rotation_degrees": 0.0, "scale": 0.0, "shift": 0.0, "aspect": 0.0,
    "gamma": 0.0, "window": 0.0, "noise": 0.0, "blur": 0.3,
}  # fmt: skip


def dotted(lesion: Lesion, rows: int = 300, columns: int = 200) -> Film:
    """A grey film whose lesion is a bright disc."""
    x0, y0, x1, y1 = lesion.box
    y, x = np.mgrid[0:rows, 0:columns] + 0.5
    dx, dy = (x / columns - (x0 + x1) / 2) / (x1 - x0), (y / rows - (y0 + y1) / 2) / (y1 - y0)
    grey = np.where(np.hypot(dx, dy) < 0.5, 200.0, np.where(x > 5, 50.0, 0.0)).astype(np.float32)
    return Film("a", "a", "x", "frontal", grey, lesions=(lesion,))


def write(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")


def test_centres_without_size_are_lesions_and_films_without_are_free(tmp_path: Path) -> None:
    write(tmp_path / "l.csv", "image,nodule,x,y\na.jpg,1,0.5,0.25\nb.jpg,0,,\n")

    known = reader("centres", "l.csv", (), "", tmp_path)

    (lesion,) = known(Path("a.jpg")) or ()
    assert not lesion.sized
    assert (lesion.box[0] + lesion.box[2]) / 2 == pytest.approx(0.5)
    assert known(Path("b.jpg")) == ()
    assert known(Path("c.jpg")) is None


def test_a_film_with_a_weak_label_and_no_box_is_not_called_free(tmp_path: Path) -> None:
    write(tmp_path / "b.csv", "image,label,x0,y0,x1,y1\na.jpg,Mass,.1,.2,.3,.4\na.jpg,Pneumonia,.5,.5,.6,.6\n")
    write(tmp_path / "l.csv", "image,nih_labels\na.jpg,Mass\nb.jpg,Effusion|Nodule\nc.jpg,No Finding\nd.jpg,Effusion\n")

    known = reader("boxes", "b.csv", ("Mass", "Nodule"), "l.csv", tmp_path)

    assert known(Path("a.jpg")) == (Lesion((0.1, 0.2, 0.3, 0.4)),)
    assert known(Path("b.jpg")) is None
    assert known(Path("c.jpg")) == known(Path("d.jpg")) == ()


def test_a_part_of_a_mask_that_is_too_small_to_see_does_not_count(tmp_path: Path) -> None:
    mask = np.zeros((100, 200), np.uint8)
    mask[10:30, 40:60] = mask[80:83, 100:103] = 255
    Image.fromarray(mask).save(tmp_path / "a_mask.png")

    lesions = reader("masks", "_mask.png", (), "", tmp_path)(tmp_path / "a.jpg") or ()

    assert [lesion.counts for lesion in lesions] == [True, False]
    assert lesions[0].box == (0.2, 0.1, 0.3, 0.3)


@pytest.mark.parametrize("seed", range(4))
def test_a_box_goes_where_the_film_is_put(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "_CHANGES", ())
    film = prepared(dotted(Lesion((0.5, 0.2, 0.62, 0.28))), 128)
    moves = {**STILL, "rotation_degrees": 8.0, "scale": 0.15, "shift": 0.1, "aspect": 0.06}

    grey, _, (lesion,) = with_lesions(film, 128, moves, np.random.default_rng(seed))

    y, x = np.nonzero(grey > 0.75 * grey.max())
    x0, y0, x1, y1 = lesion.box_xyxy
    assert (x.mean() + 0.5, y.mean() + 0.5) == pytest.approx(((x0 + x1) / 2, (y0 + y1) / 2), abs=1.0)
    assert np.ptp(x) + 1 == pytest.approx(x1 - x0, abs=3)
    assert np.ptp(y) + 1 == pytest.approx(y1 - y0, abs=3)


def test_a_simulated_nodule_is_denser_than_what_was_there_and_lies_in_its_box() -> None:
    truth = np.zeros((3, 300, 300), np.uint8)
    truth[:2, 60:240, 60:240] = 255
    film = Film("a", "a", "x", "lungs", np.full((300, 300), 80, np.uint8), truth, ())

    for seed in range(10):
        made = with_nodules(film, usual_lungs([film]), np.random.default_rng(seed))
        added = made.pixels.astype(float) - film.pixels
        inside = np.zeros_like(added, bool)
        assert made.lesions
        for lesion in made.lesions:
            x0, y0, x1, y1 = (round(v * 300) for v in lesion.box)
            inside[max(y0 - 4, 0) : y1 + 4, max(x0 - 4, 0) : x1 + 4] = True
            assert added[y0:y1, x0:x1].max() >= 2
        assert added.min() >= -1
        assert added[~inside].max(initial=0) <= 3
    assert not (film.pixels != 80).any()


def test_nodules_lie_in_the_lungs() -> None:
    truth = np.zeros((3, 300, 300), np.uint8)
    truth[0, 100:200, 20:120] = 255
    film = Film("a", "a", "x", "lungs", np.full((300, 300), 80, np.uint8), truth, ())

    made = [with_nodules(film, usual_lungs([film]), np.random.default_rng(n)) for n in range(20)]

    centres = [
        ((b[0] + b[2]) / 2 * 300, (b[1] + b[3]) / 2 * 300) for m in made for b in (x.box for x in m.lesions or ())
    ]
    assert all(15 < x < 125 and 95 < y < 205 for x, y in centres)


def test_the_focal_loss_of_a_lesion_by_hand() -> None:
    logits, truth = torch.zeros(1, 1, 1, 3), torch.tensor([[[[1.0, 0.5, 0.0]]]])

    found = lesion_loss(logits, truth, torch.tensor([[[[1.0, 1.0, 0.0]]]]))

    assert found == pytest.approx(-(0.25 * math.log(0.5) + 0.5**4 * 0.25 * math.log(0.5)))


def test_the_loss_of_two_lesions_is_their_mean() -> None:
    one = lesion_loss(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1))
    two = lesion_loss(torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2))

    assert one == pytest.approx(float(two))


def test_size_is_taught_only_where_it_is_known() -> None:
    maps, truth = torch.ones(1, 4, 1, 1, requires_grad=True), torch.zeros(1, 4, 1, 1)

    geometry_loss(maps, truth, torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1)).backward()

    assert maps.grad is not None
    assert maps.grad.flatten().tolist() == [0.5, 0.5, 0.0, 0.0]


def test_a_class_that_is_not_known_teaches_nothing() -> None:
    logits = torch.randn(2, 3, requires_grad=True)

    class_loss(logits, torch.tensor([1, UNKNOWN])).backward()

    assert logits.grad is not None
    assert logits.grad[0].any()
    assert not logits.grad[1].any()
    assert class_loss(logits, torch.tensor([UNKNOWN, UNKNOWN])) == 0
