"""Send many G.711 calls over an interface in real time: `python -m bench.wire tx0 --calls 2000 --seconds 120`.

In: numbers of calls. Out: frames on the wire, each within its slot of a millisecond or two: SIP from INVITE to BYE, and
RTP both ways, as `bench.generate.plan` and `expected_samples` tell for every call; all checksums are right. One line
of JSON says what was sent and how late, also where SIGTERM ends it early. A kernel writes the frames of a slot and one
call sends them (sendmmsg(2)), so that 200,000 packets a second take less than half a core, with what the receiver's
side of a veth pair costs the sender.
"""

import argparse
import ctypes
import errno
import json
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench._wire_kernels import FRAME, HEADERS, PACKET_NS, fill_slot
from bench.calls import plan
from bench.generate import Streams, streams
from bench.signalling import MEDIA_NS, Int64, Signalling, call_starts, signalling

SOL_PACKET = 263
PACKET_QDISC_BYPASS = 20
MS = 1_000_000
MOST_AT_ONCE = 1024
"""Frames that sendmmsg takes (UIO_MAXIOV)."""
REFUSALS = {errno.ENOBUFS, errno.ENETDOWN, errno.EAGAIN}


@dataclass(frozen=True, slots=True)
class Sent:
    """What went out, and when."""

    calls: int
    packets: int
    rtp: int
    seconds: float
    cpu: float
    """User and system seconds, the receiving side of a veth pair included."""
    unsent: int
    """Frames that the interface refused."""
    late_ms: float
    """99 % of the slots began no later than this after their time."""
    latest_ms: float


class Transmitter:
    """A packet socket on an interface, and room for the frames of a slot."""

    def __init__(self, interface: str, frames: int, octets: int) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
        self._socket.bind((interface, 0))
        self._send = ctypes.CDLL(None, use_errno=True).sendmmsg
        self.frames = np.zeros(octets, np.uint8)
        self.vectors = np.zeros((frames, 2), np.int64)
        """As `struct iovec`: (address, length) of each frame."""
        self._headers = np.zeros((frames, 8), np.int64)
        """As `struct mmsghdr`: name, its length, vectors, their count, control, its length, flags, sent."""
        self._headers[:, 2] = self.vectors.ctypes.data + np.arange(frames) * 16
        self._headers[:, 3] = 1

    def flush(self, count: int) -> int:
        """Send the first `count` frames; how many the interface refused."""
        at = refused = 0
        while at < count:
            first = ctypes.c_void_p(self._headers.ctypes.data + at * 64)
            sent = self._send(self._socket.fileno(), first, min(count - at, MOST_AT_ONCE), 0)
            if sent < 0:
                code = ctypes.get_errno()
                if code not in REFUSALS:
                    raise OSError(code, os.strerror(code))
                refused += 1
                sent = 1
            at += sent
        return refused


class Score:
    """What is sent when: streams by the millisecond of their packets' phase, and messages in order."""

    def __init__(self, starts: Int64, seconds: float, codec: str, talk: float | None = None) -> None:
        """`talk`: media end after so many seconds of each call, which itself takes `seconds`."""
        whole = round(seconds * 50)
        self.per_stream = whole if talk is None else min(round(talk * 50), whole)
        self.media: Streams = streams(starts, self.per_stream, codec)
        template = self.media.template[:, 16:]
        self.headers = np.ascontiguousarray(template)
        ip = template[:, 14:34].copy().view(">u2").astype(np.int64).sum(axis=1)
        rtp = template[:, 42:54].copy().view(">u2").astype(np.int64).sum(axis=1)
        carried = self.media.sums % 0xFFFF
        self.sums = np.stack([ip, rtp + ((carried & 0xFF) << 8 | carried >> 8)])
        phase = self.media.start % PACKET_NS
        order = np.argsort(phase, kind="stable")
        self.order = order.astype(np.int64)
        self.first = np.searchsorted(phase[order], np.arange(0, PACKET_NS + 1, MS))
        sip = signalling(starts, whole * PACKET_NS, whole, codec)
        self.end_ns = int(sip.time[-1]) + 50 * MS
        self.messages, self.message_at, self.message_time = packed(sip)
        octets = self.media.octets.astype(np.int32)
        even = np.where(np.arange(len(octets)) % 2 == 0, octets, 0)
        self.even = np.concatenate([[0], np.cumsum(even)]).astype(np.int32)
        self.odd = np.concatenate([[0], np.cumsum(octets - even)]).astype(np.int32)

    def due(self, begin: int, end: int) -> Int64:
        """Streams that may have a packet in [begin, end), whole milliseconds within one packet's time."""
        first, last = begin % PACKET_NS // MS, (end - 1) % PACKET_NS // MS + 1
        if first < last:
            return self.order[self.first[first] : self.first[last]]
        return np.concatenate([self.order[self.first[first] :], self.order[: self.first[last]]])

    def transmitter(self, interface: str, slot_ns: int) -> Transmitter:
        """One with room for the largest slot."""
        begins = np.arange(0, self.end_ns + slot_ns, slot_ns)
        messages = np.searchsorted(self.message_time, begins)
        most = max(len(self.due(begin, begin + slot_ns)) for begin in range(0, PACKET_NS, slot_ns))
        octets = int(np.diff(self.message_at[messages]).max()) + most * (HEADERS + FRAME)
        return Transmitter(interface, most + int(np.diff(messages).max()), octets)

    def write(self, to: Transmitter, begin: int, end: int) -> tuple[int, int]:
        """Write a slot; (frames, of them messages)."""
        first, last = np.searchsorted(self.message_time, [begin, end])
        written = fill_slot(
            to.frames, to.vectors, to.frames.ctypes.data, begin, end, self.due(begin, end),
            self.media.start, self.per_stream, self.headers, self.sums, self.media.sequence, self.media.timestamp,
            self.media.offset, self.media.octets, self.even, self.odd,
            self.messages, self.message_at[first : last + 1],
        )  # fmt: skip
        return written, int(last - first)


