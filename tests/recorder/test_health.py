"""Verdicts on the service."""

from dataclasses import replace

import pytest

from recorder.health import STALE, examine
from recorder.status import Alarm, AlarmCode
from tests.live_status import NOW, snapshot


def verdict(age: float = 0.5, up: tuple[bool, ...] = (True,), alarms: tuple[AlarmCode, ...] = ()):
    whole = snapshot(3)
    health = examine(
        replace(
            whole,
            sources=tuple(replace(whole.sources[0], up=value) for value in up),
            alarms=tuple(Alarm(code, NOW, "") for code in alarms),
        ),
        age,
    )
    return (health.ok, health.live, health.ready)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({}, (True, True, True)),
        ({"age": STALE}, (False, False, False)),
        ({"alarms": (AlarmCode.SETTINGS_REFUSED, AlarmCode.DISK_LOW)}, (True, True, True)),
        ({"alarms": (AlarmCode.KERNEL_DROPS,)}, (False, True, True)),
        ({"alarms": (AlarmCode.DISK_FULL,)}, (False, True, False)),
        ({"up": (True, False), "alarms": (AlarmCode.SOURCE_DOWN,)}, (False, True, True)),
        ({"up": (False, False)}, (False, True, False)),
        ({"up": ()}, (False, True, False)),
    ],
)
def test_live_ready_and_ok_are_three_things(state, told):
    assert verdict(**state) == told


def test_ages_go_on_while_the_state_stays_the_same():
    health = examine(snapshot(1), 7.0)
    assert health.last_packet_age == pytest.approx(7.011)
    assert health.uptime == pytest.approx(11_531.0)
    assert examine(replace(snapshot(1), last_packet_age=None), 7.0).last_packet_age is None
