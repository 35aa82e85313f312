"""Hours of the week."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.policy_hours import parse_hours

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, zone: ZoneInfo = BERLIN) -> int:
    """An instant by a clock on the wall. 2026-03-02 is a Monday."""
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()) * 1_000_000_000


@pytest.mark.parametrize(
    ("hours", "instant", "lies"),
    [
        ("Mo-Fr 08:00-18:00", "2026-03-02T08:00", True),
        ("Mo-Fr 08:00-18:00", "2026-03-02T07:59:59", False),
        ("Mo-Fr 08:00-18:00", "2026-03-02T17:59:59", True),
        ("Mo-Fr 08:00-18:00", "2026-03-02T18:00", False),
        ("Mo-Fr 08:00-18:00", "2026-03-07T12:00", False),
        ("Mo-Fr 08:00-12:00,13:00-18:00", "2026-03-03T12:30", False),
        ("Mo-Fr 08:00-12:00,13:00-18:00", "2026-03-03T13:30", True),
        ("Mo-Fr 08:00-18:00; Sa 9:00-12:00", "2026-03-07T09:00", True),
        ("mo,WE 08:00-18:00", "2026-03-04T09:00", True),
        ("Mo,We 08:00-18:00", "2026-03-03T09:00", False),
        ("Fr-Mo 00:00-24:00", "2026-03-08T23:59", True),
        ("Fr-Mo 00:00-24:00", "2026-03-03T00:00", False),
        ("Sa-Su", "2026-03-08T23:59:59", True),
        ("Sa-Su", "2026-03-09T00:00", False),
        ("22:00-06:00", "2026-03-04T23:00", True),
        ("22:00-06:00", "2026-03-04T05:59", True),
        ("22:00-06:00", "2026-03-04T12:00", False),
        ("Su 22:00-06:00", "2026-03-09T05:00", True),
        ("Su 22:00-06:00", "2026-03-08T05:00", False),
    ],
)
def test_an_instant_lies_in_hours_or_not(hours, instant, lies):
    assert parse_hours(f"{hours} Europe/Berlin").contain(at(instant)) is lies


def test_the_zone_decides_and_its_summer_time():
    office = parse_hours("08:00-18:00 America/New_York")
    assert not office.contain(at("2026-03-02T13:00"))
    assert office.contain(at("2026-03-02T14:00"))
    # On 8 March summer time began in New York, not yet in Berlin.
    assert office.contain(at("2026-03-10T13:00"))
    assert parse_hours("12:00-13:00 UTC").contain(at("2026-07-01T14:30"))


@given(st.integers(0, 7 * 24 * 60 - 1), st.integers(0, 23), st.integers(1, 24))
def test_hours_are_as_long_as_they_say(minute, begin, length):
    end = (begin + length) % 24
    hours = parse_hours(f"We {begin:02}:00-{end:02}:00 UTC" if end != begin else "We UTC")
    inside = (minute - 2 * 1440 - (begin * 60 if end != begin else 0)) % (7 * 1440) < length * 60
    assert hours.contain(at("2026-03-02T00:00", ZoneInfo("UTC")) + minute * 60_000_000_000) is inside


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Mo-Fr 08:00-18:00", "'08:00-18:00' is no time zone; write one last"),
        ("Mo-Fr 08:00-18:00 Europe", "'Europe' is no time zone"),
        ("Mo-Fr 08:00-18:00 ../../etc/passwd", "is no time zone"),
        ("08:00-18:00 Europe/Atlantis", "is no time zone"),
        ("", "is no time zone"),
        ("Mo-Xx 08:00-18:00 UTC", "'Xx' is no day; days are Mo, Tu"),
        ("08:00-18:00 Mo UTC", "'08:00-18:00' is no day"),
        ("Mo - Fr 08:00-18:00 UTC", "is no days and hours"),
        ("Mo 08:00 UTC", "'08:00' is no span of hours"),
        ("Mo 08:00-25:00 UTC", "is no span of hours"),
        ("Mo 08:60-09:00 UTC", "is no span of hours"),
        ("Mo 24:00-06:00 UTC", "is no span of hours"),
        ("Mo 08:00-08:00 UTC", "is no time at all"),
        ("Mo 08:00-18:00; UTC", "is no days and hours"),
        (" UTC", "is no days and hours"),
    ],
)
def test_what_is_no_hours_is_said(text, says):
    with pytest.raises(ValueError, match=says):
        parse_hours(text)
