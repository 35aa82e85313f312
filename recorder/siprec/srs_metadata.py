"""The state of the metadata of one recording session: documents in order of arrival, merged (RFC 7865, RFC 7866).

In: rs-metadata bodies, untrusted. Out: a `View` of what holds now, and whether a full snapshot must be asked for. A
complete document replaces all that was said before, a partial one is merged into it by identifiers: lists that it gives
replace those of before, what it leaves out stays (RFC 7866, section 9.2; what is not written there is this program's
reading). References to what was not defined are no errors: another SRC may define it (section 9.2). Bounded by `MOST`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from recorder.identities import MAX_IDENTITIES, MAX_NAME, MAX_URI
from recorder.metadata_extension import NAMESPACE as OURS
from recorder.model import CallState, Hold, Identity, IdentityOrigin, Side
from recorder.rs_metadata import DataMode, RsMetadata, RsParticipant, RsParticipantStreams, RsSession, RsStream
from recorder.rs_metadata import parse_rs_metadata as parse
from recorder.rs_metadata_values import RsExtension, RsParticipantSession, parse_time
from recorder.siprec.srs_view import Communication, Facts, Flow, Membership, Person, View

MOST = 256
"""Sessions, participants, streams, associations that are kept, each; the oldest goes first."""
MOST_NOTES = 16
MOST_HOLDS = 256
_ORIGINS = {
    "P-Asserted-Identity": IdentityOrigin.ASSERTED,
    "Remote-Party-ID": IdentityOrigin.REMOTE_PARTY,
    "Request-URI": IdentityOrigin.REQUEST_URI,
    "Diversion": IdentityOrigin.DIVERSION,
}
_K = TypeVar("_K")
_V = TypeVar("_V")


class MetadataState:
    """What one SRC has said in one recording session."""

    def __init__(self) -> None:
        self.documents = 0
        """That could be read, at least in part."""
        self.complete = False
        """A full snapshot was among them: what is partial has something to lean on."""
        self._said = False
        self._sessions: dict[str, RsSession] = {}
        self._participants: dict[str, RsParticipant] = {}
        self._streams: dict[str, RsStream] = {}
        self._members: dict[tuple[str, str], RsParticipantSession] = {}
        self._flows: dict[str, RsParticipantStreams] = {}
        self._facts: dict[str, list[RsExtension]] = {}
        """By owner: `session ID`, `participant ID`."""
        self._notes: dict[str, None] = {}

    def take(self, data: bytes, charset: str | None = None) -> None:
        """Take in a document."""
        found = parse(data, charset)
        for text in found.notes:
            self._note(text)
        if found.snapshot_request:
            self._note("a request for a snapshot, from an SRC")
            return
        damaged = any(text.startswith("not well-formed") for text in found.notes)
        says_nothing = not (found.sessions or found.participants or found.streams)
        if any(text.startswith(("unreadable", "empty")) for text in found.notes) or (damaged and says_nothing):
            return
        self.documents += 1
        self._said = True
        if found.datamode is DataMode.COMPLETE:
            self.complete = True
            if not damaged:
                # What a document lost on its way is no reason to lose what is known.
                self._forget()
        elif not self.complete:
            self._note("a partial document before any complete one")
        self._merge(found)
        self._check_kinds()

    def view(self) -> View:
        """What holds now."""
        persons = {each.id: self._person(each) for each in self._participants.values()}
        return View(tuple(self._communications()), persons, self._said, tuple(self._notes))

    def _forget(self) -> None:
        for table in (self._sessions, self._participants, self._streams, self._members, self._flows, self._facts):
            table.clear()

    def _merge(self, found: RsMetadata) -> None:
        for session in found.sessions:
            _put(self._sessions, session.id, _merged_session(self._sessions.get(session.id), session))
        for participant in found.participants:
            known = self._participants.get(participant.id)
            if known is not None and not participant.aors:
                participant.aors, participant.names = known.aors, participant.names or known.names
            _put(self._participants, participant.id, participant)
        for stream in found.streams:
            before = self._streams.get(stream.id)
            label = stream.label if stream.label is not None or before is None else before.label
            owner = stream.session if stream.session is not None or before is None else before.session
            _put(self._streams, stream.id, RsStream(stream.id, label, owner))
        for member in found.participant_sessions:
            key = (member.participant, member.session)
            old = self._members.get(key)
            if old is not None:
                member = replace(
                    member,
                    associate=member.associate if member.associate is not None else old.associate,
                    disassociate=member.disassociate if member.disassociate is not None else old.disassociate,
                )
            _put(self._members, key, member)
        for flows in found.participant_streams:
            # The whole set, as RFC 8068 shows it: a party on hold is given without what it no longer sends.
            _put(self._flows, flows.participant, flows)
        said: dict[str, list[RsExtension]] = {}
        for each in found.extension:
            if each.namespace == OURS:
                said.setdefault(each.owner, []).append(each)
        for owner, facts in said.items():
            _put(self._facts, owner, facts)

    def _check_kinds(self) -> None:
        """One identifier for two kinds of element is an error (RFC 7865, section 6.10)."""
        kinds: dict[str, str] = {}
        tables: tuple[tuple[str, Iterable[str]], ...] = (
            ("session", self._sessions),
            ("participant", self._participants),
            ("stream", self._streams),
        )
        for kind, identifiers in tables:
            for identifier in filter(None, identifiers):
                if kinds.setdefault(identifier, kind) != kind:
                    self._note(f"one identifier for a {kinds[identifier]} and a {kind}: {identifier[:40]!r}")

    def _note(self, text: str) -> None:
        if len(self._notes) < MOST_NOTES:
            self._notes[text] = None

    def _communications(self) -> Iterable[Communication]:
        """The sessions, those that are only referred to included."""
        named = dict.fromkeys(self._sessions)
        named.update(dict.fromkeys(member.session for member in self._members.values() if member.session))
        named.update(dict.fromkeys(stream.session for stream in self._streams.values() if stream.session))
        if not named and (self._participants or self._streams):
            named[""] = None
        only = next(iter(named)) if len(named) == 1 else None
        for identifier in named:
            session = self._sessions.get(identifier) or RsSession(identifier)
            yield Communication(
                id=identifier,
                sip_session_ids=tuple(session.sip_session_ids),
                group=session.group or None,
                start=session.start,
                stop=session.stop,
                recorded_from=session.associate,
                reasons=tuple((p, cause, text) for p, cause, text in session.reasons if cause is not None),
                members=self._members_of(identifier, alone=only is not None),
                flows=self._flows_of(identifier, alone=only is not None),
                facts=_facts(self._facts.get(f"session {identifier}", ())),
            )

    def _members_of(self, session: str, *, alone: bool) -> tuple[Membership, ...]:
        """Who takes part in a session, in the order of the participants; everybody where it is `alone`."""
        members = []
        for participant in self._participants:
            member = self._members.get((participant, session))
            if member is not None:
                members.append(Membership(participant, member.associate, member.disassociate))
            elif alone:
                members.append(Membership(participant))
        known = {member.person for member in members}
        members += [
            Membership(participant, member.associate, member.disassociate)
            for (participant, named), member in self._members.items()
            if named == session and participant not in known
        ]
        return tuple(members)

    def _flows_of(self, session: str, *, alone: bool) -> tuple[Flow, ...]:
        senders: dict[str, list[str]] = {}
        receivers: dict[str, list[str]] = {}
        for flows in self._flows.values():
            for stream in flows.send:
                senders.setdefault(stream, []).append(flows.participant)
            for stream in flows.recv:
                receivers.setdefault(stream, []).append(flows.participant)
        return tuple(
            Flow(stream.id, stream.label, tuple(senders.get(stream.id, ())), tuple(receivers.get(stream.id, ())))
            for stream in self._streams.values()
            if stream.session == session or (alone and not stream.session)
        )

    def _person(self, participant: RsParticipant) -> Person:
        identities: list[Identity] = []
        role: Side | None = None
        address = None
        for said in self._facts.get(f"participant {participant.id}", ()):
            if said.path == "party":
                role = _side(said.attributes.get("role"))
                address = said.attributes.get("address")
            elif said.path == "party/identity" and said.attributes.get("uri"):
                origin = _ORIGINS.get(said.attributes.get("origin", ""), IdentityOrigin.ADDRESS)
                name = said.attributes.get("name")
                identities.append(Identity(said.attributes["uri"][:MAX_URI], name[:MAX_NAME] if name else None, origin))
        if not identities:
            names: list[str | None] = [name[:MAX_NAME] for name in participant.names]
            if len(names) != len(participant.aors):
                # Which name is whose is not known: the first is that of the first.
                names = [*names[:1], *[None] * len(participant.aors)]
            identities = [
                Identity(aor[:MAX_URI], name, IdentityOrigin.ADDRESS)
                for aor, name in zip(participant.aors, names or [None] * len(participant.aors), strict=False)
            ]
        return Person(participant.id, tuple(identities[:MAX_IDENTITIES]), role, address)


def _merged_session(known: RsSession | None, said: RsSession) -> RsSession:
    if known is None:
        return said
    return RsSession(
        id=said.id,
        sip_session_ids=said.sip_session_ids or known.sip_session_ids,
        group=said.group or known.group,
        start=said.start if said.start is not None else known.start,
        stop=said.stop if said.stop is not None else known.stop,
        associate=said.associate if said.associate is not None else known.associate,
        disassociate=said.disassociate if said.disassociate is not None else known.disassociate,
        reasons=said.reasons or known.reasons,
    )


def _put(table: dict[_K, _V], key: _K, value: _V) -> None:
    """Enter a value in its place, or at the end; the oldest goes where there are too many."""
    table[key] = value
    if len(table) > MOST:
        del table[next(iter(table))]


def _facts(said: Iterable[RsExtension]) -> Facts:
    """What our own SRC says of a call."""
    facts = Facts()
    holds: list[Hold] = []
    for each in said:
        attributes = each.attributes
        if each.path == "call":
            facts = Facts(
                state=next((state for state in CallState if state == attributes.get("state")), None),
                started=_time(attributes, "started"),
                ringing=_time(attributes, "ringing"),
                answered=_time(attributes, "answered"),
                ended=_time(attributes, "ended"),
                sip_status=_status(attributes.get("sip-status", "")),
                sip_reason=attributes.get("sip-reason"),
                ended_by=_side(attributes.get("ended-by")),
            )
        elif each.path == "call/call-id" and each.text:
            facts = replace(facts, call_id=each.text)
        elif each.path == "call/hold" and len(holds) < MOST_HOLDS:
            begin, by = _time(attributes, "begin"), _side(attributes.get("by"))
            if begin is not None and by is not None:
                holds.append(Hold(begin, _time(attributes, "end"), by))
    return replace(facts, holds=tuple(holds))


def _time(attributes: Mapping[str, str], name: str) -> int | None:
    return parse_time(attributes[name])[0] if name in attributes else None


def _status(text: str) -> int | None:
    return int(text) if len(text) == 3 and text.isascii() and text.isdigit() else None


def _side(text: str | None) -> Side | None:
    return next((side for side in Side if side == text), None)
