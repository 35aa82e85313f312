"""Amounts of disk and lengths of time as settings write them.

In: text, such as `500GB`, `10%`, `90d`, `7y`. Out: values. Raises ValueError with a sentence. Knows no clock.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

_POWERS = {unit: 1000**power for power, unit in enumerate(("", "K", "M", "G", "T", "P"))}
_BINARY = {f"{unit}I": 1024**power for power, unit in enumerate(("", "K", "M", "G", "T", "P")) if unit}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*(?:(%)|([KMGTP]I?)?B?)", re.IGNORECASE)
_AGE = re.compile(r"(\d{1,6})\s*([hdwy])")
_DAYS = {"d": 1, "w": 7}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Amount(NamedTuple):
    """Octets, or a share of the whole disk."""

    octets: int = 0
    share: float = 0.0
    """0 to 1."""

    def of(self, total: int) -> int:
        """Octets, on a disk of `total`."""
        return max(self.octets, int(self.share * total))


@dataclass(frozen=True, slots=True)
class Age:
    """A length of time: hours, days, or years of the calendar."""

    count: int
    unit: str
    """h, d, w or y."""

    def __str__(self) -> str:
        return f"{self.count}{self.unit}"

    def before(self, now: int) -> int:
        """The instant that lies this long before `now`, both ns since the epoch; 0 where that is before 1970."""
        moment = _EPOCH + timedelta(microseconds=now // 1000)
        try:
            if self.unit == "y":
                # One year before 29 February is 28 February: what is kept is kept a day longer rather than shorter.
                day = min(moment.day, 28) if moment.month == 2 else moment.day
                moment = moment.replace(year=moment.year - self.count, day=day)
            elif self.unit == "h":
                moment -= timedelta(hours=self.count)
            else:
                moment -= timedelta(days=self.count * _DAYS[self.unit])
        except (ValueError, OverflowError):
            return 0
        return max(0, (moment - _EPOCH) // _MICROSECOND * 1000)


def parse_amount(value: object, *, share: bool = True) -> Amount:
    """Octets (`500GB`, `1.5TiB`, `1000000`) or, where `share` allows it, part of the disk (`10%`)."""
    match = _AMOUNT.fullmatch(str(value).strip()) if isinstance(value, int | str) and value is not True else None
    if match is None or (match[2] and not share):
        raise ValueError(f"{value!r} is no amount; write 500GB{' or 10%' if share else ''}")
    number = float(match[1])
    if match[2]:
        if number > 100:
            raise ValueError(f"{value!r} is more than the disk")
        return Amount(share=number / 100)
    unit = (match[3] or "").upper()
    return Amount(octets=int(number * {**_POWERS, **_BINARY}[unit]))


def parse_age(value: object) -> Age:
    """A length of time: `36h`, `90d`, `2w`, `7y`."""
    match = _AGE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or int(match[1]) == 0:
        raise ValueError(f"{value!r} is no length of time; write 36h, 90d, 2w or 7y")
    return Age(int(match[1]), match[2])
