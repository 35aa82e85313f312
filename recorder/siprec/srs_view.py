"""What the metadata of a recording session say, as values that go from the sessions' loop to the engine's thread.

In: nothing. Out: the types that `srs_metadata` fills. Identifiers are text, as the SRC wrote them; times are ns, UTC,
by the SRC's clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from recorder.model import CallState, Hold, Identity, Side


@dataclass(frozen=True, slots=True)
class Facts:
    """What spanrec's own SRC says of a call beyond RFC 7865 (`recorder/metadata_extension.py`)."""

    call_id: str | None = None
    state: CallState | None = None
    started: int | None = None
    ringing: int | None = None
    answered: int | None = None
    ended: int | None = None
    sip_status: int | None = None
    sip_reason: str | None = None
    ended_by: Side | None = None
    holds: tuple[Hold, ...] = ()


@dataclass(frozen=True, slots=True)
class Person:
    """A participant."""

    id: str
    identities: tuple[Identity, ...]
    role: Side | None = None
    """As our own SRC says it; RFC 7865 has no roles."""
    address: str | None = None
    """ip:port of its signalling, likewise."""


@dataclass(frozen=True, slots=True)
class Membership:
    """A participant's part in a session."""

    person: str
    joined: int | None = None
    left: int | None = None


@dataclass(frozen=True, slots=True)
class Flow:
    """A stream."""

    id: str
    label: str | None
    senders: tuple[str, ...]
    """Participants who contribute to it."""
    receivers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Communication:
    """A communication session: the recorded call."""

    id: str
    sip_session_ids: tuple[str, ...] = ()
    group: str | None = None
    start: int | None = None
    stop: int | None = None
    recorded_from: int | None = None
    """Associate-time of its sessionrecordingassoc."""
    reasons: tuple[tuple[str, int, str], ...] = ()
    members: tuple[Membership, ...] = ()
    """In order of the document."""
    flows: tuple[Flow, ...] = ()
    facts: Facts = field(default_factory=Facts)


@dataclass(frozen=True, slots=True)
class View:
    """The state of the metadata of one recording session."""

    sessions: tuple[Communication, ...] = ()
    persons: Mapping[str, Person] = field(default_factory=dict)
    said: bool = False
    """There was something to be read, an empty `recording` included."""
    notes: tuple[str, ...] = ()
    """What was unsound so far, a phrase each."""
