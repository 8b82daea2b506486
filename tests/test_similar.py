"""The index of similar cases: exact, without identity, whole after a crash, and never across tenants."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from medgem_node import part10, similar, testing
from medgem_node.card import read_card
from medgem_node.commands import index as commands
from medgem_node.commands.common import Run, common_arguments
from medgem_node.detector.embed import Embedder
from medgem_node.errors import ConfigError
from medgem_node.similar import Index, Space
from medgem_node.stores.local import LocalStore

MODELS = Path(__file__).parents[1] / "models"
SPACE = Space("chest", "1.0.0", "ab" * 32, 4)


def vectors(n: int, dimensions: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {f"case{i}": rng.normal(size=dimensions).astype(np.float32) for i in range(n)}


def filled(n: int = 30, seed: int = 0) -> Index:
    labels = {f"case{i}": ("nodule", "effusion", "none")[i % 3] for i in range(n)}
    return Index.empty(SPACE).with_films(labels, vectors(n, seed=seed))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "similar")


def test_the_nearest_are_those_of_the_largest_cosine() -> None:
    index, asked = filled(), np.array([0.3, -1.0, 0.5, 0.1], np.float32)
    cosine = {c: float(v @ asked / np.linalg.norm(v) / np.linalg.norm(asked)) for c, v in vectors(30).items()}
    expected = sorted(cosine, key=lambda c: -cosine[c])[:5]

    answer = index.nearest(asked, 5)

    assert [n.case for n in answer.neighbours] == expected
    assert [n.distance for n in answer.neighbours] == pytest.approx([1 - cosine[c] for c in expected], abs=2e-3)


def test_the_label_mix_stands_beside_that_of_the_whole_index() -> None:
    answer = filled(30).nearest(np.ones(4, np.float32), 5)

    assert sum(answer.mix.values()) == 5
    assert answer.labels == {"nodule": 10, "effusion": 10, "none": 10}
    assert answer.films == 30


def test_the_film_that_is_asked_about_is_not_its_own_neighbour() -> None:
    index = filled()
    own = vectors(30)["case7"]

    assert index.nearest(own, 1).neighbours[0].case == "case7"
    assert "case7" not in [n.case for n in index.nearest(own, 30, but_not="case7").neighbours]


def test_fewer_films_than_asked_for_give_fewer_neighbours() -> None:
    assert len(filled(2).nearest(np.ones(4, np.float32), 5).neighbours) == 2
    assert filled(0).nearest(np.ones(4, np.float32), 5).neighbours == ()


@pytest.mark.parametrize("k", [0, -1, 51])
def test_an_odd_number_of_neighbours_is_refused(k: int) -> None:
    with pytest.raises(ConfigError, match="1 to 50"):
        filled().nearest(np.ones(4, np.float32), k)


def test_a_case_that_comes_again_is_replaced() -> None:
    again = filled(3).with_films({"case1": "mass"}, {"case1": np.array([1, 0, 0, 0], np.float32)})

    assert list(again.labels) == ["case0", "case1", "case2"]
    assert again.labels["case1"] == "mass"
    assert again.vectors[1].tolist() == [1, 0, 0, 0]


def test_what_was_written_is_read_back(store: LocalStore) -> None:
    index = filled()

    similar.write(index, store, "ward-a")
    again = similar.read(store, "ward-a", SPACE)

    assert again is not None
    assert again.labels == index.labels
    assert (again.vectors == index.vectors).all()
    assert again.vectors.dtype == np.float16


def test_a_tenant_sees_no_film_of_another(store: LocalStore) -> None:
    similar.write(filled(), store, "ward-a")
    similar.write(Index.empty(SPACE).with_films({"x": "mass"}, {"x": np.ones(4, np.float32)}), store, "ward-b")

    other = similar.read(store, "ward-b", SPACE)

    assert similar.read(store, "ward-c", SPACE) is None
    assert other is not None
    assert [n.case for n in other.nearest(vectors(30)["case7"], 5).neighbours] == ["x"]


def test_deleting_a_tenant_leaves_the_others(store: LocalStore) -> None:
    for tenant in ("ward-a", "ward-b"):
        similar.write(filled(), store, tenant)

    assert similar.delete(store, "ward-a") == 2

    assert [p for p in store.root.rglob("*") if "ward-a" in str(p)] == []
    assert similar.read(store, "ward-b", SPACE) is not None


@pytest.mark.parametrize("tenant", ["", "..", "a/b", "A", "a--b", "-a", "a" * 100])
def test_a_tenant_cannot_name_a_path(store: LocalStore, tenant: str) -> None:
    with pytest.raises(ConfigError, match="no name of a tenant"):
        similar.read(store, tenant, SPACE)
    with pytest.raises(ConfigError, match="no name of a tenant"):
        similar.delete(store, tenant)


def test_a_crash_between_vectors_and_table_leaves_the_index_as_it_was(store: LocalStore) -> None:
    similar.write(filled(3), store, "ward-a")

    class Crashing(LocalStore):
        def put(self, key: str, data: bytes) -> None:
            if key.endswith("index.json"):
                raise KeyboardInterrupt
            super().put(key, data)

    with pytest.raises(KeyboardInterrupt):
        similar.write(filled(9), Crashing(store.root), "ward-a")
    index = similar.read(store, "ward-a", SPACE)

    assert index is not None
    assert len(index.labels) == 3
    similar.write(filled(9), store, "ward-a")
    assert len(list(store.keys("ward-a"))) == 2


def test_embeddings_of_other_weights_are_not_compared(store: LocalStore) -> None:
    similar.write(filled(), store, "ward-a")

    with pytest.raises(ConfigError, match="--replace"):
        similar.read(store, "ward-a", Space("chest", "1.1.0", "cd" * 32, 4))


def test_an_altered_index_is_refused(store: LocalStore) -> None:
    similar.write(filled(), store, "ward-a")
    (key,) = [k for k in store.keys("ward-a") if k.endswith(".safetensors")]
    data = bytearray(store.get(key))
    data[-1] ^= 1
    store.put(key, bytes(data))

    with pytest.raises(ConfigError, match="altered"):
        similar.read(store, "ward-a", SPACE)


@pytest.mark.parametrize("table", ["{", "[]", "{}", '{"model": 1}'])
def test_a_broken_table_is_refused(store: LocalStore, table: str) -> None:
    store.put("ward-a/chest/index.json", table.encode())

    with pytest.raises(ConfigError, match="cannot be read"):
        similar.read(store, "ward-a", SPACE)


def test_only_the_label_column_is_read(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_text("image,name,label\na.dcm,Doe^Jane,Nodule\nb.dcm,Roe^Ann,\n", "utf-8")

    assert similar.read_labels(path) == {"a.dcm": "Nodule"}


@pytest.mark.parametrize("label", ["seen 20260301 again", "x" * 80, "Doe^Jane", "12"])
def test_a_label_that_may_tell_who_it_is_is_refused_and_not_repeated(tmp_path: Path, label: str) -> None:
    path = tmp_path / "l.csv"
    path.write_text(f"image,label\na.dcm,{label}\n", "utf-8")

    with pytest.raises(ConfigError, match="line 2") as refusal:
        similar.read_labels(path)
    assert label not in str(refusal.value)


def test_a_column_of_free_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    names = [f"{a}{b}" for a in "abcdefghijklmnop" for b in "abcdefghijklmnop"]
    path.write_text("image,label\n" + "".join(f"{n},{n}\n" for n in names), "utf-8")

    with pytest.raises(ConfigError, match="200"):
        similar.read_labels(path)


def test_a_csv_without_the_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_text("file,label\na,b\n", "utf-8")

    with pytest.raises(ConfigError, match="columns image, label"):
        similar.read_labels(path)


def command_line(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    groups, common = parser.add_subparsers(required=True), common_arguments()

    def command(name: str, run: Run, told: str) -> argparse.ArgumentParser:
        made = groups.add_parser(name, parents=[common], help=told)
        made.set_defaults(run=run)
        return made

    commands.add(command)
    return parser.parse_args(words)


def ran(*words: str) -> int:
    options = command_line(*words)
    code: int = options.run(options)
    return code


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model with an embedding that has learnt nothing."""
    import torch

    from medgem_node.detector import runtime
    from medgem_node.detector.embedding import EmbeddingHead
    from medgem_node.train.embedding import with_head, write

    root = tmp_path_factory.mktemp("models")
    folder = root / "chest-xray/1.0.0"
    shutil.copytree(MODELS / "chest-xray/1.0.0", folder)
    card = read_card(folder)
    torch.manual_seed(0)
    network = runtime.load(card)
    write(with_head(network, EmbeddingHead(network.config.widths[2], 16)), folder)
    shutil.move(folder / "golden.json", folder / "golden/golden.json")
    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    text = (folder / "model.toml").read_text("utf-8").replace(card.weights_sha256, digest)
    (folder / "model.toml").write_text(text.replace("[network]", "[network]\nembedding = 16"), "utf-8")
    return root


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Path:
    """Two labelled films of invented patients in the indexes of two tenants; a third film has no label."""
    folder = tmp_path_factory.mktemp("site")
    lines = ["image,label"]
    (folder / "films").mkdir()
    for n, name in enumerate(("Invented_Ida", "Invented_Ivo", "Invented_Ina")):
        film = testing.dx_instance(testing.chest_film(seed=n), SOPInstanceUID=f"1.2.3.{n}")
        (folder / f"films/{name}.dcm").write_bytes(part10.encode(film))
        lines += [f"{name}.dcm,nodule"] * (n < 2)
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", "utf-8")
    for tenant in ("ward-a", "ward-b"):
        assert ran(*filling(folder), *arguments(folder, models), "--tenant", tenant) == 0
    return folder


