"""Rows of the forwarder's tables: which stand for which flow, source and leg.

In: what is placed, opened and closed. Out: rows written so that the kernels find them. Used by the forwarder's thread
alone. Never sends.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import SystemRandom

import numpy as np

from decoders.sdp import CryptoKey, PayloadFormat
from decoders.srtp import SrtpStream
from recorder.siprec import _forward_columns as columns
from recorder.siprec._forward_columns import Tables
from recorder.siprec._forward_kernels import adopt, empty_chain
from recorder.siprec._leg_kernels import seek
from recorder.siprec.forward_formats import SourceFormats
from recorder.siprec.legs import LegId, Source

_random = SystemRandom()


@dataclass(slots=True)
class SourceRow:
    """A source that has flows or legs."""

    row: int
    formats: SourceFormats = field(default_factory=SourceFormats)
    links: set[int] = field(default_factory=set)
    legs: dict[LegId, int] = field(default_factory=dict)
    accepted: dict[LegId, Mapping[PayloadFormat, int]] = field(default_factory=dict)


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
            return False
        placed = self.flows.setdefault(flow, FlowRow())
        link = placed.links.get(source)
        fresh = link is None
        if link is None:
            if not self._free_links:
                self._release(source)
                return False
            link = placed.links[source] = self._free_links.pop()
            held.links.add(link)
            row = self.tables.links[link]
            row[columns.LINK_FLOW], row[columns.LINK_SOURCE], row[columns.WAS_ACTIVE] = flow, held.row, 0
            row[columns.NEXT_LINK] = self.tables.flows[flow, columns.LINKS]
        numbers = held.formats.numbers(formats)
        self.tables.link_formats[link] = columns.UNKNOWN
        self.tables.link_formats[link, list(numbers)] = list(numbers.values())
        self.tables.rates[held.row, : len(held.formats.rates)] = held.formats.rates
        for leg in held.legs:
            self._set_types(held, leg)
        self._use_keys(placed, tuple(crypto))
        flow_row = self.tables.flows[flow]
        flow_row[columns.STATE] = columns.SEALED if placed.srtp is not None else columns.PLACED
        if fresh:
            flow_row[columns.LINKS] = link
            if placed.srtp is None:
                adopt(self.tables, link)
        return True

    def unplace(self, flow: int, state: int) -> None:
        """A flow carries nothing that is ours."""
        placed = self.flows.pop(flow, None)
        self.tables.flows[flow, columns.LINKS] = -1
        self.tables.flows[flow, columns.STATE] = state
        empty_chain(self.tables, flow)
        for source, link in placed.links.items() if placed is not None else ():
            held = self.sources[source]
            held.links.discard(link)
            if self.tables.sources[held.row, columns.ACTIVE] == link:
                self.tables.sources[held.row, columns.ACTIVE] = -1
            self._free_links.append(link)
            self._release(source)

    def open_leg(self, leg: LegId, ssrc: int, descriptor: int, since: int) -> int | None:
        """Give a leg a row; it waits, from what came at `since` on. None where there is no room."""
        held = self._hold(leg.source)
        if held is None or not self._free_legs:
            self._release(leg.source)
            return None
        number = held.legs[leg] = self._free_legs.pop()
        row = self.tables.legs[number]
        row[:] = 0
        row[columns.LEG_SOURCE] = held.row
        row[columns.DESCRIPTOR], row[columns.SSRC] = descriptor, ssrc
        # Lower than half of the range, so that a receiver that joins SRTP late guesses its counter right (RFC 3711).
        row[columns.START] = _random.randrange(1 << 15)
        row[columns.LEG_STAMP_OFFSET] = _random.randrange(1 << 32)
        row[columns.NEXT_LEG] = self.tables.sources[held.row, columns.LEGS]
        self.tables.types[number] = columns.NOT_ACCEPTED
        seek(self.tables, number, since)
        row[columns.MODE] = columns.WAITING
        self.tables.sources[held.row, columns.LEGS] = number
        return number

    def accept(self, leg: LegId, accepted: Mapping[PayloadFormat, int]) -> None:
        """The formats that a leg's server takes."""
        held = self.sources[leg.source]
        held.accepted[leg] = accepted
        self._set_types(held, leg)

    def close_leg(self, leg: LegId) -> None:
        """A leg is no more."""
        held = self.sources[leg.source]
        number = held.legs.pop(leg)
        held.accepted.pop(leg, None)
        following = -1
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
            self.tables.types[held.legs[leg]] = held.formats.types(accepted)

    def _use_keys(self, placed: FlowRow, crypto: tuple[CryptoKey, ...]) -> None:
        if crypto == placed.crypto:
            return
        placed.crypto = crypto
        if placed.srtp is None:
            placed.srtp = SrtpStream(crypto)
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
            self.tables.sources[held.row, columns.HEAD] = self.tables.sources[held.row, columns.TAIL] = -1
            self._free_sources.append(held.row)


def _free(count: int) -> list[int]:
    return np.arange(count)[::-1].tolist()
