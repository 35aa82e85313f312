"""pcapng files (draft-ietf-opsawg-pcapng): sections, interfaces, packets; all other blocks are passed over.

In: a window over the file's octets. Out: batches of packets, notes of damage. After damage it goes on at the next sound
block. It opens nothing and never raises on what it reads.
"""

import struct
from dataclasses import dataclass, field

import numpy as np

from capture._pcap_kernels import FOUND, FULL, SHORT
from capture._pcapng_kernels import (
    BAD_BLOCK,
    INTERFACE,
    LARGEST_BLOCK,
    SECTION,
    SECTION_TYPE,
    find_pcapng,
    walk_pcapng,
)
from capture.batch import Int64, PacketBatch
from capture.damage import DamageLog
from capture.records import BATCH_SPAN, Columns, Numbering
from capture.window import Window

SMALLEST_SECTION = 28
SMALLEST_INTERFACE = 20
MOST_INTERFACES = 65536
"""Of one section; the descriptions behind these are taken for damage."""

TRUNCATED = "the capture ends inside a block"
NO_BLOCK = "no sound block stands there"
BAD_PACKET_TEXT = "the packet does not fit its block, or its interface was never described"
BAD_SECTION = "the section header is not sound"
BAD_INTERFACE = "the interface description is not sound"

_BYTE_ORDER_MAGIC = 0x1A2B3C4D
_OPTION_END = 0
_OPTION_RESOLUTION = 9
_OPTION_OFFSET = 14
_LARGEST_OFFSET = 1 << 61


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface description block (section 4.2)."""

    link_type: int
    snaplen: int
    """0 where nothing is cut."""
    exponent: int
    """A time stamp counts 10^-exponent s, or 2^-exponent s where `binary`."""
    binary: bool
    offset: int
    """ns to add to each time."""


def parse_interface(body: bytes, big: bool) -> Interface:
    """Interface from a description block's body (at least 8 octets); options that do not add up end the list."""
    order = ">" if big else "<"
    link_type, _, snaplen = struct.unpack_from(f"{order}HHI", body)
    exponent, binary, offset = 6, False, 0
    at = 8
    while at + 4 <= len(body):
        code, length = struct.unpack_from(f"{order}HH", body, at)
        value = body[at + 4 : at + 4 + length]
        if code == _OPTION_END or len(value) < length:
            break
        if code == _OPTION_RESOLUTION and length == 1:
            exponent, binary = value[0] & 0x7F, value[0] >= 0x80
        elif code == _OPTION_OFFSET and length == 8:
            seconds = struct.unpack(f"{order}q", value)[0]
            offset = max(-_LARGEST_OFFSET, min(_LARGEST_OFFSET, seconds * 1_000_000_000))
        at += 4 + (length + 3 & ~3)
    return Interface(link_type, snaplen, exponent, binary, offset)


def is_pcapng(octets: bytes) -> bool:
    """Whether a file that begins with these 4 octets is a pcapng."""
    return octets[:4] == SECTION_TYPE.to_bytes(4, "big")


@dataclass(slots=True)
class _Section:
    """Byte order and interfaces of the section being read, as the kernel takes them: arrays with room to grow."""

    big: bool
    count: int = 0
    table: Int64 = field(default_factory=lambda: np.zeros((5, 8), np.int64))
    """Rows: link type, exponent, whether binary, offset, snaplen."""

    def add(self, interface: Interface) -> None:
        if self.count == self.table.shape[1]:
            self.table = np.concatenate((self.table, np.zeros_like(self.table)), axis=1)
        self.table[:, self.count] = (
            interface.link_type,
            interface.exponent,
            interface.binary,
            interface.offset,
            interface.snaplen,
        )
        self.count += 1


