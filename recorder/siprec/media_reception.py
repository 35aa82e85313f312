"""What the recording server receives: media ports that are opened for sessions, watched, and answered with RTCP.

In: calls of sessions (`open`, `agree`, `state`, `release`), from any thread. Out: a `LiveSource` for the engine, with
the packets of each port's one sender; and to that sender receiver reports, from the thread that polls. Read
`capture.media_ports`, `port_monitor` and `receiver_reports` for what each does.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import replace

from capture.batch import PacketBatch
from capture.live import SourceCounters
from capture.media_ports import MediaPort, MediaPorts
from capture.realms import OWN_PORTS
from recorder.siprec.port_ledger import Left, PortLedger, name_of
from recorder.siprec.port_monitor import PortMonitor, PortState
from recorder.siprec.quiet_ports import QUIET, QuietPorts
from recorder.siprec.receiver_reports import INTERVAL, PortTerms, ReceiverReports

__all__ = ["MediaPort", "MediaReception", "PortState", "PortTerms"]

_TURN = 0.02
"""s between two looks at which reports are due."""


class MediaReception:
    """A `LiveSource` of the media of our recording sessions."""

    stamped_here = True
    realm = OWN_PORTS

    def __init__(
        self,
        ports: MediaPorts,
        *,
        announced: Mapping[str, str] | None = None,
        interval: float = INTERVAL,
        quiet: float = QUIET,
    ) -> None:
        """`announced` gives the address that stands in descriptions for one that ports are opened at (NAT). `quiet`: s
        without media after which released ports are closed."""
        self._leaving = QuietPorts(quiet)
        self._ledger: PortLedger | None = None
        self._before: dict[bytes, list[int]] = {}
        """Ports of an earlier run, by the name of the call that had them."""
        self.name = ports.name
        self._ports = ports
        self._announced = announced or {}
        self._lock = threading.Lock()
        """Of monitor and reports."""
        self._monitor = PortMonitor(ports.sockets // 2)
        self._reports = ReceiverReports(self._monitor, ports.send, interval=interval)
        self._next_turn = 0.0
        self._turned_away = 0

    @property
    def ended(self) -> bool:
        """Whether it was closed."""
        return self._ports.ended

    @property
    def reports_sent(self) -> int:
        """RTCP packets sent by all ports."""
        return self._reports.sent

    def open(self, host: str) -> MediaPort:
        """A pair of ports at an address of this machine: media that comes early is taken already.

        Raises:
            PortsExhausted: none is left.
            LiveCaptureError: the address is none of this machine's.
        """
        port = self._ports.open(host, self._announced.get(host))
        with self._lock:
            self._monitor.begin(port.place // 2)
        if self._ledger is not None:
            self._ledger.take(port.rtp.port)
        return port

    def remember(self, ledger: PortLedger) -> list[Left]:
        """Note from now on which ports are open, and leave alone those that an earlier run had noted; gives them."""
        found = ledger.open()
        for left in found:
            self._ports.avoid([left.port], left.seconds)
            if left.name:
                self._before.setdefault(left.name, []).append(left.port)
        self._ledger = ledger
        return found

    def note_call(self, port: MediaPort, session: str) -> None:
        """Which call's media come to a port, by its `session_id`: to be known after a kill. The ports that an earlier
        run had for that call rest from now on: its client has noticed."""
        if self._ledger is None:
            return
        self._ledger.name(port.rtp.port, session)
        before = self._before.pop(name_of(session), [])
        self._ports.relent(before)
        for left in before:
            self._ledger.relent(left)

    def agree(self, port: MediaPort, terms: PortTerms) -> None:
        """Descriptions were exchanged, for the first time or again: report to the sender from now on."""
        pair = port.place // 2
        with self._lock:
            self._monitor.expect(pair, clock_rate=terms.clock_rate, secure=bool(terms.decrypt), source=terms.source)
            self._reports.agree(pair, port.opening, terms, time.monotonic())

    def mute(self, port: MediaPort, *, muted: bool) -> None:
        """Hand on nothing of what comes to a port, or hand it on again: what is said meanwhile is for no record."""
        with self._lock:
            self._monitor.mute(port.place // 2, muted=muted)

    def state(self, port: MediaPort) -> PortState:
        """What came to a port, to tell dead media, strays and NAT."""
        with self._lock:
            return self._monitor.state(port.place // 2)

    def release(self, port: MediaPort) -> None:
        """Say BYE to the sender, and close the ports in a later `poll`, once nothing more is sent to them."""
        with self._lock:
            now = time.time_ns()
            self._reports.end(port.place // 2, port.opening, now)
            self._leaving.add(port, now)

    def _close_quiet(self) -> None:
        """Close what has fallen silent; the lock is held."""
        last, behind = (lambda port: self._monitor.last(port.place // 2)), self._ports.behind
        change = self._leaving.look(time.time_ns(), last, behind=behind)
        for port in change.mute:
            self._monitor.mute(port.place // 2, muted=True)
        for port in change.close:
            self._forget(port)
            self._ports.release(port)

    def _forget(self, port: MediaPort) -> None:
        if self._ledger is not None:
            self._ledger.release(port.rtp.port)

    def poll(self, timeout: float) -> PacketBatch | None:
        """See `LiveSource`."""
        batch = self._ports.poll(timeout)
        with self._lock:
            if batch is not None:
                before = len(batch)
                batch, secured = self._monitor.take(batch, self._ports.places)
                self._turned_away += before - len(batch)
                for pair, octets, when in secured:
                    self._reports.hear_encrypted(pair, octets, when)
            now = time.monotonic()
            if now >= self._next_turn:
                self._next_turn = now + _TURN
                self._reports.turn(now, time.time_ns())
                self._close_quiet()
        return batch if batch is not None and len(batch) else None

    def counters(self) -> SourceCounters:
        """Counts since the source was made; `packets` are those handed over."""
        found = self._ports.counters()
        turned_away = self._turned_away
        notes = [found.note] if found.note else []
        if turned_away:
            notes.append(f"datagrams turned away, of strays or no media: {turned_away}")
        return replace(found, packets=found.packets - turned_away, note="; ".join(notes) or None)

    def close(self) -> None:
        """Close all ports."""
        with self._lock:
            for port in self._leaving.left:
                self._forget(port)
        self._ports.close()
        if self._ledger is not None:
            self._ledger.close()
