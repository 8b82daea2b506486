"""Data sets in their published layouts, made up in miniature: what is read of each, and when."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medgem_node import testing
from medgem_node.detector.hiera import NetworkConfig
from medgem_node.errors import ConfigError, Unreadable
from medgem_node.train import catalogues
from medgem_node.train.augment import prepared
from medgem_node.train.batches import Batches
from medgem_node.train.catalogues.catalogue import Record
from medgem_node.train.data import Recipe, Source, licences, read_films, read_recipe, split_of
from medgem_node.train.pictures import read_pixels

AUGMENT = dict.fromkeys(("rotation_degrees", "scale", "shift", "aspect", "gamma", "window", "noise"), 0.0)
CHEXPERT = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices\n"
)


def picture(path: Path, side: int = 80, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = np.random.default_rng((seed, *map(ord, path.name))).integers(0, 256, (side, side)).astype(np.uint8)
    Image.fromarray(grey).save(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def source(catalogue: str, images: str, **rest: object) -> Source:
    return Source(
        **{"name": "own", "catalogue": catalogue, "images": images, "share": 2, "accept_licence": True, **rest}
    )


def recipe(*sources: Source, **rest: object) -> Recipe:
    return Recipe(
        **{
            "seed": 1, "cycle_ends": (4,), "validation_joins": 4, "learning_rate": 1e-3, "warmup_steps": 1,
            "weight_decay": 0.0, "ema_decay": 0.9, "turned_share": 0, "loss": {}, "sources": sources,
            "split": {"validation": 0, "test": 0}, "augment": {**AUGMENT, "blur": 0.3}, **rest,
        }
    )  # fmt: skip


def records(catalogue: str, place: Path) -> list[Record]:
    return list(catalogues.find(catalogue).records(place))


@pytest.fixture
def chexpert(tmp_path: Path) -> Path:
    place = tmp_path / "chexpert"
    rows = (
        "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,,,0.0,,,1.0,,,-1.0,,,,,\n"
        "CheXpert-v1.0-small/train/patient00001/study1/view2_lateral.jpg,Female,68,Lateral,,,,0.0,,,1.0,,,-1.0,,,,,\n"
        "CheXpert-v1.0-small/train/patient00002/study1/view1_frontal.jpg,Male,50,Frontal,PA,1.0,,,,,,,,,,,,,\n"
        "CheXpert-v1.0-small/train/patient00003/study1/view1_frontal.jpg,Male,51,Frontal,PA,1.0,,,,,,,,,,,,,\n"
    )
    write(place / "train.csv", CHEXPERT + rows)
    write(
        place / "valid.csv",
        CHEXPERT + "CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,"
        "0.0,1.0,0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0\n",
    )
    for below in (
        "train/patient00001/study1/view1_frontal.jpg", "train/patient00001/study1/view2_lateral.jpg",
        "train/patient00002/study1/view1_frontal.jpg", "valid/patient64541/study1/view1_frontal.jpg",
    ):  # fmt: skip
        picture(place / below)
    return place


def test_chexpert_is_read_as_unpacked_and_its_expert_part_is_for_testing(chexpert: Path) -> None:
    found = records("chexpert", chexpert)

    assert [(r.patient, r.view, r.split) for r in found] == [
        ("patient00001", "AP", ""), ("patient00001", "lateral", ""),
        ("patient00002", "PA", ""), ("patient64541", "AP", "test"),
    ]  # fmt: skip  # the third patient's film was not downloaded
    labels = found[0].labels
    assert (labels["Cardiomegaly"], labels["Edema"], labels["Atelectasis"], labels["Pneumonia"]) == (0, 1, -1, None)
    assert "No Finding" not in labels


def test_films_of_a_catalogue_are_listed_at_once_and_read_when_they_are_shown(chexpert: Path) -> None:
    films = read_films(recipe(source("chexpert", str(chexpert))), chexpert, "train")

    assert [film.pixels.shape for film in films] == [(0, 0), (0, 0)]
    assert len({film.name for film in films}) == 2
    assert films[0].labels == {"Cardiomegaly": 0.0, "Edema": 1.0}
    shown = films[0].loaded()
    assert shown.pixels.shape == (80, 80)
    assert shown.reading is None
    assert shown.labels == films[0].labels


def test_lateral_films_are_left_out_or_teach_the_gate_what_to_refuse(chexpert: Path) -> None:
    without = read_films(recipe(source("chexpert", str(chexpert))), chexpert, "train")
    with_them = read_films(recipe(source("chexpert", str(chexpert), laterals=True)), chexpert, "train")

    (lateral,) = [film for film in with_them if film.kind == "other"]
    assert len(with_them) == len(without) + 1
    assert lateral.labels == {}
    assert not lateral.is_frontal
    assert lateral.shows == "lateral chest"
    assert lateral.loaded().truth.shape == (3, 80, 80)


def test_a_licence_is_shown_and_nothing_is_read_before_it_is_accepted(chexpert: Path) -> None:
    plan = recipe(source("chexpert", str(chexpert), accept_licence=False))

    assert licences(plan) == (
        "own: Stanford University Dataset Research Use Agreement https://aimi.stanford.edu/datasets",
    )
    with pytest.raises(ConfigError, match=r"Research Use Agreement https.* accept_licence = true"):
        read_films(plan, chexpert, "train")


@pytest.fixture
def nih(tmp_path: Path) -> Path:
    place = tmp_path / "nih"
    write(
        place / "Data_Entry_2017.csv",
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
        "00000001_000.png,Cardiomegaly|Emphysema,0,1,58,M,PA,2682,2749,0.143,0.143,\n"
        "00000002_000.png,No Finding,0,2,81,M,AP,2500,2048,0.171,0.171,\n"
        "00000003_000.png,Nodule|Mass,0,3,81,F,PA,2582,2991,0.143,0.143,\n"
        "00000004_000.png,Mass,0,4,82,M,PA,2500,2048,0.168,0.168,\n",
    )
    write(
        place / "BBox_List_2017.csv",
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000003_000.png,Nodule,512,256,128,64,,,\n"
        "00000003_000.png,Mass,0,0,102.4,204.8,,,\n00000001_000.png,Infiltrate,0,0,512,512,,,\n",
    )
    write(place / "test_list.txt", "00000004_000.png\n")
    write(place / "train_val_list.txt", "00000001_000.png\n00000002_000.png\n00000003_000.png\n")
    picture(place / "images_001/images/00000001_000.png")
    for n in (2, 3, 4):
        picture(place / f"images_002/images/0000000{n}_000.png")
    return place


def test_nih_boxes_are_parts_of_the_film_and_patients_have_eight_figures(nih: Path) -> None:
    found = records("nih-chestxray14", nih)

    assert [(r.patient, r.view, r.split) for r in found] == [
        ("00000001", "PA", ""), ("00000002", "AP", ""), ("00000003", "PA", ""), ("00000004", "PA", "test"),
    ]  # fmt: skip
    assert [(m.label, m.box) for m in found[2].marked] == [
        ("Nodule", (0.5, 0.25, 0.625, 0.3125)),
        ("Mass", (0.0, 0.0, 0.1, 0.2)),
    ]
    assert found[0].marked[0].label == "Infiltration"  # the list of boxes calls it otherwise


def test_only_no_finding_denies_what_an_nih_film_does_not_name(nih: Path) -> None:
    found = records("nih-chestxray14", nih)

    assert found[0].labels["Emphysema"] == 1
    assert found[0].labels["Nodule"] is None
    assert set(found[1].labels.values()) == {0}


def test_a_film_is_free_of_lesions_only_where_they_are_denied(nih: Path) -> None:
    own = {"lesion_labels": ("Mass", "Nodule")}
    mined = recipe(source("nih-chestxray14", str(nih), **own))
    denied = recipe(source("nih-chestxray14", str(nih), policy={"default": {"blank": "zeros"}}, **own))

    first, second = ([f.lesions for f in read_films(plan, nih, "train")] for plan in (mined, denied))
    (tested,) = read_films(denied, nih, "test")
    assert first[:2] == [None, ()]
    assert second[:2] == [(), ()]
    assert [lesion.box for lesion in first[2]] == [(0.5, 0.25, 0.625, 0.3125), (0.0, 0.0, 0.1, 0.2)]
    assert tested.lesions is None  # a mass, and no box: it may lie anywhere


@pytest.mark.parametrize("packed", [False, True])
def test_mimic_labels_of_a_study_go_to_each_of_its_films(tmp_path: Path, packed: bool) -> None:
    lists = {
        "metadata": "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns\n"
        "aa-1,10000032,50414267,CHEST,PA,3056,2544\naa-2,10000032,50414267,CHEST,LATERAL,3056,2544\n"
        "bb-1,11000999,53189527,CHEST,AP,3056,2544\ncc-1,11000999,53189999,CHEST,,3056,2544\n",
        "chexpert": "subject_id,study_id,Atelectasis,Cardiomegaly,No Finding,Edema\n"
        "10000032,50414267,-1.0,1.0,,\n11000999,53189527,,,1.0,0.0\n11000999,53189999,,,1.0,0.0\n",
        "split": "dicom_id,study_id,subject_id,split\naa-1,50414267,10000032,train\n"
        "aa-2,50414267,10000032,train\nbb-1,53189527,11000999,validate\ncc-1,53189999,11000999,validate\n",
    }
    for name, text in lists.items():
        path = tmp_path / f"mimic-cxr-2.0.0-{name}.csv"
        if packed:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(text.encode()))
        else:
            write(path, text)
    for below in ("p10/p10000032/s50414267/aa-1", "p10/p10000032/s50414267/aa-2", "p11/p11000999/s53189527/bb-1",
                  "p11/p11000999/s53189999/cc-1"):  # fmt: skip
        picture(tmp_path / "files" / f"{below}.jpg")

    found = records("mimic-cxr-jpg", tmp_path)

    assert [(r.patient, r.view, r.split) for r in found] == [
        ("p10000032", "PA", "train"), ("p10000032", "lateral", "train"), ("p11000999", "AP", "validation"),
    ]  # fmt: skip  # a film of no known view is left out
    assert found[0].labels == found[1].labels
    assert (found[0].labels["Atelectasis"], found[0].labels["Cardiomegaly"], found[2].labels["Edema"]) == (-1, 1, 0)


def vindr(place: Path, images: tuple[str, ...] = ("aaa", "bbb", "ccc")) -> None:
    for name in images:
        pixels = (np.arange(200 * 100).reshape(200, 100) % 4096).astype(np.uint16)
        (place / "train").mkdir(parents=True, exist_ok=True)
        testing.dx_instance(pixels, PhotometricInterpretation="MONOCHROME1").save_as(
            place / "train" / f"{name}.dicom", enforce_file_format=True
        )


BOXES = (
    ("aaa", "Nodule/Mass", "R1", 10, 20, 30, 60), ("aaa", "Nodule/Mass", "R2", 12, 20, 32, 60),
    ("aaa", "Nodule/Mass", "R1", 60, 100, 80, 120), ("aaa", "Cardiomegaly", "R3", 10, 100, 90, 180),
    ("bbb", "No finding", "R1", "", "", "", ""), ("bbb", "No finding", "R2", "", "", "", ""),
    ("bbb", "No finding", "R3", "", "", "", ""), ("ccc", "Nodule/Mass", "R4", 0, 0, 20, 20),
)  # fmt: skip


def write_vindr(path: Path, challenge: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as lines:
        table = csv.writer(lines)
        head = ("image_id", "class_name", "rad_id", "x_min", "y_min", "x_max", "y_max")
        table.writerow((*head, "class_id") if challenge else head)
        table.writerows((*row, 8) if challenge else row for row in BOXES)


@pytest.mark.parametrize("list_", ["train.csv", "annotations/annotations_train.csv"])
def test_vindr_readers_are_brought_together(tmp_path: Path, list_: str) -> None:
    vindr(tmp_path)
    write_vindr(tmp_path / list_, challenge=list_ == "train.csv")

    a, b, c = records("vindr-cxr", tmp_path)

    assert (a.labels["Nodule/Mass"], a.labels["Cardiomegaly"], a.labels["ILD"]) == (1, -1, 0)
    assert set(b.labels.values()) == {0}
    assert c.labels["Nodule/Mass"] == -1
    assert [(m.label, m.sure) for m in a.marked] == [
        ("Nodule/Mass", True), ("Nodule/Mass", False), ("Cardiomegaly", False),
    ]  # fmt: skip
    assert a.marked[0].box == pytest.approx((0.11, 0.1, 0.31, 0.3))  # the two readers' mean, of 100 x 200 pixels


def test_what_one_of_three_readers_marked_is_neither_lesion_nor_background(tmp_path: Path) -> None:
    vindr(tmp_path)
    write_vindr(tmp_path / "train.csv", challenge=True)
    films = read_films(recipe(source("vindr-cxr", str(tmp_path), lesion_labels=("Nodule/Mass",))), tmp_path, "train")

    assert [[lesion.counts for lesion in film.lesions] for film in films] == [[True, False], [], [False]]
    dense = films[0].loaded().pixels
    assert dense[0, 0] == dense.max()  # MONOCHROME1: the least number is the densest


def test_jsrt_nodules_have_their_size_and_the_densest_pixel_is_bright(tmp_path: Path) -> None:
    raw = np.full((2048, 2048), 4000, ">u2")
    raw[100:200, 300:400] = 5
    for below in ("Nodule154images/JPCLN001.IMG", "NonNodule93images/JPCNN001.IMG"):
        (tmp_path / below).parent.mkdir()
        (tmp_path / below).write_bytes(raw.tobytes())
    write(
        tmp_path / "Clinical_Information/CLNDAT_EN.txt",
        "JPCLN001.IMG\t5\t14\t53\tmale\t1024\t 512\tmalignant\tl.upper lobe\tlung cancer\r\n",
    )

    ill, well = records("jsrt", tmp_path)

    assert (ill.patient, ill.labels, well.patient, well.labels, well.marked) == (
        "JPCLN001", {"Nodule": 1}, "JPCNN001", {"Nodule": 0}, (),
    )  # fmt: skip
    half = 14 / 0.175 / 2 / 2048
    assert ill.marked[0].box == pytest.approx((0.5 - half, 0.25 - half, 0.5 + half, 0.25 + half))
    pixels = read_pixels(ill.image)
    assert pixels.shape == (2048, 2048)
    assert (pixels[150, 350], pixels[0, 0]) == (4090, 95)


def test_a_jsrt_film_with_a_nodule_that_no_list_tells_of_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "JPCLN002.IMG").write_bytes(b"")
    write(tmp_path / "CLNDAT_EN.txt", "")

    with pytest.raises(ConfigError, match="no row of a film with a nodule"):
        records("jsrt", tmp_path)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site's own table: PNG of 8 and 16 bits, and a DICOM image."""
    write(
        tmp_path / "films.csv",
        "image,patient,view,Edema,Nodule\npng/a.png,p1,PA,1,1\npng/b.png,p1,AP,-1,0\nc.dcm,p2,,,0\nlost.png,p3,PA,1,\n",
    )
    write(tmp_path / "films_boxes.csv", "image,label,x0,y0,x1,y1\npng/a.png,Nodule,0.1,0.2,0.3,0.4\n")
    picture(tmp_path / "png/a.png")
    Image.fromarray((np.arange(80 * 80).reshape(80, 80) * 10).astype(np.uint16)).save(tmp_path / "png/b.png")
    testing.dx_instance(testing.chest_film(rows=96, columns=96)).save_as(tmp_path / "c.dcm", enforce_file_format=True)
    return tmp_path


