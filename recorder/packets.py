"""packets.pcapng of every call: the frames of its signalling, its media and its RTCP, as they were captured.

In: the `Index` that the engine's run left, and the captures, which are read twice more: once to choose frames, once to
write them. Out: one file in each call's working directory: the original frames with their times (ns), one interface for
each capture and link type, the Call-ID and the captures' names as comments. Nothing in it tells of this machine or of
now. Memory stays bounded: choices go through a file, blocks wait in a buffer of MAX_PENDING octets.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from capture.batch import Int32, Int64, PacketBatch, UInt8
from capture.layers import read_only
from recorder._packet_kernels import BLOCK, lay_out
from recorder.inputs import Inputs
from recorder.packet_choice import CHOICE, PacketChooser
from recorder.packet_index import Index, KeptCall
from recorder.tracks import StoreError

FILE = "packets.pcapng"
MAX_PENDING = 16 << 20
"""Octets of blocks that wait to be written."""
_READ_AHEAD = 1 << 16
_BATCH = 1 << 15
"""Packets that are written at once: with thousands of calls each gets more than a packet at a time."""
_NANOSECONDS = 9

_COMMENT, _END = 1, 0
_SECTION_APPLICATION = 4
_INTERFACE_NAME, _INTERFACE_RESOLUTION = 2, 9


def write_packets(
    index: Index, inputs: Inputs, directory_of: Callable[[UUID], Path], scratch: Path, warn: Callable[[str], None]
) -> None:
    """Write the packets of every call that is kept. Raises StoreError where they cannot be written."""
    if not index.calls:
        return
    try:
        with (scratch / "packet-choices").open("w+b") as file:
            chooser = _choose(index, inputs, file)
            writer = _Writer(index.calls, directory_of, [capture.name for capture in inputs.originals().files])
            choices = _Choices(file, chooser.late())
            missing = 0
            for first, batch in _numbered(inputs.originals(batch_size=_BATCH)):
                missing += writer.add(batch, first, choices.until(first + len(batch)))
            writer.finish()
        if missing:
            warn(f"{missing} packets of calls could not be kept: tshark counts the packets of a capture otherwise")
    except OSError as error:
        raise StoreError(f"{error.filename or scratch}: packets cannot be kept: {error.strerror}") from error


def _choose(index: Index, inputs: Inputs, file: IO[bytes]) -> PacketChooser:
    """The first of the two readings, as the engine saw the captures."""
    chooser = PacketChooser(index)
    source = inputs.tshark() if inputs.dissected_by_tshark else inputs.originals()
    for batch in source:
        if len(batch):
            file.write(chooser.choose(batch).tobytes())
    file.seek(0)
    return chooser


def _numbered(batches: Iterable[PacketBatch]) -> Iterator[tuple[int, PacketBatch]]:
    """Batches with the ordinal of their first frame."""
    first = 0
    for batch in batches:
        yield first, batch
        first += len(batch)


class _Choices:
    """Choices in order: those in a file, and the late ones, merged."""

    def __init__(self, file: IO[bytes], late: NDArray[np.void]) -> None:
        self._file = file
        self._late = late
        self._block = np.zeros(0, CHOICE)

    def until(self, ordinal: int) -> NDArray[np.void]:
        """Choices of frames before `ordinal` that were not given yet, by slot then ordinal, each once."""
        parts = []
        while True:
            behind = int(np.searchsorted(self._block["ordinal"], ordinal))
            parts.append(self._block[:behind])
            self._block = self._block[behind:]
            if len(self._block):
                break
            octets = self._file.read(_READ_AHEAD * CHOICE.itemsize)
            if not octets:
                break
            self._block = np.frombuffer(octets, CHOICE)
        behind = int(np.searchsorted(self._late["ordinal"], ordinal))
        parts.append(self._late[:behind])
        self._late = self._late[behind:]
        found = np.unique(np.concatenate(parts))
        return found[np.argsort(found["slot"], kind="stable")]


@dataclass(slots=True)
class _Section:
    """The file of one call: what of it waits to be written, and its interfaces."""

    pending: bytearray = field(default_factory=bytearray)
    interfaces: dict[tuple[int, int], int] = field(default_factory=dict)
    begun: bool = False


class _Writer:
    """Writes the files of all calls, a few octets of each at a time."""

    def __init__(self, calls: list[KeptCall], directory_of: Callable[[UUID], Path], captures: list[str]) -> None:
        self._calls = calls
        self._directory_of = directory_of
        self._captures = captures
        self._sections: dict[int, _Section] = {}
        self._pending = 0

    def add(self, batch: PacketBatch, first: int, choices: NDArray[np.void]) -> int:
        """Take the chosen frames of a batch; gives how many turned out to be others than were meant."""
        rows: Int64 = choices["ordinal"] - first
        right = batch.number[rows] == choices["number"]
        rows, slots = rows[right], choices["slot"][right]
        if len(rows):
            cuts = np.flatnonzero(np.diff(slots)) + 1
            bounds = [0, *cuts.tolist(), len(rows)]
            interfaces = self._interfaces(batch, rows, slots, bounds)
            self._append(_blocks(batch, rows, interfaces), slots, bounds)
        return int(np.count_nonzero(~right))

    def finish(self) -> None:
        """Write what waits; a call without any packet gets an empty section."""
        for slot in range(len(self._calls)):
            self._section(slot)
        self._flush()

    def _append(self, blocks: tuple[UInt8, Int64], slots: Int32, bounds: list[int]) -> None:
        """Add the blocks of rows bounds[i] to bounds[i + 1] to the file of their call."""
        octets, begins = blocks
        view = octets.data
        places = [*begins[bounds[:-1]].tolist(), len(octets)]
        for slot, begin, end in zip(slots[bounds[:-1]].tolist(), places, places[1:], strict=False):
            self._sections[slot].pending += view[begin:end]
        self._pending += len(octets)
        if self._pending > MAX_PENDING:
            self._flush()

    def _section(self, slot: int) -> _Section:
        section = self._sections.get(slot)
        if section is None:
            section = self._sections[slot] = _Section()
            call_id = self._calls[slot].call_id
            section.pending += section_header("media without signalling" if call_id is None else f"Call-ID: {call_id}")
        return section

    def _interfaces(self, batch: PacketBatch, rows: Int64, slots: Int32, bounds: list[int]) -> Int32:
        """Interface of each row in its call's file; new ones are described there first."""
        captures, links = batch.capture[rows], batch.link_type[rows]
        owners = slots[bounds[:-1]].tolist()
        if (captures == captures[0]).all() and (links == links[0]).all():
            capture, link = int(captures[0]), int(links[0])
            found = [self._interface(self._section(slot), capture, link) for slot in owners]
            return np.repeat(np.array(found, np.int32), np.diff(bounds))
        each = zip(slots.tolist(), captures.tolist(), links.tolist(), strict=True)
        return np.array([self._interface(self._section(slot), *kind) for slot, *kind in each], np.int32)

    def _interface(self, section: _Section, capture: int, link_type: int) -> int:
        known = section.interfaces.get((capture, link_type))
        if known is None:
            known = section.interfaces[capture, link_type] = len(section.interfaces)
            section.pending += interface_description(link_type, self._captures[capture])
        return known

    def _flush(self) -> None:
        for slot, section in self._sections.items():
            if section.pending:
                path = self._directory_of(self._calls[slot].id) / FILE
                with path.open("ab" if section.begun else "wb") as out:
                    out.write(section.pending)
                section.begun = True
                section.pending = bytearray()
        self._pending = 0


