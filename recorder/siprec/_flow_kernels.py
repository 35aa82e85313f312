"""Kernels of the flows: which row of the tables is of which flow on the wire.

In: a flow's addresses, ports, SSRC and realm, as a row. Out: its number, new where it was not known; numbers of flows
that have been silent, to be used again. A hash table with open addressing, made anew when flows are forgotten.
"""

import numpy as np
from numba import njit

from capture.batch import Int32, Int64
from recorder.siprec._forward_columns import (
    ASKED,
    DESTINATION_HIGH,
    DESTINATION_LOW,
    FIRST_SEEN,
    FLOW_HEAD,
    FLOW_LOST,
    FLOW_LOST_AT,
    FLOW_TAIL,
    FRESH,
    LAST_SEEN,
    LINKS,
    PORTS_SSRC,
    REALM,
    REFUSED_FLOWS,
    SOURCE_HIGH,
    SOURCE_LOW,
    STATE,
    Tables,
)
from recorder.siprec._table_lock import hold, let_go

FIRST_FACTOR, SECOND_FACTOR = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)
SHIFT = np.uint64(29)


@njit(cache=True, nogil=True, forceinline=True)
def _mixed(key: np.uint64, word: int) -> np.uint64:
    key = (key ^ np.uint64(word)) * FIRST_FACTOR
    return (key ^ (key >> SHIFT)) * SECOND_FACTOR


@njit(cache=True, nogil=True, forceinline=True)
def _slot(tables: Tables, flow: Int64) -> int:
    """Where the search for a flow's row begins."""
    key = np.uint64(0)
    for column in (SOURCE_HIGH, SOURCE_LOW, DESTINATION_HIGH, DESTINATION_LOW, PORTS_SSRC, REALM):
        key = _mixed(key, flow[column])
    return int(key >> np.uint64(32)) & (len(tables.slots) - 1)


@njit(cache=True, nogil=True, forceinline=True)
def _is_flow(tables: Tables, number: int, wanted: Int64) -> bool:
    found = tables.flows[number]
    for column in (PORTS_SSRC, SOURCE_LOW, DESTINATION_LOW, SOURCE_HIGH, DESTINATION_HIGH, REALM):
        if found[column] != wanted[column]:
            return False
    return True


@njit(cache=True, nogil=True)
def find_flow(tables: Tables, wanted: Int64, time: int) -> int:
    """Number of a flow, which is new where it was not known; -1 where there is no room."""
    mask = len(tables.slots) - 1
    slot = _slot(tables, wanted)
    while tables.slots[slot] >= 0:
        number = int(tables.slots[slot])
        if _is_flow(tables, number, wanted):
            return number
        slot = (slot + 1) & mask
    free = tables.free
    if free[0] == 0:
        tables.counts[REFUSED_FLOWS] += 1
        return -1
    number = int(free[free[0]])
    free[0] -= 1
    tables.slots[slot] = number
    flow = tables.flows[number]
    for column in (SOURCE_HIGH, SOURCE_LOW, DESTINATION_HIGH, DESTINATION_LOW, PORTS_SSRC, REALM):
        flow[column] = wanted[column]
    flow[FIRST_SEEN] = time
    flow[FLOW_HEAD] = flow[FLOW_TAIL] = flow[LINKS] = -1
    flow[FLOW_LOST] = flow[FLOW_LOST_AT] = 0
    flow[STATE] = ASKED
    tables.fresh[tables.counts[FRESH]] = number
    tables.counts[FRESH] += 1
    return number


@njit(cache=True, nogil=True)
def drop_silent(tables: Tables, before: int, out: Int32) -> int:
    """Forget flows whose last packet came earlier than `before`; writes their numbers to `out` and gives how many.

    Nothing finds them any more, but their numbers are not free before `free_flows`.
    """
    count = 0
    hold(tables.counts)
    for number in range(len(tables.flows)):
        flow = tables.flows[number]
        if flow[STATE] != 0 and flow[LAST_SEEN] < before:
            out[count] = number
            count += 1
            flow[STATE] = 0
    if count:
        mask = len(tables.slots) - 1
        tables.slots[:] = -1
        for number in range(len(tables.flows)):
            if tables.flows[number, STATE] != 0:
                slot = _slot(tables, tables.flows[number])
                while tables.slots[slot] >= 0:
                    slot = (slot + 1) & mask
                tables.slots[slot] = number
    let_go(tables.counts)
    return count


@njit(cache=True, nogil=True)
def free_flows(tables: Tables, numbers: Int32) -> None:
    """Let numbers of flows be given to others."""
    hold(tables.counts)
    for number in numbers:
        tables.free[0] += 1
        tables.free[tables.free[0]] = number
    let_go(tables.counts)
