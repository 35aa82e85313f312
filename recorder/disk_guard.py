"""Whether there is room for more recordings, with two marks so that the answer does not flutter.

In: free and total octets of a file system. Out: whether space is low. It becomes low below one mark and is enough again
above the other. Reads no disk, knows no clock.
"""

from capture.errors import SpanrecError
from recorder.amounts import Amount, parse_amount


class DiskMarkError(SpanrecError):
    """The marks cannot be used."""


class DiskGuard:
    """Remembers its last answer."""

    def __init__(self, stop_at: str, resume_at: str) -> None:
        """Marks as settings write them: `2%`, `5GB`. Raises DiskMarkError."""
        self._stop = _mark("stop_at", stop_at)
        self._resume = _mark("resume_at", resume_at)
        self._low = False

    def low(self, free: int, total: int) -> bool:
        """Whether no recording may be begun."""
        stop, resume = self._stop.of(total), self._resume.of(total)
        self._low = free < (max(stop, resume) if self._low else stop)
        return self._low

    def scarce(self, free: int, total: int) -> bool:
        """Whether somebody should look: less is free than twice what recording needs to go on."""
        return free < 2 * max(self._stop.of(total), self._resume.of(total))


def _mark(name: str, text: str) -> Amount:
    try:
        return parse_amount(text)
    except ValueError as error:
        raise DiskMarkError(f"{name}: {error}") from error
