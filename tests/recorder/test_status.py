"""Values of the live service's state."""

from dataclasses import replace

import pytest

from recorder.model import Hold, Side
from recorder.status import MOS_BOUNDS, AlarmCode, LiveState, MosHistogram, Severity, live_state
from tests.calls import answered_call
from tests.live_status import snapshot


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"ringing": None, "answered": None, "ended": None, "holds": []}, LiveState.CALLING),
        ({"answered": None, "ended": None, "holds": []}, LiveState.RINGING),
        ({"ended": None}, LiveState.ACTIVE),
        ({"ended": None, "holds": [Hold(1, 2, Side.CALLER), Hold(3, None, Side.CALLEE)]}, LiveState.HELD),
        ({}, LiveState.ENDING),
        ({"call_id": None, "ended": None}, LiveState.MEDIA_ONLY),
    ],
)
def test_the_state_of_a_call_follows_from_what_was_seen(changes, state):
    assert live_state(replace(answered_call(), **changes)) is state


def test_a_histogram_counts_each_value_in_the_first_class_that_holds_it():
    histogram = MosHistogram()
    for mos in (1.0, 2.58, 2.59, 4.34, 4.5):
        histogram = histogram.with_value(mos)
    assert histogram.counts == (2, 1, 0, 0, 1, 1)
    assert len(histogram.counts) == len(MOS_BOUNDS) + 1
    assert histogram.total == pytest.approx(15.01)


def test_only_alarms_of_the_disk_stop_recording_and_those_are_critical():
    stopping = {code for code in AlarmCode if code.stops_recording}
    assert stopping == {AlarmCode.DISK_FULL, AlarmCode.DISK_FAILING}
    assert all(code.severity is Severity.CRITICAL for code in stopping)
    assert AlarmCode.SETTINGS_REFUSED.severity is Severity.WARNING


def test_sums_are_over_all_states_and_sources():
    whole = snapshot(50)
    two = replace(whole, sources=whole.sources * 2)
    assert whole.in_progress == 50
    assert two.packets_per_second == 2 * whole.packets_per_second
