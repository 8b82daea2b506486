"""The shipped model: whole, unaltered, computing what it should, and right about a real film."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from medgem_node.card import ModelCard, read_card
from medgem_node.detector import runtime
from medgem_node.detector.detector import create
from medgem_node.errors import ModelRejected, NotApplicable

FOLDER = Path(__file__).parents[2] / "models/chest-xray/1.0.0"


@pytest.fixture
def copy(tmp_path: Path) -> Callable[..., ModelCard]:
    """The shipped model in a folder of its own."""
    folder = tmp_path / "chest-xray/1.0.0"
    shutil.copytree(FOLDER, folder)
    return lambda: read_card(folder)


def test_the_shipped_weights_compute_what_they_did_at_release() -> None:
    network = runtime.load(read_card(FOLDER))

    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_altered_weights_are_refused(copy: Callable[..., ModelCard]) -> None:
    path = copy().folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)

    with pytest.raises(ModelRejected, match="altered"):
        runtime.load(copy())


def test_weights_of_another_network_are_refused(copy: Callable[..., ModelCard]) -> None:
    card = copy()

    with pytest.raises(ModelRejected, match="not those of this network"):
        runtime.load(replace(card, network={**card.network, "depths": [1, 3, 2]}))


def test_a_machine_that_computes_otherwise_is_refused(copy: Callable[..., ModelCard]) -> None:
    card = copy()
    path = card.folder / "golden/golden.json"
    golden = json.loads(path.read_text())
    golden["expected"]["gate"][0] += 0.1
    path.write_text(json.dumps(golden))

    with pytest.raises(ModelRejected, match="gate differs"):
        runtime.load(card)


def test_a_model_without_its_golden_case_is_refused(copy: Callable[..., ModelCard]) -> None:
    card = copy()
    (card.folder / "golden/golden.json").unlink()

    with pytest.raises(ModelRejected, match="golden"):
        runtime.load(card)


def real(name: str) -> str:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"{name} is absent: pip install pydicom-data")
    return str(path)


def test_a_real_film_with_many_opacities_is_analysed() -> None:
    analysis = create(read_card(FOLDER)).detect([dcmread(real("RG1_UNCR.dcm"))])

    ratio = next(m.value for m in analysis.measurements if m.label == "Cardiothoracic ratio")
    assert 0.35 < ratio < 0.60
    assert [m.pixels.shape for m in analysis.masks] == [(1, 1955, 1841)] * 3


def test_a_real_leg_is_no_chest() -> None:
    film = dcmread(real("RG3_UNCR.dcm"))

    with pytest.raises(NotApplicable):
        create(read_card(FOLDER)).detect([film])


def test_outputs_that_are_no_numbers_decide_nothing() -> None:
    network = runtime.load(read_card(FOLDER))
    image = np.full((1, 256, 256), np.nan, np.float32)

    with pytest.raises(ArithmeticError, match="not finite"):
        runtime.run(network, image)
