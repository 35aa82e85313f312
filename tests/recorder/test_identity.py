"""Media identity: what is passed on is recognised by its payloads; what merely sounds alike is not."""

from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders import _identity_kernels as kernels
from decoders.rtp import FlowTable, Window
from recorder.identity import FORKED_LAG, RELAYED_LAG, UNRELATED_LAG, MediaIdentity, most_lag
from tests import naive_identity as naive

MS = 1_000_000


def window_of(packets):
    """A stager's columns for (flow, time in ns, payload), by flow; each payload stands behind a header of 12 octets."""
    packets = sorted(packets, key=lambda packet: packet[1])
    sizes = [len(payload) for _, _, payload in packets]
    offsets = np.cumsum([0, *(12 + size for size in sizes)]).astype(np.int64)
    flows = np.array([flow for flow, _, _ in packets], np.int32)
    arena = np.frombuffer(b"".join(bytes(12) + payload for _, _, payload in packets) or b"\0", np.uint8).copy()
    window = Window(len(packets), len(arena))
    window.time[:] = [time for _, time, _ in packets]
    window.offset[:], window.header[:], window.size[:] = offsets[:-1], 12, sizes
    window.arena[: len(arena)] = arena
    starts = np.zeros(12, np.int64)
    np.cumsum(np.bincount(flows, minlength=11), out=starts[1:])
    return SimpleNamespace(window=window, starts=starts, order=np.argsort(flows, kind="stable").astype(np.int32))


def table(*ways):
    """Flows between hosts: (source, destination) for flow 0, 1..."""
    flows = FlowTable(16)
    for flow, (source, destination) in enumerate(ways):
        flows.addresses[flow] = (0, source, 0, destination)
        flows.ports[flow] = (4000 + flow) << 16 | 5000 + flow
    return flows


def speech(seed, count=150):
    """Payloads of 20 ms that never repeat."""
    return [Random(f"{seed}/{i}").randbytes(160) for i in range(count)]


def played(flow, payloads, begin=0):
    return [(flow, begin + 20 * MS * i, payload) for i, payload in enumerate(payloads)]


def pairs(flows, packets, windows=1):
    identity = MediaIdentity(flows)
    for flow in sorted({flow for flow, _, _ in packets}):
        identity.begin(flow)
    last = max(time for _, time, _ in packets) + 1
    found = []
    for part in range(windows):
        low, high = last * part // windows, last * (part + 1) // windows
        found += identity.look(window_of([p for p in packets if low <= p[1] < high]))
    return found


@given(st.lists(st.binary(max_size=200) | st.builds(lambda o, n: bytes([o]) * n, st.integers(0, 255), st.just(160))))
def test_marks_are_those_of_the_plain_twin(payloads):
    stager = window_of(played(0, payloads))
    until, looked_at = np.full(16, -1, np.int64), np.zeros(16, np.int32)
    out = np.zeros(300, np.int32), np.zeros(300, np.uint64), np.zeros(300, np.int64)
    w = stager.window
    count = kernels.mark_payloads(
        np.array([0], np.int32), stager.starts, stager.order, w.packets, w.arena, until,
        looked_at, 1000, *out,
    )  # fmt: skip
    expected = [(mark, 20 * MS * i) for i, p in enumerate(payloads) if (mark := naive.mark_of(p)) is not None]
    assert list(zip(out[1][:count].tolist(), out[2][:count].tolist(), strict=True)) == expected
    assert looked_at[0] == len(payloads)


@pytest.mark.parametrize("windows", [1, 2, 5])
def test_media_passed_on_by_a_relay_is_recognised(windows):
    words = speech("a")
    packets = played(0, words) + played(1, words, begin=30 * MS)
    assert pairs(table((1, 2), (2, 3)), packets, windows) == [(0, 1)]


def test_other_words_on_the_same_way_are_not():
    packets = played(0, speech("a")) + played(1, speech("b"), begin=30 * MS)
    assert pairs(table((1, 2), (2, 3)), packets) == []


@pytest.mark.parametrize(
    "ways",
    [((2, 1), (2, 3)), ((1, 2), (3, 2)), ((1, 2), (1, 2)), ((1, 2), (2, 1)), ((1, 2), (3, 4))],
    ids=["announcement to two", "from two to one", "side by side", "there and back", "apart"],
)
def test_the_same_words_elsewhere_prove_nothing(ways):
    words = speech("a")
    assert pairs(table(*ways), played(0, words) + played(1, words, begin=30 * MS)) == []


def test_the_same_words_a_second_later_prove_nothing():
    words = speech("a")
    assert pairs(table((1, 2), (2, 3)), played(0, words) + played(1, words, begin=1000 * MS)) == []


def test_silence_and_tones_prove_nothing():
    tone = speech("tone", 5) * 60
    flows = table((1, 2), (2, 3))
    assert pairs(flows, played(0, tone) + played(1, tone, begin=30 * MS)) == []
    silence = [b"\xff" * 160] * 300
    assert pairs(flows, played(0, silence) + played(1, silence, begin=30 * MS)) == []


def test_what_is_forgotten_is_not_compared():
    identity, words = MediaIdentity(table((1, 2), (2, 3))), speech("a")
    identity.begin(0)
    assert list(identity.look(window_of(played(0, words)))) == []
    identity.forget(0)
    identity.begin(1)
    assert list(identity.look(window_of(played(1, words, begin=30 * MS)))) == []
    assert identity.twins(1) == ()


def test_equal_ssrcs_may_lie_apart_as_far_as_their_addresses_allow():
    a, relay, b = (0, 1, 4000), (0, 2, 5000), (0, 3, 6000)
    assert most_lag(a, relay, (0, 2, 5002), b) == RELAYED_LAG
    assert most_lag(a, relay, a, b) == FORKED_LAG
    assert most_lag(a, relay, b, (0, 4, 7000)) == UNRELATED_LAG
