"""Codes that pause a recording, and preferences that do."""

from dataclasses import replace

import pytest

from recorder.model import Digit, Side
from recorder.siprec.auto_pause import is_paused, paused_by_code
from recorder.siprec.src_decision import PauseTerms
from tests.siprec_fakes import picture

SECOND = 1_000_000_000
AGENT = PauseTerms("*1", "*2", frozenset({Side.CALLEE}))


def keys(text: str, side: Side = Side.CALLEE, at: int = 0, apart: int = SECOND // 2) -> list[Digit]:
    return [Digit(at + place * apart, side, digit, 100, "rfc4733") for place, digit in enumerate(text)]


@pytest.mark.parametrize(
    ("pressed", "paused"),
    [("", False), ("*1", True), ("9*1", True), ("*1*2", False), ("*1*2*1", True), ("*2", False), ("*11", True)],
)
def test_a_code_pauses_and_another_resumes(pressed, paused):
    assert paused_by_code(keys(pressed), AGENT) is paused


def test_one_code_may_do_both():
    terms = replace(AGENT, resume_digits="")
    assert [paused_by_code(keys("*1" * times), terms) for times in range(4)] == [False, True, False, True]


def test_a_code_that_begins_with_its_own_end_is_not_taken_twice():
    terms = PauseTerms("11", "11")
    assert [paused_by_code(keys("1" * count), terms) for count in range(5)] == [False, False, True, True, False]


def test_only_the_keys_of_the_right_side_count():
    assert not paused_by_code(keys("*1", Side.CALLER), AGENT)
    mixed = [*keys("*", Side.CALLER), *keys("1", Side.CALLEE, SECOND)]
    assert not paused_by_code(mixed, replace(AGENT, by=frozenset(Side)))


def test_digits_that_lie_far_apart_are_no_code():
    assert not paused_by_code(keys("*1", apart=6 * SECOND), AGENT)


def test_the_order_in_which_digits_become_known_does_not_matter():
    """Those of RFC 4733 are told later than those of INFO."""
    pressed = keys("*1*2*1")
    assert paused_by_code(list(reversed(pressed)), AGENT)


def test_without_terms_nothing_pauses():
    assert not paused_by_code(keys("*1"), PauseTerms())
    assert not is_paused(replace(picture(), record_preference="off"), [], PauseTerms())


@pytest.mark.parametrize(
    ("said", "paused"), [(None, False), ("on", False), ("nopreference", False), ("pause", True), ("off", True)]
)
def test_preferences_of_participants_are_heeded_where_that_is_told(said, paused):
    terms = PauseTerms(preference=True)
    assert is_paused(replace(picture(), record_preference=said), [], terms) is paused
