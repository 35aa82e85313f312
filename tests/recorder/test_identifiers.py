"""Identifiers."""

from uuid import UUID, uuid5

from recorder.identifiers import NAMESPACE, call_uuid, part_uuid
from tests.calls import START


def test_the_same_place_gives_the_same_identifier_for_ever():
    assert call_uuid(START, 7) == UUID("16747a3e-c82c-5184-94a9-91341c28f6b0")
    assert call_uuid(START, 7) == uuid5(NAMESPACE, f"call {START} 7 0")


def test_other_places_give_other_identifiers():
    places = [call_uuid(START, 7), call_uuid(START, 8), call_uuid(START + 1, 7), call_uuid(START, 7, 1)]
    assert len(set(places)) == 4
    assert all(place.version == 5 for place in places)


def test_parts_of_a_call_have_identifiers_of_their_own():
    call = call_uuid(START, 7)
    parts = [part_uuid(call, "participant", 0), part_uuid(call, "participant", 1), part_uuid(call, "stream", 0)]
    assert len({call, *parts}) == 4