def packed(sip: Signalling) -> tuple[NDArray[np.uint8], Int64, Int64]:
    """All messages as frames, one after the other: (octets, where each begins and the last ends, times)."""
    found = [(when, octets[16:]) for when, octets in sip.between(0, int(sip.time[-1]) + 1)]
    lengths = np.array([len(octets) for _, octets in found], np.int64)
    at = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return np.frombuffer(b"".join(octets for _, octets in found), np.uint8), at, np.array([when for when, _ in found])


def slots(
    score: Score, slot_ns: int, begin: float, stopped: Callable[[], bool] = lambda: False
) -> Iterator[tuple[int, int, float]]:
    """(begin, end, seconds late) of each slot, as soon as it has begun, until all is sent or it is `stopped`."""
    for start in range(0, score.end_ns, slot_ns):
        if stopped():
            return
        rest = begin + start / 1e9 - time.monotonic()
        if rest > 0:
            time.sleep(rest)
        yield start, start + slot_ns, max(-rest, time.monotonic() - begin - start / 1e9)


def send(
    score: Score, to: Transmitter, calls: int, slot_ns: int, stopped: Callable[[], bool]
) -> tuple[Sent, NDArray[np.float32]]:
    """Send everything until it is `stopped`, each slot on its time; also how late each was, s."""
    score.write(to, -2 * PACKET_NS, -PACKET_NS)  # compiles the kernel; no frame is due then
    packets = messages = unsent = 0
    late = []
    used = resource.getrusage(resource.RUSAGE_SELF)
    begin = time.monotonic() + 0.05
    for start, end, behind in slots(score, slot_ns, begin, stopped):
        written, signals = score.write(to, start, end)
        unsent += to.flush(written)
        packets += written
        messages += signals
        late.append(behind)
    now = resource.getrusage(resource.RUSAGE_SELF)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    behind_ms = np.array(late or [0.0]) * 1000
    sent = Sent(
        calls, packets, packets - messages, round(time.monotonic() - begin, 3), round(cpu, 3), unsent,
        round(float(np.percentile(behind_ms, 99)), 3), round(float(behind_ms.max()), 3),
    )  # fmt: skip
    return sent, np.array(late, np.float32)


def starts_of(calls: int, seconds: float, hold: float | None, ramp: float) -> tuple[Int64, float]:
    """(when each call begins, seconds of its media).

    Without `hold` all begin within `ramp` seconds and last. With it, calls of `hold` seconds follow one another, so
    that after the first `hold` seconds `calls` are in progress at any time.
    """
    if hold is None:
        return call_starts(calls, round(ramp * 1e9 / calls)), seconds
    gap = (hold * 1e9 + MEDIA_NS) / calls
    return call_starts(max(round(seconds * 1e9 / gap), 1), round(gap)), hold


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Send many G.711 calls over an interface in real time.")
    parser.add_argument("interface")
    parser.add_argument("--calls", type=int, default=2000, help="at once: 100 packets a second each (2000)")
    parser.add_argument("--seconds", type=float, default=120.0, help="of media of each call; with --hold, of all (120)")
    parser.add_argument("--hold", type=float, help="calls end after so many seconds of media, and others begin")
    parser.add_argument("--talk", type=float, help="seconds of media of each call, which goes on without (all)")
    parser.add_argument("--ramp", type=float, default=3.0, help="seconds in which all calls begin, without --hold (3)")
    parser.add_argument("--codec", choices=["pcmu", "pcma"], default="pcmu")
    parser.add_argument("--slot", type=int, choices=[1, 2, 4, 5, 10], default=2, help="ms that are sent at a time (2)")
    parser.add_argument("--cpu", type=int, help="processor to stay on")
    parser.add_argument("--realtime", action="store_true", help="go before all other programs, as a real wire does")
    parser.add_argument("--known", type=Path, metavar="JSON", help="also write what each call holds")
    parser.add_argument("--lateness", type=Path, metavar="NPY", help="also write how late each slot was, s")
    parser.add_argument("--wait", action="store_true", help="say 'ready' and begin when a line comes in")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    starts, seconds = starts_of(options.calls, options.seconds, options.hold, options.ramp)
    codec = options.codec.upper()
    score = Score(starts, seconds, codec, options.talk)
    if options.known:
        plans = [asdict(plan(number, score.per_stream, codec)) for number in range(len(starts))]
        options.known.write_text(json.dumps(plans, indent=1) + "\n")
    if options.realtime:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    to = score.transmitter(options.interface, options.slot * MS)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    if options.wait:
        print("ready", flush=True)
        sys.stdin.readline()
    sent, late = send(score, to, len(starts), options.slot * MS, stopped.is_set)
    if options.lateness:
        np.save(options.lateness, late)
    print(json.dumps(asdict(sent)), flush=True)


if __name__ == "__main__":
    main()
