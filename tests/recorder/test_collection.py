"""Collections are rare inside, and as before outside, whatever ends the work."""

import gc

import pytest

from recorder.collection import NEW_VALUES, rare_collections


def test_thresholds_come_back_also_after_an_error():
    before = gc.get_threshold()
    with pytest.raises(ZeroDivisionError), rare_collections():
        NEW_VALUES / (gc.get_threshold()[0] - NEW_VALUES)
    assert gc.get_threshold() == before


def test_cycles_are_still_found():
    found = []
    gc.callbacks.append(lambda phase, info: found.append(info["collected"]) if phase == "stop" else None)
    try:
        with rare_collections():
            for _ in range(2 * NEW_VALUES):
                cycle = []
                cycle.append(cycle)
    finally:
        gc.callbacks.pop()
    assert sum(found) > NEW_VALUES // 2
