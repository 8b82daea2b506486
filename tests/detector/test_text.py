"""Pieces of words, attention against the library's own, the gate, and maps that say where."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from medgem_node.detector.text import (
    PAD,
    UNKNOWN,
    GatedCrossAttention,
    Grounding,
    TextConfig,
    TextEncoder,
    Tokeniser,
)

TEXTS = ["nodule in the right upper zone", "nodule in the left lower zone", "effusion", "PA view", "effusions"]
TINY = TextConfig(channels=(6, 8), pieces=40, width=16, heads=2, longest=12)


def grounding(crossing: str = "gated") -> Grounding:
    torch.manual_seed(0)
    return Grounding(replace(TINY, crossing=crossing)).eval()


def maps(films: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(films, 6, 8, 8, generator=generator), torch.randn(films, 8, 4, 4, generator=generator)


def test_words_that_were_learnt_from_are_one_piece_each() -> None:
    tokeniser = Tokeniser.build(TEXTS)

    numbers = tokeniser.encode("Nodule, in the RIGHT upper zone.", 12)

    assert [tokeniser.pieces[n] for n in numbers] == ["nodule", "in", "the", "right", "upper", "zone"]


def test_a_word_that_was_not_is_made_of_pieces() -> None:
    tokeniser = Tokeniser.build(TEXTS)

    pieces = [tokeniser.pieces[n] for n in tokeniser.encode("nodules", 12)]

    assert pieces[0] == "nodule"
    assert "".join(p.removeprefix("##") for p in pieces) == "nodules"


def test_a_small_vocabulary_keeps_the_most_frequent_pairs() -> None:
    letters = len(Tokeniser.build(["aab aab ab"], size=0).pieces)

    tokeniser = Tokeniser.build(["aab aab ab"], size=letters + 1)

    assert tokeniser.pieces[-1] == "##ab"  # twice in "aab"; "a" + "##b" stands once


def test_letters_never_seen_are_unknown_and_an_empty_text_is_one_unknown() -> None:
    tokeniser = Tokeniser.build(TEXTS)

    assert tokeniser.encode("肺", 12) == [UNKNOWN]
    assert tokeniser.encode("", 12) == [UNKNOWN]


def test_a_text_that_is_too_long_is_cut() -> None:
    assert len(Tokeniser.build(TEXTS).encode("nodule " * 50, 12)) == 12


def test_two_builds_from_the_same_texts_are_the_same() -> None:
    assert Tokeniser.build(TEXTS) == Tokeniser.build(list(reversed(TEXTS)))


def test_what_a_text_becomes_does_not_depend_on_how_far_it_is_filled_up() -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(TINY).eval()
    alone, filled = torch.tensor([[5, 7, 9]]), torch.tensor([[5, 7, 9, PAD, PAD]])

    torch.testing.assert_close(encoder(filled)[:, :3], encoder(alone))


def test_cross_attention_is_the_librarys() -> None:
    torch.manual_seed(0)
    cross = GatedCrossAttention(16, 2, gated=False)
    phrases, images = torch.randn(2, 5, 16), torch.randn(3, 7, 16)

    added, weights = cross(phrases, images)

    for p in range(2):
        for i in range(3):
            heads = [
                x.reshape(-1, 2, 8).transpose(0, 1)
                for x in (cross.query(phrases[p]), cross.key(images[i]), cross.value(images[i]))
            ]
            expected = functional.scaled_dot_product_attention(*heads)
            torch.testing.assert_close(added[p, i], cross.out(expected.transpose(0, 1).reshape(5, 16)))
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 3, 2, 5))


def test_the_gate_of_the_phrase_scales_what_the_image_answers() -> None:
    torch.manual_seed(0)
    cross = GatedCrossAttention(16, 2)
    assert cross.gate is not None
    phrases, images = torch.randn(2, 5, 16), torch.randn(3, 7, 16)
    whole = cross(phrases, images)[0] / cross.gate(phrases).sigmoid()[:, None]

    with torch.no_grad():
        cross.gate.weight.zero_()
        assert cross.gate.bias is not None
        cross.gate.bias.fill_(-math.log(3))

    torch.testing.assert_close(cross(phrases, images)[0], whole / 4)


@pytest.mark.parametrize("crossing", ["gated", "open", "none"])
def test_every_phrase_is_held_against_every_film(crossing: str) -> None:
    fit = grounding(crossing)(torch.tensor([[5, 7], [9, PAD]]), *maps(3))

    assert fit.scores.shape == (2, 3)
    assert (fit.maps is None) == (crossing == "none")


def test_a_phrases_map_sums_to_one_whatever_the_size_of_the_film() -> None:
    fine, coarse = torch.randn(1, 6, 12, 12), torch.randn(1, 8, 6, 6)

    fit = grounding()(torch.tensor([[5, 7, PAD]]), fine, coarse)

    assert fit.maps is not None
    assert fit.maps.shape == (1, 1, 12, 12)
    assert fit.maps.sum().item() == pytest.approx(1, abs=1e-5)


def test_the_same_phrase_and_film_fit_the_same_in_any_company() -> None:
    numbers, (fine, coarse) = torch.tensor([[5, 7, 3], [9, PAD, PAD]]), maps(3)
    model = grounding()

    together, alone = model(numbers, fine, coarse), model(numbers[1:, :1], fine[2:], coarse[2:])

    torch.testing.assert_close(together.scores[1:, 2:], alone.scores)


def test_gradient_reaches_every_weight() -> None:
    model = grounding().train()
    fit = model(torch.tensor([[5, 7, 3], [9, 4, PAD]]), *maps(3))

    assert fit.maps is not None
    (fit.scores[0, 0] + fit.maps[1, 0, 0, 0]).backward()

    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
