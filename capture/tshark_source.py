"""Captures as tshark dissects them: every link, tunnel and encryption that it knows, SIP inside TLS included.

In: paths as a user gives them, and a key log. Out: `PacketBatch`es in time order with the times and frame numbers of
the originals, one frame for each of theirs, which holds what tshark found innermost (`tshark_frames`). Behind a frame
in which tshark found SIP that columns and reassembly cannot reach (TLS, DTLS, SCTP) follows one UDP frame of the same
number for each message, between the same endpoints; `secure` names the frames whose messages were encrypted. Slower by
far than `CaptureSource`, and meant for what that one cannot read.

tshark stops where a file is damaged; that is told as damage of the file. Formats that only tshark reads are read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from capture.batch import PacketBatch
from capture.damage import Damage
from capture.merge import NEVER, merge
from capture.reader import CaptureFile, FileReader
from capture.source import CaptureSource
from capture.spool import is_packed_file, unpack
from capture.streams import SMALL_CHUNK
from capture.tshark import Rows, Tshark
from capture.tshark_frames import FIELDS, Dissected, dissect, udp_frame

LINK_TYPE = 1
"""Of the frames that come out: Ethernet."""
HIDDEN_SIP = "sip && (tls || dtls || sctp || sigcomp)"
"""Display filter of the frames with SIP that only tshark reaches."""
KNOWN_TLS_PORTS = frozenset({443, 5061})
"""What tshark takes TLS on these ports for is what it is; on others it is told to look for SIP."""

_LINK_TYPES = {1: 1, 4: 9, 7: 101, 15: 0, 19: 50, 20: 105, 23: 127, 25: 113, 28: 104, 39: 101, 210: 276}
"""Wireshark's numbers of link types to LINKTYPE_ values, for files that only tshark reads."""
_RECORD_HEADER = 16


@dataclass(slots=True)
class _Rows:
    """Columns of the next batch in the making."""

    times: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    wires: list[int] = field(default_factory=list)
    frames: list[bytes] = field(default_factory=list)
    octets: int = 0

    def add(self, time: int, number: int, frame: bytes, missing: int = 0) -> None:
        self.times.append(time)
        self.numbers.append(number)
        self.frames.append(frame)
        self.wires.append(len(frame) + missing)
        self.octets += len(frame)

    def batch(self, capture: int) -> PacketBatch:
        """The columns."""
        captured = np.array([len(frame) for frame in self.frames], np.int32)
        offset = np.zeros(len(captured), np.int64)
        np.cumsum(captured[:-1], out=offset[1:])
        return PacketBatch(
            buffer=np.frombuffer(b"".join(self.frames), np.uint8),
            time=np.array(self.times, np.int64),
            offset=offset,
            captured=captured,
            wire=np.array(self.wires, np.int32),
            link_type=np.full(len(captured), LINK_TYPE, np.int32),
            number=np.array(self.numbers, np.int64),
            capture=np.full(len(captured), capture, np.int32),
        )


class TsharkSource:
    """An iterable of batches in time order over all captures, dissected by tshark; to be iterated once."""

    def __init__(
        self,
        paths: Sequence[str | Path],
        scratch: Path,
        *,
        keylog: Path | None = None,
        batch_size: int = 8192,
        standard_input: Path | None = None,
    ) -> None:
        """`scratch` takes what has to be unpacked for tshark; standard input must have been spooled to a file.

        Raises:
            CaptureError: tshark is not installed.
        """
        self._tshark = Tshark(scratch, keylog)
        listed = CaptureSource(paths, standard_input=standard_input)
        self.files = listed.files
        self.secure: set[tuple[int, int]] = set()
        """(capture, frame number) of the frames whose SIP was encrypted."""
        self._feeds = [
            _TsharkFeed(file, path, self._tshark, self.secure)
            for file, path in zip(listed.files, listed.paths, strict=True)
            if path is not None
        ]
        self._batch_size = batch_size
        self._sizes = [path.stat().st_size for path in listed.paths if path is not None and path.is_file()]

    @property
    def progress(self) -> tuple[int, int | None]:
        """Octets read so far, as far as tshark lets one know, and octets in all."""
        total = sum(self._sizes)
        return min(sum(feed.taken for feed in self._feeds), total), total

    def __iter__(self) -> Iterator[PacketBatch]:
        if len(self._feeds) > 1:
            for feed in self._feeds:
                feed.find_start()
        return merge(self._feeds, self._batch_size)

    def close(self) -> None:
        """End what still runs."""
        for feed in self._feeds:
            feed.close()


