"""Amounts of disk and lengths of time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.amounts import Age, Amount, parse_age, parse_amount
from recorder.document import format_time
from tests.calls import START


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("500GB", 500 * 10**9),
        ("500 gb", 500 * 10**9),
        ("1.5T", 1_500 * 10**9),
        ("2KiB", 2048),
        ("3 MiB", 3 << 20),
        ("12B", 12),
        ("1000", 1000),
        (1000, 1000),
        ("10%", 20),
        ("0%", 0),
        ("12.5%", 25),
    ],
)
def test_an_amount_is_octets_of_a_disk(text, octets):
    assert parse_amount(text).of(200) == octets


@pytest.mark.parametrize("text", ["", "GB", "-1", "10 %%", "5XB", "101%", True, 1.5, None, ["1"], "1e9", -5])
def test_what_is_no_amount_is_said(text):
    with pytest.raises(ValueError, match=r"is no amount; write 500GB or 10%|is more than the disk"):
        parse_amount(text)
    with pytest.raises(ValueError, match=r"is no amount; write 500GB$"):
        parse_amount("10%", share=False)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("36h", "2026-02-27T21:15:02.123456Z"),
        ("1d", "2026-02-28T09:15:02.123456Z"),
        ("2w", "2026-02-15T09:15:02.123456Z"),
        ("7y", "2019-03-01T09:15:02.123456Z"),
        ("999999d", "1970-01-01T00:00:00.000000Z"),
        ("999999y", "1970-01-01T00:00:00.000000Z"),
    ],
)
def test_an_age_is_an_instant_before_now(text, instant):
    assert format_time(parse_age(text).before(START)) == instant


def test_a_year_before_the_29th_of_february_is_the_28th():
    leap_day = 1_709_208_000_000_000_000
    assert format_time(leap_day) == "2024-02-29T12:00:00.000000Z"
    assert format_time(Age(1, "y").before(leap_day)) == "2023-02-28T12:00:00.000000Z"


@given(st.integers(1, 10_000), st.sampled_from("hdwy"), st.integers(0, 2**62))
def test_no_age_reaches_into_the_future_or_before_1970(count, unit, now):
    assert 0 <= Age(count, unit).before(now) <= now


@pytest.mark.parametrize("text", ["", "90", "0d", "5m", "-1d", "1.5y", "d", 90, None, True, "9999999d"])
def test_what_is_no_age_is_said(text):
    with pytest.raises(ValueError, match="is no length of time; write 36h, 90d, 2w or 7y"):
        parse_age(text)


def test_a_share_and_octets_are_told_apart():
    assert (parse_amount("10%"), parse_amount("10")) == (Amount(share=0.1), Amount(octets=10))
