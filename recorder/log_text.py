"""What of a field may stand in a log.

In: the name and value of a field, which may come from the wire or hold a secret. Out: a value that JSON has: text
without anything that acts on a terminal, of bounded length, and with *** for passwords, tokens and keys.
"""

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from math import isfinite
from typing import Any

from recorder.console import printable

LONGEST = 1000
"""Characters of a text."""
MOST = 64
"""Items of a list or mapping."""
DEEPEST = 4
HIDDEN = "***"

_SECRET_NAME = re.compile(
    r"token|passw|secret|authori[sz]ation|credential|crypto|inline|(^|_)(private_)?keys?$", re.IGNORECASE
)
_HARMLESS = re.compile(r"[!-9;<>-~]{0,1000}")
"""Neither a blank nor a colon nor an equals sign, of which a secret has one before it; nothing that acts either."""
_SECRET_TEXT = (
    (re.compile(r"((?:proxy-)?authorization['\"]?\s*[:=]\s*)[^\r\n]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"(\bbearer\s+)[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1{HIDDEN}"),
    # SDES and MIKEY keys in SDP (RFC 4568, RFC 4567).
    (re.compile(r"(a=(?:crypto|key-mgmt):)[^\r\n]*", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"(\binline:)[\w+/=|:]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"(\bresponse=)\"?[0-9a-f]{16,}\"?", re.IGNORECASE), rf"\1{HIDDEN}"),
    (
        re.compile(r"(\b(?:password|passwd|secret|token)\s*[=:]\s*)(?:\"[^\"]*\"|'[^']*'|\S+)", re.IGNORECASE),
        rf"\1{HIDDEN}",
    ),
    # user:password@host, in SIP URIs and in all others.
    (re.compile(r"(\bsips?:[^\s:@<>\"]{1,256}:)[^\s@<>\"]{1,256}(?=@)", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"(://[^\s:@/]{0,256}:)[^\s@/]{1,256}(?=@)"), rf"\1{HIDDEN}"),
)


def clean_field(name: str, value: object) -> Any:
    """A field's value as it may be told."""
    if value is not None and _is_secret(name):
        return HIDDEN
    return _clean(value, 0)


def clean_text(text: str) -> str:
    """A text as it may be told."""
    if _HARMLESS.fullmatch(text):  # most are names and identifiers
        return text
    return _without_secrets(text[: 2 * LONGEST])


@lru_cache(maxsize=256)
def _without_secrets(text: str) -> str:
    """Servers and sentences are the same again and again."""
    for secret, instead in _SECRET_TEXT:
        text = secret.sub(instead, text)
    text = printable(text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


@lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def _clean(value: object, depth: int) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return clean_text(bytes(value[: 2 * LONGEST]).decode("utf-8", "backslashreplace"))
    if depth < DEEPEST:
        if is_dataclass(value) and not isinstance(value, type):
            value = {field.name: getattr(value, field.name) for field in fields(value)}
        if isinstance(value, Mapping):
            pairs = list(value.items())[:MOST]
            return {clean_text(str(k)): HIDDEN if _is_secret(str(k)) else _clean(v, depth + 1) for k, v in pairs}
        if isinstance(value, list | tuple | set | frozenset):
            return [_clean(item, depth + 1) for item in list(value)[:MOST]]
    return clean_text(str(value))
