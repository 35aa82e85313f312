"""Recording sessions and what happens to them as JSON and back.

In: values of `control`, or their JSON. Out: octets, or the values. Times are RFC 3339 strings; what the wire brought is
made valid Unicode. The form is that of the types.
"""

from collections.abc import Sequence

from recorder.siprec.control import SessionEvent, SessionInfo
from recorder.status_json import adapter, read


def sessions_json(sessions: Sequence[SessionInfo]) -> bytes:
    """{"sessions": [...]}."""
    return b'{"sessions":' + adapter(tuple[SessionInfo, ...]).dump_json(tuple(sessions)) + b"}"


def event_json(event: SessionEvent) -> bytes:
    """One event, in one line."""
    return adapter(SessionEvent).dump_json(event)


def read_sessions(content: bytes) -> tuple[SessionInfo, ...]:
    """Raises StatusError where it is none."""
    return read(adapter(dict[str, tuple[SessionInfo, ...]]), content).get("sessions", ())


def read_event(content: bytes) -> SessionEvent:
    """Raises StatusError where it is none."""
    return read(adapter(SessionEvent), content)
