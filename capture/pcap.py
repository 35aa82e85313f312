"""pcap files (draft-ietf-opsawg-pcap): the classic format of tcpdump, both byte orders, µs and ns.

In: a window over the file's octets. Out: batches of packets, notes of damage. After damage it goes on at the next chain
of plausible records. It opens nothing and never raises on what it reads.
"""

import struct
from dataclasses import dataclass

from capture._pcap_kernels import (
    FOUND,
    FULL,
    IMPLAUSIBLE,
    MORE,
    SHORT,
    find_pcap,
    walk_pcap,
)
from capture.batch import PacketBatch
from capture.damage import DamageLog
from capture.records import BATCH_SPAN, Columns, Numbering
from capture.window import Window

FILE_HEADER = 24
MOST_OCTETS = 256 << 10
"""libpcap's own limit for a packet; larger ones are believed only where the file's snapshot length allows them."""
MOST_SNAPLEN = 16 << 20
"""A snapshot length beyond this is taken for this: it serves to tell damage."""

TRUNCATED = "the capture ends inside a packet"
IMPLAUSIBLE_RECORD = "no plausible packet record stands there"
NO_RECORD = "no plausible packet record follows the pcap header"
OVERLONG = "the packet's length reaches into the packets behind it"

_MAGIC = {
    0xA1B2C3D4: (16, 1000),
    0xA1B23C4D: (16, 1),
    0xA1B2CD34: (24, 1000),  # Kuznetzov's: interface, protocol and packet type follow each record header
}


@dataclass(frozen=True, slots=True)
class PcapFormat:
    """What the file header says."""

    big: bool
    record_header: int
    """Octets."""
    scale: int
    """ns of the unit in which a record counts fractions of a second."""
    limit: int
    """Most octets of a packet."""
    link_type: int


def parse_file_header(octets: bytes) -> PcapFormat | str:
    """Format of a file that begins with `octets`, or why it is no pcap."""
    if len(octets) < FILE_HEADER:
        return f"the file ends inside the pcap header, after {len(octets)} bytes"
    for order in "<>":
        magic, _, _, _, _, snaplen, network = struct.unpack(f"{order}IHHiIII", octets[:FILE_HEADER])
        if magic in _MAGIC:
            break
    else:
        return "the file does not begin as a pcap does"
    if network & 0x03FF0000:
        # Bits 16 to 25 are reserved as zero; only length and presence of a frame check sequence stand above them.
        return f"the pcap header's link type 0x{network:08x} does not exist: the header is damaged"
    header, scale = _MAGIC[magic]
    limit = max(MOST_OCTETS, min(snaplen, MOST_SNAPLEN))
    return PcapFormat(order == ">", header, scale, limit, network & 0xFFFF)


def is_pcap(octets: bytes) -> bool:
    """Whether a file that begins with these 4 octets is a pcap."""
    return int.from_bytes(octets[:4], "big") in _MAGIC or int.from_bytes(octets[:4], "little") in _MAGIC


class PcapReader:
    """A `RecordReader` of pcap."""

    def __init__(self, index: int, log: DamageLog) -> None:
        self.link_types: list[int] = []
        self.refusal = ""
        self._log = log
        self._numbering = Numbering(index, log)
        self._format: PcapFormat | None = None
        self._lost: int | None = None
        self._why_lost = ""

    def read(self, window: Window, limit: int, span: int = BATCH_SPAN) -> PacketBatch | None:
        """Next packets, at most `limit`; None where the window must be extended first, or is final and exhausted."""
        form = self._format or self._begin(window)
        if form is None:
            return None
        before = window.position
        if self._lost is not None:
            self._find(window, form, self._lost, span)
        if self._lost is not None:
            return None if window.position == before else self._numbering.nothing(window)
        batch = self._walk(window, form, limit, span)
        return batch if len(batch) or window.position > before or self._lost is not None else None

    def _begin(self, window: Window) -> PcapFormat | None:
        if self.refusal or (window.end < FILE_HEADER and not window.final):
            return None
        form = parse_file_header(window.buffer[:FILE_HEADER].tobytes())
        if isinstance(form, str):
            self.refusal = form
            window.position = window.end
            return None
        self._format = form
        self.link_types.append(form.link_type)
        window.position = FILE_HEADER
        return form

    def _walk(self, window: Window, form: PcapFormat, limit: int, span: int) -> PacketBatch:
        """Advance over whole records; sets `_lost` at what is none."""
        columns = Columns.room_for(limit + 1)
        walked, position, reason, jumped = walk_pcap(
            window.buffer,
            window.position,
            window.end,
            window.position + span,
            form.big,
            form.record_header,
            form.scale,
            form.limit,
            self._numbering.last,
            columns.time,
            columns.offset,
            columns.captured,
            columns.wire,
        )
        columns.start[:walked] = columns.offset[:walked] - form.record_header
        columns.link_type[:walked] = form.link_type
        count = walked
        waits = reason == SHORT and not window.final and not window.live
        if walked and (reason == FULL or waits or (reason == IMPLAUSIBLE and walked > 1)):
            # The last one was read only to vouch for the one before it, and comes again.
            count = walked - 1
            position = int(columns.start[count])
        elif reason == IMPLAUSIBLE and walked:
            count, position = self._judge(window, form, int(columns.start[0]), position)
        elif reason == IMPLAUSIBLE:
            self._lose(window, position, IMPLAUSIBLE_RECORD)
        elif reason == SHORT and window.final and position < window.end:
            self._lose(window, position, TRUNCATED)
        window.position = position
        return self._numbering.batch(window, columns, count, walked, jumped)

    def _judge(self, window: Window, form: PcapFormat, start: int, position: int) -> tuple[int, int]:
        """No record follows the one at `start`: is its length wrong? (records to hand on, where to go on)."""
        place, state = self._search(window, form, start + 1, position, self._numbering.last, lone=False)
        if state == FOUND:
            self._log.note(window.base + start, place - start, OVERLONG)
            return 0, place
        if state == MORE:
            return 0, start
        self._lose(window, position, IMPLAUSIBLE_RECORD)
        return 1, position

    def _lose(self, window: Window, position: int, why: str) -> None:
        self._lost = window.base + position
        self._why_lost = why

    def _find(self, window: Window, form: PcapFormat, lost: int, span: int) -> None:
        """Look for the next record within `span` octets; clears `_lost` where one is found or the file ends."""
        begin = max(window.position, lost - window.base + 1)
        place, state = self._search(window, form, begin, min(window.end, begin + span), self._numbering.last, lone=True)
        window.position = min(place, window.end)
        if state == FOUND:
            self._log.note(lost, window.offset - lost, IMPLAUSIBLE_RECORD)
            self._lost = None
        elif window.final and window.position == window.end:
            if self._numbering.packets or self._why_lost == TRUNCATED:
                self._log.note(lost, window.offset - lost, self._why_lost)
            else:
                self.refusal = NO_RECORD
            self._lost = None

    def _search(
        self, window: Window, form: PcapFormat, begin: int, stop: int, near: int, lone: bool
    ) -> tuple[int, int]:
        place, state = find_pcap(
            window.buffer,
            begin,
            stop,
            window.end,
            window.final,
            form.big,
            form.record_header,
            form.scale,
            form.limit,
            near,
            lone,
        )
        return int(place), int(state)
