"""XML elements as text: what a document of a few dozen elements a call needs, at a fraction of a general tree's cost.

In: names of ours (never from a wire), attributes and text of any kind. Out: a document whose octets are those that
lxml gives for the same tree (pretty-printed, UTF-8). Text from a wire cannot break it: markup is escaped, what XML 1.0
forbids is shown as U+FFFD. No mixed content: an element has text or children.
"""

import re
from collections.abc import Mapping
from math import isfinite

from recorder.metadata_text import xml_text

DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'

_NEEDS_CARE = re.compile(r"[^ !#-%'-;=?-~]").search
"""Beyond printable ASCII, or markup in text or attributes."""
_MARKUP = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"}
_IN_TEXT = str.maketrans(_MARKUP)
_IN_ATTRIBUTE = str.maketrans(_MARKUP | {'"': "&quot;", "\n": "&#10;", "\t": "&#9;"})


Value = str | int | float | None
"""Of an attribute; where it is None or no finite number, the attribute is left out."""


class Element:
    """An element under construction."""

    __slots__ = ("_children", "_name", "_start", "_text")

    def __init__(self, name: str, attributes: Mapping[str, Value], text: str | None = None) -> None:
        start = f"<{name}"
        for key, value in attributes.items():
            written = shown(value)
            if written is not None:
                start += f' {key}="{written}"'
        self._name = name
        self._start = start
        self._text = text
        self._children: list[Element] = []

    def add(self, name: str, attributes: Mapping[str, Value], text: str | None = None) -> "Element":
        """Append an element; empty text is text, None is none."""
        child = Element(name, attributes, text)
        self._children.append(child)
        return child

    def document(self) -> bytes:
        """The whole document of which this is the root."""
        pieces = [DECLARATION]
        self._write(pieces, "")
        return "".join(pieces).encode()

    def _write(self, pieces: list[str], indent: str) -> None:
        if self._text is not None:
            pieces.append(f"{indent}{self._start}>{_in_text(self._text)}</{self._name}>\n")
        elif not self._children:
            pieces.append(f"{indent}{self._start}/>\n")
        else:
            pieces.append(f"{indent}{self._start}>\n")
            inside = indent + "  "
            for child in self._children:
                child._write(pieces, inside)
            pieces.append(f"{indent}</{self._name}>\n")


def _in_text(text: str) -> str:
    return xml_text(text).translate(_IN_TEXT) if _NEEDS_CARE(text) else text


def shown(value: Value) -> str | None:
    """An attribute's value as it is written; None where it is left out."""
    if isinstance(value, str):
        return xml_text(value).translate(_IN_ATTRIBUTE) if _NEEDS_CARE(value) else value
    if isinstance(value, float):
        # Three decimals: what lies beyond is noise.
        return f"{value:.3f}".rstrip("0").removesuffix(".") if isfinite(value) else None
    return None if value is None else str(value)
