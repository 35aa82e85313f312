"""One capture file from its first packet to its last.

In: a path (or standard input). Out: batches of packets, and a `CaptureFile` that is final once they are exhausted. A
file that cannot be opened, or is no capture, gives no packets and says why; nothing raises.
"""

from dataclasses import dataclass, field
from pathlib import Path

from capture.batch import PacketBatch
from capture.damage import Damage, DamageLog
from capture.pcap import PcapReader, is_pcap
from capture.pcapng import PcapngReader, is_pcapng
from capture.records import BATCH_SPAN, RecordReader
from capture.streams import CHUNK, SMALL_CHUNK, Input, open_input

STANDARD_INPUT = "-"

_MAGIC_OCTETS = 4


@dataclass(slots=True)
class CaptureFile:
    """What is known of one capture; filled while it is read, final when its packets are exhausted."""

    index: int
    name: str
    """Base name, `-` for standard input."""
    bytes: int = 0
    """As given, so packed where the file is packed."""
    sha256: str | None = None
    """Of the file as given; None where none was asked for, or the file could not be opened."""
    packets: int = 0
    link_types: list[int] = field(default_factory=list)
    started: int | None = None
    """Time of the earliest packet, ns since the epoch; None where there is none."""
    ended: int | None = None
    """Time of the latest."""
    damage: list[Damage] = field(default_factory=list)
    readable: bool = True
    """Whether it is a capture at all."""


class FileReader:
    """Reads one capture, of which it keeps the account in `file`."""

    def __init__(
        self,
        file: CaptureFile,
        path: Path | None,
        *,
        hashed: bool,
        peeking: bool = False,
        source: Input | None = None,
    ) -> None:
        """`peeking` readers want the first packets only and so read little ahead; `source` takes the path's place."""
        self.file = file
        self._path = path
        self._hashed = hashed
        self._peeking = peeking
        self._log = DamageLog()
        self._input = source
        self._records: RecordReader | None = None
        self._done = False

    @property
    def taken(self) -> int:
        """Octets of the file as given that were read so far."""
        return self._input.taken if self._input and not self._done else self.file.bytes if self._done else 0

    @property
    def live(self) -> bool:
        """Whether packets come from a pipe, where waiting for more holds back what is there."""
        return self._input is not None and self._input.window.live

    def open(self, crowded: bool = False) -> None:
        """Open the file; `crowded` where very many are open at once, which costs speed and saves descriptors."""
        if self._input is not None:
            return
        chunk = SMALL_CHUNK if crowded or self._peeking else CHUNK
        try:
            self._input = open_input(self._path, hashed=self._hashed, mapped=not crowded, chunk=chunk)
        except OSError as error:
            self._refuse(f"it cannot be opened: {error.strerror}")
            self._done = True

    def read(self, limit: int, span: int = BATCH_SPAN) -> PacketBatch | None:
        """Next packets, at least one and at most `limit`; None when there are no more, or none yet where it grows."""
        while not self._done:
            assert self._input is not None
            batch = self._read_window(self._input, limit, span)
            if batch is None:
                window = self._input.window
                if window.final:
                    self.close()
                    continue
                before = window.base + window.end
                self._input.extend()
                if window.base + window.end == before and not window.final:
                    return None
                continue
            self._input.advance()
            if len(batch):
                self._account(batch)
                return batch
        return None

    def close(self) -> None:
        """Complete the account and let go of the file."""
        if self._done or self._input is None:
            return
        self._done = True
        source = self._input
        if self._records is None:
            self._refuse("it is empty" if not source.window.end else "it is neither pcap nor pcapng")
        elif self._records.refusal:
            self._refuse(self._records.refusal)
        if source.trouble:
            self._log.note(source.window.base + source.window.end, 0, source.trouble)
        self.file.damage = self._log.entries
        self.file.sha256 = source.finish()
        self.file.bytes = source.taken if source.total is None else source.total
        self._input = None

    def _read_window(self, source: Input, limit: int, span: int) -> PacketBatch | None:
        """Whatever the window holds; chooses the format at its beginning."""
        window = source.window
        if self._records is None:
            head = window.buffer[:_MAGIC_OCTETS].tobytes()
            if len(head) < _MAGIC_OCTETS and not window.final:
                return None
            if is_pcap(head):
                self._records = PcapReader(self.file.index, self._log)
            elif is_pcapng(head):
                self._records = PcapngReader(self.file.index, self._log)
            else:
                window.final = True
                return None
        batch = self._records.read(window, limit, span)
        self.file.link_types = self._records.link_types
        if self._records.refusal:
            window.final = True
        return batch

    def _account(self, batch: PacketBatch) -> None:
        file = self.file
        earliest, latest = int(batch.time.min()), int(batch.time.max())
        file.packets += len(batch)
        file.started = earliest if file.started is None else min(file.started, earliest)
        file.ended = latest if file.ended is None else max(file.ended, latest)
        file.damage = self._log.entries

    def _refuse(self, why: str) -> None:
        self.file.readable = False
        self._log.refuse(why)
        self.file.damage = self._log.entries
