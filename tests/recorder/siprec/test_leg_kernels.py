"""Kernels that send beside plain Python: what of a source a leg sends in which order, numbered how, and what not.

The legs encrypt, so that what they send is in a table and on no socket.
"""

from dataclasses import dataclass, field

import numpy as np
import pytest

from recorder.siprec import _forward_columns as columns
from recorder.siprec._forward_columns import DRAINING, LIVE, NOT_ACCEPTED, UNANSWERED, WAITING, Capacity, make_tables
from recorder.siprec._history_kernels import keep, lost_since, row_of
from recorder.siprec._leg_kernels import drain, put_header, seek, send_entry
from recorder.siprec._table_lock import new_mutex
from tests.naive_history import held_by

SOURCE, LEG = 0, 0
FORMATS = 3
MS = 1_000_000


@dataclass
class Packet:
    """One of a source, its numbers not wrapped."""

    number: int
    time: int
    sequence: int
    stamp: int
    kind: int
    form: int
    entry: int


@dataclass
class NaiveLeg:
    """A leg, packet by packet."""

    types: list[int]
    start: int
    stamp_offset: int
    begun: bool
    """Whether it had sent something before, elsewhere: what comes late then has no number here."""
    room: int
    """Packets that wait to be encrypted, at most."""
    mode: int = WAITING
    place: int = 0
    """Number of the packet behind which it goes on."""
    since: int = 0
    unsent: int = 0
    out: list[tuple[int, int, int, int]] = field(default_factory=list)
    """(entry, sequence number, timestamp, second octet)."""
    shifts: list[tuple[int, int | None]] = field(default_factory=list)
    """(first sequence number for which it holds, what is added), the last two; None: too late."""

    def send(self, packet: Packet) -> None:
        kind = self.types[packet.form]
        if kind == UNANSWERED:
            self.mode, self.place = WAITING, packet.number - 1
            return
        if kind == NOT_ACCEPTED:
            self.unsent += 1
            if self.shifts and packet.sequence >= self.shifts[-1][0]:
                newest = self.shifts[-1][1]
                self.shifts = [self.shifts[-1], (packet.sequence + 1, newest - 1)]
            return
        if not self.shifts:
            first = self.start - packet.sequence
            self.shifts = [(-1 << 60, None if self.begun else first), (packet.sequence, first)]
        shift = self.shifts[-1][1] if packet.sequence >= self.shifts[-1][0] else self.shifts[-2][1]
        if shift is None or len(self.out) == self.room:
            self.unsent += 1
            return
        stamp = (packet.stamp + self.stamp_offset) % (1 << 32)
        self.out.append((packet.entry, (packet.sequence + shift) % (1 << 16), stamp, packet.kind & 0x80 | kind))

    def skip(self, number: int, began: int, gone_at: int) -> None:
        """Packets up to this one are gone."""
        count = number - self.place
        self.unsent += lost_since(count, began, gone_at, self.since) if self.place == 0 else max(count, 0)
        self.place = number


