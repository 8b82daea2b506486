"""The vocabulary is folded, holds what medicine says and no frequent name."""

from medgem_node.deid import vocabulary
from medgem_node.deid.spelling import folded


def test_words_are_in_one_spelling() -> None:
    words = vocabulary.words()

    assert len(words) > 8000
    assert all(word == folded(word) and word.isascii() and word.isalnum() for word in words)


def test_body_parts_and_protocols_are_words() -> None:
    said = "head chest abdomen liver femur fracture contrast axial flair nativ schadel crane craneo kontrast hand"

    assert not set(said.split()) - vocabulary.words()


def test_frequent_names_are_no_words() -> None:
    names = """smith johnson williams jones davis miller wilson taylor thomas jackson harris martin garcia rodriguez
    james mary robert patricia jennifer linda elizabeth wang zhang chen liu muller schmidt fischer meyer wagner schulz
    dupont bernard dubois laurent gonzalez lopez fernandez fleischner hodgkin nakayama"""

    assert set(names.split()) & vocabulary.words() == set()
