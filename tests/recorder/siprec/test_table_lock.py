"""The lock between kernels and Python: neither sees the other in the middle of a change."""

import threading

import numpy as np
from numba import njit

from recorder.siprec._forward_columns import COUNTS, MUTEX, WANTED
from recorder.siprec._table_lock import TableLock, hold, let_go, new_mutex

TIMES = 200_000


@njit(nogil=True)
def count_up(counts, pair, times):
    """Add to both numbers, which are the same whenever nobody is at it."""
    uneven = 0
    for _ in range(times):
        hold(counts)
        uneven += pair[0] != pair[1]
        pair[0] += 1
        pair[1] += 1
        let_go(counts)
    return uneven


def test_changes_of_both_sides_are_whole():
    mutex = new_mutex()
    counts, pair = np.zeros(COUNTS, np.int64), np.zeros(2, np.int64)
    counts[MUTEX] = mutex.ctypes.data
    lock = TableLock(counts)
    count_up(counts, pair, 1)
    uneven = []
    thread = threading.Thread(target=lambda: uneven.append(count_up(counts, pair, TIMES)))
    thread.start()
    done = 0
    while thread.is_alive():
        with lock:
            assert pair[0] == pair[1]
            pair[0] += 1
            with lock:  # it is held already
                pair[1] += 1
        done += 1
    thread.join()
    assert uneven == [0]
    assert done > 0
    assert pair.tolist() == [TIMES + 1 + done] * 2
    assert counts[WANTED] == 0
