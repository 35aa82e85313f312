"""The legs of the forwarder, as its thread knows them: what they send now, what waits for them, and their RTCP.

In: what sessions ask for, in the order in which they asked, and times. Out: rows of the tables that say what a leg
sends; RTCP sent when it is due and heard when it comes. Used by the forwarder's thread alone, `report_of` by any.
"""

import select
import socket
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import numpy as np

from capture.address import parse_endpoint
from decoders.srtp_protect import SrtpSender
from recorder.siprec import _forward_columns as columns
from recorder.siprec._forward_columns import Tables
from recorder.siprec._leg_kernels import drain, seek
from recorder.siprec._table_lock import TableLock
from recorder.siprec.forward_ports import MOST_DATAGRAM, PortPair
from recorder.siprec.forward_rtcp import RtcpState, Sent
from recorder.siprec.forward_sources import Rows
from recorder.siprec.legs import LegId, LegReport, LocalMedia, RemoteMedia

PER_SECOND = 800.0
"""Packets of what has waited that a leg sends in a second: sixteen times as fast as speech is spoken."""
MOST_AT_ONCE = 16
MOST_HELD = 4_000_000_000
"""ns for which a leg waits for the answer about a format that is new, and with it all that comes after."""
SHOWN_UNREACHABLE = 10_000_000_000
"""ns for which a refusal counts."""
_MOST_HEARD = 64
"""Datagrams of RTCP taken from one socket at a time."""


@dataclass(slots=True, eq=False)
class OpenLeg:
    """One leg; `row` is -1 as long as the thread has not taken it up, and again when it is closed."""

    id: LegId
    ports: PortPair
    local: LocalMedia
    rtcp: RtcpState
    row: int = -1
    remote: RemoteMedia | None = None
    paused: bool = False
    heard: socket.socket | None = None
    """Where its RTCP is heard."""
    due: float = 0.0
    """When its next RTCP is sent, by the monotonic clock; 0 where none is to be."""


