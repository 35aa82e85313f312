"""Words of rules that are of each call: `{caller}`, `{callee}`, `{header:X-Agent}` within a text.

In: a text of the settings; facts of a call as it begins. Out: the text for that call. What the wire brought is made
printable, short, and safe for where it is put (`escape`). A header that is not there leaves nothing. Raises ValueError
only for what the settings say.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote
from xml.sax.saxutils import escape as escape_xml

from recorder.call_facts import CallFacts, Heard
from recorder.metadata_text import xml_text

LONGEST = 256
"""Characters of one value from the wire."""
_FIELD = re.compile(r"\{([^{}]*)\}")
_HEADER = re.compile(r"header:([A-Za-z0-9!%*_+`'~.-]{1,64})")
_NAMES = ("caller", "caller_host", "caller_name", "callee", "callee_host", "callee_name")
Escape = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Words:
    """A text with places for what is of a call."""

    parts: tuple[str, ...]
    """Text and field by turns; the first and last are text."""

    @property
    def fixed(self) -> bool:
        """It is the same for every call."""
        return len(self.parts) == 1

    def fill(self, facts: CallFacts, escape: Escape) -> str:
        """The text for a call."""
        return "".join(part if place % 2 == 0 else escape(_value(part, facts)) for place, part in enumerate(self.parts))


def words(text: str) -> Words:
    """Read a text. Braces stand for nothing but such places."""
    parts = tuple(_FIELD.split(text))
    for name in parts[1::2]:
        if name not in _NAMES and not _HEADER.fullmatch(name):
            raise ValueError(f"{{{name}}} is none of {', '.join(f'{{{each}}}' for each in _NAMES)}, {{header:NAME}}")
    return Words(parts)


def as_text(value: str) -> str:
    """For a header's value or a name."""
    return value


def in_uri(value: str) -> str:
    """For the user part of a URI."""
    return quote(value, safe="+-_.!~*'()&=$,")


def in_xml(value: str) -> str:
    """For XML, as content or in an attribute."""
    return escape_xml(xml_text(value), {'"': "&quot;", "'": "&apos;"})


def _value(name: str, facts: CallFacts) -> str:
    if name.startswith("header:"):
        found = facts.header(name.removeprefix("header:"))
        value = found[0] if found else ""
    else:
        side, _, part = name.partition("_")
        heard = (facts.callers if side == "caller" else facts.callees) or (Heard(""),)
        value = {"": heard[0].user, "host": heard[0].host, "name": heard[0].name or ""}[part]
    return "".join(each if each.isprintable() else " " for each in value[:LONGEST]).strip()
