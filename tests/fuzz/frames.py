"""Frames as fuzzing input: octets to frames with times and link types, and back.

In: any octets. Out: frames, however unsound the octets are; what is cut off at the end is the last frame. Each frame
stands behind a header: index of its link type, octets that a snap length cut off, its length, and the time since the
frame before it in ns, which may be negative.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from capture.batch import PacketBatch

LINK_TYPES = (1, 113, 276, 101, 12, 14, 228, 229, 0, 108, 9, 50, 51, 104, 105, 147)
START = 1_700_000_000_000_000_000
LAST = START + 86_400_000_000_000 * 400
MOST = 4096
"""Frames of one input."""
_HEADER = struct.Struct("<BBHq")


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame; `step` is the time since the frame before it, ns."""

    link_type: int
    cut: int
    step: int
    data: bytes


def pack(frames: Iterable[Frame]) -> bytes:
    """Octets that `unpack` reads again."""
    return b"".join(
        _HEADER.pack(LINK_TYPES.index(frame.link_type), frame.cut, len(frame.data) & 0xFFFF, frame.step)
        + frame.data[:0xFFFF]
        for frame in frames
    )


def unpack(data: bytes) -> list[Frame]:
    """Frames in these octets."""
    frames = []
    at = 0
    while at + _HEADER.size <= len(data) and len(frames) < MOST:
        link, cut, length, step = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        frames.append(Frame(LINK_TYPES[link % len(LINK_TYPES)], cut, step, data[at : at + length]))
        at += length
    return frames


def times_of(frames: Sequence[Frame]) -> list[int]:
    """Capture time of each frame, ns, within 400 days of START."""
    times, now = [], START
    for frame in frames:
        now = min(max(now + frame.step, 0), LAST)
        times.append(now)
    return times


def batch_of(frames: Sequence[Frame]) -> PacketBatch:
    """Frames in the columns that a source would fill."""
    sizes = np.array([len(frame.data) for frame in frames], np.int32)
    ends = np.cumsum(sizes, dtype=np.int64)
    return PacketBatch(
        buffer=np.frombuffer(b"".join(frame.data for frame in frames) or b"\0", np.uint8),
        time=np.array(times_of(frames), np.int64),
        offset=ends - sizes,
        captured=sizes,
        wire=sizes + np.array([frame.cut for frame in frames], np.int32),
        link_type=np.array([frame.link_type for frame in frames], np.int32),
        number=np.arange(1, len(frames) + 1, dtype=np.int64),
        capture=np.zeros(len(frames), np.int32),
    )


def write_pcap(frames: Sequence[Frame], path: Path, link_type: int = 1) -> None:
    """Write frames as a nanosecond pcap; all of them as of one link type."""
    with path.open("wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 0, link_type))
        for time, frame in zip(times_of(frames), frames, strict=True):
            seconds, rest = divmod(time, 10**9)
            wire = len(frame.data) + frame.cut
            out.write(struct.pack("<IIII", seconds & 0xFFFFFFFF, rest, len(frame.data), wire) + frame.data)