class LegBook:
    """All legs."""

    def __init__(self, tables: Tables, rows: Rows, clock: Callable[[], float]) -> None:
        self._tables = tables
        self._rows = rows
        self._clock = clock
        self._lock = TableLock(tables.counts)
        self.sealing: dict[int, tuple[socket.socket, SrtpSender]] = {}
        """Of legs that encrypt, by row."""
        self._by_row: dict[int, OpenLeg] = {}
        self._by_descriptor: dict[int, OpenLeg] = {}
        self._epoll = select.epoll()
        self._due: list[tuple[float, int, OpenLeg]] = []
        self._orders = 0
        self._draining = np.zeros(0, np.int64)
        self._drained = clock()
        self._tokens = 0.0
        self.past = [0, 0, 0]
        """Packets, octets and unsent packets of legs that are closed."""

    @property
    def draining(self) -> bool:
        """Whether any leg has something to catch up with."""
        return len(self._draining) > 0

    def open(self, leg: OpenLeg, since: int) -> None:
        """Let a leg's media wait from capture time `since` on."""
        row = self._rows.open_leg(leg.id, leg.local.ssrc, leg.ports.rtp_socket.fileno(), since)
        if row is not None:
            leg.row = row
            self._by_row[row] = leg

    def move(self, old: OpenLeg, new: OpenLeg, since: int) -> None:
        """Open a leg that begins with what another has not sent yet, or at `since`, whichever is earlier."""
        self.open(new, since)
        if old.row < 0 or new.row < 0:
            return
        before, after = self._tables.legs[old.row], self._tables.legs[new.row]
        if before[columns.MODE] in (columns.WAITING, columns.DRAINING):
            with self._lock:
                if before[columns.CURSOR_NUMBER] <= after[columns.CURSOR_NUMBER]:
                    after[columns.UNSENT] = 0  # what is gone is seen by the numbers
                after[columns.CURSOR] = -1
                for column in (columns.CURSOR_NUMBER, columns.SINCE):
                    after[column] = min(before[column], after[column])
                before[columns.MODE] = columns.SILENT
        if old.paused:
            self.pause(new)

    def connect(self, leg: OpenLeg, remote: RemoteMedia, now: int) -> None:
        """Send to a server: what waits, and then what comes."""
        if leg.row < 0:
            return
        before, leg.remote = leg.remote, remote
        if before is None or before.rtp != remote.rtp:
            reached = leg.ports.connect(remote.rtp)
            self._tables.legs[leg.row, columns.REFUSED] = 0 if reached else now
        self._rows.accept(leg.id, remote.payload_types, remote.offered)
        self._set_keys(leg, remote, before)
        self._hear_on(leg, leg.ports.rtp_socket if remote.rtcp == remote.rtp else leg.ports.rtcp_socket)
        self._set_mode(leg, now, first=before is None)
        if before is None:
            self._schedule(leg)

    def pause(self, leg: OpenLeg) -> None:
        """Send no media, and forget what waits."""
        leg.paused = True
        if leg.row >= 0:
            self._silence(leg)

    def resume(self, leg: OpenLeg, now: int) -> None:
        """Send again, from now on."""
        leg.paused = False
        if leg.row >= 0:
            self._set_mode(leg, now, first=False)

    def close(self, leg: OpenLeg, now: int) -> None:
        """Say BYE, give row and ports back."""
        if leg.remote is not None and leg.row >= 0:
            self._send_rtcp(leg, leg.rtcp.leave(self._sent(leg), now))
        self._hear_on(leg, None)
        leg.due = 0.0
        if leg.row >= 0:
            unsent = self._unsent(leg)
            row, leg.row = leg.row, -1
            self._tables.legs[row, columns.UNSENT] = unsent
            for place, column in enumerate((columns.PACKETS, columns.OCTETS, columns.UNSENT)):
                self.past[place] += int(self._tables.legs[row, column])
            self._by_row.pop(row, None)
            self.sealing.pop(row, None)
            self._rows.close_leg(leg.id)
        leg.ports.close()

    def turn(self, now: int) -> None:
        """Send what is due of what waits, and RTCP; hear RTCP."""
        clock = self._clock()
        self._drain(clock)
        while self._due and self._due[0][0] <= clock:
            when, _, leg = heappop(self._due)
            if leg.due == when and leg.row >= 0:
                self._send_rtcp(leg, leg.rtcp.report(self._sent(leg), now))
                self._schedule(leg)
        if len(self._due) > 64 + 4 * len(self._by_row):
            self._due = [each for each in self._due if each[2].due == each[0]]
            heapify(self._due)

    def hear(self, now: int) -> None:
        """Take in what servers have sent, and wait no longer for answers that do not come."""
        held = self._tables.legs[:, columns.HELD]
        for number in np.flatnonzero((held > 0) & (held < now - MOST_HELD)).tolist():
            leg = self._by_row.get(number)
            if leg is not None:
                self._rows.give_up_asking(leg.id)
                self._catch_up(leg, now)
        for descriptor, _ in self._epoll.poll(0.0):
            leg = self._by_descriptor.get(descriptor)
            if leg is not None and leg.heard is not None:
                self._hear_one(leg, leg.heard, now)

    def shut(self, now: int) -> None:
        """Close what is open."""
        for leg in list(self._by_row.values()):
            self.close(leg, now)
        self._epoll.close()

    def totals(self) -> list[int]:
        """Packets, octets and unsent packets of all legs."""
        rows = self._tables.legs[list(self._by_row)]
        return [
            past + int(rows[:, column].sum())
            for past, column in zip(self.past, (columns.PACKETS, columns.OCTETS, columns.UNSENT), strict=True)
        ]

    def report_of(self, leg: OpenLeg, now: int, *, closing: bool = False) -> LegReport:
        """What became of a leg so far; `closing`: what waits is not sent any more, see `_unsent`."""
        row = leg.row
        values = self._tables.legs[row].tolist() if row >= 0 else [0] * columns.LEG_COLUMNS
        packets, rate = values[columns.PACKETS], values[columns.LAST_RATE] or 8000
        refused, state = values[columns.REFUSED], leg.rtcp
        return LegReport(
            packets=packets,
            octets=values[columns.OCTETS],
            unsent=self._unsent(leg) if closing else values[columns.UNSENT],
            first=values[columns.FIRST] if packets else None,
            last=values[columns.LAST] if packets else None,
            heard_from=state.heard_from,
            fraction_lost=state.fraction_lost,
            cumulative_lost=state.cumulative_lost,
            jitter_ms=None if state.jitter is None else state.jitter * 1000 / rate,
            unreachable=refused > 0 and now - refused < SHOWN_UNREACHABLE and (state.heard_from or 0) < refused,
        )

    def _unsent(self, leg: OpenLeg) -> int:
        """Packets that a leg's server does not get when it is closed, those that wait too; none where it has no server:
        then somebody else gets them, or is told of it."""
        if leg.row < 0 or leg.remote is None:
            return 0
        row = self._tables.legs[leg.row]
        waiting = 0
        if row[columns.MODE] in (columns.WAITING, columns.DRAINING):
            waiting = int(self._tables.sources[row[columns.LEG_SOURCE], columns.NUMBER] - row[columns.CURSOR_NUMBER])
        return int(row[columns.UNSENT]) + max(waiting, 0)

    def _set_keys(self, leg: OpenLeg, remote: RemoteMedia, before: RemoteMedia | None) -> None:
        leg.rtcp.use_keys(remote.decrypt)
        if remote.encrypt is None:
            self.sealing.pop(leg.row, None)
            leg.rtcp.sender = None
        elif before is None or before.encrypt != remote.encrypt:
            leg.rtcp.sender = SrtpSender(remote.encrypt)
            self.sealing[leg.row] = (leg.ports.rtp_socket, leg.rtcp.sender)
        self._tables.legs[leg.row, columns.SEALING] = int(remote.encrypt is not None)

    def _set_mode(self, leg: OpenLeg, now: int, *, first: bool) -> None:
        """What a leg does by what was asked and answered; `first`: its answer has just come."""
        row = self._tables.legs[leg.row]
        if leg.paused or (leg.remote is not None and not leg.remote.sending):
            self._silence(leg)
        elif leg.remote is None:
            seek(self._tables, leg.row, now)
            row[columns.MODE] = columns.WAITING
        elif (first or row[columns.HELD]) and row[columns.MODE] == columns.WAITING:
            self._catch_up(leg, now)
        elif row[columns.MODE] in (columns.SILENT, columns.WAITING):
            with self._lock:
                if row[columns.PACKETS]:
                    row[columns.START] = (row[columns.LAST_SEQUENCE] + 1) & 0xFFFF
                row[columns.ANCHORED] = 0
                row[columns.MODE] = columns.LIVE

    def _silence(self, leg: OpenLeg) -> None:
        row = self._tables.legs[leg.row]
        with self._lock:
            row[columns.MODE], row[columns.HELD] = columns.SILENT, 0

    def _catch_up(self, leg: OpenLeg, now: int) -> None:
        """Begin with what waits, but for what is too old."""
        row = self._tables.legs[leg.row]
        cursor, number, since = (int(row[each]) for each in (columns.CURSOR, columns.CURSOR_NUMBER, columns.SINCE))
        seek(self._tables, leg.row, now - int(self._tables.counts[columns.KEEP]))
        with self._lock:
            if row[columns.CURSOR_NUMBER] > number:
                row[columns.UNSENT] += row[columns.CURSOR_NUMBER] - number
            else:
                row[columns.CURSOR], row[columns.CURSOR_NUMBER], row[columns.SINCE] = cursor, number, since
            row[columns.HELD] = 0
            row[columns.MODE] = columns.DRAINING
        self._draining = np.append(self._draining, leg.row)

    def _drain(self, clock: float) -> None:
        passed, self._drained = clock - self._drained, clock
        self._tokens = min(self._tokens + passed * PER_SECOND, MOST_AT_ONCE)
        quota = int(self._tokens)
        if not len(self._draining) or not quota:
            return
        self._tokens -= quota
        if drain(self._tables, self._draining, quota) < len(self._draining):
            modes = self._tables.legs[self._draining, columns.MODE]
            self._draining = self._draining[modes == columns.DRAINING]

    def _sent(self, leg: OpenLeg) -> Sent:
        with self._lock:  # numbers of one and the same packet
            row = self._tables.legs[leg.row].tolist()
        return Sent(
            packets=row[columns.PACKETS],
            octets=row[columns.OCTETS],
            stamp=row[columns.LAST_STAMP],
            at=row[columns.LAST],
            rate=row[columns.LAST_RATE],
        )

    def _schedule(self, leg: OpenLeg) -> None:
        live = leg.row >= 0 and self._tables.legs[leg.row, columns.MODE] in (columns.LIVE, columns.DRAINING)
        leg.due = self._clock() + leg.rtcp.wait(bool(live))
        self._orders += 1
        heappush(self._due, (leg.due, self._orders, leg))

    def _send_rtcp(self, leg: OpenLeg, packet: bytes) -> None:
        remote = leg.remote
        if remote is None:
            return
        multiplexed = remote.rtcp == remote.rtp
        try:
            if multiplexed:
                leg.ports.rtp_socket.send(packet)
            else:
                leg.ports.rtcp_socket.sendto(packet, (remote.rtcp.host, remote.rtcp.port))
        except OSError:
            return

    def _hear_on(self, leg: OpenLeg, opened: socket.socket | None) -> None:
        if leg.heard is opened:
            return
        if leg.heard is not None:
            self._by_descriptor.pop(leg.heard.fileno(), None)
            self._epoll.unregister(leg.heard.fileno())
        leg.heard = opened
        if opened is not None:
            self._by_descriptor[opened.fileno()] = leg
            self._epoll.register(opened.fileno(), select.EPOLLIN)

    def _hear_one(self, leg: OpenLeg, opened: socket.socket, now: int) -> None:
        for _ in range(_MOST_HEARD):
            try:
                data, sender = opened.recvfrom(MOST_DATAGRAM)
            except ConnectionRefusedError:
                continue
            except OSError:
                return
            known = parse_endpoint(sender[0], sender[1])
            if leg.remote is not None and known is not None and known[:2] == leg.remote.rtcp[:2]:
                leg.rtcp.hear(data, now)
