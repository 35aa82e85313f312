"""Recording sessions of somebody else's SRC among the calls (RFC 7866), and which call each records.

In: messages of dialogs, and the calls in progress. Out: `Call.recording_session` where a dialog is such a session, and
`Call.recorded_by` of the call that it records. A session is known by Require: siprec, by its feature tags (RFC 7866,
section 11.1), by its metadata, or by the X-Cisco-Recording-Participant header fields that CUBE sends instead of
metadata; one that gives none of these cannot be told from a call.
"""

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field

from capture.address import Endpoint
from decoders.sip import SipMessage
from recorder.address_book import AddressBook
from recorder.identities import Address, address_of, addresses_of, anonymous
from recorder.model import Call, RecordingSession, Sighting
from recorder.rs_metadata import parse_rs_metadata
from recorder.trace import note

METADATA_TYPES = ("application/rs-metadata+xml", "application/rs-metadata")
CISCO_PARTICIPANT = "x-cisco-recording-participant"
MAX_DOCUMENTS = 64
"""Metadata documents kept of one session."""
MAX_OCTETS = 1 << 20
"""Of all metadata kept of one session."""
MAX_RECORDED = 32
"""Calls recorded by one session, and sessions that record one call."""
MAX_WAITING = 64
"""Sessions without their call that are tried again with a new call."""
MARGIN = 2_000_000_000
"""ns that a session may begin after its call ended and still belong to it."""


@dataclass(slots=True)
class _Watched:
    """A recording session in progress."""

    call: Call
    session: RecordingSession
    sip_session_ids: dict[str, None] = field(default_factory=dict)
    participants: dict[str, set[Address]] = field(default_factory=dict)
    heard: dict[tuple[tuple[int, str] | None, str | None], None] = field(default_factory=dict)
    """CSeq and From tag of the messages whose metadata were taken."""
    octets: int = 0


def is_recording_session(message: SipMessage) -> bool:
    """Whether a message of a dialog shows that the dialog is a recording session."""
    headers = message.headers
    if ("require" in headers and message.requires("siprec")) or CISCO_PARTICIPANT in headers:
        return True
    for value in headers.get("contact", ()):
        if "+sip.sr" in value and ("+sip.src" in value or "+sip.srs" in value):
            return True
    return message.content_type.startswith("multipart/") and any(_metadata(message))


def _metadata(message: SipMessage) -> Iterable[bytes]:
    return (part.data for part in message.parts() if part.content_type in METADATA_TYPES)


