"""Pictures of calls, taken in the engine's thread for the sessions that record them.

In: what the engine hears and begins (it is an `Observer`), and the registry of media endpoints. Out: from `turn`, a
`CallPicture` of each call of which something changed since its last one, in order of the calls. Recording sessions of
others are no calls and have no pictures, nor have calls that an SRC sends us.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from decoders.sdp import Direction, PayloadFormat
from decoders.sip import SipMessage
from recorder.endpoints import EndpointRegistry
from recorder.messages import Message
from recorder.metadata import name_ids
from recorder.metadata_ids import Identifiers
from recorder.model import Call, CallState, MediaEndpoint, Party, Side
from recorder.sightings import FlowSighting
from recorder.siprec.picture import CallPicture, PartyPicture, Phase, StreamPicture

PREFERENCES = frozenset({"on", "off", "pause", "nopreference"})
"""Values of a=recordpref (RFC 7866, section 7.3.2)."""
_SENDING = (Direction.SENDRECV, Direction.SENDONLY)
_RECEIVING = (Direction.SENDRECV, Direction.RECVONLY)
_AUXILIARY = frozenset({"telephone-event", "CN", "RED"})


@dataclass(slots=True)
class _Known:
    """A call in progress."""

    call: Call
    participants: tuple[UUID, UUID]
    """Identifiers of caller and callee."""
    picture: CallPicture | None = None
    announced: list[tuple[MediaEndpoint, int | None]] = field(default_factory=list)
    """What its endpoints were, and until when they hold, when its streams were last made of them."""
    streams: tuple[StreamPicture, ...] = ()
    preference: str | None = None
    aware: bool = False


class Pictures:
    """The calls in progress of one engine."""

    def __init__(self, registry: EndpointRegistry, group_of: Callable[[Call], UUID | None]) -> None:
        """`group_of` gives `Call.id` of the first call of a call's conversation."""
        self._registry = registry
        self._group_of = group_of
        self._calls: dict[int, _Known] = {}
        self._by_call_id: dict[str, int] = {}
        self._changed: dict[int, None] = {}
        self._over: list[CallPicture] = []
        self._message: SipMessage | None = None

    # What the engine tells

    def heard(self, message: Message) -> None:
        """A SIP message, before the call tracker has it."""
        self._message = message.parsed
        index = self._by_call_id.get(message.parsed.call_id or "")
        if index is not None and _may_change(message.parsed):
            self._note(self._calls[index], message.parsed)

    def begun(self, call: Call) -> None:
        """A call begins."""
        if call.recording_session is not None or call.received:
            return
        assert call.id is not None
        ids = Identifiers(call.id)
        known = self._calls[call.index] = _Known(call, (ids.participant(Side.CALLER), ids.participant(Side.CALLEE)))
        if call.call_id is not None:
            self._by_call_id[call.call_id] = call.index
            if self._message is not None:
                self._note(known, self._message)
        self._changed[call.index] = None

    def finished(self, call: Call, flows: Sequence[FlowSighting]) -> None:
        """A call is over."""
        known = self._calls.get(call.index)
        if known is not None:
            picture = replace(self._picture(known), phase=Phase.OVER)
            if picture != known.picture:
                self._over.append(picture)
            self._forget(call)

    def dropped(self, call: Call) -> None:
        """Nothing more will be told of a call: what was told of it is over."""
        known = self._calls.get(call.index)
        if known is not None and known.picture is not None and known.picture.phase is not Phase.OVER:
            self._over.append(replace(known.picture, phase=Phase.OVER))
        self._forget(call)

    def _forget(self, call: Call) -> None:
        if self._calls.pop(call.index, None) is not None:
            self._changed.pop(call.index, None)
            if self._by_call_id.get(call.call_id or "") == call.index:
                del self._by_call_id[call.call_id or ""]

    # What the service asks

    def look_at_groups(self) -> None:
        """Calls may have come to belong together by their media, of which no message tells: have them pictured anew."""
        for index, known in self._calls.items():
            if known.picture is not None and (self._group_of(known.call) or known.call.id) != known.picture.group:
                self._changed[index] = None

    def turn(self) -> Iterator[CallPicture]:
        """Pictures of what changed since the last turn; a call's last one has `Phase.OVER`."""
        changed, self._changed = self._changed, {}
        for index in changed:
            known = self._calls.get(index)
            if known is None or known.call.id is None:
                continue
            if known.call.recording_session is not None:
                self.dropped(known.call)
                continue
            picture = self._picture(known)
            if picture != known.picture:
                known.picture = picture
                yield picture
        over, self._over = self._over, []
        yield from over

    def _note(self, known: _Known, message: SipMessage) -> None:
        self._changed[known.call.index] = None
        if message.get("supported") and "record-aware" in (item.lower() for item in message.getlist("supported")):
            known.aware = True
        preference = _preference(message.body)
        if preference is not None:
            known.preference = preference

    def _picture(self, known: _Known) -> CallPicture:
        call = known.call
        assert call.id is not None
        caller, callee = known.participants
        ended = call.ended is not None
        phase = Phase.OVER if ended else Phase.ANSWERED if _talks(call) else Phase.EARLY
        return CallPicture(
            index=call.index,
            id=call.id,
            group=self._group_of(call) or call.id,
            call_id=call.call_id,
            phase=phase,
            started=call.started,
            answered=call.answered,
            ended=call.ended,
            # Its state is settled only when nothing more can come.
            state=CallState.COMPLETED if ended and call.state is CallState.ACTIVE else call.state,
            parties=(_party(call, call.caller, caller), _party(call, call.callee, callee)),
            streams=self._streams(known),
            held_by=frozenset(hold.by for hold in call.holds if hold.end is None) if not ended else frozenset(),
            session_ids=tuple(dict.fromkeys(call.session_ids)),
            reasons=call.reason_headers,
            tags=call.tags,
            record_preference=known.preference,
            record_aware=known.aware,
        )

    def _streams(self, known: _Known) -> tuple[StreamPicture, ...]:
        """Few messages change them."""
        index = known.call.index
        announced = [(each.endpoint, each.until) for each in self._registry.announced(index)]
        if announced != known.announced:
            known.announced, known.streams = announced, tuple(negotiated(self._registry, index))
        return known.streams


