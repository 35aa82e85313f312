"""What was wrong with a capture: places, octets lost, reasons.

In: notes from the readers. Out: at most `MOST_PLACES` entries a file, however broken it is.
"""

from dataclasses import dataclass, field

MOST_PLACES = 1000


@dataclass(frozen=True, slots=True)
class Damage:
    """One damaged place. Offsets count in the uncompressed data where the file is compressed."""

    offset: int
    skipped: int
    """Octets that were passed over."""
    text: str
    """One sentence: where, how much was skipped, why."""


@dataclass(slots=True)
class DamageLog:
    """Collects damage; what adjoins for the same reason is one place, and past `MOST_PLACES` they are only counted."""

    entries: list[Damage] = field(default_factory=list)
    _why: str = ""
    _further: int = 0
    _further_octets: int = 0
    _further_from: int = 0

    def note(self, offset: int, skipped: int, why: str) -> None:
        """Add a place; `why` is a clause that a sentence may end with."""
        if self.entries and not self._further and why == self._why:
            last = self.entries[-1]
            if last.offset + last.skipped == offset and last.skipped:
                self.entries[-1] = _entry(last.offset, last.skipped + skipped, why)
                return
        if len(self.entries) < MOST_PLACES - 1:
            self.entries.append(_entry(offset, skipped, why))
            self._why = why
            return
        if not self._further:
            self._further_from = offset
            self.entries.append(_entry(offset, skipped, why))
        self._further += 1
        self._further_octets += skipped
        if self._further > 1:
            self.entries[-1] = Damage(
                self._further_from,
                self._further_octets,
                f"from byte {self._further_from} on, {self._further} more places are damaged"
                f" and {self._further_octets} bytes were skipped",
            )

    def refuse(self, why: str) -> None:
        """Say that the whole file gives nothing; `why` is a clause about the file."""
        self.entries.append(Damage(0, 0, f"nothing could be read: {why}"))


def _entry(offset: int, skipped: int, why: str) -> Damage:
    lost = f"{skipped} byte{'' if skipped == 1 else 's'} skipped" if skipped else "nothing skipped"
    return Damage(offset, skipped, f"at byte {offset}, {lost}: {why}")