class Case:
    """A source with a leg in the tables, and its twin."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.tables = make_tables(Capacity(2, 2, 2, 12_000, 3000 * MS, 128), new_mutex())
        for column in (columns.ACTIVE, columns.LEGS, columns.HEAD, columns.TAIL):
            self.tables.sources[:, column] = -1
        begun = self.chance(0.5)
        types = [self.kind() for _ in range(FORMATS)]
        self.twin = NaiveLeg(types, self.number(16), self.number(32), begun, len(self.tables.outgoing))
        leg = self.leg = self.tables.legs[LEG]
        leg[columns.LEG_SOURCE], leg[columns.SEALING], leg[columns.MODE] = SOURCE, 1, WAITING
        leg[columns.START], leg[columns.LEG_STAMP_OFFSET] = self.twin.start, self.twin.stamp_offset
        leg[columns.PACKETS] = 7 if begun else 0
        leg[columns.CURSOR] = -1
        self.tables.types[LEG, :FORMATS] = types
        self.now = 1 << 40
        self.sequence, self.stamp = self.number(16), self.number(32)
        self.packets: list[Packet] = []
        self.back = 0

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def number(self, bits: int) -> int:
        return int(self.rng.integers(1 << bits))

    def kind(self) -> int:
        return int(self.rng.choice([0, 8, 101, NOT_ACCEPTED, UNANSWERED], p=[0.3, 0.2, 0.1, 0.3, 0.1]))

    @property
    def source(self) -> np.ndarray:
        return self.tables.sources[SOURCE]

    def speak(self) -> None:
        """A packet comes, and a leg that is live sends it."""
        self.now += int(self.rng.integers(1, 40)) * MS
        sequence = self.sequence
        if self.chance(0.05) and self.packets:
            sequence -= int(self.rng.integers(1, 5))
        else:
            self.sequence += 1 if self.chance(0.95) else int(self.rng.integers(2, 300))
            sequence = self.sequence
        payload = self.rng.integers(0, 256, int(self.rng.integers(1, 200)), dtype=np.uint8)
        if not self.packets:
            self.source[columns.BEGAN] = self.now
        entry = int(keep(self.tables, -1 - SOURCE, payload, 0, len(payload), self.now))
        packet = Packet(
            len(self.packets) + 1, self.now, sequence, self.number(32), self.number(8), int(self.rng.integers(FORMATS)),
            entry,
        )  # fmt: skip
        self.packets.append(packet)
        row = self.tables.entries[row_of(self.tables, entry)]
        row[columns.SEQUENCE], row[columns.STAMP] = sequence & 0xFFFF, packet.stamp
        row[columns.TYPE], row[columns.FORMAT] = packet.kind, packet.form
        if self.twin.mode == LIVE:
            send_entry(self.tables, LEG, entry)
            self.twin.send(packet)

    def there(self) -> list[Packet]:
        return [self.packets[number - 1] for *_, number in held_by(self.tables, -1 - SOURCE)]

    def seek(self) -> None:
        """The leg is to begin somewhere."""
        since = self.now - int(self.rng.integers(0, 4000)) * MS
        gone = seek(self.tables, LEG, since)
        held = self.there()
        later = [each.number for each in held if each.time >= since]
        self.twin.since, self.twin.place = since, later[0] - 1 if later else len(self.packets)
        began, gone_at = self.source[columns.BEGAN], self.source[columns.GONE_AT]
        expected = 0 if len(later) < len(held) else lost_since(self.twin.place, began, gone_at, since)
        assert gone == expected

    def answer(self) -> None:
        """A server says what it takes."""
        self.twin.types[:] = [self.kind() for _ in range(FORMATS)]
        self.tables.types[LEG, :FORMATS] = self.twin.types
        self.leg[columns.MODE] = self.twin.mode = DRAINING

    def drain(self) -> None:
        """Some of what waits goes out."""
        quota = int(self.rng.integers(1, 8))
        more = drain(self.tables, np.array([LEG]), quota)
        twin, ends = self.twin, (self.source[columns.BEGAN], self.source[columns.GONE_AT])
        expected = 0
        for _ in range(quota):
            if twin.mode != DRAINING:
                expected = 0
                break
            waiting = next((each for each in self.there() if each.number > twin.place), None)
            if waiting is None:
                twin.skip(len(self.packets), *ends)
                twin.mode = LIVE
            else:
                twin.skip(waiting.number - 1, *ends)
                twin.place = waiting.number
                if waiting.time >= twin.since:
                    twin.send(waiting)
            expected = int(twin.mode == DRAINING)
        assert more == expected

    def encrypted(self) -> None:
        """What was sent is taken away."""
        self.agree()
        self.tables.counts[columns.OUTGOING_COUNT] = 0
        self.twin.out.clear()

    def agree(self) -> None:
        rows = self.tables.outgoing[: self.tables.counts[columns.OUTGOING_COUNT]].tolist()
        assert [(entry, *numbers) for _, entry, *numbers in rows] == self.twin.out
        assert self.leg[columns.MODE] == self.twin.mode
        assert self.leg[columns.UNSENT] == self.twin.unsent
        if self.twin.mode != LIVE:
            assert self.leg[columns.CURSOR_NUMBER] == self.twin.place


@pytest.mark.parametrize("seed", range(40))
def test_a_leg_sends_and_counts_as_its_plain_twin_does(seed):
    case = Case(seed)
    sent = 0
    for _ in range(int(case.rng.integers(1, 60))):
        case.speak()
    case.seek()
    for _ in range(600):
        step = case.rng.random()
        if step < 0.8:
            case.speak()
        elif step < 0.96:
            case.drain()
        elif step < 0.98:
            case.answer()
        else:
            sent += len(case.twin.out)
            case.encrypted()
        case.agree()
    assert sent or case.twin.unsent


@pytest.mark.parametrize("seed", range(5))
def test_a_header_is_that_of_the_standard(seed):
    rng = np.random.default_rng(seed)
    octets = rng.integers(0, 256, 40, dtype=np.uint8)
    before = octets.tobytes()
    at, second = int(rng.integers(0, 28)), int(rng.integers(256))
    sequence, stamp, ssrc = int(rng.integers(1 << 16)), int(rng.integers(1 << 32)), int(rng.integers(1 << 32))
    put_header(octets, at, second, sequence, stamp, ssrc)
    header = b"\x80" + second.to_bytes(1, "big") + sequence.to_bytes(2, "big")
    header += stamp.to_bytes(4, "big") + ssrc.to_bytes(4, "big")
    assert octets.tobytes() == before[:at] + header + before[at + 12 :]