def _may_change(message: SipMessage) -> bool:
    """Whether a message may change what is known of its call: most that say nothing of it are these."""
    return message.status != 100 and (message.method != "ACK" or bool(message.body))


def _talks(call: Call) -> bool:
    return call.answered is not None or call.state is CallState.MEDIA_ONLY


def _preference(body: bytes) -> str | None:
    """The last a=recordpref of a body."""
    place = body.rfind(b"a=recordpref:")
    if place < 0:
        return None
    value = body[place + 13 : place + 40].split(b"\r")[0].split(b"\n")[0].strip().lower().decode("ascii", "replace")
    return value if value in PREFERENCES else None


def _party(call: Call, party: Party, identifier: UUID) -> PartyPicture:
    answered = call.answered if party.side is Side.CALLEE else None
    joined = next((time for time in (party.joined, answered) if time is not None), None)
    if joined is None and party.side is Side.CALLER:
        joined = call.started
    return PartyPicture(
        side=party.side,
        participant_id=identifier,
        names=tuple(name_ids(party)),
        address=party.address,
        joined=joined,
        left=party.left if party.left is not None else call.ended,
        params=party.contact_params,
    )


def negotiated(registry: EndpointRegistry, call: int) -> Iterator[StreamPicture]:
    """Each direction of each media description that both sides have announced, by its newest exchange.

    A relay shows the same media at several hops: a direction is told by the hop that is nearest to its speaker, for
    there its codec is the speaker's own.
    """
    newest: dict[tuple[int, Side, int], MediaEndpoint] = {}
    for announcement in registry.announced(call):
        each = announcement.endpoint
        if announcement.rank != 0 or (announcement.until is not None and announcement.until < each.since):
            continue
        key = (each.media_index, each.side, each.hop)
        if key not in newest or newest[key].since <= each.since:
            newest[key] = each
    for index in sorted({key[0] for key in newest}):
        for speaker in (Side.CALLER, Side.CALLEE):
            found = _nearest(newest, index, speaker)
            if found is not None:
                yield _stream(*found)


def _nearest(
    newest: Mapping[tuple[int, Side, int], MediaEndpoint], index: int, speaker: Side
) -> tuple[MediaEndpoint, MediaEndpoint] | None:
    """(What the speaker announced, what its hearer did) at the hop nearest to the speaker that has both."""
    hops = sorted(
        hop
        for media, side, hop in newest
        if media == index and side is speaker and (index, speaker.other, hop) in newest
    )
    if not hops:
        return None
    hop = hops[0] if speaker is Side.CALLER else hops[-1]
    return newest[index, speaker, hop], newest[index, speaker.other, hop]


def _stream(sender: MediaEndpoint, receiver: MediaEndpoint) -> StreamPicture:
    return StreamPicture(
        side=sender.side,
        media_index=sender.media_index,
        media=sender.media,
        formats=_common(sender.formats, receiver.formats),
        sending=sender.direction in _SENDING and receiver.direction in _RECEIVING,
        encrypted=sender.encrypted or receiver.encrypted,
        keyed=bool(sender.crypto),
        direction=sender.direction,
    )


def _common(sends: Mapping[int, PayloadFormat], hears: Mapping[int, PayloadFormat]) -> dict[int, PayloadFormat]:
    """What the hearer takes, as far as the sender has it too; all that the hearer takes where nothing is common."""
    known = {(each.encoding.upper(), each.clock_rate, each.channels) for each in sends.values()}
    common = {
        number: each
        for number, each in hears.items()
        if (each.encoding.upper(), each.clock_rate, each.channels) in known
    }
    if not any(each.encoding.upper() not in {name.upper() for name in _AUXILIARY} for each in common.values()):
        return dict(hears)
    return common
