"""Whose a packet is as it passes: the kernel's choice of rows, and what the registry says of their flows."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from capture.address import Endpoint
from decoders.sdp import Direction
from recorder._live_packet_kernels import find_places
from recorder.endpoints import GRACE, EndpointRegistry
from recorder.live_claims import LiveClaims, place_of, table_of
from recorder.model import MediaEndpoint, Side

SECOND = 1_000_000_000
A, B, C = (Endpoint(0, 0xFFFF << 32 | k, 4000) for k in (1, 2, 3))

ends = st.builds(Endpoint, st.integers(0, 2), st.integers(0, 2**64 - 1) | st.integers(0, 3), st.integers(0, 65535))


@given(st.lists(ends, max_size=30), st.lists(st.tuples(ends, ends, st.integers(0, 4), st.integers(0, 4)), max_size=30))
@settings(max_examples=100, deadline=None)
def test_the_kernel_finds_the_rows_that_its_plain_twin_finds(known, rows):
    rows += [(end, end._replace(port=end.port ^ 1), 1, 3) for end in known[:5]]
    columns = [
        np.array([row[side][part] for row in rows], kind)
        for side in (0, 1)
        for part, kind in enumerate((np.uint64, np.uint64, np.uint16))
    ]
    kind, kinds = (np.array([row[k] for row in rows], np.uint8) for k in (2, 3))
    places = {place_of(end) for end in known}
    out = np.empty(len(rows), np.int64)
    count = find_places(kind, kinds, *columns, table_of(places, len(places)), out)
    expected = [
        number
        for number, (source, destination, carried, said) in enumerate(rows)
        if carried == 1 and said not in (1, 2) and (source in known or destination in known)
    ]
    assert out[:count].tolist() == expected


def media(call, side, endpoint, since, realm=0):
    rtcp = endpoint._replace(port=endpoint.port + 1)
    return MediaEndpoint(
        call, side, 0, 0, "audio", endpoint, rtcp, {}, Direction.SENDRECV, (), False, False, None, since, 1, realm
    )


def claims_of(*endpoints, kept=(1,)):
    registry = EndpointRegistry()
    for endpoint in endpoints:
        registry.announce(endpoint, endpoint.endpoint)
    claims = LiveClaims(registry)
    for call in kept:
        claims.announce(call, over=False)
    return claims, registry


def test_media_and_rtcp_of_both_directions_are_the_calls():
    claims, _ = claims_of(media(1, Side.CALLER, A, 0), media(1, Side.CALLEE, B, 0))
    rtcp = [end._replace(port=4001) for end in (A, B)]
    for source, destination in ((A, B), (B, A), (rtcp[0], rtcp[1]), (rtcp[1], rtcp[0]), (A, C), (C, A)):
        assert claims.owners(source, destination, 0, SECOND) == (1,)
    assert claims.owners(C, C._replace(port=9), 0, SECOND) == ()


def test_a_port_that_another_call_announces_is_no_longer_the_calls():
    claims, registry = claims_of(media(1, Side.CALLER, A, 0), media(1, Side.CALLEE, B, 0))
    registry.release(1, 5 * SECOND)
    assert claims.owners(B, A, 0, 5 * SECOND + GRACE // 2) == (1,)
    registry.announce(media(2, Side.CALLER, A, 6 * SECOND), A)
    assert claims.owners(C, A, 0, 7 * SECOND - 1) == ()
    assert claims.owners(B, A, 0, 9 * SECOND) == ()


def test_what_a_call_claimed_is_gone_with_it():
    claims, _ = claims_of(media(1, Side.CALLER, A, 0), media(2, Side.CALLER, B, 0), kept=(1, 2))
    claims.claim_flow(2, C, B, 0)
    claims.forget(1)
    assert claims.owners(C, A, 0, SECOND) == ()
    assert claims.owners(C, B, 0, SECOND) == (2,)
    claims.forget(2)
    assert vars_of(claims) == [{}, {}, {}, {}, {}]


def vars_of(claims):
    return [getattr(claims, name) for name in ("_calls", "_places", "_rtcp", "_flows", "_answers")]