def _blocks(batch: PacketBatch, rows: Int64, interfaces: Int32) -> tuple[UInt8, Int64]:
    """Enhanced packet blocks of rows, one behind the other, and where each begins."""
    sizes = BLOCK + (batch.captured[rows].astype(np.int64) + 3 & ~3)
    begins = np.zeros(len(rows), np.int64)
    np.cumsum(sizes[:-1], out=begins[1:])
    out = np.empty(int(sizes.sum()), np.uint8)
    buffer = read_only(batch.buffer)
    lay_out(buffer, batch.offset, batch.captured, batch.wire, batch.time, rows, interfaces, begins, out)
    return out, begins


def section_header(comment: str) -> bytes:
    """A section header block (draft-ietf-opsawg-pcapng, section 4.1) with a comment."""
    body = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
    return _block(0x0A0D0D0A, body + _options((_COMMENT, _text(comment)), (_SECTION_APPLICATION, b"spanrec")))


def interface_description(link_type: int, capture: str) -> bytes:
    """An interface description block (section 4.2) of a capture, its times in ns."""
    body = struct.pack("<HHI", link_type, 0, 0)
    resolution = (_INTERFACE_RESOLUTION, bytes([_NANOSECONDS]))
    return _block(1, body + _options((_COMMENT, _text(f"from {capture}")), resolution))


def _block(kind: int, body: bytes) -> bytes:
    total = len(body) + 12
    return struct.pack("<II", kind, total) + body + struct.pack("<I", total)


def _options(*options: tuple[int, bytes]) -> bytes:
    packed = [struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4) for code, value in options]
    return b"".join(packed) + struct.pack("<HH", _END, 0)


def _text(text: str) -> bytes:
    return text.encode("utf-8", "replace")[:1024]
