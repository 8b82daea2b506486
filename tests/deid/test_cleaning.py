"""Clean Descriptors: words that everybody uses stay, all others go."""

import random

import pytest

from medgem_node.deid.cleaning import cleaned, described, described_value
from medgem_node.deid.text import Identity, Named

LATIN = ("latin_1",)
NOBODY = Identity.of([])
HAND = Identity.of([Named(0x00100010, "PN", b"HAND^LONG", LATIN), Named(0x00100020, "LO", b"77-12345", LATIN)])
MEDICAL = """
CT Thorax/Abdomen nativ 120kV B30f 1.25|MR Schädel T2w TSE tra 5mm|Kopf nativ|AX T1 FLAIR post contrast
ep2d_diff_b1000_ADC|Chest PA and lateral|W/O IV CONTRAST|SAG T2 FSE lumbar spine|Knie rechts a.p.
Rachis lombaire sag|Cráneo sin contraste
MIP 3D TOF|MPRAGE sag iso|LWK 1-5|C7|CTA carotid arteries|Liver arterial phase 512x512|HRCT Lunge 1mm|Mammo MLO L
DWI b50|Fracture of femur|SmartPrep|abdomen portal venous|Kontrastmittel i.v.|pelvis prostate dynamic
PET attenuation corrected
FC08
""".strip().replace("\n", "|").split("|")  # fmt: skip


@pytest.mark.parametrize("text", MEDICAL)
def test_medical_words_stay(text: str) -> None:
    assert described(text, NOBODY) == text


def test_every_random_word_and_long_number_goes() -> None:
    rng = random.Random(5)
    for _ in range(400):
        word = "".join(rng.choices("bcdfghjklmnpqrstvwxz", k=rng.randint(6, 11)))
        number = str(rng.randint(1000, 10**9))
        assert described(f"CT {word} axial {number}", NOBODY) == "CT [removed] axial [removed]"


@pytest.mark.parametrize("name", ["Smith", "Müller", "NAKAYAMA", "Whitehead", "Fleischner", "Wang", "Сердце", "García"])
def test_a_name_of_somebody_else_goes(name: str) -> None:
    assert described(f"chest {name} 2", NOBODY) == "chest [removed] 2"


def test_a_name_that_is_a_word_goes_where_it_stands_as_a_name() -> None:
    assert described("Hand ap", HAND) == "Hand ap"
    assert described("HAND^LONG ap", HAND) == "[removed] ap"
    assert described("Long, Hand: ap", HAND) == "[removed]: ap"


def test_numbers_that_are_long_only_together_go() -> None:
    assert described("axial 189 123 456", NOBODY) == "axial [removed]"
    assert described("ID 77 12 345", HAND) == "ID [removed]"


def test_a_value_stays_within_its_vr_and_its_character_set() -> None:
    assert described_value("Schädel xqvwzrt".encode("latin-1"), LATIN, "SH", NOBODY) == "Schädel ".encode("latin-1")
    assert described_value(b"AX xqvwzrt\0Quart", LATIN, "LO", NOBODY) == b"AX [removed]"
    assert described_value(b"xqvwzrtpk mnbvcxzlkj", LATIN, "SH", NOBODY) == b"[removed]"
    assert cleaned(b"Hand^Long ap", LATIN, "LO", HAND) == b"[removed] ap"
    assert cleaned(b"\xff\xfe", ("utf_8",), "LO", HAND) is None
