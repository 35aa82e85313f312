"""Hours of the week in a named time zone.

In: text such as `Mo-Fr 08:00-18:00; Sa 09:00-12:00 Europe/Berlin`. Out: `Hours`, which tell whether an instant lies in
them. Days and hours may each be left out and then are all. What passes midnight belongs to the day on which it began.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS = ("Mo", "Tu", "We", "Th", "Fr", "Sa", "Su")
MIDNIGHT = 24 * 60
"""Minutes of a day."""

_SPAN = re.compile(r"(\d\d?):(\d\d)-(\d\d?):(\d\d)")
_BILLION = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Hours:
    """A set of minutes of the week."""

    zone: ZoneInfo
    spans: tuple[tuple[tuple[int, int], ...], ...]
    """For each day from Monday, (first minute, minute behind the last) of its spans."""

    def contain(self, instant: int) -> bool:
        """Whether `instant`, ns since the epoch, lies in them."""
        local = datetime.fromtimestamp(instant // _BILLION, self.zone)
        minute = local.hour * 60 + local.minute
        return any(begin <= minute < end for begin, end in self.spans[local.weekday()])


def parse_hours(text: str) -> Hours:
    """Hours from text. Raises ValueError with a sentence that says what is wrong."""
    said, _, name = text.strip().rpartition(" ")
    try:
        zone = ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone; write one last, as in 'Mo-Fr 08:00-18:00 Europe/Berlin'") from None
    week: list[list[tuple[int, int]]] = [[] for _ in DAYS]
    for part in said.split(";"):
        days, times = _split(part)
        for day in days:
            for begin, end in times:
                if begin < end:
                    week[day].append((begin, end))
                else:
                    week[day].append((begin, MIDNIGHT))
                    week[(day + 1) % 7].append((0, end))
    return Hours(zone, tuple(tuple(sorted(spans)) for spans in week))


def _split(part: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Days and minutes of one part between semicolons."""
    words = part.split()
    if not 1 <= len(words) <= 2:
        raise ValueError(f"{part.strip()!r} is no days and hours; write 'Mo-Fr 08:00-12:00,13:00-18:00'")
    days = list(_days(words[0])) if words[0][:1].isalpha() else list(range(7))
    if len(words) == 2 and not words[0][:1].isalpha():
        raise ValueError(f"{words[0]!r} is no day; days are {', '.join(DAYS)}")
    times = words[-1] if not words[-1][:1].isalpha() else "00:00-24:00"
    return days, [_span(span) for span in times.split(",")]


def _days(text: str) -> Iterator[int]:
    for item in text.split(","):
        first, dash, last = item.partition("-")
        begin = _day(first)
        end = _day(last) if dash else begin
        # Fr-Mo goes on over the end of the week.
        yield from (day % 7 for day in range(begin, end + (7 if end < begin else 0) + 1))


def _day(text: str) -> int:
    try:
        return DAYS.index(text.capitalize())
    except ValueError:
        raise ValueError(f"{text!r} is no day; days are {', '.join(DAYS)}") from None


def _span(text: str) -> tuple[int, int]:
    match = _SPAN.fullmatch(text)
    begin, end = (_minute(*match.groups()[:2]), _minute(*match.groups()[2:])) if match else (-1, -1)
    if begin < 0 or end < 0 or begin == MIDNIGHT:
        raise ValueError(f"{text!r} is no span of hours; write 08:00-18:00")
    if begin == end:
        raise ValueError(f"{text!r} is no time at all; leave the hours out for the whole day")
    return begin, end


def _minute(hour: str, minute: str) -> int:
    """Minutes since midnight, -1 where there is no such time."""
    total = int(hour) * 60 + int(minute)
    return total if total <= MIDNIGHT and int(minute) < 60 else -1
