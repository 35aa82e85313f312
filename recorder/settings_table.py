"""Tables of a settings file, read with errors that say where: file, table, key, what is wrong.

In: values as TOML gives them. Out: the same, checked. Raises ValueError with a phrase; inside of a `Place` that becomes
a SettingsError. Knows no key by itself.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from capture.errors import SpanrecError
from recorder.settings import SettingsError


class Place:
    """Where in a file one is; makes a SettingsError of what is wrong with values inside."""

    def __init__(self, path: Path, where: str) -> None:
        self.path, self.where, self.key = path, where, ""

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError) or (isinstance(error, SpanrecError) and not isinstance(error, SettingsError)):
            key = f"{self.key}: " if self.key else ""
            raise SettingsError(f"{self.path}: {self.where}: {key}{error}") from error


def known(table: object, keys: Collection[str]) -> dict[str, Any]:
    """A table that has no keys but these."""
    if not isinstance(table, dict):
        raise ValueError("must be a table")
    for key in table:
        if key not in keys:
            raise ValueError(f"unknown setting {key!r}; known are {', '.join(sorted(keys))}")
    return table


def text(value: object) -> str:
    """A string that says something."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"must be a string, not {value!r}")
    return value


def texts(value: object) -> list[str]:
    """A string, or several."""
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not all(isinstance(each, str) for each in found):
        raise ValueError(f"must be a string or a list of strings, not {value!r}")
    return list(found)


def truth(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {value!r}")
    return value


def whole(value: object, least: int, most: int) -> int:
    """A whole number within bounds."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"must be a whole number from {least} to {most}, not {value!r}")
    return value


def seconds(value: object, least: float, most: float) -> float:
    """A number of seconds within bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ValueError(f"must be seconds, from {least:g} to {most:g}, not {value!r}")
    return float(value)