def test_a_sites_own_table_is_read_with_its_boxes(site: Path) -> None:
    films = read_films(recipe(source("csv", "films.csv", lesion_labels=("Nodule",))), site, "train")

    assert [(film.group, film.view, film.name) for film in films] == [
        ("p1", "PA", "png/a"), ("p1", "AP", "png/b"), ("p2", "", "c"),
    ]  # fmt: skip
    assert [film.labels for film in films] == [{"Edema": 1, "Nodule": 1}, {"Nodule": 0}, {"Nodule": 0}]
    assert [len(film.lesions) for film in films] == [1, 0, 0]
    assert films[1].loaded().pixels.max() == 63990  # 16 bits are not cut to 8
    assert films[2].loaded().pixels.shape == (96, 96)


@pytest.mark.parametrize(
    ("row", "says"),
    [("png/a.png,p1,PA,2,0", "a label is"), ("png/a.png,,PA,1,0", "no patient"), ("png/a.png,p,LL,1,0", "a view is")],
)
def test_a_row_that_says_nothing_known_is_an_error(site: Path, row: str, says: str) -> None:
    write(site / "films.csv", f"image,patient,view,Edema,Nodule\n{row}\n")

    with pytest.raises(ConfigError, match=says):
        read_films(recipe(source("csv", "films.csv")), site, "train")


