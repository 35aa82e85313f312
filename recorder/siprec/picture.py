"""A call as recording sessions see it: an immutable picture, taken whenever something of it changed.

In: nothing. Out: values that go from the engine's thread to the sessions' event loop. Two pictures that are equal need
no update to a recording server.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from capture.address import Endpoint
from decoders.sdp import Direction, PayloadFormat
from recorder.model import CallState, Side


@dataclass(frozen=True, slots=True)
class PartyPicture:
    """A participant."""

    side: Side
    participant_id: UUID
    names: tuple[tuple[str, str | None], ...]
    """(AoR as a URI, display name) in order of trust, at least one; see `metadata.name_ids`."""
    address: Endpoint | None = None
    """Of its signalling."""
    joined: int | None = None
    left: int | None = None
    params: tuple[tuple[str, str], ...] = ()
    """Capabilities of its Contact (RFC 3840)."""


@dataclass(frozen=True, slots=True)
class StreamPicture:
    """One direction of one media description of the call, as negotiated."""

    side: Side
    """Who sends."""
    media_index: int
    media: str
    """audio, video..."""
    formats: Mapping[int, PayloadFormat]
    """What may come, in order of preference: what the receiver announced, as far as the sender offers it too."""
    sending: bool
    """By the descriptions, media flows this way now: not held, not refused."""
    encrypted: bool
    """The call's own profile is a secure one: the recording session must be as secure (RFC 7866, section 12)."""
    keyed: bool
    """Its SDES keys are known, so that it can be forwarded."""
    direction: Direction = Direction.SENDRECV
    ptime: float | None = None


class Phase(StrEnum):
    """How far a call is."""

    EARLY = "early"
    """An offer was seen, no 2xx."""
    ANSWERED = "answered"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class CallPicture:
    """A call. Times are capture times in ns, UTC."""

    index: int
    id: UUID
    """Of the call: its `session_id`."""
    group: UUID
    """Of the first call of its conversation, `id` where alone; `metadata_ids.group_uuid` makes the group_id of it."""
    call_id: str | None
    phase: Phase
    started: int
    answered: int | None
    ended: int | None
    state: CallState
    parties: tuple[PartyPicture, PartyPicture]
    """Caller, callee."""
    streams: tuple[StreamPicture, ...]
    held_by: frozenset[Side] = frozenset()
    session_ids: tuple[str, ...] = ()
    reasons: tuple[tuple[str, int, str], ...] = ()
    """(protocol, cause, text)."""
    tags: tuple[str, ...] = ()
    record_preference: str | None = None
    """Last `a=recordpref` seen in the call: on, off, pause, nopreference."""
    record_aware: bool = False
    """A participant said `Supported: record-aware`."""

    def party(self, side: Side) -> PartyPicture:
        """The participant on `side`."""
        return self.parties[0] if side is Side.CALLER else self.parties[1]
