from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medgem_node.deid.dates import capped_age, shifted

DAYS = st.integers(-3650, -31)


@given(st.dates(date(1880, 1, 1), date(2200, 1, 1)), st.dates(date(1880, 1, 1), date(2200, 1, 1)), DAYS)
def test_the_interval_between_two_dates_is_kept_to_the_day(first: date, second: date, days: int) -> None:
    moved = [shifted(f"{d:%Y%m%d}".encode(), "DA", days).decode() for d in (first, second)]

    there = [datetime.strptime(text, "%Y%m%d").date() for text in moved]
    assert there[1] - there[0] == second - first
    assert there[0] == first + timedelta(days)


@pytest.mark.parametrize(
    ("vr", "value", "days", "expected"),
    [
        ("DA", b"20200705", -31, b"20200604"),
        ("DA", b"20200705 ", -31, b"20200604"),
        ("DA", b"20200301", -1, b"20200229"),  # a leap day
        ("DA", b"20200229", -366, b"20190228"),
        ("DA", b"19000101", -1, b"18991231"),
        ("DA", b"10000101", -3650, b"09900103"),  # four digits still
        ("DA", b"1951.03.14", -31, b"1951.02.11"),
        ("DA", b"20200705\\20200805", -31, b"20200604\\20200705"),
        ("DA", b"20200705\\\\20200805\0", -31, b"20200604\\\\20200705"),
        ("DA", b"20200705-20200805", -31, b"20200604-20200705"),
        ("DA", b"20200705-", -31, b"20200604-"),
        ("DA", b"-20200705", -31, b"-20200604"),
        ("DA", b"2020", -365, b"2019"),
        ("DA", b"202003", -31, b"202002"),
        ("DT", b"20200705", -31, b"20200604"),
        ("DT", b"20200705171157.123456+0200", -31, b"20200604171157.123456+0200"),
        ("DT", b"2020070517-0500", -31, b"2020060417-0500"),
        ("DT", b"20200705235960", -31, b"20200604235960"),  # a leap second
        ("DT", b"20200705-0500", -31, b"20200604-0500"),  # a zone, no range
        ("DT", b"20200705-2021", -365, b"20190706-2020"),  # a range: no zone is so far west
        ("DT", b"20200705-0500-20200805-0500", -31, b"20200604-0500-20200705-0500"),
        ("DT", b"202007", -31, b"202006"),
        ("DT", b"2020-0500", -365, b"2019-0500"),
        ("TM", b"171157.123456", -31, b"171157.123456"),
        ("TM", b"17:11:57", -31, b"17:11:57"),
        ("TM", b"0800-1200", -31, b"0800-1200"),
        ("DA", b"", -31, b""),
    ],
)
def test_a_date_moves_as_it_was_written(vr: str, value: bytes, days: int, expected: bytes) -> None:
    assert shifted(value, vr, days) == expected


@pytest.mark.parametrize("vr", ["DA", "DT", "TM"])
@pytest.mark.parametrize(
    "value",
    [
        *(b"00000000", b"20201332", b"20190229", b"Quartermain", b"ZQ-448812", b"4488120000", b"2020-07-05"),
        *(b"20200705448812", b"20200705171157.1234567", b"20200705171157+9900", b"M\xfcller", b"-", b"20200705-Smith"),
    ],
)
def test_what_is_no_date_becomes_empty(vr: str, value: bytes) -> None:
    assert shifted(value, vr, -31) in ((b"", b"-") if vr == "TM" else (b"",))


def test_a_bad_date_among_good_ones_leaves_its_place() -> None:
    assert shifted(b"20200705\\unknown\\20200805", "DA", -31) == b"20200604\\\\20200705"


def test_a_day_before_the_year_1_becomes_empty() -> None:
    assert shifted(b"00010115", "DA", -31) == b""


@given(st.integers(1, 9999), DAYS)
def test_a_year_alone_lies_at_most_a_year_from_where_the_whole_shift_leads(year: int, days: int) -> None:
    moved = shifted(f"{year:04d}".encode(), "DT", days)

    assert moved == b"" or abs(int(moved) - (year + days / 365.2425)) <= 0.5 + 0.01
    assert moved != b"" or year < 12


@given(st.binary(max_size=30), st.sampled_from(["DA", "DT", "TM"]), DAYS)
def test_no_bytes_of_strangers_raise(value: bytes, vr: str, days: int) -> None:
    moved = shifted(value, vr, days)

    assert set(moved) <= set(b"0123456789.:+-\\")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"045Y", b"045Y"),
        (b"089Y", b"089Y"),
        (b"090Y", b"090Y"),
        (b"095Y", b"090Y"),
        (b"104Y ", b"090Y"),
        (b"999Y", b"090Y"),
        (b"999M", b"999M"),  # 83 years
        (b"1080M", b"090Y"),
        (b"1079M", b""),  # below 90, and an AS has three digits
        (b"4700W", b"090Y"),
        (b"33000D", b"090Y"),
        (b"006W", b"006W"),
        (b"45Y", b"045Y"),
        (b"95y", b"090Y"),
        (b"095Y\\045Y", b"090Y\\045Y"),
        (b"", b""),
        (b"45", b""),
        (b"Quartermain", b""),
        (b"\xff95Y", b""),
    ],
)
def test_no_age_above_89_is_told(value: bytes, expected: bytes) -> None:
    assert capped_age(value) == expected
