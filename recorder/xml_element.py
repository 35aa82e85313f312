"""A document of elements, built with lxml: names with their usual prefixes, attributes and text of any content.

In: names of ours (never from a wire), attributes and text of any kind. Out: a pretty-printed UTF-8 document. Text from
a wire cannot break it: lxml escapes markup, and what XML 1.0 forbids is shown as U+FFFD. No mixed content: an element
has text or children.
"""

import re
from collections.abc import Mapping
from math import isfinite

from lxml import etree

from recorder.metadata_text import xml_text

DECLARATION = b'<?xml version="1.0" encoding="UTF-8"?>\n'

_NEEDS_CARE = re.compile(r"[^ -~]").search
"""Beyond printable ASCII: it may hold what XML forbids."""

Value = str | int | float | None
"""Of an attribute; where it is None or no finite number, the attribute is left out."""


class Element:
    """An element under construction. The root declares the namespaces, as xmlns attributes."""

    __slots__ = ("_node", "_spaces")

    def __init__(self, name: str, attributes: Mapping[str, Value]) -> None:
        self._spaces = {
            key.removeprefix("xmlns").removeprefix(":"): str(value)
            for key, value in attributes.items()
            if key.startswith("xmlns")
        }
        plain = {key: value for key, value in attributes.items() if not key.startswith("xmlns")}
        nsmap = {prefix or None: uri for prefix, uri in self._spaces.items()}
        self._node = etree.Element(_clark(name, self._spaces), _shown_all(plain), nsmap=nsmap)

    def add(self, name: str, attributes: Mapping[str, Value], text: str | None = None) -> "Element":
        """Append an element; empty text is text, None is none."""
        child = Element.__new__(Element)
        child._spaces = self._spaces
        child._node = etree.SubElement(self._node, _clark(name, self._spaces), _shown_all(attributes))
        if text is not None:
            child._node.text = xml_text(text) if _NEEDS_CARE(text) else text
        return child

    def document(self) -> bytes:
        """The whole document of which this is the root."""
        return DECLARATION + bytes(etree.tostring(self._node, encoding="UTF-8", pretty_print=True))


def _clark(name: str, spaces: Mapping[str, str]) -> str:
    """`{uri}local` of a name with or without a prefix."""
    prefix, _, local = name.rpartition(":")
    return f"{{{spaces[prefix]}}}{local}"


def _shown_all(attributes: Mapping[str, Value]) -> dict[str, str]:
    return {key: written for key, value in attributes.items() if (written := shown(value)) is not None}


def shown(value: Value) -> str | None:
    """An attribute's value as it is written; None where it is left out."""
    if isinstance(value, str):
        return xml_text(value) if _NEEDS_CARE(value) else value
    if isinstance(value, float):
        # Three decimals: what lies beyond is noise.
        return f"{value:.3f}".rstrip("0").removesuffix(".") if isfinite(value) else None
    return None if value is None else str(value)
