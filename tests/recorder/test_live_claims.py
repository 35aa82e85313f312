"""Whose a packet is as it passes: the kernel's choice of rows, and what the registry says of their flows."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from capture.address import Endpoint
from capture.batch import KIND_UDP, DatagramBatch, PacketBatch
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


class Asking(LiveClaims):
    """Without columns: every flow is looked up by itself."""

    def _known(self, datagrams, keys, rows, only):
        return np.full(len(keys), -1, np.int64), np.zeros(len(keys), np.bool_)


def packets_of(draw, ends, count, time):
    """UDP between some of the ends, at one time."""
    n = len(ends)
    pairs = draw.integers(0, n, (count, 2))
    sides = [
        [
            np.array([ends[k][part] for k in pairs[:, side]], kind)
            for part, kind in enumerate((np.uint64,) * 2 + (np.uint16,))
        ]
        for side in (0, 1)
    ]
    (source_high, source_low, source_port), (destination_high, destination_low, destination_port) = sides
    times = time + np.sort(draw.integers(0, 20_000_000, count))
    packets = PacketBatch(
        np.zeros(0, np.uint8),
        times,
        *(np.zeros(count, kind) for kind in (np.int64, *(np.int32,) * 3, np.int64, np.int32)),
    )
    zeros = {
        name: np.zeros(count, kind)
        for name, kind in (("payload", np.int64), ("length", np.int32), ("missing", np.int32), ("ip_id", np.uint16))
    }
    return DatagramBatch(
        packets=packets,
        kind=np.full(count, KIND_UDP, np.uint8),
        source_high=source_high,
        source_low=source_low,
        destination_high=destination_high,
        destination_low=destination_low,
        source_port=source_port,
        destination_port=destination_port,
        realm=np.zeros(count, np.uint32),
        **zeros,
    )


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_flows_that_are_known_have_the_same_calls_as_flows_that_are_asked_for_one_by_one(seed):
    draw = np.random.default_rng(seed)
    calls = range(1, 7)
    ends = [Endpoint(0, 0xFFFF << 32 | k, 4000) for k in range(12)]
    told = [
        media(call, side, ends[2 * call - 2 + k], 0)
        for call in calls
        for k, side in enumerate((Side.CALLER, Side.CALLEE))
    ]
    both = [Asking(EndpointRegistry()), LiveClaims(EndpointRegistry())]
    for claims in both:
        for each in told:
            claims._registry.announce(each, each.endpoint)
        for call in calls:
            claims.announce(call, over=False)
    time = SECOND
    for _ in range(12):
        time += int(draw.choice([20_000_000, 150_000_000, 700_000_000, -300_000_000]))
        batch = packets_of(draw, ends, 40, time)
        kinds = np.full(40, 3, np.uint8)
        plain, quick = (
            sorted(zip(*(each.tolist() for each in claims.rows(batch, kinds)), strict=True)) for claims in both
        )
        assert quick == plain
        gone = int(draw.integers(1, 30))
        for claims in both:
            claims.forget(gone)
