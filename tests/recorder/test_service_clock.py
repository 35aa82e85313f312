"""The system clock is set while the live service records: neither audio nor times suffer."""

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from capture.batch import PacketBatch
from capture.live import SourceCounters
from capture.source import CaptureSource
from recorder.replay_types import Dissector
from tests.capture_builder import record
from tests.live import quiet_log, recordings, service

CAPTURE = Path(__file__).parents[2] / "pcaps" / "pcmu.pcap"
BOOT = 5_000_000_000
WALL = 1_800_000_000_000_000_000
"""What the two clocks show first, ns."""
HOUR = 3_600_000_000_000
AFTERWARDS = 12_000_000_000
"""ns for which the wire is silent when all has been sent: calls are over by then."""


class Clocks:
    """A clock that nobody sets, and a wall clock that is set while packets come."""

    def __init__(self, steps: dict[int, int]) -> None:
        """`steps`: ns after the start -> by how much the clock is set then."""
        self.elapsed = 0
        self._steps = steps

    def steady(self) -> int:
        return BOOT + self.elapsed

    def wall_at(self, elapsed: int) -> int:
        return WALL + elapsed + sum(step for at, step in self._steps.items() if at <= elapsed)

    def wall(self) -> int:
        return self.wall_at(self.elapsed)


class StampedHere:
    """A source that gives a capture's packets as time passes, stamped by the wall clock as the kernel does."""

    stamped_here = True
    name = "rx0"

    def __init__(self, path: Path, clocks: Clocks) -> None:
        (self._batch,) = CaptureSource([path], batch_size=1 << 16, hash_files=False)
        self._clocks = clocks
        self._come = self._batch.time - self._batch.time[0]
        self._given = 0
        self.ended = False

    def poll(self, timeout: float) -> PacketBatch | None:
        clocks, begin = self._clocks, self._given
        clocks.elapsed += round(timeout * 1e9)
        self._given = int((self._come <= clocks.elapsed).sum())
        self.ended = clocks.elapsed > int(self._come[-1]) + AFTERWARDS
        if self._given == begin:
            return None
        rows = slice(begin, self._given)
        columns = {
            name: getattr(self._batch, name)[rows]
            for name in ("offset", "captured", "wire", "link_type", "number", "capture")
        }
        columns["time"] = np.array([clocks.wall_at(come) for come in self._come[rows].tolist()], np.int64)
        return replace(self._batch, **columns)

    def counters(self) -> SourceCounters:
        return SourceCounters(self._given, 0, 0, 0, not self.ended, None)

    def close(self) -> None:
        self.ended = True


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
