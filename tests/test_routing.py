import pytest
from pydicom import Dataset

from medgem_node.routing import match
from medgem_node.rule import Condition, Rule


def header(**attributes: object) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


FILM = header(Modality="DX", BodyPartExamined="CHEST", PatientAge="066Y", Rows=2048, ImageType=["ORIGINAL", "PRIMARY"])


@pytest.mark.parametrize(
    ("keyword", "operator", "value", "holds"),
    [
        ("Modality", "is", "dx", True),
        ("Modality", "is not", "DX", False),
        ("Modality", "in", ["CR", "DX"], True),
        ("Modality", "not in", ["CR", "DX"], False),
        ("BodyPartExamined", "contains", "hes", True),
        ("BodyPartExamined", "matches", "^(CHEST|THORAX)$", True),
        ("BodyPartExamined", "matches", "^HAND$", False),
        ("PatientAge", "at least", 18, True),
        ("PatientAge", "at most", 18, False),
        ("Rows", "is", 2048, True),
        ("ImageType", "is", "PRIMARY", True),
        ("ViewPosition", "present", "", False),
        ("ViewPosition", "absent", "", True),
        ("ViewPosition", "is", "PA", False),
        ("ViewPosition", "is not", "LL", True),
    ],
)
def test_a_condition_compares_as_it_reads(keyword: str, operator: str, value: object, holds: bool) -> None:
    rule = Rule("r", "m", (Condition(keyword, operator, value),))

    assert (match({"1.2": FILM}, "MEDGEM", [rule]) is not None) is holds


def test_the_first_rule_that_matches_decides() -> None:
    films = Rule("films", "chest-xray", (Condition("Modality", "is", "DX"),))
    everything = Rule("everything", "other")

    found = match({"1.2": FILM}, "MEDGEM", [films, everything])

    assert found is not None
    assert found.rule is films


def test_a_rule_may_ask_for_the_title_that_was_called() -> None:
    rule = Rule("r", "m", called_ae=("CHEST",))

    assert match({"1.2": FILM}, "CHEST", [rule]) is not None
    assert match({"1.2": FILM}, "MEDGEM", [rule]) is None


def test_only_the_instances_that_fulfil_the_rule_are_chosen() -> None:
    rule = Rule("r", "m", (Condition("Modality", "is", "DX"),))

    found = match({"1.2": FILM, "1.3": header(Modality="SR")}, "MEDGEM", [rule])

    assert found is not None
    assert found.sop_instance_uids == ("1.2",)


def test_all_conditions_must_hold_of_one_instance() -> None:
    rule = Rule("r", "m", (Condition("Modality", "is", "DX"), Condition("BodyPartExamined", "is", "HAND")))

    assert match({"1.2": FILM, "1.3": header(BodyPartExamined="HAND")}, "MEDGEM", [rule]) is None


def test_no_rule_means_no_match() -> None:
    assert match({"1.2": FILM}, "MEDGEM", []) is None
