"""Kernels that carry packets to and from the thread that knows the keys, beside plain Python on random input."""

import struct

import numpy as np
import pytest

from recorder.siprec import _forward_columns as columns
from recorder.siprec import _forward_sealed_kernels as ready
from recorder.siprec._forward_columns import Capacity, Tables, make_tables
from recorder.siprec._history_kernels import keep
from recorder.siprec._table_lock import new_mutex

CAPACITY = Capacity(flows=8, sources=4, legs=4, history=60_000, keep_ns=1 << 60, rows=64)
RATE = 8000


def tables_for_test() -> Tables:
    tables = make_tables(CAPACITY, new_mutex())
    for column in (columns.ACTIVE, columns.LEGS, columns.HEAD, columns.TAIL):
        tables.sources[:, column] = -1
    tables.rates[:] = RATE
    return tables


def octets_of(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.integers(0, 256, size, dtype=np.uint8)


def room(tables: Tables) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((len(tables.sealed), columns.SEALED_COLUMNS), np.int64), np.zeros_like(tables.sealed_octets)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_to_be_decrypted_is_taken_as_it_stands_and_only_once(seed):
    rng = np.random.default_rng(seed)
    tables = tables_for_test()
    expected, at = [], 0
    for row in range(int(rng.integers(1, len(tables.sealed) + 1))):
        packet = octets_of(rng, int(rng.integers(12, 200)))
        tables.sealed_octets[at : at + len(packet)] = packet
        flow, time = int(rng.integers(8)), int(rng.integers(1 << 60))
        tables.sealed[row] = flow, at, len(packet), time
        at += len(packet)
        expected.append((flow, packet.tobytes(), time))
    tables.counts[columns.SEALED_COUNT], tables.counts[columns.SEALED_AT] = len(expected), at
    rows, octets = room(tables)
    count = ready.take_sealed(tables, rows, octets)
    got = [(f, octets[b : b + n].tobytes(), t) for f, b, n, t in rows[:count].tolist()]
    assert got == expected
    assert ready.take_sealed(tables, rows, octets) == 0


@pytest.mark.parametrize("seed", range(8))
def test_a_chain_gives_what_the_history_still_holds_of_a_flow_and_is_empty_then(seed):
    rng = np.random.default_rng(seed)
    tables = tables_for_test()
    tables.flows[:, columns.STATE] = columns.ASKED
    kept = []
    for time in range(int(rng.integers(1, 600))):
        packet = octets_of(rng, int(rng.integers(12, 400)))
        flow = int(rng.integers(2))
        kept.append((keep(tables, flow, packet, 0, len(packet), time), flow, packet.tobytes(), time))
    oldest = int(tables.counts[columns.OLDEST])
    there = [(0, packet, time) for entry, flow, packet, time in kept if flow == 0 and entry >= oldest]
    rows, octets = room(tables)
    count = ready.take_chain(tables, 0, rows, octets)
    assert [(f, octets[b : b + n].tobytes(), t) for f, b, n, t in rows[:count].tolist()] == there[: len(rows)]
    assert ready.take_chain(tables, 0, rows, octets) == 0
    assert tables.flows[0, columns.FLOW_LOST] == sum(flow == 0 and entry < oldest for entry, flow, _, _ in kept)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_to_be_encrypted_becomes_plain_rtp_and_what_has_gone_is_counted(seed):
    rng = np.random.default_rng(seed)
    tables = tables_for_test()
    kept = {}
    for time in range(int(rng.integers(1, 400))):
        payload = octets_of(rng, int(rng.integers(1, 400)))
        entry = keep(tables, -1 - int(rng.integers(2)), payload, 0, len(payload), time)
        kept[entry] = payload.tobytes(), time
    tables.legs[:, columns.SSRC] = rng.integers(0, 1 << 32, len(tables.legs))
    tables.legs[:, columns.LEG_SOURCE] = rng.integers(0, 2, len(tables.legs))
    count = int(rng.integers(1, len(tables.outgoing) + 1))
    expected, unsent, size = [], [0] * len(tables.legs), 0
    for row in range(count):
        leg, entry = int(rng.integers(len(tables.legs))), int(rng.choice(list(kept)))
        sequence, stamp, second = int(rng.integers(1 << 16)), int(rng.integers(1 << 32)), int(rng.integers(256))
        tables.outgoing[row] = leg, entry, sequence, stamp, second
        payload, time = kept[entry]
        packet = struct.pack("!BBHII", 0x80, second, sequence, stamp, int(tables.legs[leg, columns.SSRC])) + payload
        if entry < tables.counts[columns.OLDEST] or size + len(packet) > len(tables.sealed_octets):
            unsent[leg] += 1
        else:
            size += len(packet)
            expected.append((leg, packet, sequence, stamp, RATE, time))
    tables.counts[columns.OUTGOING_COUNT] = count
    rows = np.zeros((len(tables.outgoing), ready.READY_COLUMNS), np.int64)
    octets = np.zeros_like(tables.sealed_octets)
    got = [
        (leg, octets[at : at + n].tobytes(), *rest)
        for leg, at, n, *rest in rows[: ready.take_outgoing(tables, rows, octets)].tolist()
    ]
    assert got == expected
    assert tables.legs[:, columns.UNSENT].tolist() == unsent
    for row in rows[: len(got)]:
        ready.note_ready(tables, row, bool(row[ready.READY_SEQUENCE] % 2))
    for leg in range(len(tables.legs)):
        sent = [packet for number, packet, sequence, *_ in expected if number == leg and sequence % 2]
        values = tables.legs[leg]
        assert values[columns.PACKETS] == len(sent)
        assert values[columns.OCTETS] == sum(len(packet) - columns.HEADER for packet in sent)
        failed = sum(number == leg and not sequence % 2 for number, _, sequence, *_ in expected)
        assert values[columns.UNSENT] == unsent[leg] + failed
