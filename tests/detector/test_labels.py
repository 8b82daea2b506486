"""Labels of a whole film: off unless asked for, never a verdict, and taught only where they are known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medgem_node.card import read_card
from medgem_node.detector.decode import decode
from medgem_node.detector.hiera import NetworkConfig
from medgem_node.detector.labels import asked, check_labels, for_research
from medgem_node.detector.network import ChestNetwork, Outputs
from medgem_node.detector.preprocess import letterbox
from medgem_node.errors import ConfigError
from medgem_node.train.label_loss import label_loss

SHIPPED = Path(__file__).parents[2] / "models/chest-xray/1.0.0"
TABLE = {
    "size": 64, "stem": [8, 8], "widths": [16, 16, 16], "depths": [1, 1, 1], "heads": [2, 2, 2], "window": 4,
    "mlp_ratio": 2.0, "drop_path": 0.0, "decoder": [8, 8, 8], "masks": ["right-lung", "left-lung", "heart"],
    "points": ["heart-right", "heart-left", "thorax-right", "thorax-left"], "classes": ["frontal", "other"],
}  # fmt: skip


@pytest.mark.parametrize(
    "label",
    [
        "No Finding",
        "normal",
        "abnormal",
        "No_Finding",
        "Abnormality",
        "Normal chest",
        "healthy",
        "Any finding",
        "finding",
    ],
)
def test_a_label_that_judges_the_whole_film_is_refused(label: str) -> None:
    with pytest.raises(ConfigError, match="judges the whole film"):
        NetworkConfig.read({**TABLE, "labels": ["Edema", label]})


def test_findings_may_be_labels() -> None:
    labels = ["Edema", "Pleural Effusion", "Nodule/Mass", "Pleural_Thickening", "Enlarged Cardiomediastinum", "ILD"]

    assert NetworkConfig.read({**TABLE, "labels": labels}).labels == tuple(labels)


@pytest.mark.parametrize("labels", [["Edema", "Edema"], [""], ["-"]])
def test_a_label_without_a_name_or_twice_is_refused(labels: list[str]) -> None:
    with pytest.raises(ConfigError, match="empty or stands twice"):
        check_labels(labels)


def test_a_network_with_labels_gives_a_number_for_each_and_one_without_gives_none() -> None:
    image = torch.zeros(2, 1, 64, 64)

    with_labels = ChestNetwork(NetworkConfig.read({**TABLE, "labels": ["Edema", "Mass"]})).eval()(image, 1)
    without = ChestNetwork(NetworkConfig.read(TABLE)).eval()(image, 1)

    assert with_labels.labels.shape == (2, 2)
    assert without.labels is None


def outputs(*logits: float) -> Outputs:
    nothing = torch.zeros(1, 1, 8, 8)
    return Outputs(nothing, nothing, torch.zeros(1, 2), labels=torch.tensor([logits]))


def test_labels_are_not_told_unless_the_manifest_asks_and_then_as_research() -> None:
    card = read_card(SHIPPED)
    taught = replace(card, network={**card.network, "labels": ["Edema", "Mass"]})
    asking = replace(taught, research=({"label": "Mass"},))

    assert for_research(outputs(0.0, 0.0), taught) == {}
    told = for_research(outputs(0.0, math.log(3)), asking)
    assert list(told) == ["research: Mass"]
    assert told["research: Mass"].startswith("0.75 (research only")


def test_a_manifest_cannot_ask_for_what_was_not_taught_or_must_not_be_said() -> None:
    card = read_card(SHIPPED)
    taught = replace(card, network={**card.network, "labels": ["Edema"]})

    with pytest.raises(ConfigError, match="not taught"):
        asked(replace(taught, research=({"label": "Mass"},)))
    with pytest.raises(ConfigError, match="judges"):
        asked(replace(taught, research=({"label": "abnormal"},)))


def test_the_label_loss_by_hand() -> None:
    logits, truth = torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 1.0]])

    found = label_loss(logits, truth, torch.tensor([[1.0, 1.0, 0.0]]))

    # at p = 1/2: (1/4)(1/4) ln 2 where it is present, (3/4)(1/4) ln 2 where it is absent, half of both
    assert found.item() == pytest.approx((0.25 + 0.75) * 0.25 * math.log(2) / 2)


def test_a_soft_label_lies_between_its_ends() -> None:
    logits, known = torch.tensor([[0.7]]), torch.ones(1, 1)

    absent, soft, present = (label_loss(logits, torch.tensor([[t]]), known).item() for t in (0.0, 0.25, 1.0))

    assert soft == pytest.approx(0.25 * present + 0.75 * absent)


def test_a_label_that_is_not_known_teaches_nothing() -> None:
    logits = torch.randn(2, 2, requires_grad=True)

    label_loss(logits, torch.ones(2, 2), torch.tensor([[1.0, 0.0], [0.0, 0.0]])).backward()

    assert logits.grad is not None
    assert (logits.grad != 0).tolist() == [[True, False], [False, False]]
    assert label_loss(logits, torch.ones(2, 2), torch.zeros(2, 2)) == 0


def test_parts_of_a_batch_add_up_to_it() -> None:
    logits, truth = torch.randn(4, 3), torch.rand(4, 3)
    known = torch.tensor([[1.0, 1.0, 0.0]] * 4)

    parts = sum(label_loss(logits[n::2], truth[n::2], known[n::2], known.sum()) for n in (0, 1))

    assert parts == pytest.approx(label_loss(logits, truth, known).item())


def test_an_analysis_tells_a_research_label_beside_its_findings_and_only_if_asked() -> None:
    card = read_card(SHIPPED)
    taught = replace(card, network={**card.network, "labels": ["Mass"]})
    masks, points = torch.full((1, 3, 256, 256), -8.0), torch.full((1, 4, 64, 64), -9.0)
    for logits, (x0, x1) in zip(masks[0], ((30, 110), (146, 226), (90, 180)), strict=True):
        logits[120:200, x0:x1] = 8.0
    gate = torch.tensor([[8.0, 0, 0, 0, 0, 0]])
    made = Outputs(masks, points, gate, labels=torch.zeros(1, 1))

    silent, asking = (
        decode(made, letterbox(1024, 1024), "1.2.3", 1024, 1024, None, replace(taught, research=research))
        for research in ((), ({"label": "Mass"},))
    )

    assert asking.parameters.keys() - silent.parameters.keys() == {"research: Mass"}
    assert not any("research" in name for name in silent.parameters)
    assert len(asking.findings) == len(silent.findings)
    assert "Mass" not in {finding.label for finding in asking.findings}
