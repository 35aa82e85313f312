"""A rehearsal before the live service looks at its first packet: two made-up calls, recorded and thrown away.

In: nothing. Out: every kernel of the packet path compiled, or loaded, and the libraries of audio and metadata imported.
Without it, the first call of the day would wait for the compiler, a minute of it after an upgrade, while its packets
and the watchdog do not wait. Uses a directory of its own, which is deleted; no clock, no network.
"""

import io
import os
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from capture.batch import PacketBatch
from capture.interface import LINK_ETHERNET
from capture.live import SourceCounters

_BEGIN = 1_000_000_000_000_000_000
_STEP = 10_000_000
"""Time of the first frame and between two, ns."""
_BATCH = 100
_CALLER, _CALLEE = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))
_SIP = 5060
_PACKETS = 200
"""Of each direction; more than the window holds, so that audio is written meanwhile too."""
_UDP, _TCP = 17, 6
_KERNEL_CACHE = "NUMBA_CACHE_DIR"


def rehearse() -> float:
    """Record the made-up calls and forget them. How long it took, s."""
    begun = time.monotonic()
    with TemporaryDirectory(prefix="spanrec-rehearsal-") as place:
        record_rehearsal(Path(place))
    return time.monotonic() - begun


def record_rehearsal(out: Path) -> None:
    """Record the made-up calls in `out`, as the service would."""
    from capture.source import CaptureSource
    from recorder.log import open_log
    from recorder.policy import Decision, Policy, PolicyHolder
    from recorder.service import CaptureService
    from recorder.service_types import ServiceOptions

    policy = PolicyHolder(Policy(otherwise=Decision(keep_packets=True)), lambda _: None)
    service = CaptureService(ServiceOptions(out=out), policy, open_log(io.StringIO()))
    service.run([script()], lambda: None, lambda _: None)
    for packets in out.rglob("packets.pcapng"):
        for _ in CaptureSource([packets], hash_files=False):
            pass  # what was kept is read again, by whoever delivers it late


def script() -> "Script":
    """A source that gives the made-up calls."""
    return Script(list(_frames()))


def rehearse_once(kernels_are_own: bool) -> float:
    """Rehearse unless these very kernels have been rehearsed here. How long it took, s.

    `kernels_are_own`: the cache of kernels is one that changes with them, not one that the user has chosen.
    """
    cache = os.environ.get(_KERNEL_CACHE)
    mark = Path(cache) / "rehearsed" if cache and kernels_are_own else None
    if mark is not None and mark.exists():
        return 0.0
    seconds = rehearse()
    if mark is not None:
        mark.touch()
    return seconds


def main() -> None:
    """Have the kernels compiled before the service starts, unless they are: `python -m recorder.rehearsal`."""
    from recorder.warmup import choose_kernel_cache

    chosen_by_user = bool(os.environ.get(_KERNEL_CACHE))
    choose_kernel_cache()
    rehearse_once(not chosen_by_user)


@dataclass(slots=True)
class Script:
    """A live source that has it all from the beginning."""

    frames: list[bytes]
    name: str = "rehearsal"
    stamped_here: bool = False
    _given: int = field(default=0)

    @property
    def ended(self) -> bool:
        """Whether all has been given."""
        return self._given >= len(self.frames)

    def poll(self, timeout: float) -> PacketBatch | None:
        """The next frames, at once."""
        frames = self.frames[self._given : self._given + _BATCH]
        if not frames:
            return None
        first, n = self._given, len(frames)
        self._given += n
        length = np.array([len(frame) for frame in frames], np.int32)
        return PacketBatch(
            buffer=np.frombuffer(b"".join(frames), np.uint8),  # read-only, as a ring is: else kernels are others
            time=_BEGIN + _STEP * np.arange(first, first + n, dtype=np.int64),
            offset=np.cumsum(length, dtype=np.int64) - length,
            captured=length,
            wire=length.copy(),
            link_type=np.full(n, LINK_ETHERNET, np.int32),
            number=np.arange(first + 1, first + n + 1, dtype=np.int64),
            capture=np.zeros(n, np.int32),
        )

    def counters(self) -> SourceCounters:
        """Nothing is ever lost."""
        return SourceCounters(self._given, 0, 0, 0, True, None)

    def close(self) -> None:
        """There is nothing to let go of."""


