"""The part of a capture's octets that is in reach: a whole mapped file, or a chunk of a stream.

In: whatever the inputs in `streams` give. Out: what the record readers advance over.
"""

from dataclasses import dataclass

from capture.batch import Bytes


@dataclass(slots=True)
class Window:
    """Octets [base, base + len(buffer)) of the uncompressed capture; `position` is the next unread one in `buffer`."""

    buffer: Bytes
    base: int = 0
    position: int = 0
    final: bool = True
    """Nothing comes after this buffer."""
    live: bool = False
    """A writer may still be at work, so whole records are handed on without waiting for what follows them."""

    @property
    def end(self) -> int:
        """Octets in the buffer."""
        return len(self.buffer)

    @property
    def offset(self) -> int:
        """Where `position` is in the uncompressed capture."""
        return self.base + self.position
