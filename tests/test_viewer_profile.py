"""Viewer profiles: what a file may say, what is written for it, and what stands in for what."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness import chest, volume
from pydicom import Dataset
from pydicom.uid import ComprehensiveSRStorage

from medgem_node import cli, part10, publication
from medgem_node.config import Config, read_config, shipped
from medgem_node.doctor import SOP_CLASSES
from medgem_node.errors import ConfigError
from medgem_node.finding import Analysis, not_analysed
from medgem_node.publication import Written, check_profile, write_objects
from medgem_node.viewer_profile import ViewerProfile, read_profile, read_profiles

MakeConfig = Callable[..., Config]

PROFILE = ViewerProfile("p", "P", ("a", "b"), "scoord", {"a": ("a/old", "c"), "b": ("c",)})


def profile(*objects: str, instead: dict[str, tuple[str, ...]] | None = None) -> ViewerProfile:
    return ViewerProfile("p", "P", objects, "scoord", instead or {})


def written(analysis: Analysis, film: Dataset, of: ViewerProfile) -> tuple[Written, ...]:
    return write_objects(analysis, [film], chest.SOURCE, chest.uid, of)


@pytest.fixture(scope="module")
def film() -> Dataset:
    return chest.as_sent(chest.film(128, 120))


@pytest.mark.parametrize("name", ["generic", "ohif", "sc-only", "weasis"])
def test_a_shipped_profile_names_writers_and_variants_that_are_there(name: str) -> None:
    found = read_profiles(shipped("conf") / "profiles")[name]

    check_profile(found)
    assert found.title != name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "objects must be a list of writers"),
        ('objects = []', "objects must be a list of writers"),
        ('objects = ["../x"]', "objects must be a list of writers"),
        ('objects = ["heatmap"]\nobject = 1', 'unknown key "object"'),
        ('objects = ["heatmap"]\nregion = "mm"', 'region = "mm" must be one of scoord, scoord3d, where-square'),
        ('objects = ["heatmap"]\ninstead = 1', "[instead] holds lines of the form"),
        ('objects = ["heatmap"]\n[instead]\nsegmentation = ["heatmap"]', '"segmentation", which is not among objects'),
        ('objects = ["heatmap", "segmentation"]\n[instead]\nsegmentation = ["heatmap"]', "sent in any case"),
        ('objects = ["segmentation/binary", "segmentation/labelmap"]', 'names "segmentation" twice'),
        ("objects = [", "no valid TOML"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_profile_is_told(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "mine.toml").write_text(text, "utf-8")

    with pytest.raises(ConfigError) as caught:
        read_profile(tmp_path / "mine.toml")

    assert says in str(caught.value)
    assert "mine.toml" in str(caught.value)


def test_an_unknown_profile_is_told_when_the_configuration_is_read(make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match=r'results.profile = "ohfi".*did you mean "ohif"'):
        make_config(settings=("results.profile=ohfi",))


def test_an_unknown_profile_of_a_rule_is_told_too(make_config: MakeConfig, tmp_path: Path) -> None:
    source = Path(make_config().source)
    (tmp_path / "rules.toml").write_text('[[rule]]\nname = "r"\nmodel = "chest-xray"\nprofile = "sc"', "utf-8")

    with pytest.raises(ConfigError, match=r'rules.toml: rule "r": profile = "sc"'):
        read_config(source)


@pytest.mark.parametrize(
    ("objects", "says"),
    [
        ('["heatmap/purple"]', 'heatmap has no variant "purple"; known are true-colour, always'),
        ('["hologram"]', 'there is no writers "hologram"'),
    ],
)
def test_an_unknown_writer_or_variant_stops_the_node_before_the_first_study(
    tmp_path: Path, make_config: MakeConfig, capsys: pytest.CaptureFixture[str], objects: str, says: str
) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "mine.toml").write_text(f"objects = {objects}", "utf-8")
    settings = (f'results.profiles="{tmp_path / "profiles"}"', "results.profile=mine")
    source = make_config(settings=settings).source
    options = ["--config", source, "--set", settings[0], "--set", settings[1]]

    code = cli.main(["start", "--role", "pipeline", *options])

    assert code == 2
    assert f'viewer profile "mine": {says}' in capsys.readouterr().err
    assert cli.main(["doctor", *options]) == 1
    assert f'WRONG   configuration: viewer profile "mine": {says}' in capsys.readouterr().out


def test_a_profile_kept_with_a_job_is_the_same_again() -> None:
    again = ViewerProfile.from_json(PROFILE.to_json())

    assert again == replace(PROFILE, title="p")
    assert again.to_json() == PROFILE.to_json()
    assert json.loads(PROFILE.to_json())["objects"] == ["a", "b"]


@pytest.mark.parametrize(
    ("refused", "there", "replacements"),
    [
        ((), ("a/old", "c"), {}),
        (("a",), ("a/old", "c"), {"a": "a/old"}),
        (("a",), ("c",), {"a": "c"}),
        (("a", "a/old"), ("a/old", "c"), {"a": "c"}),
        (("a", "b"), ("a/old", "c"), {"a": "a/old", "b": "c"}),
        (("a", "a/old", "c"), ("a/old", "c"), {}),
        (("a/old",), ("a/old", "c"), {}),
    ],
)
def test_what_stands_in_is_the_first_that_was_written_and_not_refused(
    refused: tuple[str, ...], there: tuple[str, ...], replacements: dict[str, str]
) -> None:
    assert PROFILE.replacements(refused, there) == replacements


@pytest.mark.parametrize("kind", SOP_CLASSES)
def test_the_doctor_asks_for_the_class_that_is_written(film: Dataset, kind: str) -> None:
    of_volume = kind.endswith("/volumes")
    images = volume.study(4) if of_volume else [film]
    analysis = volume.analysis(*images) if of_volume else chest.analysis(film)
    (first, *_) = write_objects(analysis, images, chest.SOURCE, chest.uid, profile(kind))

    classes = {SOP_CLASSES[kind][0]}
    if kind == "segmentation/labelmap":  # of masks that overlap a binary one
        classes.add(SOP_CLASSES["segmentation/binary"][0])
    assert first.kind == kind
    assert first.instance.SOPClassUID in classes


def test_a_profile_that_has_nothing_to_say_leaves_the_answer_to_the_report(film: Dataset) -> None:
    refusal = not_analysed(chest.CARD.name, chest.CARD.version, "lateral-view", "A lateral view")
    refusal = replace(refusal, images=(str(film.SOPInstanceUID),))

    (only,) = written(refusal, film, profile("segmentation/binary"))

    assert (only.kind, only.instance.Modality) == ("measurement_report", "SR")


def test_what_stands_in_is_another_object_of_the_same_series(film: Dataset) -> None:
    older = "measurement_report/comprehensive"
    report, instead = written(
        chest.analysis(film), film, profile("measurement_report", instead={"measurement_report": (older,)})
    )

    assert (instead.kind, instead.instance.SOPClassUID) == (older, ComprehensiveSRStorage)
    assert instead.instance.SOPInstanceUID != report.instance.SOPInstanceUID
    read = part10.decode(part10.encode(instead.instance))
    assert read.file_meta.MediaStorageSOPInstanceUID == read.SOPInstanceUID == instead.instance.SOPInstanceUID


def test_the_same_analysis_gives_the_same_bytes_for_what_stands_in(film: Dataset) -> None:
    of = profile("segmentation/binary", instead={"segmentation/binary": ("presentation_state/grayscale", "heatmap")})

    first, second = ([part10.encode(w.instance) for w in written(chest.analysis(film), film, of)] for _ in range(2))

    assert first == second
    assert len(first) == 3


def test_what_stands_in_and_cannot_be_written_costs_nothing_else(
    film: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = publication.plug.load

    def broken(kind: str, name: str) -> Any:
        if name == "heatmap":
            raise KeyError("Phantom^Chest")
        return real(kind, name)

    monkeypatch.setattr(publication.plug, "load", broken)
    of = profile("segmentation", instead={"segmentation": ("heatmap",)})

    assert [w.kind for w in written(chest.analysis(film), film, of)] == ["segmentation"]


def test_the_documents_name_what_each_profile_sends_and_each_writer_knows() -> None:
    docs = Path(__file__).parent.parent / "docs"
    connect, configuration = ((docs / name).read_text("utf-8") for name in ("connect-a-pacs.md", "configuration.md"))

    for found in read_profiles(shipped("conf") / "profiles").values():
        assert f"| `{found.name}` | {', '.join(f'`{kind}`' for kind in found.objects)} |" in connect
    for name in {kind.partition("/")[0] for kind in SOP_CLASSES}:
        variants = publication.plug.load("writers", name).VARIANTS
        assert f"| `{name}` | {', '.join(f'`{v}`' for v in variants)} |" in configuration
