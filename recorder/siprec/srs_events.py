"""What happens to the recording server's sessions, told to whoever listens: operators, webhooks, the log.

In: sessions that begin, change, end, and offers that are refused. Out: `SessionEvent`s, in the sessions' thread.
"""

from collections.abc import Callable, Mapping

from recorder.siprec.control import EventKind, Listener, SessionEvent
from recorder.siprec.srs_session import ServerSession

Details = Mapping[str, str | int | float | None]


class SrsEvents:
    """The listeners of one server."""

    def __init__(self, calls: Mapping[int, tuple[str, ...]], clock: Callable[[], int]) -> None:
        """`calls`: running number of a session -> `Call.id` of its calls. `clock`: wall, ns."""
        self._calls = calls
        self._clock = clock
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Tell somebody from now on; gives what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def of(self, kind: EventKind, session: ServerSession, text: str = "", details: Details | None = None) -> None:
        """Something happened to a session."""
        calls = self._calls.get(session.number, ())
        peer = session.session.remote_uri if session.session is not None else ""
        self._tell(kind, peer, session.call_id, text, details or {}, session.id, calls[0] if calls else "")

    def refused(self, peer: str, call_id: str, text: str, details: Details) -> None:
        """An offer came to nothing."""
        self._tell(EventKind.FAILURE, peer, call_id, text, details)

    def _tell(
        self,
        kind: EventKind,
        peer: str,
        call_id: str,
        text: str,
        details: Details,
        session: str = "",
        call: str = "",
    ) -> None:
        event = SessionEvent(
            kind=kind,
            at=self._clock(),
            session=session,
            call=call,
            call_id=call_id,
            peer=peer,
            text=text,
            details=dict(details),
        )
        for listener in list(self._listeners):
            listener(event)
