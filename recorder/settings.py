"""Settings that stand in a file, so that options need not be given each time.

In: spanrec.toml of the working directory, or the file that SPANREC_CONFIG names. Out: defaults for the commands'
options, and the tables of the recording policy and of retention, checked. An option on the command line comes before
SPANREC_<OPTION> in the environment, that before the file. What the file has and spanrec does not know is an error, so
that no misspelt setting is silently without effect.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from capture.errors import SpanrecError

FILE = "spanrec.toml"
ENVIRONMENT = "SPANREC_CONFIG"

_KINDS: dict[type, str] = {str: "a string", int: "a whole number", bool: "true or false", list: "a list of strings"}
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
CAPTURE: dict[str, type] = {
    "interface": list,
    "hep": str,
    "hep_key_file": str,
    "tunnel": list,
    "watch": list,
    "stdin": bool,
    "filter": str,
    "promiscuous": bool,
    "ring_size": int,
    "sockets": int,
    "format": str,
    "mono": bool,
    "workers": int,
    "stop_at": str,
    "resume_at": str,
    "listen": str,
    "token_file": str,
    "socket": str,
    "user": str,
    "sandbox": bool,
}
"""Settings of the table `[capture]`, likewise. Each is an option of `spanrec capture`."""
_PARAMETERS = {"format": "audio_format", "filter": "filter_", "socket": "status_socket"}
"""Options whose names in Python are others."""
TABLES = ("capture", "policy", "retention", "rule", "server", "src", "srs")
CALLS = ("list", "show", "export", "explain", "hold", "release", "expire")


class SettingsError(SpanrecError):
    """A settings file cannot be used."""


def load(directory: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings that hold in `directory`, by key; empty where there is no file."""
    path = file_of(directory, environment)
    if not path.exists():
        if environment.get(ENVIRONMENT):
            raise SettingsError(f"{path}: {ENVIRONMENT} names this file, but it is not there")
        return {}
    return read(path)


def file_of(directory: Path, environment: Mapping[str, str]) -> Path:
    """The settings file that holds in `directory`, whether it is there or not."""
    named = environment.get(ENVIRONMENT)
    return Path(named) if named else directory / FILE


def read(path: Path) -> dict[str, Any]:
    """The settings in a file, all of them checked. Raises SettingsError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: cannot read: {error.strerror or error}") from error
    try:
        values = tomllib.loads(content.decode())
    except ValueError as error:
        raise SettingsError(f"{path}: is no TOML: {error}") from error
    for key, value in values.items():
        if key not in TABLES:
            _check(path, key, value, KEYS)
    _check_tables(path, values)
    return values


def defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as the default values of each command's options."""
    out = {"out": values["out"]} if "out" in values else {}
    replay = {_PARAMETERS.get(key, key): value for key, value in values.items() if key in KEYS}
    capture = {_PARAMETERS.get(key, key): value for key, value in {**out, **values.get("capture", {})}.items()}
    return {"replay": replay, "capture": capture, "calls": dict.fromkeys(CALLS, out)}


def _check_tables(path: Path, values: Mapping[str, Any]) -> None:
    capture = values.get("capture", {})
    if not isinstance(capture, dict):
        raise SettingsError(f"{path}: capture must be a table: write [capture]")
    for key, value in capture.items():
        _check(path, key, value, CAPTURE)
    # Few settings have these, so the others need not wait for their modules.
    if "policy" in values or "rule" in values:
        from recorder.policy_file import load_policy

        load_policy(values, path)
    if "retention" in values:
        from recorder.retention_rules import load_retention

        load_retention(values, path)
    if "src" in values or "server" in values or ("rule" in values and _sends(values)):
        from recorder.siprec.src_rules import check_rules

        check_rules(values, path)
    if "srs" in values:
        from recorder.siprec.srs_settings import load_srs

        load_srs(values, path)


def _sends(values: Mapping[str, Any]) -> bool:
    """Whether rules, which have been found sound, say anything of recording servers."""
    from recorder.policy_file import SENDING

    return any(key in rule for rule in values.get("rule", ()) for key in SENDING)


def _check(path: Path, key: str, value: object, known: Mapping[str, type]) -> None:
    kind = known.get(key)
    if kind is None:
        also = [*sorted(known), *(f"[{table}]" for table in TABLES if known is KEYS)]
        raise SettingsError(f"{path}: unknown setting {key!r}; known are {', '.join(also)}")
    # In Python, True is an int.
    fits = type(value) is kind and (kind is not list or all(isinstance(each, str) for each in cast(list[Any], value)))
    if not fits:
        raise SettingsError(f"{path}: {key} must be {_KINDS[kind]}, not {value!r}")
