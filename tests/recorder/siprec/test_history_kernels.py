"""Kernels of the history beside plain Python on random input."""

import numpy as np
import pytest

from recorder.siprec import _forward_columns as columns
from recorder.siprec._forward_columns import Capacity, Tables, grow, make_tables
from recorder.siprec._history_kernels import keep, lost_since
from recorder.siprec._table_lock import new_mutex
from tests.naive_history import NaiveHistory, held_by

FLOWS, SOURCES = 4, 3
US = 1000


def tables_for_test(history: int, keep_ns: int, most_history: int = 0) -> Tables:
    capacity = Capacity(FLOWS, SOURCES, 4, history, keep_ns, 64, most_history)
    tables = make_tables(capacity, new_mutex())
    for column in (columns.ACTIVE, columns.LEGS, columns.HEAD, columns.TAIL):
        tables.sources[:, column] = -1
    return tables


def agree(tables: Tables, twin: NaiveHistory) -> None:
    for chain in range(-SOURCES, FLOWS):
        held = twin.chains[chain]
        expected = [(each.entry, each.time, each.octets, each.number) for each in held.there]
        assert held_by(tables, chain) == expected
        if chain >= 0:
            lost = tables.flows[chain, [columns.FLOW_LOST, columns.FLOW_LOST_AT]].tolist()
            assert lost == [held.lost, held.lost_at]
        else:
            counted = tables.sources[-1 - chain, [columns.NUMBER, columns.GONE_AT]].tolist()
            assert counted == [held.taken, held.lost_at]


@pytest.mark.parametrize("largest", [20, 300, 1500])
@pytest.mark.parametrize("keep_ns", [400, 1 << 60])
@pytest.mark.parametrize("seed", range(3))
def test_chains_hold_what_the_twin_holds_while_the_oldest_go(seed, keep_ns, largest):
    rng = np.random.default_rng(seed)
    tables = tables_for_test(20_000, keep_ns)
    twin = NaiveHistory(20_000, int(tables.counts[columns.ROWS]), keep_ns)
    time = 1 << 40
    for place in range(1500):
        time += int(rng.integers(0, 20))
        octets = rng.integers(0, 256, int(rng.integers(1, largest)), dtype=np.uint8)
        chain = int(rng.integers(-SOURCES, FLOWS))
        entry = keep(tables, chain, octets, 0, len(octets), time)
        assert entry == twin.keep(chain, octets.tobytes(), time).entry
        if place % 50 == 0:
            agree(tables, twin)
    agree(tables, twin)
    assert any(held.lost for held in twin.chains.values())


@pytest.mark.parametrize("seed", range(6))
def test_a_history_that_grows_holds_what_it_held(seed):
    rng = np.random.default_rng(seed)
    tables = tables_for_test(10_000, 1 << 60, 40_000)
    twin = NaiveHistory(10_000, int(tables.counts[columns.ROWS]), 1 << 60)
    for time in range(2000):
        if time in (500, 900):
            grow(tables)
            twin.room, twin.rows = 2 * twin.room, 2 * twin.rows
            agree(tables, twin)
        octets = rng.integers(0, 256, int(rng.integers(1, 200)), dtype=np.uint8)
        chain = int(rng.integers(-SOURCES, FLOWS))
        keep(tables, chain, octets, 0, len(octets), time)
        twin.keep(chain, octets.tobytes(), time)
    agree(tables, twin)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_lost_since_a_time_is_counted_as_if_evenly_spaced(seed):
    rng = np.random.default_rng(seed)
    count, first = int(rng.integers(0, 400)), int(rng.integers(0, 1 << 20)) * US
    last = first + int(rng.integers(1, 20_000)) * US
    since = int(rng.integers(first // US - 500, last // US + 500)) * US
    # Of two numbers or more; a single one came at the end.
    spaced = [first * (count - 1) + (last - first) * k for k in range(count)] if count > 1 else []
    expected = sum(each >= since * (count - 1) for each in spaced) if count > 1 else int(count == 1 and since <= last)
    assert lost_since(count, first, last, since) == expected
