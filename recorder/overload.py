"""What is given up when there is more traffic than can be recorded.

In: how far the recorder is behind the wire, and packets that the kernel dropped. Out: whether calls that begin may be
recorded, and how many of those in progress must go. Whole calls are given up rather than pieces of all, the newest
first: what has been recorded longest is kept whole. Pure: times are arguments, in seconds.
"""

from dataclasses import dataclass

BEHIND = 3.0
"""s behind the wire at which no further call is begun."""
RECOVERED = 1.0
"""s behind the wire at which all is well again, once it has lasted for CALM."""
CALM = 5.0
PATIENCE = 1.0
"""s that a measure is given to take effect before the next share goes."""
SHARE = 0.1
"""Of the calls in progress, given up at a time."""


@dataclass(slots=True)
class Overload:
    """Decides once a second or more often."""

    active: bool = False
    """Calls that begin are not recorded."""
    shed: int = 0
    """Calls given up so far, those that were not begun included."""
    _calm_since: float | None = None
    _acted: float = 0.0

    def judge(self, now: float, behind: float, dropped: int, recording: int) -> int:
        """How many of the `recording` calls must be given up now.

        `now`: monotonic; `behind`: age of the newest packet handled; `dropped`: by the kernel since the last look.
        """
        if behind < RECOVERED and not dropped:
            if self._calm_since is None:
                self._calm_since = now
            if self.active and now - self._calm_since >= CALM:
                self.active = False
            return 0
        self._calm_since = None
        if behind < BEHIND and not dropped:
            return 0
        if not self.active:
            self.active, self._acted = True, now
            return 0
        if now - self._acted < PATIENCE or recording == 0:
            return 0
        self._acted = now
        share = max(1, int(SHARE * recording))
        self.shed += share
        return share
