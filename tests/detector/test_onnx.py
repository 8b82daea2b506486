"""The same network by ONNX Runtime: it answers as torch does, is what the manifest says, and is chosen as asked."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from medgem_node.card import ModelCard, read_card
from medgem_node.detector import decode, runtime
from medgem_node.detector.detector import ProjectionDetector
from medgem_node.detector.hiera import NetworkConfig
from medgem_node.detector.network import ChestNetwork, Outputs
from medgem_node.detector.onnx import OnnxNetwork
from medgem_node.errors import ConfigError, ModelRejected
from medgem_node.finding import Analysis
from medgem_node.testing import chest_film, dx_instance
from medgem_node.train import export

NETWORK = """
size = 64
stem = [8, 8]
widths = [16, 16, 16]
depths = [1, 1, 1]
heads = [2, 2, 2]
window = 4
mlp_ratio = 2.0
drop_path = 0.0
decoder = [8, 8, 8, 8]
masks = ["right-lung", "left-lung", "heart"]
points = ["heart-right"]
classes = ["frontal", "other"]
boxes = ["nodule-or-mass"]
views = ["PA", "AP"]
queries = 4
embedding = 8
labels = ["Edema"]
"""
MANIFEST = """
[model]
name = "tiny"
version = "1.0.0"
title = "made for tests"
manufacturer = "medgem-node contributors"
status = "research use only"
licence = "Apache-2.0"
[weights]
file = "weights.safetensors"
sha256 = "{weights}"
onnx = "model.onnx"
onnx_sha256 = "{graph}"
[network]
{network}
[preprocessing]
low_percentile = 0.5
high_percentile = 99.5
mean = 0.5
deviation = 0.25
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights with its graph, which torch's older exporter writes in a tenth of the time."""
    folder = tmp_path_factory.mktemp("models") / "tiny/1.0.0"
    (folder / "golden").mkdir(parents=True)
    write_manifest(folder, graph="0" * 64, weights="0" * 64)
    torch.manual_seed(0)
    network = ChestNetwork(NetworkConfig.read(read_card(folder).network)).eval().requires_grad_(False)
    save_file(network.state_dict(), folder / "weights.safetensors")
    golden = {"tolerance": 1e-4, "expected": runtime.golden_case(network)}
    (folder / "golden/golden.json").write_text(json.dumps(golden))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = [n for n, output in zip(Outputs._fields, network(torch.zeros(1, 1, 64, 64)), strict=True)]
        torch.onnx.export(
            export._Listed(network),
            (torch.zeros(1, 1, 64, 64),),
            str(folder / "model.onnx"),
            input_names=["image"],
            output_names=names,
            opset_version=export.OPSET,
            dynamo=False,
        )
    write_manifest(folder, sha256(folder / "model.onnx"), sha256(folder / "weights.safetensors"))
    return folder


@pytest.fixture
def card(made: Path) -> ModelCard:
    return read_card(made)


def write_manifest(folder: Path, graph: str, weights: str) -> None:
    (folder / "model.toml").write_text(MANIFEST.format(graph=graph, weights=weights, network=NETWORK))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def images(count: int) -> list[runtime.Image]:
    rng = np.random.default_rng(5)
    return [rng.normal(size=(1, 64, 64)).astype(np.float32) for _ in range(count)]


def apart(a: Outputs, b: Outputs) -> float:
    pairs = list(zip(a, b, strict=True))
    assert all((x is None) == (y is None) for x, y in pairs)
    return max(float((x - y).abs().max()) for x, y in pairs if x is not None and y is not None)


def test_the_graph_answers_as_torch_does_in_every_head(card: ModelCard) -> None:
    torches, graph = runtime.load(card), runtime.load(card, "onnx")

    assert isinstance(graph, OnnxNetwork)
    for image in images(3):
        assert None not in runtime.run(graph, image)
        assert apart(runtime.run(torches, image), runtime.run(graph, image)) <= export.PARITY


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_ten_repeats_are_bit_identical(card: ModelCard, backend: str) -> None:
    network, image = runtime.load(card, backend), images(1)[0]

    first, *others = (runtime.run(network, image) for _ in range(10))

    assert [apart(first, other) for other in others] == [0.0] * 9


@pytest.mark.parametrize(("backend", "tolerance"), [("torch", 1e-5), ("onnx", 0.0)])
def test_a_batch_answers_as_its_films_alone(card: ModelCard, backend: str, tolerance: float) -> None:
    network, several = runtime.load(card, backend), images(runtime.MOST_FILMS)

    together = runtime.run_batch(network, several)

    assert len(together) == len(several)
    for image, outputs in zip(several, together, strict=True):
        assert apart(runtime.run(network, image), outputs) <= tolerance


def test_a_graph_of_another_digest_is_refused_before_it_is_read(
    card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "OnnxNetwork", None)

    with pytest.raises(ModelRejected, match="ONNX graph was altered"):
        runtime.load(replace(card, onnx_sha256="1" * 64), "onnx")


