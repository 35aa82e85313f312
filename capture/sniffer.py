"""The source for systems without AF_PACKET: frames that scapy sniffs, one by one.

In: names of interfaces. Out: `PacketBatch`es as the ring source gives them, for little traffic: each frame goes through
Python and is copied. Times have microseconds, and nobody counts what is dropped. Kernel filters are those of
`packet_filter`, where libpcap is there.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from capture.batch import PacketBatch
from capture.interface import LINK_ETHERNET, LINK_RAW, LINK_SLL2
from capture.libpcap import library
from capture.live import LiveCaptureError, SourceCounters
from capture.packet_filter import default_expression, protect

MOST = 4096
"""Frames of a batch."""
_AGAIN = 1.0
"""Seconds between two attempts to open an interface that went away."""
_LINK_TYPES = {
    "Ether": LINK_ETHERNET,
    "CookedLinux": 113,
    "CookedLinuxV2": LINK_SLL2,
    "Loopback": 0,
    "LoopbackOpenBSD": 108,
    "IP": LINK_RAW,
    "IPv6": LINK_RAW,
    "IPv46": LINK_RAW,
    "PPP": 9,
}
"""What scapy takes an interface's frames for -> LINKTYPE_ value."""


class SnifferSource:
    """A `LiveSource` over scapy's sockets."""

    stamped_here = True
    ended = False

    def __init__(
        self,
        interfaces: Sequence[str],
        *,
        capture: int = 0,
        expression: str | None = None,
        promiscuous: bool = False,
    ) -> None:
        """Open the interfaces. `expression` as in `RingOptions`. Raises `LiveCaptureError`."""
        if not interfaces:
            raise LiveCaptureError("Name an interface to capture on.")
        self.name = ",".join(interfaces)
        self._capture = capture
        self._expression = default_expression() if expression is None and library() is not None else expression or ""
        self._promiscuous = promiscuous
        self._packets = self._octets = 0
        self._next_attempt = 0.0
        self._sockets: dict[str, Any] = dict.fromkeys(interfaces)
        """None for an interface that went away."""
        self._link_types: dict[str, int] = {}
        try:
            for name in interfaces:
                self._open(name)
        except BaseException:
            self.close()
            raise

    def poll(self, timeout: float) -> PacketBatch | None:
        """See `LiveSource`."""
        frames: list[tuple[int, bytes, int]] = []
        deadline = time.monotonic() + timeout
        while len(frames) < MOST:
            left = 0.0 if frames else max(deadline - time.monotonic(), 0.0)
            ready = self._ready(left)
            for name in ready:
                self._take(name, frames)
            if not ready and (frames or left <= 0):
                break
        self._reopen()
        return self._batch(sorted(frames, key=lambda frame: frame[0])) if frames else None

    def counters(self) -> SourceCounters:
        """See `LiveSource`."""
        gone = [name for name, each in self._sockets.items() if each is None]
        note = "Captured with scapy: slow, and what is dropped is not counted."
        if gone:
            note += f" Down or gone: {', '.join(gone)}."
        return SourceCounters(self._packets, self._octets, dropped=0, frozen=0, up=not gone, note=note)

    def close(self) -> None:
        """See `LiveSource`."""
        for name, each in self._sockets.items():
            if each is not None:
                each.close()
                self._sockets[name] = None
        self._next_attempt = float("inf")

    def _open(self, name: str) -> None:
        """Open an interface, and once its link type is known, with a filter."""
        found = self._listen(name, "")
        kind = found.LL.__name__
        if kind not in _LINK_TYPES:
            found.close()
            raise LiveCaptureError(f"{name}: scapy takes its frames for {kind}, which cannot be recorded.")
        self._link_types[name] = _LINK_TYPES[kind]
        if self._expression.strip() and self._link_types[name] in (LINK_ETHERNET, LINK_RAW, LINK_SLL2):
            found.close()
            found = self._listen(name, protect(self._expression, self._link_types[name]))
        self._sockets[name] = found

    def _listen(self, name: str, expression: str) -> Any:
        import scapy.layers.inet6  # scapy knows link types once their layers are loaded
        import scapy.layers.l2
        import scapy.layers.ppp  # noqa: F401
        from scapy.config import conf
        from scapy.error import Scapy_Exception

        try:
            return conf.L2listen(iface=name, promisc=self._promiscuous, filter=expression or None)
        except PermissionError as error:
            raise LiveCaptureError(f"{name}: capturing is not permitted to this user. Run as administrator.") from error
        except (OSError, ValueError, ImportError, Scapy_Exception) as error:
            raise LiveCaptureError(f"{name}: scapy cannot capture on it ({error}).") from error

    def _ready(self, seconds: float) -> list[str]:
        """Interfaces with a frame to take, waiting for the first. Frames may wait inside scapy's sockets too."""
        here = {id(each): name for name, each in self._sockets.items() if each is not None}
        if not here:
            time.sleep(min(seconds, 0.1))
            return []
        opened = [each for each in self._sockets.values() if each is not None]
        try:
            found = opened[0].select(opened, min(seconds, 0.1))
        except OSError:
            found = opened
        return [here[id(each)] for each in found]

    def _take(self, name: str, frames: list[tuple[int, bytes, int]]) -> None:
        """Take one frame as (time in ns, octets, link type)."""
        try:
            _, octets, when = self._sockets[name].recv_raw()
        except OSError:
            self._sockets[name].close()
            self._sockets[name] = None
            self._next_attempt = time.monotonic() + _AGAIN
            return
        if octets:
            now = time.time_ns() if when is None else round(float(when) * 1e6) * 1000
            frames.append((now, octets, self._link_types[name]))

    def _reopen(self) -> None:
        """Try interfaces again that went away."""
        now = time.monotonic()
        if now < self._next_attempt:
            return
        self._next_attempt = now + _AGAIN
        for name, each in self._sockets.items():
            if each is None:
                try:
                    self._open(name)
                except LiveCaptureError:
                    continue

    def _batch(self, frames: list[tuple[int, bytes, int]]) -> PacketBatch:
        """Frames as columns over one buffer of their octets."""
        count = len(frames)
        captured = np.array([len(octets) for _, octets, _ in frames], np.int32)
        number = np.arange(self._packets + 1, self._packets + count + 1, dtype=np.int64)
        self._packets += count
        self._octets += int(captured.sum(dtype=np.int64))
        return PacketBatch(
            buffer=np.frombuffer(b"".join(octets for _, octets, _ in frames), np.uint8),
            time=np.array([when for when, _, _ in frames], np.int64),
            offset=np.concatenate([np.zeros(1, np.int64), np.cumsum(captured[:-1], dtype=np.int64)]),
            captured=captured,
            wire=captured.copy(),
            link_type=np.array([link_type for _, _, link_type in frames], np.int32),
            number=number,
            capture=np.full(count, self._capture, np.int32),
        )