def _frames() -> Iterator[bytes]:
    """Two calls, one after the other: G.711 with comfort noise and digits over UDP, G.722 with SIP over TCP."""
    yield from _call("one", "0 8 13 101", 4000, _sip_over_udp)
    yield from _call("two", "9", 4100, _SipOverTcp())


def _call(name: str, formats: str, port: int, sip: Callable[[bool, bytes], bytes]) -> Iterator[bytes]:
    offer, answer = _sdp(_CALLER, port, formats), _sdp(_CALLEE, port, formats)
    yield sip(False, _message("INVITE sip:b@192.0.2.2 SIP/2.0", name, "1 INVITE", offer))
    yield sip(True, _message("SIP/2.0 180 Ringing", name, "1 INVITE"))
    yield sip(True, _message("SIP/2.0 200 OK", name, "1 INVITE", answer))
    yield sip(False, _message("ACK sip:b@192.0.2.2 SIP/2.0", name, "1 ACK"))
    for number in range(_PACKETS):
        for back in (False, True):
            yield _udp(back, port, _rtp(int(formats.split()[0]), number, back))
        if "101" in formats and number in (50, 51):
            yield _udp(False, port, _rtp(101, 1000 + number, False, bytes((5, 128 * (number - 50), 1, 64))))
            yield _udp(False, port, _rtp(13, 1010 + number, False, b"\x40"))
    yield sip(False, _message("BYE sip:b@192.0.2.2 SIP/2.0", name, "2 BYE"))
    yield sip(True, _message("SIP/2.0 200 OK", name, "2 BYE"))


def _message(start: str, name: str, sequence: str, body: bytes = b"") -> bytes:
    kind = "Content-Type: application/sdp\r\n" if body else ""
    head = (
        f"{start}\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK{sequence[0]}{name}\r\nFrom: <sip:a@192.0.2.1>;tag=a\r\n"
        f"To: <sip:b@192.0.2.2>;tag=b\r\nCall-ID: {name}@rehearsal.invalid\r\nCSeq: {sequence}\r\n{kind}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _sdp(host: bytes, port: int, formats: str) -> bytes:
    address = ".".join(map(str, host))
    return (
        f"v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\nm=audio {port} RTP/AVP {formats}\r\n"
        "a=rtpmap:101 telephone-event/8000\r\n"
    ).encode()


def _rtp(payload_type: int, number: int, back: bool, payload: bytes = bytes(range(160))) -> bytes:
    return struct.pack("!BBHII", 0x80, payload_type, number, 160 * number, 7 + back) + payload


def _sip_over_udp(back: bool, message: bytes) -> bytes:
    return _udp(back, _SIP, message)


def _udp(back: bool, port: int, payload: bytes) -> bytes:
    return _ip(back, _UDP, struct.pack("!HHHH", port, port, 8 + len(payload), 0) + payload)


class _SipOverTcp:
    """One TCP connection."""

    def __init__(self) -> None:
        self._sent = [1, 1]

    def __call__(self, back: bool, message: bytes) -> bytes:
        """The segment that carries a message."""
        sequence, acknowledged = self._sent[back], self._sent[not back]
        self._sent[back] += len(message)
        ports = (_SIP, 5070) if back else (5070, _SIP)
        head = struct.pack("!HHIIHHHH", *ports, sequence, acknowledged, 0x5018, 65535, 0, 0)
        return _ip(back, _TCP, head + message)


def _ip(back: bool, protocol: int, payload: bytes) -> bytes:
    source, destination = (_CALLEE, _CALLER) if back else (_CALLER, _CALLEE)
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0, source, destination)
    return bytes(12) + b"\x08\x00" + head + payload


if __name__ == "__main__":
    main()
