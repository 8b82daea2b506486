"""Profiles as their files write them."""

import re
import tomllib
from pathlib import Path

import pytest
from pydicom.sr.codedict import codes

from medgem_node.deid import options
from medgem_node.deid.options import BASIC, CONCEPTS, Option, Profile, profile_of, read_profile
from medgem_node.errors import ConfigError

SHIPPED = Path(__file__).parents[2] / "conf" / "deid.toml"


def test_the_shipped_profile_is_basic_and_trusts_modality_images() -> None:
    assert read_profile(SHIPPED) == Profile(frozenset(), "trust")


def test_a_file_without_a_word_is_the_basic_profile(tmp_path: Path) -> None:
    (tmp_path / "deid.toml").write_text("", "utf-8")

    assert read_profile(tmp_path / "deid.toml") == BASIC == Profile(frozenset(), "screen")


def test_the_shipped_file_offers_every_option_with_its_code() -> None:
    offered = dict(re.findall(r'# "([^"]+)", +# (\d+): \S', SHIPPED.read_text("utf-8")))

    assert offered == {option.value: CONCEPTS[option].value for option in Option}


@pytest.mark.parametrize("option", Option)
def test_every_option_of_the_shipped_file_can_be_asked_for(option: Option, tmp_path: Path) -> None:
    text = SHIPPED.read_text("utf-8").replace(f'# "{option}"', f'"{option}"')
    (tmp_path / "deid.toml").write_text(text, "utf-8")

    assert read_profile(tmp_path / "deid.toml") == Profile(frozenset({option}), "trust")


@pytest.mark.parametrize("option", Option)
def test_an_option_answers_to_each_of_its_names(option: Option) -> None:
    names = [
        option.value, f"{option} Option", option.upper(), option.lower().replace(" ", "-"), option.replace(" ", "_"),
        f"  {option}  option ", option.name, *CONCEPTS[option],
    ]  # fmt: skip

    for name in names:
        assert profile_of({"options": [name]}, "deid.toml").options == {option}, name


def test_the_codes_are_those_of_cid_7050() -> None:
    ours = [(concept.value, "DCM", concept.meaning) for concept in (options.BASIC_PROFILE, *CONCEPTS.values())]

    theirs = [getattr(codes.cid7050, keyword) for keyword in codes.cid7050.dir()]

    assert sorted(ours) == sorted((code.value, code.scheme_designator, code.meaning) for code in theirs)
    for option in Option:  # the right one for each
        words = set(option.lower().split()) - {"with"}
        assert words <= set(CONCEPTS[option].meaning.lower().split())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('profil = "basic"', 'unknown key "profil"; did you mean "profile"?'),
        ('option = ["Retain UIDs"]', 'unknown key "option"; did you mean "options"?'),
        ("[basic]", 'unknown key "basic"; it knows profile, options, pixels'),
        ('profile = "research"', 'profile = "research" is unknown; only "basic" is there'),
        ("profile = 1", 'profile = "1" is unknown'),
        ('pixels = "ignore"', 'pixels = "ignore" is unknown; write "screen" or "trust"'),
        ("pixels = true", 'pixels = "True" is unknown'),
        ('options = ["Clean Pixels"]', 'unknown option "Clean Pixels" in options; did you mean "Clean Pixel Data"'),
        ('options = ["Retain UID"]', 'unknown option "Retain UID" in options; did you mean "Retain UIDs"'),
        ('options = ["113100"]', 'unknown option "113100" in options'),
        ('options = ["xyz"]', "it knows Clean Pixel Data, Clean Recognizable Visual Features,"),
        ('options = [""]', 'unknown option "" in options'),
        ('options = "Retain UIDs"', "options is a list of names"),
        ("options = [113110]", "options is a list of names"),
        ('options = ["113106", "113107"]', "full dates and for modified dates; choose one"),
        ("options = [", "no valid TOML"),
    ],
)
def test_what_is_not_understood_is_refused_by_file_and_value(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "deid.toml"
    path.write_text(text, "utf-8")

    with pytest.raises(ConfigError) as raised:
        read_profile(path)

    assert str(raised.value).startswith(f"{path}: ")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"deid\.toml: cannot be read"):
        read_profile(tmp_path / "deid.toml")


def test_a_list_may_name_an_option_twice() -> None:
    content = tomllib.loads('options = ["Retain UIDs", "113110", "Clean Graphics"]')

    assert profile_of(content, "deid.toml").options == {Option.RETAIN_UIDS, Option.CLEAN_GRAPHICS}
