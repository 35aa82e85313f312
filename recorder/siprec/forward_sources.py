"""Rows of the forwarder's tables: which stand for which flow, source and leg.

In: what is placed, opened and closed. Out: rows written so that the kernels find them, under the lock of the tables
wherever a kernel could see them half-written. Used by the forwarder's thread alone. Never sends.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import numpy as np

from capture.randomness import BufferedRandom
from decoders.sdp import CryptoKey, PayloadFormat
from decoders.srtp import SrtpStream
from recorder.siprec import _forward_columns as columns
from recorder.siprec._forward_columns import Tables
from recorder.siprec._forward_kernels import abandon, adopt, count_lost_flow
from recorder.siprec._leg_kernels import seek
from recorder.siprec._table_lock import TableLock
from recorder.siprec.forward_formats import SourceFormats
from recorder.siprec.legs import LegId, Source

_random = BufferedRandom()


@dataclass(slots=True)
class SourceRow:
    """A source that has flows or legs."""

    row: int
    formats: SourceFormats = field(default_factory=SourceFormats)
    links: set[int] = field(default_factory=set)
    legs: dict[LegId, int] = field(default_factory=dict)
    accepted: dict[LegId, Mapping[PayloadFormat, int]] = field(default_factory=dict)
    asked: dict[LegId, frozenset[int]] = field(default_factory=dict)
    """Numbers of the formats that a leg's server has answered about."""


@dataclass(slots=True)
class FlowRow:
    """A flow that is placed: its links by source, and what decrypts it."""

    links: dict[Source, int] = field(default_factory=dict)
    crypto: tuple[CryptoKey, ...] = ()
    srtp: SrtpStream | None = None


