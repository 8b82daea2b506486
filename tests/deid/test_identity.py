"""Whoever is named in a header is found in any text of it, however he is spelled; and nothing else is."""

import itertools
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from letters import CHARSETS, Writer
from pydicom.charset import python_encoding

from medgem_node.deid import patterns
from medgem_node.deid.charset import charset, decoded, encoded
from medgem_node.deid.spelling import Spelled, compact_ascii
from medgem_node.deid.text import Identity, Named, is_naming
from medgem_node.dictionary import tag_of

LATIN = ("latin_1",)


def named(keyword: str, value: str, codecs: tuple[str, ...] = ("utf_8",)) -> Named:
    tag = tag_of(keyword)
    assert tag is not None
    vr = "PN" if "Name" in keyword and keyword != "InstitutionName" else "DA" if "Date" in keyword else "LO"
    return Named(tag, vr, value.encode("utf-8"), codecs)


PATIENT = Identity.of(
    [
        named("PatientName", "Quartermain^Zebulon^Örjan"),
        named("PatientID", "ZQ-448812"),
        named("AccessionNumber", "ACC9917"),
        named("PatientBirthDate", "19510314"),
        named("InstitutionName", "Oldtown General Hospital"),
        named("ReferringPhysicianName", "Hand^Long"),
        named("PerformingPhysicianName", "Mueller-Weiß^Jörg"),
        named("OperatorsName", "Wu^Xu"),
        named("NameOfPhysiciansReadingStudy", "王^小东=Wang^Xiaodong"),
        named("PatientAddress", "Elmgrove Street 12, 80331 Oldtown"),
    ]
)
FOUND = (
    """
QUARTERMAIN|zebulon|Zebulon Quartermain|Quartermain, Zebulon|QUARTERMAIN^ZEBULON|QuartermainZebulon|xQUARTERMAINx
Quarter-main|Zebulon’s|Orjan|OERJAN|ö́rjan|Ｚｅｂｕｌｏｎ|Zebu\u00adlon|ZQ-448812|zq 448-812|ZQ448812|448812|448 812
ＺＱ４４８８１２|ACC9917|acc-9917|ACC 9917|19510314|1951-03-14|14.03.1951|3/14/51|14 Mar 1951|March 14, 1951
14. März 1951|14 mars 1951
14 de marzo de 1951|51-03-14|14 03 51|1951/3/14|14MAR51|Oldtown|OLDTOWN GENERAL HOSPITAL|Hand^Long|LONG HAND|Hand, Long
L. Hand|Patient: Hand|Dr. Hand|Müller|MUELLER|Muller|Weiss|WEIß|Joerg|jorg|Wu|王小东|小东|Wang|Xiaodong|王先生
Elmgrove|80331
""".strip()
    .replace("\n", "|")
    .split("|")
)
KEPT = (
    """
HAND|HAND AP L|long bone|LONG AXIS|Chest routine 5mm|T1 FLAIR AX|MR HEAD|DR CHEST PA|General Hospital bed|B30f|120kV
1.25|512x512|b1000|may move|transversal|VIBE 2.5.3|Dr|wuxga|1951|0.488281|TE 10 TR 500|1.2.840.10008.1.2|W/O CONTRAST
Thorax/Abdomen nativ|MIP 5/3|3D TOF|C1-C7|ISO 400|STANDARD\\BONE|Left hand view
""".strip()
    .replace("\n", "|")
    .split("|")
)


@pytest.mark.parametrize("text", FOUND)
@pytest.mark.parametrize("frame", ["{}", "CT {} axial", "{}_Thorax", "scan of {}."])
def test_who_is_named_is_replaced_in_every_spelling(text: str, frame: str) -> None:
    cleaned = PATIENT.cleaned(frame.format(text))

    assert "[removed]" in cleaned
    assert not any(word in cleaned.casefold() for word in re.findall(r"\w{3,}", text.casefold()) if word != "patient")
    kept = re.sub(r"\[removed\]|Patient:|Dr\b|[\W_]", " ", cleaned)
    assert kept.split() == re.sub(r"[\W_]", " ", frame).split()


@pytest.mark.parametrize("text", KEPT)
def test_a_technical_text_stays_as_it_is(text: str) -> None:
    assert PATIENT.cleaned(text) == text
    assert not PATIENT.may_name(text.encode("ascii"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("call +49 89 1234567 now", "[removed] now"),
        ("mail jane.roe@example.org", "mail [removed]"),
        ("see https://pacs.example/x?id=3 there", "see [removed] there"),
        ("uid 1.2.392.200036.9116.2 x", "uid [removed] x"),
        ("on 10.0.12.7", "on [removed]"),
        ("born 1947, male", "[removed], male"),
        ("seen by Dr. Smith today", "seen by Dr. [removed] today"),
        ("Prof. Dr. med. Anna Lüdenscheid", "Prof. Dr. med. [removed]"),
        ("Hr. Schulze links", "Hr. [removed] links"),
        ("123-45-6789", "[removed]"),
        ("/home/jroe/scans/1", "[removed]"),
        ("C:\\Users\\jroe\\x", "[removed]\\[removed]\\[removed]\\[removed]"),
        ("am 3. August", "am [removed]"),
        ("order 7712345", "[removed]"),
        ("検査 2020年7月5日", "検査 [removed]"),
    ],
)
def test_what_leads_to_anybody_is_replaced_without_knowing_him(text: str, expected: str) -> None:
    assert Identity.of([]).cleaned(text) == expected