def filling(site: Path) -> list[str]:
    return ["index", str(site / "films"), "--labels", str(site / "labels.csv")]


def arguments(site: Path, models: Path) -> list[str]:
    return [
        "--model", "chest-xray", "--tenant", "ward-a", "--data", str(site / "data"),
        "--set", f"node.models={json.dumps(str(models))}",
    ]  # fmt: skip


def test_a_film_that_is_there_already_is_not_indexed_again(
    site: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ran(*filling(site), *arguments(site, models)) == 0

    assert capsys.readouterr().out == "tenant ward-a: there already 2, without a label 1\n"


@pytest.mark.parametrize(("film", "others"), [("Invented_Ina", 2), ("Invented_Ida", 1)])
def test_a_film_is_asked_about_by_what_the_site_has_beside_it(
    film: str, others: int, site: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ran("similar", str(site / f"films/{film}.dcm"), "--json", *arguments(site, models)) == 0

    answer = json.loads(capsys.readouterr().out)
    assert answer["mix"] == {"nodule": others}
    assert answer["labels"] == {"nodule": 2}


def test_an_index_holds_nothing_that_names_a_patient(site: Path) -> None:
    kept = b"".join(p.read_bytes() for p in (site / "data/similar").rglob("*") if p.is_file())

    for told in (b"Invented", b"DEMO-4711", b"1.2.3.", b"20260301", b"ACC-0815"):
        assert told not in kept
    assert b"nodule" in kept


def test_a_film_has_another_name_in_another_tenants_index(site: Path) -> None:
    cases = [
        set(json.loads((site / f"data/similar/{tenant}/chest-xray/index.json").read_text())["labels"])
        for tenant in ("ward-a", "ward-b")
    ]

    assert len(cases[0]) == len(cases[1]) == 2
    assert not cases[0] & cases[1]


def test_a_tenant_without_an_index_is_told_how_to_fill_one(site: Path, models: Path) -> None:
    with pytest.raises(ConfigError, match="medgem-node index"):
        ran("similar", str(site / "films/Invented_Ida.dcm"), *arguments(site, models), "--tenant", "ward-c")


def test_a_tenant_is_deleted_by_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    similar.write(filled(), LocalStore(tmp_path), "ward-a")

    assert ran("index", "--delete", "--model", "chest", "--tenant", "ward-a", "--out", str(tmp_path)) == 0

    assert capsys.readouterr().out == "2 files of tenant ward-a deleted\n"
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_an_embedding_head_compares_what_its_trunk_sees() -> None:
    embedder = Embedder(read_card(MODELS / "chest-xray/1.0.0"))
    one, again, other = (
        embedder.embed(testing.dx_instance(testing.chest_film(seed=seed), SOPInstanceUID="1.2.3")) for seed in (0, 0, 1)
    )

    assert one.shape == (embedder.dimensions,)
    assert float(one @ one) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("label", ["Invented DOB 1951-03-12", "MRN 12-34-56", "Smith John 4711"])
def test_a_label_that_may_be_a_number_or_a_date_of_somebody_is_refused(tmp_path: Path, label: str) -> None:
    (tmp_path / "labels.csv").write_text(f"image,label\na.dcm,{label}\n", "utf-8")

    with pytest.raises(ConfigError, match="no category"):
        similar.read_labels(tmp_path / "labels.csv")


def test_an_image_with_two_labels_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image,label\na.dcm,nodule\na.dcm,none\n", "utf-8")

    with pytest.raises(ConfigError, match="twice"):
        similar.read_labels(tmp_path / "labels.csv")


def test_a_label_goes_to_no_other_file_of_the_same_name(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n, folder in enumerate(("one", "two")):
        film = testing.dx_instance(testing.chest_film(seed=n), SOPInstanceUID=f"1.2.3.{n}")
        (tmp_path / "films" / folder).mkdir(parents=True)
        (tmp_path / "films" / folder / "IMG1.dcm").write_bytes(part10.encode(film))
    (tmp_path / "labels.csv").write_text("image,label\nIMG1.dcm,none\ntwo/IMG1.dcm,nodule\n", "utf-8")

    assert ran(*filling(tmp_path), *arguments(tmp_path, models), "--tenant", "ward-a") == 0

    assert capsys.readouterr().out == "tenant ward-a: of a name that is not the only one 1, indexed 1\n"