class Rows:
    """All of them."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self._lock = TableLock(tables.counts)
        self.sealed = 0
        """Flows that are placed and encrypted."""
        self.refused = 0
        """Flows and legs for which there was no room."""
        self.sources: dict[Source, SourceRow] = {}
        self.flows: dict[int, FlowRow] = {}
        self._free_sources = _free(len(tables.sources))
        self._free_links = _free(len(tables.links))
        self._free_legs = _free(len(tables.legs))

    def place(
        self, flow: int, source: Source, formats: Mapping[int, PayloadFormat], crypto: Sequence[CryptoKey]
    ) -> bool:
        """A flow carries a source; again where its formats or keys have changed. False where there is no room."""
        held = self._hold(source)
        if held is None:
            self.refused += 1
            return False
        placed = self.flows.setdefault(flow, FlowRow())
        link = placed.links.get(source)
        fresh = link is None
        if link is None:
            if not self._free_links:
                self._release(source)
                self.refused += 1
                return False
            link = placed.links[source] = self._free_links.pop()
            held.links.add(link)
        self._use_keys(placed, tuple(crypto))
        self._write_formats(held, link, formats)
        row, flow_row = self.tables.links[link], self.tables.flows[flow]
        with self._lock:
            if fresh:
                row[columns.LINK_FLOW], row[columns.LINK_SOURCE], row[columns.WAS_ACTIVE] = flow, held.row, 0
                row[columns.NEXT_LINK] = flow_row[columns.LINKS]
                flow_row[columns.LINKS] = link
            flow_row[columns.STATE] = columns.SEALED if placed.srtp is not None else columns.PLACED
        if fresh and placed.srtp is None:
            adopt(self.tables, link)
        return True

    def opened(self, flow: int, source: Source) -> None:
        """What an encrypted flow had waiting for a source has been decrypted and taken in."""
        placed = self.flows.get(flow)
        if placed is not None:
            count_lost_flow(self.tables, placed.links[source])

    def unplace(self, flow: int, state: int) -> None:
        """A flow carries nothing that is ours."""
        placed = self.flows.pop(flow, None)
        gone = [(self.sources[source], link) for source, link in placed.links.items()] if placed is not None else []
        row = self.tables.flows[flow]
        self.sealed -= placed is not None and placed.srtp is not None
        abandon(self.tables, flow)
        with self._lock:
            row[columns.LINKS] = -1
            row[columns.STATE] = state
            for held, link in gone:
                if self.tables.sources[held.row, columns.ACTIVE] == link:
                    self.tables.sources[held.row, columns.ACTIVE] = -1
        for held, link in gone:
            held.links.discard(link)
            self._free_links.append(link)
        for source in placed.links if placed is not None else ():
            self._release(source)

    def open_leg(self, leg: LegId, ssrc: int, descriptor: int, since: int) -> int | None:
        """Give a leg a row; it waits, from what came at `since` on. None where there is no room."""
        held = self._hold(leg.source)
        if held is None or not self._free_legs:
            self._release(leg.source)
            self.refused += 1
            return None
        number = held.legs[leg] = self._free_legs.pop()
        row = self.tables.legs[number]
        row[:] = 0
        row[columns.LEG_SOURCE] = held.row
        row[columns.DESCRIPTOR], row[columns.SSRC] = descriptor, ssrc
        # Lower than half of the range, so that a receiver that joins SRTP late guesses its counter right (RFC 3711).
        row[columns.START] = _random.randrange(1 << 15)
        row[columns.LEG_STAMP_OFFSET] = _random.randrange(1 << 32)
        self.tables.types[number] = columns.NOT_ACCEPTED
        gone = seek(self.tables, number, since)
        with self._lock:
            row[columns.UNSENT] = gone
            row[columns.MODE] = columns.WAITING
            row[columns.NEXT_LEG] = self.tables.sources[held.row, columns.LEGS]
            self.tables.sources[held.row, columns.LEGS] = number
        return number

    def accept(
        self, leg: LegId, accepted: Mapping[PayloadFormat, int], offered: AbstractSet[PayloadFormat] | None
    ) -> None:
        """The formats that a leg's server takes, and those it was asked about; None: it will be asked no more."""
        held = self.sources[leg.source]
        held.accepted[leg] = accepted
        held.asked[leg] = held.formats.among(offered)
        self._set_types(held, leg)

    def give_up_asking(self, leg: LegId) -> None:
        """Formats that a leg's server was not asked about are not to wait for it any longer."""
        held = self.sources[leg.source]
        held.asked[leg] = held.formats.among(None)
        self._set_types(held, leg)

    def close_leg(self, leg: LegId) -> None:
        """A leg is no more."""
        held = self.sources[leg.source]
        number = held.legs.pop(leg)
        held.accepted.pop(leg, None)
        held.asked.pop(leg, None)
        following = -1
        with self._lock:
            for other in held.legs.values():
                self.tables.legs[other, columns.NEXT_LEG] = following
                following = other
            self.tables.sources[held.row, columns.LEGS] = following
            self.tables.legs[number, columns.MODE] = columns.SILENT
        self._free_legs.append(number)
        self._release(leg.source)

    def _set_types(self, held: SourceRow, leg: LegId) -> None:
        accepted = held.accepted.get(leg)
        if accepted is not None:
            types = np.array(held.formats.types(accepted, held.asked[leg]), np.uint8)
            with self._lock:
                self.tables.types[held.legs[leg]] = types

    def _write_formats(self, held: SourceRow, link: int, formats: Mapping[int, PayloadFormat]) -> None:
        """Which formats a link's payload types stand for, and under which types they go out."""
        numbers = np.full(self.tables.link_formats.shape[1], columns.UNKNOWN, np.uint8)
        for kind, number in held.formats.numbers(formats).items():
            numbers[kind] = number
        rates = np.array(held.formats.rates, np.int32)
        with self._lock:
            self.tables.link_formats[link] = numbers
            self.tables.rates[held.row, : len(rates)] = rates
        for leg in held.legs:
            self._set_types(held, leg)

    def _use_keys(self, placed: FlowRow, crypto: tuple[CryptoKey, ...]) -> None:
        if crypto == placed.crypto:
            return
        placed.crypto = crypto
        if placed.srtp is None:
            placed.srtp = SrtpStream(crypto)
            self.sealed += 1
        else:
            placed.srtp.add_keys(crypto)

    def _hold(self, source: Source) -> SourceRow | None:
        held = self.sources.get(source)
        if held is None and self._free_sources:
            held = self.sources[source] = SourceRow(self._free_sources.pop())
            row = self.tables.sources[held.row]
            row[:] = 0
            for column in (columns.ACTIVE, columns.LEGS, columns.HEAD, columns.TAIL):
                row[column] = -1
            self.tables.digests[held.row] = 0
        return held

    def _release(self, source: Source) -> None:
        held = self.sources.get(source)
        if held is not None and not held.links and not held.legs:
            del self.sources[source]
            with self._lock:
                self.tables.sources[held.row, columns.HEAD] = self.tables.sources[held.row, columns.TAIL] = -1
            self._free_sources.append(held.row)


def _free(count: int) -> list[int]:
    return np.arange(count)[::-1].tolist()
