"""What the metadata of a recording session say, as values that go from the sessions' loop to the engine's thread.

In: nothing. Out: the types that `srs_metadata` fills. Identifiers are text, as the SRC wrote them; times are ns, UTC,
by the SRC's clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

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


def shifted(view: View, by: int) -> View:
    """The same by another clock: `by` ns are added to all its times."""
    return replace(view, sessions=tuple(_session(session, by) for session in view.sessions))


def _session(session: Communication, by: int) -> Communication:
    facts = session.facts
    holds = tuple(hold._replace(begin=hold.begin + by, end=_time(hold.end, by)) for hold in facts.holds)
    return replace(
        session,
        start=_time(session.start, by),
        stop=_time(session.stop, by),
        recorded_from=_time(session.recorded_from, by),
        members=tuple(
            replace(member, joined=_time(member.joined, by), left=_time(member.left, by)) for member in session.members
        ),
        facts=replace(
            facts,
            started=_time(facts.started, by),
            ringing=_time(facts.ringing, by),
            answered=_time(facts.answered, by),
            ended=_time(facts.ended, by),
            holds=holds,
        ),
    )


def _time(time: int | None, by: int) -> int | None:
    return None if time is None else time + by