def test_a_graph_that_computes_otherwise_is_refused(card: ModelCard, tmp_path: Path) -> None:
    (tmp_path / "golden").mkdir()
    golden = json.loads((card.folder / "golden/golden.json").read_text())
    golden["expected"]["gate"][0] += 0.1
    (tmp_path / "golden/golden.json").write_text(json.dumps(golden))
    for name in (card.weights, card.onnx):
        (tmp_path / name).write_bytes((card.folder / name).read_bytes())

    with pytest.raises(ModelRejected, match="gate differs"):
        runtime.load(replace(card, folder=tmp_path), "onnx")


def test_what_is_no_graph_is_refused(card: ModelCard, tmp_path: Path) -> None:
    with pytest.raises(ModelRejected, match="cannot be read"):
        OnnxNetwork(b"no graph", NetworkConfig.read(card.network))


def test_a_cpu_takes_the_graph_if_there_is_one(card: ModelCard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "device", lambda: torch.device("cpu"))

    assert runtime.chosen("auto", card) == "onnx"
    assert runtime.chosen("auto", replace(card, onnx="", onnx_sha256="")) == "torch"
    assert runtime.chosen("torch", card) == "torch"


def test_a_gpu_is_left_to_torch(card: ModelCard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "device", lambda: torch.device("cuda"))

    assert runtime.chosen("auto", card) == "torch"


def test_without_onnx_runtime_torch_computes_it_and_the_log_says_so(
    card: ModelCard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runtime, "device", lambda: torch.device("cpu"))
    monkeypatch.setattr(runtime, "find_spec", lambda name: None)

    with caplog.at_level(logging.INFO):
        assert isinstance(runtime.load(card, "auto"), ChestNetwork)

    assert "ONNX Runtime is not installed" in caplog.text


def test_whoever_asks_for_onnx_is_told_what_is_missing(card: ModelCard, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelRejected, match="medgem-node export"):
        runtime.load(replace(card, onnx="", onnx_sha256=""), "onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelRejected, match="pip install"):
        runtime.load(card, "onnx")


def test_an_unknown_backend_is_an_error(card: ModelCard) -> None:
    with pytest.raises(ConfigError, match="tensorflow"):
        runtime.load(card, "tensorflow")


@pytest.mark.parametrize("line", ['onnx = "../model.onnx"', 'onnx_sha256 = "12"'])
def test_a_manifest_names_a_graph_of_its_own_folder_with_its_digest(card: ModelCard, tmp_path: Path, line: str) -> None:
    folder = tmp_path / "tiny/1.0.0"
    folder.mkdir(parents=True)
    kept = [k for k in (card.folder / "model.toml").read_text().splitlines() if k.split("=")[0] != line.split("=")[0]]
    kept.insert(kept.index("[weights]") + 1, line)
    (folder / "model.toml").write_text("\n".join(kept))

    with pytest.raises(ModelRejected, match="onnx"):
        read_card(folder)


@pytest.mark.parametrize(("backend", "module"), [("torch", "torch"), ("onnx", "onnxruntime")])
def test_an_analysis_says_what_computed_it_and_no_batch_is_larger_than_asked(
    card: ModelCard, monkeypatch: pytest.MonkeyPatch, backend: str, module: str
) -> None:
    monkeypatch.setattr(decode, "decode", lambda outputs, box, uid, *_: Analysis("tiny", "1.0.0", images=(uid,)))
    sizes: list[int] = []
    inner = runtime.run_batch

    def counted(network: Any, several: Any) -> Any:
        sizes.append(len(several))
        return inner(network, several)

    monkeypatch.setattr(runtime, "run_batch", counted)
    films = [dx_instance(chest_film(seed=n, rows=96, columns=96), SOPInstanceUID=f"2.25.{n}") for n in range(1, 6)]

    analysis = ProjectionDetector(card, backend, at_once=2).detect(films)

    version = sys.modules[module].__version__.partition("+")[0]
    assert (
        analysis.parameters["runtime"] == f"{module} {version} {runtime.device().type if backend == 'torch' else 'cpu'}"
    )
    assert analysis.images == tuple(f"2.25.{n}" for n in range(1, 6))
    assert sizes == [1, 2, 2, 1]  # the first is the golden case


@pytest.mark.acceptance
@pytest.mark.skipif(importlib.util.find_spec("onnxscript") is None, reason="pip install 'medgem-node[export]'")
def test_an_export_stands_beside_the_weights_and_is_within_the_stated_distance(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny/1.0.0"
    (folder / "golden").mkdir(parents=True)
    for name in ("model.toml", "weights.safetensors", "golden/golden.json"):
        (folder / name).write_bytes((made / name).read_bytes())

    exported = export.export(read_card(folder))

    assert exported.path == folder / "model.onnx"
    assert exported.apart <= export.PARITY
    write_manifest(folder, exported.sha256, sha256(folder / "weights.safetensors"))
    assert isinstance(runtime.load(read_card(folder), "onnx"), OnnxNetwork)
