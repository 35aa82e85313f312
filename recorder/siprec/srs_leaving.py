"""Recording sessions that we ended unasked, until their SRCs know it: what is said meanwhile is still recorded.

In: sessions that are over, the time. Out: `ServerSession.part` of each, at the latest when its SRC is silent. Our BYE
may be lost, and an SRC that has not seen it goes on to send (RFC 3261, section 13.3.1.4: one whose ACK never came). How
long it may is bounded by the user agent, which waits for the answer to a BYE for 64*T1.
"""

from capture.media_ports import MediaPort
from recorder.siprec.srs_session import Reception, ServerSession

SILENT = 5_000_000_000
"""ns without media after which nothing more is expected of an SRC."""


class Leaving:
    """Those sessions."""

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        self._sessions: list[ServerSession] = []

    def __len__(self) -> int:
        return len(self._sessions)

    def add(self, session: ServerSession, now: int) -> None:
        """A session is over. `now`: wall clock, ns."""
        self._sessions.append(session)
        self.look(now)

    def look(self, now: int) -> None:
        """See whose SRC knows it or is silent."""
        for session in self._sessions:
            last = max((self._last(line.port) for line in session.lines), default=0)
            if session.leaving and now - last >= SILENT:
                session.part(None)
        self._sessions = [session for session in self._sessions if session.leaving]

    def forget(self) -> None:
        """Wait for none any more."""
        for session in self._sessions:
            session.part(None)
        self._sessions.clear()

    def _last(self, port: MediaPort) -> int:
        return self._reception.state(port).last or 0
