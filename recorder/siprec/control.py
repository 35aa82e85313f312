"""What an operator can ask of the recording sessions, whoever asks: socket, HTTP, command line, a rule.

In: nothing. Out: values and the `SessionControl` protocol that both our SRC and our SRS keep. All methods may be called
from any thread; they wait for the sessions' event loop, at most `ANSWER` s.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from capture.errors import SpanrecError
from recorder.status import Time, WireText

ANSWER = 10.0
"""s that a command waits for its effect."""


class ControlError(SpanrecError):
    """A command cannot be carried out: says what is wrong with it."""


class Role(StrEnum):
    """Which side of a recording session we are."""

    SRC = "src"
    SRS = "srs"


class SessionState(StrEnum):
    """How a recording session stands."""

    CONNECTING = "connecting"
    RECORDING = "recording"
    PAUSED = "paused"
    SPOOLING = "spooling"
    """No server can be had: the call is kept here and delivered later."""
    ENDED = "ended"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class LegInfo:
    """One media description of a session."""

    label: WireText
    participant: WireText
    """caller or callee, or its name in the metadata."""
    codec: WireText
    local: str
    remote: str
    packets: int
    lost: int
    encrypted: bool


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One recording session. Times are ns, UTC."""

    id: str
    """Of ours, a short word that commands take."""
    role: Role
    state: SessionState
    peer: WireText
    """URI of the other side."""
    rs_call_id: WireText
    """Call-ID of the recording session."""
    calls: tuple[str, ...]
    """Identifiers of the calls in it (`Call.id`)."""
    call_ids: tuple[WireText, ...]
    """Their Call-IDs where known."""
    caller: WireText
    callee: WireText
    since: Time
    group: str = ""
    instance: str = ""
    """Name of the rule's instance or persistent session."""
    legs: tuple[LegInfo, ...] = ()
    attempts: tuple[WireText, ...] = ()
    """Servers tried and what became of it, a phrase each, oldest first."""
    note: WireText = ""


class EventKind(StrEnum):
    """What happens to recording sessions."""

    START = "start"
    STOP = "stop"
    PAUSE = "pause"
    RESUME = "resume"
    FAILOVER = "failover"
    FAILURE = "failure"
    SPOOLED = "spooled"
    DELIVERED = "delivered"
    SERVER_UP = "server-up"
    SERVER_DOWN = "server-down"


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """Something that happened. `details` hold words and numbers, never secrets."""

    kind: EventKind
    at: Time
    session: str = ""
    call: str = ""
    call_id: WireText = ""
    peer: WireText = ""
    text: WireText = ""
    details: Mapping[str, WireText | int | float | None] = field(default_factory=dict)


Listener = Callable[[SessionEvent], None]


class SessionControl(Protocol):
    """Commands. `which` is a session's id, the Call-ID or the id of a call; all sessions that it fits are meant.

    Each raises ControlError where nothing fits or where it cannot be done.
    """

    def sessions(self) -> Sequence[SessionInfo]:
        """All sessions in progress, and those that ended in the last minute."""
        ...

    def start(self, call: str, servers: str = "", options: Mapping[str, str] | None = None) -> Sequence[str]:
        """Record a call in progress (by Call-ID or id), to `servers` or those of the settings; gives session ids."""
        ...

    def stop(self, which: str) -> Sequence[str]:
        """End recording sessions; the call goes on."""
        ...

    def pause(self, which: str) -> Sequence[str]:
        """Record nothing for now."""
        ...

    def resume(self, which: str) -> Sequence[str]:
        """Record again."""
        ...

    def request(self, which: str, method: str, content_type: str, body: bytes) -> str:
        """Send a request within a session (INFO, MESSAGE, NOTIFY, OPTIONS); gives status and phrase of the answer."""
        ...

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Be told of events, in the sessions' thread; gives what ends that."""
        ...
