"""A call that an SRC sends us: what its recording sessions say, made into a `Call` like any other.

In: pictures of the recording sessions that carry it. Out: its parties, times, holds, media endpoints, and in the end
its state and warnings. Nothing is guessed: what the SRC does not say is absent, what it says wrongly is in `warnings`.
Lives in the engine's thread; knows no clock, no files.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from capture.address import Endpoint, parse_endpoint
from capture.realms import OWN_PORTS
from decoders.sdp import Direction
from recorder.call_events import CallEvent, EndpointOffered, EndpointReleased
from recorder.document import format_time
from recorder.identities import MAX_IDENTITIES
from recorder.model import (
    Call,
    CallState,
    Identity,
    MediaEndpoint,
    Party,
    RecordingSession,
    Side,
)
from recorder.siprec.srs_answer import Line
from recorder.siprec.srs_cast import Cast, Placed
from recorder.siprec.srs_gaps import say_missing, times
from recorder.siprec.srs_holds import Holds, Period, add_period
from recorder.siprec.srs_picture import Over, RsPicture
from recorder.siprec.srs_view import Communication, Person, View
from recorder.trace import note, warn

SECOND = 1_000_000_000
AHEAD = 2 * SECOND
"""By how much an SRC's clock may be before ours and still be believed, ns."""
BEHIND = 7 * 24 * 3600 * SECOND
MOST_OTHERS = 64
MOST_AORS = 64
MOST_SESSIONS = 256
"""Recording sessions of a call that are told of one by one."""
_SESSION_ID = re.compile(r"[0-9a-f]{32}(?:;remote=[0-9a-f]{32})?", re.IGNORECASE | re.ASCII)
"""RFC 7989; what else stands in a sipSessionID is a Call-ID as a rule."""
_NOWHERE = 0x0100 << 48
"""Addresses of 100::/64, which no packet has (RFC 6666): an SRC's keys are entered under one of them, for the address
that it gives may be that of every call."""


@dataclass(slots=True)
class _Leg:
    """A recording session that carries the call."""

    hop: int
    told: RecordingSession
    lines: dict[int, tuple[Line, list[MediaEndpoint]]] = field(default_factory=dict)
    """By position: as announced last."""