class RecordingSessions:
    """The recording sessions in progress, and their calls."""

    def __init__(self, book: AddressBook) -> None:
        self._book = book
        self._watched: dict[int, _Watched] = {}
        self._waiting: dict[str, dict[int, None]] = {}
        """What the metadata name, Call-IDs and users, to the sessions that name it and have not found their call."""

    def recognise(self, call: Call, message: SipMessage, seen: Sighting) -> bool:
        """Take the call for a recording session if the message shows it. True where its metadata say more now."""
        if call.recording_session is None and is_recording_session(message):
            self._begin(call, message, seen)
        session = call.recording_session
        if session is None or not message.body:
            return False
        watched = self._watched[call.index]
        known = len(session.metadata), len(watched.participants)
        self._learn(watched, message, seen)
        self._learn_from_headers(watched, message)
        return (len(session.metadata), len(watched.participants)) > known

    def _begin(self, call: Call, message: SipMessage, seen: Sighting) -> None:
        source, destination = seen.source, seen.destination
        by_srs = any("+sip.srs" in value for value in message.headers.get("contact", ()))
        if by_srs:
            source, destination = destination, source
        session = RecordingSession(call.call_id or "", call.started, None, source, destination, (), ())
        call.recording_session = session
        self._watched[call.index] = _Watched(call, session)
        note(call, seen.time, seen.packet, "recording-session", "the dialog is a recording session, not a call")

    def _learn(self, watched: _Watched, message: SipMessage, seen: Sighting) -> None:
        session = watched.session
        if not message.content_type.startswith("multipart/") and message.content_type not in METADATA_TYPES:
            return
        exchange = (message.cseq, message.from_.tag if message.from_ else None)
        if exchange in watched.heard or len(watched.heard) >= MAX_DOCUMENTS:
            return  # a retransmission, or the next hop
        for document in _metadata(message):
            watched.heard[exchange] = None
            if len(session.metadata) >= MAX_DOCUMENTS or watched.octets + len(document) > MAX_OCTETS:
                continue
            self._read(watched, document, seen)

    def _learn_from_headers(self, watched: _Watched, message: SipMessage) -> None:
        """`X-Cisco-Recording-Participant: sip:user@host;media-index="0"`, one for each side."""
        for value in message.headers.get(CISCO_PARTICIPANT, ())[:MAX_RECORDED]:
            aor = value.partition(";")[0].strip("<> ")
            address = address_of(aor)
            if aor not in watched.participants and not anonymous(address):
                watched.participants[aor] = {address}
                watched.session.aors = _distinct(watched.session.aors, (aor,))

    def _read(self, watched: _Watched, document: bytes, seen: Sighting) -> None:
        session = watched.session
        self._wait_no_more(watched)
        watched.octets += len(document)
        session.metadata.append(document)
        found = parse_rs_metadata(document)
        session.session_ids = _distinct(session.session_ids, (each.id for each in found.sessions))
        aors = [aor for participant in found.participants for aor in participant.aors]
        session.aors = _distinct(session.aors, aors)
        for each in found.sessions[:MAX_RECORDED]:
            watched.sip_session_ids.update(dict.fromkeys(each.sip_session_ids[:MAX_RECORDED]))
        for participant in found.participants[:MAX_RECORDED]:
            addresses = {address_of(aor) for aor in participant.aors}
            watched.participants[participant.id] = {each for each in addresses if not anonymous(each)}
        note(watched.call, seen.time, seen.packet, "metadata-seen", f"metadata names {', '.join(aors)[:200]}")

    def sip_session_ids(self, call: Call) -> Iterable[str]:
        """What the metadata of a recording session gives as identifiers of its calls; some SRCs put Call-IDs."""
        watched = self._watched.get(call.index)
        return () if watched is None else tuple(watched.sip_session_ids)

    def waiting_for(self, call: Call) -> list[Call]:
        """Sessions without their call whose metadata name this one or a user of it, oldest first."""
        if not self._waiting:
            return []
        users = [address.user for party in (call.caller, call.callee) for address in addresses_of(party)]
        found = {index for name in (call.call_id or "", *users) for index in self._waiting.get(name, ())}
        return [self._watched[index].call for index in sorted(found)[:MAX_WAITING]]

    def _wait(self, watched: _Watched) -> None:
        for name in _names(watched):
            self._waiting.setdefault(name, {})[watched.call.index] = None

    def _wait_no_more(self, watched: _Watched) -> None:
        for name in _names(watched):
            waiting = self._waiting.get(name)
            if waiting is not None:
                waiting.pop(watched.call.index, None)
                if not waiting:
                    del self._waiting[name]

    def link(self, recording: Call, named: Iterable[Call]) -> None:
        """Find the calls that a session records: those that its metadata `named`, else by its participants."""
        watched = self._watched[recording.index]
        found = [call for call in named if call.recording_session is None and call.index != recording.index]
        why = "sipSessionID"
        if not found and not watched.session.records:
            best = self._best(watched)
            found, why = ([best] if best is not None else []), "participants"
        for call in found:
            self._join(watched, call, why)
        if not watched.session.records:
            self._wait(watched)

    def _join(self, watched: _Watched, call: Call, why: str) -> None:
        session, recording = watched.session, watched.call
        if call.index in session.records or max(len(session.records), len(call.recorded_by)) >= MAX_RECORDED:
            return
        session.records.append(call.index)
        call.recorded_by.append(session)
        self._wait_no_more(watched)
        at, packet = recording.last_seen, recording.last_packet
        note(call, at, packet, "recorded-by", f"recorded by the session {session.call_id[:120]}, known by {why}")
        note(recording, at, packet, "records", f"records the call {(call.call_id or '')[:120]}, known by {why}")

    def _best(self, watched: _Watched) -> Call | None:
        """The call in progress whose two sides are participants of the session; of equals the latest."""
        users = {address.user: None for parties in watched.participants.values() for address in sorted(parties)}
        candidates = {call.index: call for user in users for call in self._book.calls_of(user)}
        best: tuple[int, int, int] | None = None
        chosen = None
        for call in candidates.values():
            if call.recording_session is not None or not _overlap(call, watched.session):
                continue
            rank = (_likeness(call, watched), call.started, call.index)
            if rank[0] and (best is None or rank > best):
                best, chosen = rank, call
        return chosen

    def unfinished(self, call: Call) -> bool:
        """Whether a session that records the call goes on."""
        going = {watched.session.call_id for watched in self._watched.values()} if call.recorded_by else set()
        return any(session.call_id in going for session in call.recorded_by)

    def end(self, call: Call) -> None:
        """A recording session is over."""
        watched = self._watched.pop(call.index, None)
        if watched is not None:
            self._wait_no_more(watched)
            watched.session.started, watched.session.ended = call.started, call.ended


def _names(watched: _Watched) -> list[str]:
    """What a new call may be known by: its Call-ID, and the users of either side."""
    users = sorted({address.user for party in watched.participants.values() for address in party})
    return [*watched.sip_session_ids, *users][: 2 * MAX_RECORDED]


def _distinct(known: tuple[str, ...], more: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*known, *more)))[: 2 * MAX_RECORDED]


def _overlap(call: Call, session: RecordingSession) -> bool:
    return call.ended is None or call.ended + MARGIN >= session.started


def _likeness(call: Call, watched: _Watched) -> int:
    """How well a call fits the participants: 0 not, 2 one side through the SRC, 4 both by user, 6 both by address; and
    1 more where the SRC itself signalled the call."""
    src = watched.session.src
    through = int(src is not None and any(_host(src, party.address) for party in (call.caller, call.callee)))
    sides = [set(addresses_of(call.caller)), set(addresses_of(call.callee))]
    parties = list(watched.participants.values())
    if _both(sides, parties):
        return 6 + through
    users = [{address.user for address in side} for side in sides]
    named = [{address.user for address in party} for party in parties]
    if _both(users, named):
        return 4 + through
    one = any(side & party for side in users for party in named)
    return 2 if one and (through or len(parties) == 1) else 0


def _both(sides: Sequence[Set[object]], parties: Sequence[Set[object]]) -> bool:
    """Whether the two sides are two different participants."""
    first, second = ([i for i, party in enumerate(parties) if side & party] for side in sides)
    return any(one != other for one in first for other in second)


def _host(one: Endpoint, other: Endpoint | None) -> bool:
    return other is not None and one[:2] == other[:2]