class _TsharkFeed:
    """A capture file as `capture.merge` takes it."""

    def __init__(self, file: CaptureFile, path: Path, tshark: Tshark, secure: set[tuple[int, int]]) -> None:
        self.rank = file.index
        self.start = 0
        self.live = False
        self.taken = 0
        self._file = file
        self._path = path
        self._tshark = tshark
        self._secure = secure
        self._rows: Rows | None = None
        self._frames: Iterator[Dissected] = iter(())
        self._hidden: Iterator[tuple[int, bytes]] = iter(())
        self._next_hidden: tuple[int, bytes] | None = None
        self._plain: Path | None = None
        self._seen = _Seen()

    def find_start(self) -> None:
        """Time of the first packet, from the file itself where it can be read, else from tshark."""
        glance = FileReader(CaptureFile(self.rank, ""), self._path, hashed=False, peeking=True)
        glance.open()
        first = glance.read(1, SMALL_CHUNK)
        glance.close()
        if first is not None:
            self.start = int(first.time[0])
            return
        rows = self._tshark.fields(self._path, FIELDS, ["-c", "1"])
        self.start = min((frame.time for frame in map(dissect, rows) if frame is not None), default=NEVER)

    def open(self, crowded: bool) -> None:
        """Start tshark on the file."""
        path = self._path
        if path.is_file() and is_packed_file(path):
            path = self._plain = unpack(path, self._tshark.scratch / f"unpacked-{self.rank}")
        if path.is_file():
            self._hidden = self._tshark.sip_messages(path, HIDDEN_SIP, self._decode_as(path))
            self._next_hidden = next(self._hidden, None)
        self._rows = self._tshark.fields(path, FIELDS)
        self._frames = (frame for frame in map(dissect, self._rows) if frame is not None)

    def read(self, limit: int, span: int) -> PacketBatch | None:
        """Next packets."""
        columns = _Rows()
        while len(columns.times) < limit and columns.octets < span:
            frame = next(self._frames, None)
            if frame is None:
                break
            self._add(columns, frame)
        if columns.times:
            return columns.batch(self.rank)
        self._finish()
        return None

    def close(self) -> None:
        """End tshark and drop what was unpacked."""
        if self._rows is not None:
            self._rows.close()
        if self._plain is not None:
            self._plain.unlink(missing_ok=True)
            self._plain = None

    def _add(self, columns: _Rows, frame: Dissected) -> None:
        """A frame, and the SIP messages that tshark found inside its encryption."""
        columns.add(frame.time, frame.number, frame.frame, frame.missing)
        self._seen.note(frame)
        self.taken += frame.wire + _RECORD_HEADER
        while self._next_hidden is not None and self._next_hidden[0] <= frame.number:
            number, data = self._next_hidden
            if number == frame.number and frame.way is not None:
                columns.add(frame.time, number, udp_frame(frame.way, data))
                if frame.encrypted:
                    self._secure.add((self.rank, number))
            self._next_hidden = next(self._hidden, None)

    def _decode_as(self, path: Path) -> dict[str, str]:
        """Ports of TLS servers on which tshark has to be told to look for SIP: no ALPN says what they are."""
        if self._tshark.keylog is None:
            return {}
        asked = "tls.handshake.type == 1 && !tls.handshake.extensions_alpn_str"
        ports = {row[0] for row in self._tshark.fields(path, ["tcp.dstport"], ["-Y", asked]) if row[0].isdecimal()}
        return {f"tls.port=={port}": "sip" for port in sorted(ports, key=int) if int(port) not in KNOWN_TLS_PORTS}

    def _finish(self) -> None:
        """Complete the account of the file: its own reader tells digest, size and damage."""
        if self._rows is None:
            return
        self.close()
        trouble, self._rows = self._rows.trouble, None
        reader = FileReader(self._file, self._path, hashed=True)
        reader.open()
        while reader.read(1 << 16) is not None:
            pass
        file, seen = self._file, self._seen
        if seen.packets and not file.packets:
            file.readable, file.damage = True, []
            file.packets, file.started, file.ended = seen.packets, seen.started, seen.ended
            file.link_types = [_LINK_TYPES[e] for e in sorted(seen.encapsulations) if e in _LINK_TYPES]
        if trouble and file.readable:
            file.damage = [*file.damage, Damage(0, 0, f"tshark stopped after {seen.packets} packets: {trouble}")]
        self.taken = file.bytes


@dataclass(slots=True)
class _Seen:
    """What tshark showed of a file."""

    packets: int = 0
    started: int | None = None
    ended: int | None = None
    encapsulations: set[int] = field(default_factory=set)

    def note(self, frame: Dissected) -> None:
        self.packets += 1
        self.started = frame.time if self.started is None else min(self.started, frame.time)
        self.ended = frame.time if self.ended is None else max(self.ended, frame.time)
        if frame.encapsulation is not None:
            self.encapsulations.add(frame.encapsulation)