@dataclass(slots=True, eq=False)
class ReceivedCall:
    """One communication session."""

    call: Call
    key: str
    """Its `session_id`; empty where the SRC sent none."""
    began: int
    """When the SRC first told of it."""
    cast: Cast = field(default_factory=Cast)
    session: Communication = field(default_factory=lambda: Communication(""))
    persons: dict[str, Person] = field(default_factory=dict)
    legs: dict[int, _Leg] = field(default_factory=dict)
    """By running number of the recording session; those in progress."""
    hops: int = 0
    stop_at_first: bool = False
    """The first that was heard of it told its end: it is delivered late."""
    end: int | None = None
    """When it ended, once that is known."""
    silent_since: int | None = None
    """Since when no recording session carries it."""
    lost: bool = False
    """The last one went without a word."""
    stopped: bool = False
    """We ended the last one: what became of the call is not known."""
    due: int | None = None
    """When nothing more is waited for."""
    warnings: dict[str, str] = field(default_factory=dict)
    carried_by: dict[Endpoint, RecordingSession] = field(default_factory=dict)
    """By where its media went."""
    speakers: dict[Endpoint, Side] = field(default_factory=dict)
    """Whose audio an SRC said that it sends there."""
    _holds: Holds = field(init=False)
    _others: dict[str, Party] = field(default_factory=dict)
    """By participant."""
    _gaps: list[Period] = field(default_factory=list)
    _unnoted: list[Period] = field(default_factory=list)
    _aors: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._holds = Holds(self.call)

    # What recording sessions say

    def hear(self, picture: RsPicture, session: Communication | None, placed: Sequence[Placed]) -> list[CallEvent]:
        """Take in a picture; `placed`: its lines that are of this call. Media endpoints that it changes."""
        leg = self.legs.get(picture.rs)
        if leg is None:
            leg = self._join(picture)
        for warning in picture.warnings:
            self.warnings.setdefault(warning.code, warning.text)
        if session is not None:
            self._learn(picture, session)
        self.cast.place(picture.rs, self.session, self.persons, placed)
        self.persons = {each: person for each, person in self.persons.items() if each in self.cast.sides}
        self._others = {each: party for each, party in self._others.items() if each in self.cast.sides}
        if session is not None:
            self._fill()
        self.call.last_seen = max(self.call.last_seen, picture.at)
        events = self._announce(picture, leg, placed)
        lines = [
            (self.cast.lines[rs, index], line.sending)
            for rs, each in self.legs.items()
            for index, (line, _) in each.lines.items()
            if line.media == "audio"
        ]
        self._holds.judge(self.session, self.cast, lines, picture.at, by_us=picture.paused)
        return events

    def leave(self, rs: int, at: int, over: Over | None) -> list[CallEvent]:
        """A recording session carries it no more; `over` None: that goes on with other calls."""
        leg = self.legs.pop(rs, None)
        if leg is None:
            return []
        leg.told.ended = at
        events: list[CallEvent] = [EndpointReleased(e, at) for _, each in leg.lines.values() for e in each]
        for index in leg.lines:
            self.cast.forget(rs, index)
        if not self.legs:
            self.silent_since, self.lost = at, over is Over.LOST
            self.stopped = over is Over.STOPPED
            if over in (None, Over.BYE) and self.end is None:
                self.end = at
        return events

    def miss(self, since: int, picture: RsPicture) -> None:
        """The call was sent since a time by a session of an earlier run, which was killed before it had noted that."""
        add_period(self._unnoted, since, picture.began)
        note(
            self.call,
            picture.at,
            0,
            "recording-goes-on",
            "a session of it had been taken before the recorder was killed",
        )

    def _join(self, picture: RsPicture) -> _Leg:
        if self.silent_since is not None:
            begin = max(self.silent_since if not self.lost else self.call.last_seen, self.call.started)
            add_period(self._gaps, begin, picture.began)
            note(self.call, picture.at, 0, "recording-goes-on", f"recording session {picture.call_id[:120]} takes over")
            self.silent_since, self.lost, self.stopped, self.due = None, False, False, None
            if self.session.stop is None:
                self.end = self.call.ended = None
        told = RecordingSession(picture.call_id, picture.began, None, picture.src, picture.srs, (), ())
        leg = self.legs[picture.rs] = _Leg(self.hops, told)
        self.hops += 1
        if len(self.call.recorded_by) < MOST_SESSIONS:
            self.call.recorded_by.append(told)
        return leg

    def _learn(self, picture: RsPicture, session: Communication) -> None:
        """What the metadata say now."""
        call, facts = self.call, session.facts
        first = self.session.id == "" and not self.session.members
        if first and session.stop is not None:
            self.stop_at_first = True
        self.session = session
        self.persons.update(
            {member.person: person for member in session.members if (person := picture.view.persons.get(member.person))}
        )
        told = facts.started or session.start
        if told is not None:
            call.started = self._believed(told)
        else:
            # When somebody was associated some SRCs tell anew in each message: the first time counts.
            times = [session.recorded_from, *(member.joined for member in session.members)]
            call.started = min([call.started, *(self._believed(time) for time in times if time is not None)])
        call_ids = [each for each in session.sip_session_ids if not _SESSION_ID.fullmatch(each)]
        call.call_id = facts.call_id or next(iter(call_ids), None) or call.call_id
        call.session_ids = tuple(each for each in session.sip_session_ids if _SESSION_ID.fullmatch(each))
        call.reason_headers = session.reasons or call.reason_headers
        call.ringing = facts.ringing
        call.sip_status, call.sip_reason = facts.sip_status, facts.sip_reason
        if session.stop is not None and not self.stop_at_first:
            self.end = min(max(session.stop, call.started), picture.at)
        leg = self.legs[picture.rs]
        leg.told.session_ids = (session.id,) if session.id else ()

    def _believed(self, time: int) -> int:
        """A time by the SRC's clock, where that can be right."""
        if self.began - BEHIND <= time <= self.began + AHEAD:
            return time
        self.warnings.setdefault(
            "clock-differs",
            f"The SRC says that the call began at {format_time(time)}; it is told from {format_time(self.began)} on, "
            "when its recording began here.",
        )
        return self.began

    def _fill(self) -> None:
        """Parties by what the metadata say of their participants."""
        call = self.call
        for side in Side:
            person = self.cast.first.get(side)
            if person is not None:
                self._fill_party(call.party(side), person)
        for person in self.cast.others:
            party = self._other(person)
            if party is not None:
                self._fill_party(party, person)
        facts, callee = self.session.facts, self.call.callee
        if facts.state is not None or facts.started is not None:
            call.answered = facts.answered
        elif callee.joined is not None:
            call.answered = max(callee.joined, call.started)
        for leg in self.legs.values():
            leg.told.aors = tuple(self._aors)

    def _other(self, identifier: str) -> Party | None:
        """The party of a further participant, made where it is new; None beyond `MOST_OTHERS`."""
        others, person = self.call.others, self.persons.get(identifier)
        uri = person.identities[0].uri if person is not None and person.identities else None
        party = self._others.get(identifier) or next((each for each in others if uri and each.uri == uri), None)
        if party is None and len(others) < MOST_OTHERS:
            party = Party(self.cast.sides[identifier])
            others.append(party)
        if party is not None:
            self._others[identifier] = party
        return party

    def _fill_party(self, party: Party, identifier: str) -> None:
        person = self.persons.get(identifier)
        if person is not None and person.identities:
            fresh = [each for each in person.identities if each not in party.identities]
            party.identities = sorted([*party.identities, *fresh], key=_trust)[:MAX_IDENTITIES]
            for identity in person.identities[:4] if len(self._aors) < MOST_AORS else ():
                self._aors[identity.uri] = None
        if person is not None and person.address:
            host, _, port = person.address.rpartition(":")
            if port.isdecimal():
                party.address = parse_endpoint(host, int(port)) or party.address
        member = next((each for each in self.session.members if each.person == identifier), None)
        if member is not None:
            if member.joined is not None and (party.joined is None or member.joined < party.joined):
                party.joined = member.joined
            party.left = member.left

    # Media

    def _announce(self, picture: RsPicture, leg: _Leg, placed: Sequence[Placed]) -> list[CallEvent]:
        events: list[CallEvent] = []
        kept = {line.index for line, _ in placed}
        for index in [index for index in leg.lines if index not in kept]:
            events += [EndpointReleased(endpoint, picture.at) for endpoint in leg.lines.pop(index)[1]]
            self.cast.forget(picture.rs, index)
        for line, _ in placed:
            known = leg.lines.get(line.index)
            if known is not None and known[0] == line:
                continue
            endpoints = list(self._endpoints(picture, leg, line, self.cast.lines[picture.rs, line.index]))
            if known is not None:
                fresh = {(each.side, each.endpoint) for each in endpoints}
                stale = [each for each in known[1] if (each.side, each.endpoint) not in fresh]
                events += [EndpointReleased(endpoint, picture.at) for endpoint in stale]
            leg.lines[line.index] = (line, endpoints)
            self.carried_by[line.port.rtp] = leg.told
            if line.sending and line.media == "audio":
                self.speakers[line.port.rtp] = self.cast.lines[picture.rs, line.index]
            events += [EndpointOffered(endpoint, endpoint.endpoint) for endpoint in endpoints]
        return events

    def _endpoints(self, picture: RsPicture, leg: _Leg, line: Line, speaker: Side) -> Iterable[MediaEndpoint]:
        """Our end of a line, as that of whoever hears the speaker; and the speaker's own, where it has keys."""
        ours = MediaEndpoint(
            call=self.call.index,
            side=speaker.other,
            hop=leg.hop,
            media_index=line.index,
            media=line.media,
            endpoint=line.port.rtp,
            rtcp=None if line.mux else line.port.rtcp,
            formats=line.formats,
            direction=Direction.RECVONLY,
            crypto=() if line.ours is None else (line.ours,),
            encrypted=line.encrypted,
            dtls=False,
            label=line.label,
            since=picture.at,
            packet=0,
            realm=OWN_PORTS,
        )
        yield ours
        if line.theirs and line.encrypted:
            nowhere = Endpoint(_NOWHERE, self.call.index << 16 | leg.hop & 0xFFFF, line.index)
            yield MediaEndpoint(
                call=ours.call,
                side=speaker,
                hop=leg.hop,
                media_index=line.index,
                media=line.media,
                endpoint=nowhere,
                rtcp=None,
                formats={},
                direction=Direction.SENDONLY,
                crypto=line.theirs,
                encrypted=True,
                dtls=False,
                label=line.label,
                since=picture.at,
                packet=0,
                realm=OWN_PORTS,
            )

    # The end

    def settle(self, now: int, view: View | None) -> None:
        """Draw the conclusion; afterwards the call does not change. `view`: the last metadata of its sessions."""
        call, facts = self.call, self.session.facts
        told = facts.state if facts.state not in (None, CallState.ACTIVE, CallState.MEDIA_ONLY) else None
        end = facts.ended if told is not None and facts.ended is not None else self.end
        if self.stop_at_first and self.session.stop is not None:
            end = self.session.stop
        if told is not None:
            call.state = told
        else:
            call.state = CallState.COMPLETED if end is not None else CallState.INCOMPLETE
        if end is None or call.state is CallState.INCOMPLETE:
            end = end if end is not None else call.last_seen
            if self.stopped:
                warn(call, "stopped", "The recording was stopped here while the call was in progress.")
            else:
                warn(call, "end-not-seen", "The end of the call was not told: it ends with what was received last.")
        call.ended = max(end, call.started, call.answered or 0)
        call.ended_by = facts.ended_by
        self._holds.close(call.ended)
        self._settle_parties()
        self._warn(view)
        note(call, call.last_seen, 0, "finished", f"{call.state}")

    def _settle_parties(self) -> None:
        call = self.call
        for party in (call.caller, call.callee, *call.others):
            if party.joined is None:
                party.joined = call.started if party is call.caller else call.answered
            if party.left is None and call.state is not CallState.INCOMPLETE:
                party.left = call.ended

    def _warn(self, view: View | None) -> None:
        call = self.call
        if view is None or not view.said:
            text = "The SRC sent no recording metadata that can be read: who spoke is told by the order of its lines."
            warn(call, "metadata-missing", text)
        elif self.cast.assumed:
            text = "The metadata do not tell who speaks on a line: the first is taken for the caller's."
            warn(call, "sides-assumed", text)
        if self.cast.mixed:
            warn(call, "mixed-stream", "A stream carries several participants: they are on one channel together.")
        if view is not None and view.notes:
            warn(
                call, "metadata-unsound", f"The recording metadata are not as RFC 7865 has them: {_listed(view.notes)}."
            )
        pauses = self._holds.pauses
        if pauses:
            warn(call, "paused", f"The recording was paused {times(pauses)}: what was said then is missing.")
        say_missing(call, "The recorder was killed with nothing noted of the call", self._unnoted)
        say_missing(call, "No recording session carried the call", self._gaps)
        if self.stop_at_first:
            text = "The SRC delivered the call after its end: times of streams and audio are those of the delivery."
            warn(call, "delivered-late", text)
        for code, text in self.warnings.items():
            warn(call, code, text)


def _trust(identity: Identity) -> int:
    return identity.origin


def _listed(notes: Sequence[str]) -> str:
    return "; ".join(notes[:6])[:400] + ("; and more" if len(notes) > 6 else "")
