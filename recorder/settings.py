"""Settings that stand in a file, so that options need not be given each time.

In: spanrec.toml of the working directory, or the file that SPANREC_CONFIG names. Out: defaults for the commands'
options. An option on the command line comes before SPANREC_<OPTION> in the environment, that before the file. What the
file has and spanrec does not know is an error, so that no misspelt setting is silently without effect.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capture.errors import SpanrecError

FILE = "spanrec.toml"
ENVIRONMENT = "SPANREC_CONFIG"

_KINDS: dict[type, str] = {str: "a string", int: "a whole number", bool: "true or false"}
_REPLAY: dict[str, type] = {
    "workers": int,
    "batch_size": int,
    "format": str,
    "mono": bool,
    "keep_packets": bool,
    "dissector": str,
    "keylog": str,
    "quiet": bool,
}
KEYS: dict[str, type] = {"out": str, **_REPLAY}
"""Every setting and its kind. Each is an option of `spanrec replay`; `out` is the store of `spanrec calls` too."""
CALLS = ("list", "show", "export", "explain")


class SettingsError(SpanrecError):
    """A settings file cannot be used."""


def load(directory: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings that hold in `directory`, by key; empty where there is no file."""
    named = environment.get(ENVIRONMENT)
    path = Path(named) if named else directory / FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        if named:
            raise SettingsError(f"{path}: {ENVIRONMENT} names this file, but it is not there") from None
        return {}
    except OSError as error:
        raise SettingsError(f"{path}: cannot read: {error.strerror or error}") from error
    try:
        values = tomllib.loads(content.decode())
    except ValueError as error:
        raise SettingsError(f"{path}: is no TOML: {error}") from error
    for key, value in values.items():
        _check(path, key, value)
    return values


def defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as the default values of each command's options."""
    out = {"out": values["out"]} if "out" in values else {}
    replay = {key: value for key, value in values.items() if key in KEYS}
    if "format" in replay:
        replay["audio_format"] = replay.pop("format")
    return {"replay": replay, "calls": dict.fromkeys(CALLS, out)}


def _check(path: Path, key: str, value: object) -> None:
    kind = KEYS.get(key)
    if kind is None:
        raise SettingsError(f"{path}: unknown setting {key!r}; known are {', '.join(sorted(KEYS))}")
    # In Python, True is an int.
    if type(value) is not kind:
        raise SettingsError(f"{path}: {key} must be {_KINDS[kind]}, not {value!r}")
