"""The system clock is set while the live service records: neither audio nor times suffer."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from recorder.replay_types import Dissector
from tests.capture_builder import record
from tests.live import quiet_log, recordings, service
from tests.stamped_source import WALL, Clocks, StampedHere

CAPTURE = Path(__file__).parents[2] / "pcaps" / "pcmu.pcap"
HOUR = 3_600_000_000_000


@pytest.mark.parametrize(
    "steps",
    [{}, {1_500_000_000: HOUR}, {1_510_000_000: -HOUR}, {1_000_000_000: 2 * HOUR, 2_505_000_000: -26 * HOUR}],
    ids=["never", "ahead", "back", "ahead and back"],
)
def test_a_clock_that_is_set_in_a_call_changes_nothing_of_its_audio(tmp_path, steps):
    clocks = Clocks(steps)
    log, said = quiet_log()
    options = {"wall_clock": clocks.wall, "steady_clock": clocks.steady}
    service(tmp_path / "live", log=log, **options).run([StampedHere(CAPTURE, clocks)], lambda: None, lambda _: None)
    record([CAPTURE], tmp_path / "replay", dissector=Dissector.NATIVE)

    ((live, place),) = recordings(tmp_path / "live")
    ((again, other),) = recordings(tmp_path / "replay")
    assert (place / "audio.wav").read_bytes() == (other / "audio.wav").read_bytes()
    assert (live.state, live.duration_s, live.talk_s) == (again.state, again.duration_s, again.talk_s)
    assert [stream.lost for stream in live.streams] == [0, 0]
    at_the_end = WALL + sum(steps.values())
    assert abs(datetime.fromisoformat(live.started).timestamp() - at_the_end / 1e9) < 1, "by the clock at its end"
    assert ("clock-set" in [warning.code for warning in live.warnings]) is bool(steps)
    events = [json.loads(line) for line in said.getvalue().splitlines()]
    alarms = [event["text"] for event in events if event.get("code") == "clock-stepped" and event["event"] == "alarm"]
    assert bool(alarms) is bool(steps)
