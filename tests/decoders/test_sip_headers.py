"""Header fields: lines, names, lists, parameters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.sip_headers import (
    COMPACT_FORMS,
    canonical_name,
    parse_fields,
    parse_params,
    split_lines,
    split_list,
    unquote,
)


def fields(head):
    notes = []
    return parse_fields(split_lines(head, notes), notes), notes


def test_fields_keep_their_order_and_repeats():
    found, notes = fields(b"START\r\nVia: a\r\nTO :b\r\nv:c\r\nX:  d  ")
    assert found == {"via": ["a", "c"], "to": ["b"], "session-expires": ["d"]}
    assert notes == []


def test_every_compact_form_is_one_letter_of_one_name():
    assert all(canonical_name(f" {short.upper()} ") == name for short, name in COMPACT_FORMS.items())
    assert len(set(COMPACT_FORMS.values())) == len(COMPACT_FORMS)


def test_nul_is_noted_and_becomes_a_blank():
    assert fields(b"START\nSubject: a\0b") == ({"subject": ["a b"]}, ["NUL in the header"])


@pytest.mark.parametrize(
    ("value", "items"),
    [
        ("", []),
        ("a", ["a"]),
        ("a,,b , ", ["a", "b"]),
        ('"a,b" <x,y>, c', ['"a,b" <x,y>', "c"]),
        ('"a\\",b", c', ['"a\\",b"', "c"]),
        ('"a, b', ['"a', "b"]),
        ("<a, b", ["<a", "b"]),
        ('x, "a, <b>', ["x", '"a', "<b>"]),
        ("a\\, b", ["a\\", "b"]),
    ],
)
def test_lists_split_at_commas_outside_of_quotes_and_brackets(value, items):
    assert split_list(value) == items


def test_parameters_lose_quotes_and_case_of_their_names():
    assert parse_params(';A=1; b ;c="x;\\"y";a=2;=z;d=<e;f>;g=') == {
        "a": "1",
        "b": None,
        "c": 'x;"y',
        "d": "<e;f>",
        "g": "",
    }


def test_unquote_leaves_what_is_not_quoted():
    assert [unquote(text) for text in ('"a\\\\b"', '"a', "a", '"', '""')] == ["a\\b", '"a', "a", '"', ""]


@given(st.text('ab,;"<>\\= ', max_size=40))
def test_splitting_loses_nothing_but_commas_and_blanks(value):
    kept = "".join(split_list(value))
    assert kept.replace(" ", "").replace(",", "") == value.replace(" ", "").replace(",", "")
    parse_params(value)


@given(st.binary(max_size=200))
def test_no_head_raises(head):
    fields(head)