class PcapngReader:
    """A `RecordReader` of pcapng."""

    def __init__(self, index: int, log: DamageLog) -> None:
        self.link_types: list[int] = []
        self.refusal = ""
        self._log = log
        self._numbering = Numbering(index, log)
        self._section: _Section | None = None
        self._lost: int | None = None
        self._why_lost = ""

    def read(self, window: Window, limit: int, span: int = BATCH_SPAN) -> PacketBatch | None:
        """Next packets, at most `limit`; None where the window must be extended first, or is final and exhausted."""
        if self.refusal:
            return None
        before = window.position
        if self._lost is not None:
            self._find(window, self._lost, span)
        if self._lost is not None:
            return None if window.position == before else self._numbering.nothing(window)
        batch = self._walk(window, limit, span)
        return batch if len(batch) or window.position > before or self._lost is not None else None

    def _walk(self, window: Window, limit: int, span: int) -> PacketBatch:
        """Advance over whole blocks; sets `_lost` at what is none."""
        columns = Columns.room_for(limit + 1)
        stop = window.position + span
        walked, reason, jumped = self._walk_blocks(window, columns, stop)
        while reason not in (FULL, SHORT, BAD_BLOCK):
            # The block between vouches for the packets before it, so that they may go.
            batch = self._numbering.batch(window, columns, walked, walked, jumped)
            reason = self._take_block(window, reason)
            if walked or reason in (SHORT, BAD_BLOCK):
                self._settle(window, reason)
                return batch
            walked, reason, jumped = self._walk_blocks(window, columns, stop)
        count = walked
        # A packet that fills a span by itself goes on without the next as its witness.
        if (reason == FULL and walked > 1) or (reason == SHORT and walked and not window.final and not window.live):
            count = walked - 1
            window.position = int(columns.start[count])
        self._settle(window, reason)
        return self._numbering.batch(window, columns, count, walked, jumped)

    def _settle(self, window: Window, reason: int) -> None:
        """Remember where the chain of blocks breaks, if it does."""
        if reason == BAD_BLOCK:
            self._lose(window, NO_BLOCK)
        elif reason == SHORT and window.final and window.position < window.end:
            self._lose(window, TRUNCATED)

    def _walk_blocks(self, window: Window, columns: Columns, stop: int) -> tuple[int, int, bool]:
        """Let the kernel read: (rows, why it stopped, whether a time jumped)."""
        section = self._section
        if section is None:
            return 0, SECTION, False
        link_types, exponents, binary, offsets, snaplens = section.table
        walked, position, reason, jumped = walk_pcapng(
            window.buffer,
            window.position,
            window.end,
            stop,
            section.big,
            section.count,
            link_types,
            exponents,
            binary,
            offsets,
            snaplens,
            self._numbering.last,
            columns.time,
            columns.start,
            columns.offset,
            columns.captured,
            columns.wire,
            columns.link_type,
        )
        window.position = int(position)
        return int(walked), int(reason), bool(jumped)

    def _take_block(self, window: Window, reason: int) -> int:
        """Read the block that stopped the kernel; SHORT or BAD_BLOCK where it could not be, else the reason."""
        if reason == SECTION:
            return self._take_section(window)
        assert self._section is not None
        at = window.position
        stated = struct.unpack(">I" if self._section.big else "<I", window.buffer[at + 4 : at + 8].tobytes())[0]
        length = stated + 3 & ~3
        if reason == INTERFACE:
            body = window.buffer[at + 8 : at + length - 4].tobytes()
            if length < SMALLEST_INTERFACE or self._section.count == MOST_INTERFACES:
                self._log.note(window.offset, length, BAD_INTERFACE)
            else:
                self._describe(parse_interface(body, self._section.big))
        else:
            self._log.note(window.offset, length, BAD_PACKET_TEXT)
        window.position += length
        return reason

    def _describe(self, interface: Interface) -> None:
        assert self._section is not None
        self._section.add(interface)
        if interface.link_type not in self.link_types:
            self.link_types.append(interface.link_type)

    def _take_section(self, window: Window) -> int:
        at = window.position
        if at + SMALLEST_SECTION > window.end:
            return self._refuse(window, "the file ends inside its section header") if window.final else SHORT
        header = window.buffer[at : at + 12].tobytes()
        for order in "<>":
            length, magic = struct.unpack_from(f"{order}II", header, 4)
            if magic == _BYTE_ORDER_MAGIC:
                break
        else:
            return self._refuse(window, BAD_SECTION)
        if not SMALLEST_SECTION <= length <= LARGEST_BLOCK or length & 3:
            return self._refuse(window, BAD_SECTION)
        if at + length > window.end:
            return self._refuse(window, BAD_SECTION) if window.final else SHORT
        if struct.unpack(f"{order}I", window.buffer[at + length - 4 : at + length].tobytes())[0] != length:
            return self._refuse(window, BAD_SECTION)
        self._section = _Section(order == ">")
        window.position += length
        return SECTION

    def _refuse(self, window: Window, why: str) -> int:
        """A section header that cannot be: no capture at the beginning of a file, damage later."""
        if self._section is None:
            self.refusal = why
        return BAD_BLOCK

    def _lose(self, window: Window, why: str) -> None:
        if not self.refusal:
            self._lost = window.offset
            self._why_lost = why

    def _find(self, window: Window, lost: int, span: int) -> None:
        """Look for the next block within `span` octets; clears `_lost` where one is found or the file ends."""
        section = self._section
        assert section is not None
        begin = max(window.position, lost - window.base + 1)
        stop = min(window.end, begin + span)
        place, state = find_pcapng(window.buffer, begin, stop, window.end, window.final, section.big, section.count)
        window.position = min(int(place), window.end)
        if state == FOUND:
            self._log.note(lost, window.offset - lost, NO_BLOCK)
            self._lost = None
        elif window.final and window.position == window.end:
            self._log.note(lost, window.offset - lost, self._why_lost)
            self._lost = None
