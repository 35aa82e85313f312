from hypothesis import given
from hypothesis import strategies as st

from capture.damage import MOST_PLACES, DamageLog


def test_a_place_says_where_how_much_and_why():
    log = DamageLog()
    log.note(5, 1, "a reason")
    log.note(9, 0, "another reason")
    assert [place.text for place in log.entries] == [
        "at byte 5, 1 byte skipped: a reason",
        "at byte 9, nothing skipped: another reason",
    ]


def test_what_adjoins_for_the_same_reason_is_one_place():
    log = DamageLog()
    for offset, skipped, why in ((0, 5, "a"), (5, 5, "a"), (10, 5, "b"), (16, 5, "b")):
        log.note(offset, skipped, why)
    assert [(place.offset, place.skipped) for place in log.entries] == [(0, 10), (10, 5), (16, 5)]


@given(st.integers(0, 3 * MOST_PLACES))
def test_there_are_never_too_many_places_and_no_octet_is_forgotten(count):
    log = DamageLog()
    for i in range(count):
        log.note(10 * i, 3, "a reason")
    assert len(log.entries) == min(count, MOST_PLACES)
    assert sum(place.skipped for place in log.entries) == 3 * count
    if count > MOST_PLACES:
        further = count - MOST_PLACES + 1
        assert f"from byte {10 * (MOST_PLACES - 1)} on, {further} more places" in log.entries[-1].text
