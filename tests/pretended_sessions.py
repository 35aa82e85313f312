"""Recording sessions that only pretend: they do as told and tell it."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from recorder.siprec.control import (
    ControlError,
    EventKind,
    LegInfo,
    Listener,
    Role,
    SessionEvent,
    SessionInfo,
    SessionState,
)

SECOND = 1_000_000_000
NOW = 1_772_356_502_000_000_000
"""2026-03-01T09:15:02Z."""
CALL = "3f1c8f0e-0000-4000-8000-000000000001"
CALL_ID = "a84b4c/76e6 6710@192.0.2.1"
"""With characters that mean something in a path."""


def session(name: str = "s1", state: SessionState = SessionState.RECORDING, number: int = 1) -> SessionInfo:
    """A session of two legs."""
    legs = tuple(
        LegInfo(str(place), side, "PCMA/8000", f"127.0.0.1:{35000 + 2 * place}", "192.0.2.9:40000", 500, 0, False)
        for place, side in enumerate(("caller", "callee"), 1)
    )
    return SessionInfo(
        id=name,
        role=Role.SRC,
        state=state,
        peer="sip:rec1.example",
        rs_call_id=f"rs-{number}@spanrec",
        calls=(CALL[:-1] + str(number),),
        call_ids=(CALL_ID if number == 1 else f"call-{number}",),
        caller="sip:+49301111@example.com",
        callee="sip:bob\udcff@example.com",
        since=NOW,
        legs=legs,
        attempts=("sip:rec0.example: 503 Full",),
    )


class PretendedSessions:
    """A `SessionControl`."""

    def __init__(self, *sessions: SessionInfo) -> None:
        self._lock = threading.Lock()
        self._sessions = {each.id: each for each in sessions or (session(), session("s2", number=2))}
        self._listeners: list[Listener] = []
        self.asked: list[tuple[str, ...]] = []
        self.drained = False

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    def sessions(self) -> Sequence[SessionInfo]:
        return tuple(self._sessions.values())

    def start(self, call: str, servers: str = "", options: Mapping[str, str] | None = None) -> Sequence[str]:
        self.asked.append(("start", call, servers, *sorted(f"{k}={v}" for k, v in (options or {}).items())))
        if call == "none":
            raise ControlError("no call in progress has this Call-ID or id")
        return ["s3"]

    def stop(self, which: str) -> Sequence[str]:
        return self._change(which, SessionState.ENDED, EventKind.STOP)

    def pause(self, which: str) -> Sequence[str]:
        return self._change(which, SessionState.PAUSED, EventKind.PAUSE)

    def resume(self, which: str) -> Sequence[str]:
        return self._change(which, SessionState.RECORDING, EventKind.RESUME)

    def request(self, which: str, method: str, content_type: str, body: bytes) -> str:
        self.asked.append(("request", which, method, content_type, body.decode()))
        return "200 OK"

    def listen(self, listener: Listener) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def drain(self) -> str:
        self.drained = True
        return "2 sessions go on; none begins"

    def tell(self, event: SessionEvent) -> None:
        for listener in list(self._listeners):
            listener(event)

    def _change(self, which: str, state: SessionState, kind: EventKind) -> Sequence[str]:
        self.asked.append((kind.value, which))
        found = [each for each in self._sessions.values() if which in (each.id, each.rs_call_id, *each.call_ids)]
        if not found:
            raise ControlError(f"no recording session fits {which}")
        for each in found:
            self._sessions[each.id] = replace(each, state=state)
            self.tell(SessionEvent(kind, NOW + SECOND, session=each.id, call_id=each.call_ids[0], peer=each.peer))
        return [each.id for each in found]
