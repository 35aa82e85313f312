"""Captures played at their own pace."""

import time
from pathlib import Path

import numpy as np
import pytest

from capture.paced_source import Pace, PacedSource
from capture.source import CaptureSource

CALL = Path("pcaps/pcmu.pcap")


def everything(source: PacedSource, limit: float = 20.0) -> tuple[np.ndarray, list[float]]:
    """Capture times given, and by how much each batch's last packet was given after it was due, s."""
    times, late = [], []
    until = time.monotonic() + limit
    while not source.ended and time.monotonic() < until:
        batch = source.poll(0.05)
        if batch is not None:
            times.append(batch.time.copy())
            now = source._pace.now()
            assert now is not None
            late.append((now - int(batch.time[-1])) / 1e9)
    return np.concatenate(times), late


def capture_times(path: Path) -> np.ndarray:
    return np.concatenate([batch.time.copy() for batch in CaptureSource([path], hash_files=False)])


def test_every_packet_comes_and_none_before_its_time():
    pace = Pace(speed=20.0)
    times, late = everything(PacedSource([CALL], pace))
    assert (times == np.maximum.accumulate(capture_times(CALL))).all()
    assert min(late) >= 0


def test_at_its_own_pace_a_capture_takes_as_long_as_it_did(tmp_path):
    wanted = capture_times(CALL)
    speed = 8.0
    began = time.monotonic()
    everything(PacedSource([CALL], Pace(speed)))
    took = time.monotonic() - began
    lasted = float(wanted.max() - wanted[0]) / 1e9 / speed
    assert lasted <= took < lasted + 1.0


def test_two_sources_of_one_run_keep_step():
    pace = Pace(speed=20.0)
    one, other = PacedSource([CALL], pace), PacedSource([CALL], pace)
    seen = [0, 0]
    while not (one.ended and other.ended):
        for place, source in enumerate((one, other)):
            batch = source.poll(0.0)
            if batch is not None:
                seen[place] = int(batch.time[-1])
    assert seen[0] == seen[1]


def test_what_is_no_capture_ends_at_once_and_says_so(tmp_path):
    path = tmp_path / "none.pcap"
    path.write_text("no capture")
    source = PacedSource([path], Pace())
    assert source.poll(0.0) is None
    assert source.ended
    assert "no capture" in (source.counters().note or "") or "neither" in (source.counters().note or "")


@pytest.mark.parametrize("speed", [0.0, -1.0])
def test_a_speed_that_is_none_is_refused(speed):
    with pytest.raises(ValueError, match="speed"):
        Pace(speed)
