"""The captures of a replay, as often as they have to be read.

In: `ReplayOptions`. Out: the source that the engine reads, and the same captures once more for whoever looks a second
time. Standard input is spooled to a file where anybody will.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from capture.batch import PacketBatch
from capture.source import CaptureFile, CaptureSource
from capture.spool import spool_standard_input
from capture.tshark_source import TsharkSource
from recorder.replay_types import Dissector, ReplayOptions

STANDARD_INPUT = "-"


class Source(Protocol):
    """Captures, batch by batch."""

    files: list[CaptureFile]

    @property
    def progress(self) -> tuple[int, int | None]:
        """Octets read so far, and octets in all."""
        ...

    def __iter__(self) -> Iterator[PacketBatch]: ...


@dataclass(slots=True)
class Inputs:
    """What there is to read."""

    options: ReplayOptions
    scratch: Path
    """Directory for what has to be spooled or unpacked."""
    standard_input: Path | None = None
    """Where standard input was spooled to."""

    @classmethod
    def prepare(cls, options: ReplayOptions, scratch: Path) -> "Inputs":
        """Spool what will be read more than once, or by tshark."""
        inputs = cls(options, scratch)
        again = options.keep_packets or options.verify or options.dissector is Dissector.TSHARK
        if again and STANDARD_INPUT in options.captures:
            inputs.standard_input = spool_standard_input(scratch / "standard-input")
        return inputs

    @property
    def dissected_by_tshark(self) -> bool:
        """Frames come out of tshark, not as they stand in the captures."""
        return self.options.dissector is Dissector.TSHARK

    def originals(self, *, hash_files: bool = False, batch_size: int = 0) -> CaptureSource:
        """The captures, frame by frame as they are; `batch_size` 0 is as asked for."""
        return CaptureSource(
            self.options.captures,
            batch_size=batch_size or self.options.batch_size,
            hash_files=hash_files,
            standard_input=self.standard_input,
        )

    def tshark(self) -> TsharkSource:
        """The captures as tshark dissects them. Raises CaptureError where it is not installed."""
        return TsharkSource(
            self.options.captures,
            self.scratch,
            keylog=self.options.keylog,
            batch_size=self.options.batch_size,
            standard_input=self.standard_input,
        )

    def paths(self) -> Sequence[Path]:
        """The files themselves, in the order of their indexes."""
        return [path for path in self.originals().paths if path is not None]
