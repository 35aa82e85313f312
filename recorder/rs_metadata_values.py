"""What foreign recording metadata says, as `rs_metadata.parse_rs_metadata` reads it. Times are ns since the epoch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum

MAX_NOTES = 32
"""Notes kept of one document."""


class DataMode(StrEnum):
    """Whether a document replaces all that was said before (RFC 7865, section 5.1.2)."""

    COMPLETE = "complete"
    PARTIAL = "partial"


@dataclass(frozen=True, slots=True)
class RsGroup:
    """A group of communication sessions."""

    id: str
    associate: int | None = None
    disassociate: int | None = None


@dataclass(slots=True)
class RsSession:
    """A communication session, the recorded call. Times in ns, UTC."""

    id: str
    sip_session_ids: list[str] = field(default_factory=list)
    """As written; some SRCs put a Call-ID here."""
    group: str | None = None
    start: int | None = None
    stop: int | None = None
    associate: int | None = None
    """When its recording began, from the sessionrecordingassoc."""
    disassociate: int | None = None
    reasons: list[tuple[str, int | None, str]] = field(default_factory=list)
    """(protocol, cause, text)."""


@dataclass(slots=True)
class RsParticipant:
    """A participant."""

    id: str
    aors: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RsParticipantSession:
    """A participant's part in a session."""

    participant: str
    session: str
    associate: int | None = None
    disassociate: int | None = None


@dataclass(slots=True)
class RsStream:
    """A media stream; its label is that of an m-line of the SDP that came with the document."""

    id: str
    label: str | None = None
    session: str | None = None


@dataclass(slots=True)
class RsParticipantStreams:
    """Which streams a participant sends and receives."""

    participant: str
    send: list[str] = field(default_factory=list)
    recv: list[str] = field(default_factory=list)
    associate: int | None = None
    disassociate: int | None = None


@dataclass(frozen=True, slots=True)
class RsExtension:
    """A leaf of an element that RFC 7865 does not know, or one with attributes."""

    owner: str
    """Local name of the known element that holds it, with its identifier where it has one: `session hVpd...==`."""
    path: str
    """Local names from there on: `mydata/structure`."""
    text: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    """By lower-case local name."""
    namespace: str = ""


@dataclass(slots=True)
class RsMetadata:
    """What a document says."""

    datamode: DataMode = DataMode.COMPLETE
    snapshot_request: bool = False
    """It is no metadata but an SRS's request for it (RFC 7865, section 7)."""
    groups: list[RsGroup] = field(default_factory=list)
    sessions: list[RsSession] = field(default_factory=list)
    participants: list[RsParticipant] = field(default_factory=list)
    streams: list[RsStream] = field(default_factory=list)
    participant_sessions: list[RsParticipantSession] = field(default_factory=list)
    participant_streams: list[RsParticipantStreams] = field(default_factory=list)
    extension: list[RsExtension] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was unsound, a phrase each."""

    def note(self, text: str) -> None:
        """Keep a note, up to `MAX_NOTES`, each once."""
        if len(self.notes) < MAX_NOTES and text not in self.notes:
            self.notes.append(text)


_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,12}))?\s*(Z|z|[+-]\d\d:?\d\d)?", re.ASCII
)


def parse_time(text: str) -> tuple[int | None, str | None]:
    """(ns since the epoch or None, what is unsound or None) of a date and time of RFC 3339 or nearly so.

    A missing zone is taken as UTC, and said; `+0000` without its colon is read.
    """
    match = _TIME.fullmatch(text)
    if not match:
        return None, f"no time: {text[:40]!r}"
    *numbers, fraction, zone = match.groups()
    year, month, day, hour, minute, second = (int(number) for number in numbers)
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=_zone(zone))
    except ValueError:
        return None, f"no such time: {text[:40]!r}"
    seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    nanoseconds = seconds * 1_000_000_000 + int(((fraction or "") + "0" * 9)[:9])
    if zone is None:
        return nanoseconds, "time without a zone, taken as UTC"
    if zone not in ("Z", "z") and ":" not in zone:
        return nanoseconds, "zone without a colon"
    return nanoseconds, None


def _zone(text: str | None) -> timezone:
    if text in (None, "Z", "z"):
        return UTC
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[-2:]))
    return timezone(-offset if text[0] == "-" else offset)
