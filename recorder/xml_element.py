"""XML elements as lines of text: names of ours, attributes and content from anywhere.

In: names (never from a wire), attributes and text of any kind. Out: lines that are those of lxml for the same tree,
pretty-printed; whoever calls nests and indents them. Nothing from a wire can break a document: markup is escaped, what
XML 1.0 forbids is shown as U+FFFD, and expat reads every document before it is recorded (lxml makes a tree of it, and
lets go of the interpreter, which a busy service gets back late). No mixed content: an element has text or children. A
tree built node by node gives the same octets and takes three times as long.
"""

import re
from collections.abc import Mapping
from math import isfinite
from xml.parsers import expat

from recorder.metadata_text import xml_text

DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'

_NEEDS_CARE = re.compile(r"[^ !#-%'-;=?-~]").search
"""Markup, quotes, and what is beyond printable ASCII: it may be what XML forbids."""
_MARKUP = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"}
_IN_CONTENT = str.maketrans(_MARKUP)
_IN_ATTRIBUTE = str.maketrans(_MARKUP | {'"': "&quot;", "\n": "&#10;", "\t": "&#9;"})

Value = str | int | float | None
"""Of an attribute; where it is None or no finite number, the attribute is left out."""


def leaf(indent: str, name: str, attributes: Mapping[str, Value], text: str | None = None) -> str:
    """The line of an element without children; empty text is text, None is none."""
    start = f"{indent}<{name}{attributes_of(attributes) if attributes else ''}"
    return f"{start}/>\n" if text is None else f"{start}>{content(text)}</{name}>\n"


def nested(indent: str, name: str, attributes: Mapping[str, Value], children: str) -> str:
    """The lines of an element around those of its children, of which there may be none."""
    start = f"{indent}<{name}{attributes_of(attributes)}"
    return f"{start}>\n{children}{indent}</{name}>\n" if children else f"{start}/>\n"


def attributes_of(values: Mapping[str, Value]) -> str:
    """The attributes that have a value, each after a blank."""
    return "".join([attribute(name, value) for name, value in values.items() if value is not None])


def attribute(name: str, value: Value) -> str:
    """One attribute after a blank, empty where it is left out."""
    written = shown(value)
    return "" if written is None else f' {name}="{written}"'


def shown(value: Value) -> str | None:
    """An attribute's value as it is written; None where it is left out."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, float):
        # Three decimals: what lies beyond is noise.
        return f"{value:.3f}".rstrip("0").removesuffix(".") if isfinite(value) else None
    return None if value is None else str(value)


def quoted(text: str) -> str:
    """A string as it is written between the quotes of an attribute."""
    return xml_text(text).translate(_IN_ATTRIBUTE) if _NEEDS_CARE(text) else text


def content(text: str) -> str:
    """Text of an element as it is written."""
    return xml_text(text).translate(_IN_CONTENT) if _NEEDS_CARE(text) else text


def document(text: str) -> bytes:
    """The octets of a whole document. Raises ExpatError where it is not well-formed, or a prefix is not bound, which
    is a bug here."""
    octets = text.encode()
    expat.ParserCreate(namespace_separator=" ").Parse(octets, True)
    return octets