def test_values_stay_apart_and_within_their_limit() -> None:
    assert PATIENT.cleaned("AX\\Quartermain Zebulon\\5mm") == "AX\\[removed]\\5mm"
    assert PATIENT.cleaned("Quartermain\\Zebulon") == "[removed]\\[removed]"
    assert PATIENT.cleaned("Wu chest lateral", 16) == " chest lateral"
    assert PATIENT.cleaned("Zebulon chest", 16) == "[removed] chest"


def test_names_are_found_in_eight_character_sets() -> None:
    for name, (terms, _) in CHARSETS.items():
        writer = Writer(name, 1)
        codecs = tuple(python_encoding[term] for term in terms)
        for _ in range(12):
            family, given = writer.word(), writer.latin()
            identity = Identity.of([Named(0x00100010, "PN", writer.encoded(f"{family}^{given}"), codecs)])
            for text in (family, f"CT {given} {family} axial", f"{family.upper()}, {given[0]}.", f"a_{given}{family}"):
                value = writer.encoded(text)
                read = decoded(value, codecs)
                assert read == text
                assert identity.may_name(value)
                cleaned = identity.cleaned(text)
                assert family not in cleaned, name
                assert given not in cleaned, name
                assert encoded(cleaned, codecs) is not None


WORDS = st.sampled_from(
    """Zebulon quartermain ZQ 448 812 Wu Wuxi hand long Eng a L. Hand, dr Dr. Mr MR Prof Smith SMITH chest Mar 14 1951
    03 / . - : , 3 ae oe ue Ma e 1.2.3.4 +49 (089) 12345 tel @ x.org /home/x C:\\x www. id 17:11:57 2020-07 ne 4711
    born of 51 march 2nd th _ ' \\ \x1c \t 0 00 000 1000 123456 1.123456 acc 9917 elmgrove street x1y2""".split(" ")  # noqa: SIM905
)


@settings(max_examples=600, deadline=None, derandomize=True)
@given(st.lists(st.tuples(WORDS, st.sampled_from(["", " ", "-", "_", ".", "/", "\\", "^", "\n", ", "])), max_size=9))
def test_a_text_that_may_name_nobody_is_not_changed(words: list[tuple[str, str]]) -> None:
    text = "".join(itertools.chain.from_iterable(words))
    spelled = Spelled.of(text)
    found = list(PATIENT._identified(spelled)) or list(_patterns(text))

    assert compact_ascii(text.encode()).decode() == spelled.compact
    assert not found or PATIENT.may_name(text.encode("ascii"))


def _patterns(text: str) -> list[object]:
    return list(patterns.spans(text, text.lower(), True))


@pytest.mark.parametrize(
    "text", ["a", "1.", "1 ", "a@", "Dr. ", "(1", "jan 1 ", "a:", "hand long, ", "+1 2 3 ", "é", "z.q"]
)
def test_no_text_takes_long(text: str) -> None:
    def seconds(size: int) -> float:
        start = time.process_time()
        PATIENT.cleaned((text * size)[:size])
        return time.process_time() - start

    assert seconds(60_000) < 30 * max(seconds(6_000), 0.004)


def test_an_identity_is_made_once_for_a_series() -> None:
    def of(slice_time: bytes) -> Identity:
        return Identity.of(
            [Named(0x0008002A, "DT", b"20200705" + slice_time, LATIN), Named(0x00100010, "PN", b"A^B", LATIN)]
        )

    assert of(b"101112.5") is of(b"101113.5")
    assert Identity.of([Named(0x00100010, "PN", b"A^C", LATIN)]) is not of(b"1")


def test_names_days_and_numbers_make_an_identity_and_descriptions_do_not() -> None:
    assert is_naming(0x00100010, "PN")
    assert is_naming(0x00100010, "UN")
    assert is_naming(0x00080020, "DA")
    assert is_naming(0x00100020, "LO")
    assert not is_naming(0x0008103E, "LO")


@pytest.mark.parametrize(
    ("terms", "text"),
    [
        (b"ISO_IR 100", "Müller"), (b"ISO_IR 101", "Łódź"), (b"ISO_IR 109", "Ħal"), (b"ISO_IR 110", "Ķ"),
        (b"ISO_IR 126", "Θώραξ"), (b"ISO_IR 127", "صدر"), (b"ISO_IR 138", "חזה"), (b"ISO_IR 144", "Грудь"),
        (b"ISO_IR 148", "göğüs"), (b"ISO_IR 166", "ทรวงอก"), (b"ISO_IR 203", "cœur €"), (b"ISO_IR 13", "ｷｮｳﾌﾞ"),
        (b"ISO_IR 192", "胸部 é"), (b"GB18030", "胸部 平扫"), (b"GBK", "胸部"), (b"\\ISO 2022 IR 87", "胸部^X\\胸"),
        (b"ISO 2022 IR 13\\ISO 2022 IR 87", "ｷｮｳ=胸部"), (b"\\ISO 2022 IR 149", "흉부^가\\a\r\n흉"),
        (b"\\ISO 2022 IR 58", "胸部"),
        (b"\\ISO 2022 IR 100", "Brüder\\ü"),
        (b"ISO 2022 IR 6\\ISO 2022 IR 144", "Грудь x"),
    ],
)  # fmt: skip
def test_a_text_is_written_in_its_own_character_set(terms: bytes, text: str) -> None:
    codecs = charset(terms)
    value = encoded(text, codecs)

    assert value is not None
    assert decoded(value, codecs) == text


def test_what_a_character_set_cannot_say_is_not_written() -> None:
    assert encoded("胸部", LATIN) is None
    assert encoded("é", None) is None
    assert charset(b"ISO_IR 999") is None
