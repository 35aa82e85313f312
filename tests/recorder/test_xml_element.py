"""Lines of elements are compared with those that lxml writes for the same tree."""

from xml.parsers.expat import ExpatError

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from recorder.metadata_text import xml_text
from recorder.xml_element import attributes_of, document, leaf, nested

ANY = st.text(st.characters(exclude_categories=()), max_size=30)


def written(root):
    return etree.tostring(root, encoding="UTF-8", pretty_print=True).decode()


@given(first=ANY, second=ANY, text=st.none() | ANY)
def test_any_attribute_and_any_text_are_written_as_lxml_writes_them(first, second, text):
    root = etree.Element("a", {"first": xml_text(first), "second": xml_text(second)})
    root.text = None if text is None else xml_text(text)
    assert leaf("", "a", {"first": first, "second": second}, text) == written(root)


@given(ANY, ANY)
def test_elements_within_elements_are_indented_as_lxml_indents_them(name, text):
    root = etree.Element("a", {"name": xml_text(name)})
    middle = etree.SubElement(root, "b")
    etree.SubElement(middle, "c").text = xml_text(text)
    etree.SubElement(root, "d")
    inner = nested("  ", "b", {}, leaf("    ", "c", {}, text))
    assert nested("", "a", {"name": name}, inner + leaf("  ", "d", {})) == written(root)


def test_an_element_of_which_nothing_is_told_is_empty():
    assert nested("  ", "a", {}, "") == leaf("  ", "a", {}) == "  <a/>\n"
    assert leaf("", "a", {}, "") == "<a></a>\n"


def test_what_is_unknown_is_left_out_and_figures_have_three_decimals():
    values = {"a": None, "b": float("nan"), "c": 1.23456, "d": 2.0, "e": 7, "f": "", "g": -0.0004}
    assert attributes_of(values) == ' c="1.235" d="2" e="7" f="" g="-0"'


def test_what_is_not_well_formed_never_becomes_a_document():
    assert document("<a>ä</a>") == "<a>ä</a>".encode()
    for broken in ("<a><b></a>", "<a", "<a/><a/>", '<a b="" b=""/>', "<a>&lt</a>", "<a>\x01</a>", "<b:a/>"):
        with pytest.raises(ExpatError):
            document(broken)