def test_a_patient_of_a_table_lies_in_one_split(site: Path) -> None:
    plan = recipe(source("csv", "films.csv"), split={"validation": 30, "test": 30})

    found = {(f.group, split) for split in ("train", "validation", "test") for f in read_films(plan, site, split)}

    assert found == {("p1", split_of("p1", plan.split)), ("p2", split_of("p2", plan.split))}


def test_a_film_that_cannot_be_read_is_passed_over_without_naming_it(site: Path) -> None:
    (site / "c.dcm").write_bytes(b"no image")
    films = read_films(recipe(source("csv", "films.csv")), site, "train")

    with pytest.raises(Unreadable) as told:
        films[2].loaded()

    assert str(site) not in str(told.value)
    assert "c.dcm" not in str(told.value)


def test_a_batch_tells_the_labels_and_which_of_them_are_known(site: Path) -> None:
    plan = recipe(source("csv", "films.csv", share=6, policy={"Edema": [0.6, 0.6]}))
    films = [prepared(film, 64) for film in read_films(plan, site, "train")]
    config = NetworkConfig.read({
        "size": 64, "stem": [8, 8], "widths": [16, 16, 16], "depths": [1, 1, 1], "heads": [2, 2, 2], "window": 4,
        "mlp_ratio": 2.0, "drop_path": 0.0, "decoder": [8, 8, 8], "masks": ["a", "b", "c"], "points": ["a"] * 4,
        "classes": ["frontal", "other"], "labels": ["Nodule", "Edema", "Mass"],
    })  # fmt: skip

    images, target = Batches(plan, config, films).batch(0)
    again = Batches(plan, config, films).batch(0)[1]

    assert images.shape == (6, 1, 64, 64)
    rows = {(*map(float, t), *map(float, k)) for t, k in zip(target.labels, target.labels_known, strict=True)}
    expected = {(1, 1, 0, 1, 1, 0), (0, float(np.float32(0.6)), 0, 1, 1, 0), (0, 0, 0, 1, 0, 0)}
    assert rows <= expected
    assert len(rows) > 1
    assert (target.labels == again.labels).all()


def test_a_recipe_without_kind_or_with_a_misspelt_augmentation_is_an_error(tmp_path: Path) -> None:
    text = (
        "seed = 1\ncycle_ends = [4]\nvalidation_joins = 4\nlearning_rate = 1e-3\nwarmup_steps = 1\nweight_decay = 0.0\n"
        "ema_decay = 0.9\nturned_share = 0\nloss = {}\nsplit = { validation = 0, test = 0 }\n"
        "augment = { elastics = 0.1 }\n[[sources]]\nname = 'own'\nimages = 'x'\nshare = 1\n"
    )
    write(tmp_path / "a.toml", text)
    write(tmp_path / "b.toml", text.replace("elastics", "elastic"))
    write(tmp_path / "c.toml", text.replace("elastics = 0.1", ""))

    for name, says in (
        ("a", '"elastics"'),
        ("b", "elastic in .augment. lies between 0 and 0.04"),
        ("c", "needs a kind"),
    ):
        with pytest.raises(ConfigError, match=says):
            read_recipe(tmp_path / f"{name}.toml")


@pytest.mark.parametrize("name", ["chexpart", "../x", ""])
def test_an_unknown_catalogue_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match="known are chexpert"):
        catalogues.find(name)
