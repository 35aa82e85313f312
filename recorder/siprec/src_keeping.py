"""Calls of a recording session that no server takes: which of them are to be kept, and from when on.

In: the session's calls, when it began to be without a server, that none could be had. Out: word to whoever keeps
packets (`Surroundings`): that a call is in doubt, and when it is over, that it is to be kept or can be spared. It is in
doubt before it is known that no server can be had: to find that out takes seconds, and calls may end meanwhile.
"""

from dataclasses import dataclass

from recorder.siprec.control import EventKind
from recorder.siprec.src_connect import Surroundings
from recorder.siprec.src_decision import Instance
from recorder.siprec.src_media import RecordedCall
from recorder.siprec.src_telling import Telling

PATIENCE = 1.5
"""s without a server after which calls are in doubt: longer than most servers take to answer."""


@dataclass(slots=True, eq=False)
class Keeping:
    """Of one session."""

    instance: Instance
    around: Surroundings
    calls: list[RecordedCall]
    """Of the session, which adds to it and takes away."""
    telling: Telling
    waits: bool = False
    """It has been without a server for a while, or none is up."""
    _since: float | None = None
    """Since when it has been without a server, by the loop's clock."""

    def without(self, now: float) -> None:
        """The session has no server."""
        self._since = now
        self.waits = not any(map(self.around.servers.is_up, self.instance.servers))
        if self.waits:
            self._doubt()

    def served(self) -> None:
        """It has one."""
        self.waits, self._since = False, None

    def look(self, now: float) -> None:
        """Look how long it has been without; now and then."""
        if self._since is not None and now >= self._since + PATIENCE:
            self._doubt()
            self.waits, self._since = True, None

    def miss(self, why: str) -> bool:
        """No server can be had for what the calls say from now on: they are kept. Whether that is news of any."""
        missed = [call for call in self.calls if not call.missed]
        for call in missed:
            call.missed = True
        self._doubt()
        for call in missed:
            self.telling.tell(EventKind.SPOOLED, f"{why}: the call is kept here", call=call)
        return bool(missed)

    def unheard(self) -> bool:
        """The server was gone when the calls ended: nobody knows how much of them it has. Whether all are kept."""
        late = [call for call in self.calls if call.late]
        for call in late:
            call.missed = True  # its packets are still there: all of it is sent once more
        return len(late) == len(self.calls)

    def settle(self, call: RecordedCall) -> None:
        """A call is over here; a second time changes nothing."""
        if call.missed:
            self.around.keep(call, self.instance)
        elif call.doubted:
            self.around.spared(call)
        call.doubted = call.missed = False

    def _doubt(self) -> None:
        if not self.instance.spool:
            return
        for call in self.calls:
            if not call.doubted:
                call.doubted = True
                self.around.doubted(call)
