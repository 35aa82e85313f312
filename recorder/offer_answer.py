"""Offer and answer as seen by a third party: media endpoints, and who holds whom (RFC 3264, 3261, 3262, 3311).

In: session descriptions with their author, hop and part in the exchange. Out: `EndpointOffered` for each media
description that changes something, and the holds of the call. An SDP is never judged by its o= version: proxies
rewrite descriptions without counting. Nothing is guessed from media; every table is bounded.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from capture.address import Endpoint
from decoders.sdp import Direction, MediaDescription, SessionDescription
from decoders.sip import SipMessage
from recorder.call_events import CallEvent, EndpointOffered, EndpointReleased
from recorder.media_endpoints import describe, literal
from recorder.model import Call, Hold, MediaEndpoint, Side, Sighting
from recorder.trace import note, warn

MAX_ENDPOINTS = 256
"""Distinct endpoints announced by one call."""
MAX_EXCHANGES = 32
MAX_HOLDS = 256
MAX_PARSED = 4
"""Descriptions kept by their octets: a proxy hands the same one on."""

_RECEIVING = (Direction.SENDRECV, Direction.RECVONLY)
_SENDING = (Direction.SENDRECV, Direction.SENDONLY)

Key = tuple[Side, int, str]
"""Who sent the request, its CSeq number and method."""


@dataclass(slots=True)
class _Announced:
    """The last description of one side at one hop."""

    media: tuple[MediaDescription, ...]
    endpoints: list[MediaEndpoint]
    source: Endpoint
    tag: str | None


@dataclass(slots=True)
class _Exchange:
    """One offer, and its answer."""

    author: Side
    """Of the offer."""
    begun: int
    """Time of the request."""
    sends: bool = True
    """The offer lets the answerer receive."""
    offered: bool = False
    """The offer itself was seen."""
    answered: bool = False
    before: dict[tuple[int, Side], _Announced | None] = field(default_factory=dict)
    """What stood before this exchange, to return to if it fails."""
    receiving: dict[Side, bool] | None = None
    holds: list[Hold] | None = None
    failed: bool = False


class MediaSession:
    """The media descriptions of one call, at every hop."""

    __slots__ = ("_call", "_count", "_ended", "_exchanges", "_last", "_parsed", "_receiving")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._last: dict[tuple[int, Side], _Announced] = {}
        self._exchanges: dict[Key, _Exchange] = {}
        self._receiving: dict[Side, bool] = {}
        self._parsed: dict[tuple[str | None, bytes], SessionDescription | None] = {}
        self._count = 0
        self._ended: set[tuple[int, Side]] = set()
        """Descriptions from before the call ended: if it goes on, they are offered anew."""

    def request(
        self, message: SipMessage, key: Key, hop: int, seen: Sighting, tag: str | None, established: bool
    ) -> list[CallEvent]:
        """An INVITE or UPDATE, which may offer."""
        exchange = self._exchange(key, seen.time)
        sdp = self._read(message)
        if sdp is None:
            return []
        if not exchange.offered:
            self._offer(exchange, sdp, key[0], seen, established)
        return self._announce(sdp, key[0], hop, seen, tag, exchange)

    def response(
        self, message: SipMessage, key: Key, hop: int, seen: Sighting, tag: str | None, established: bool
    ) -> list[CallEvent]:
        """A 1xx or 2xx with a description: the answer, or the offer where the request had none."""
        sdp = self._read(message)
        if sdp is None:
            return []
        author = key[0].other
        exchange = self._exchanges.get(key)
        if exchange is None:
            exchange = self._exchange(key, seen.time)
            exchange.offered = exchange.answered = True  # its request was not seen, so its part is not known
        if exchange.offered and exchange.author is key[0]:
            self._answer(exchange, sdp, author, seen, established)
        elif not exchange.offered:
            exchange.author = author
            self._offer(exchange, sdp, author, seen, established)
        return self._announce(sdp, author, hop, seen, tag, exchange)

    def acknowledgement(
        self, message: SipMessage, key: Key, hop: int, seen: Sighting, tag: str | None, established: bool
    ) -> list[CallEvent]:
        """An ACK or PRACK of the INVITE `key`: it may carry the answer to an offer in the response."""
        sdp = self._read(message)
        if sdp is None:
            return []
        exchange = self._exchanges.get(key)
        if exchange is not None and exchange.offered and exchange.author is key[0].other:
            self._answer(exchange, sdp, key[0], seen, established)
        return self._announce(sdp, key[0], hop, seen, tag, exchange)

    def offered_late(self, key: Key) -> bool:
        """Whether the response to the INVITE `key` made an offer that still waits for its answer."""
        exchange = self._exchanges.get(key)
        return exchange is not None and exchange.author is key[0].other and not exchange.answered

    def fail(self, key: Key, hop: int, seen: Sighting) -> list[CallEvent]:
        """A re-INVITE or UPDATE was refused: the session stays as it was (RFC 3261, section 14.1)."""
        exchange = self._exchanges.get(key)
        if exchange is None:
            return []
        if not exchange.failed:
            exchange.failed = True
            if exchange.holds is not None and exchange.receiving is not None:
                self._call.holds[:], self._receiving = exchange.holds, dict(exchange.receiving)
        events: list[CallEvent] = []
        for where in [where for where in exchange.before if where[0] == hop]:
            events += self._restore(where, exchange.before.pop(where), seen)
        if exchange.before.keys() == set():
            exchange.holds = exchange.receiving = None
        return events

    def release(self, tags: Iterable[str], seen: Sighting) -> list[CallEvent]:
        """Forks lost: their endpoints are free, but for those that the winner shares."""
        losers = set(tags)
        if not losers:
            return []
        kept = {e.endpoint for a in self._last.values() if a.tag not in losers for e in a.endpoints}
        events: list[CallEvent] = []
        for where in [where for where, announced in self._last.items() if announced.tag in losers]:
            released = self._last.pop(where).endpoints
            events += [EndpointReleased(e, seen.time) for e in released if e.endpoint not in kept]
        return events

    def end(self) -> None:
        """The call ended, so that its endpoints are let go; its caller may yet try again with the same ones."""
        self._ended.update(self._last)

    def close(self, at: int) -> None:
        """The call is over: what is still on hold was so to the end."""
        self._call.holds[:] = [
            hold if hold.end is not None else Hold(hold.begin, max(at, hold.begin), hold.by)
            for hold in self._call.holds
        ]

    def _read(self, message: SipMessage) -> SessionDescription | None:
        if not message.body:
            return None
        key = (message.get("content-type"), message.body)
        if key not in self._parsed:
            if len(self._parsed) >= MAX_PARSED:
                del self._parsed[next(iter(self._parsed))]
            self._parsed[key] = message.sdp()
        return self._parsed[key]

    def _exchange(self, key: Key, time: int) -> _Exchange:
        exchange = self._exchanges.get(key)
        if exchange is None:
            if len(self._exchanges) >= MAX_EXCHANGES:
                del self._exchanges[next(iter(self._exchanges))]
            exchange = self._exchanges[key] = _Exchange(key[0], time)
        return exchange

    def _offer(
        self, exchange: _Exchange, sdp: SessionDescription, author: Side, seen: Sighting, established: bool
    ) -> None:
        exchange.offered = True
        exchange.receiving, exchange.holds = dict(self._receiving), list(self._call.holds)
        receives, sends = _audio(sdp)
        exchange.sends = sends
        if receives is not None:
            self._turn(author, receives, exchange.begun, seen, established)

    def _answer(
        self, exchange: _Exchange, sdp: SessionDescription, author: Side, seen: Sighting, established: bool
    ) -> None:
        if exchange.answered:
            return
        exchange.answered = True
        receives, _ = _audio(sdp)
        # An offer that does not send forces the answerer not to receive, which says nothing about what it wants.
        if receives is not None and exchange.sends:
            self._turn(author, receives, exchange.begun, seen, established)

    def _turn(self, side: Side, receives: bool, at: int, seen: Sighting, established: bool) -> None:
        """`side` now wants to receive, or not. Before the answer there is nothing to hold."""
        before = self._receiving.get(side)
        self._receiving[side] = receives
        if not established or before is receives:
            return
        holds = self._call.holds
        held = next((i for i in reversed(range(len(holds))) if holds[i].by is side and holds[i].end is None), None)
        if receives:
            if held is not None:
                holds[held] = Hold(holds[held].begin, max(at, holds[held].begin), side)
                note(self._call, seen.time, seen.packet, "resumed", f"the {side} takes the call back from hold")
        elif held is None and len(holds) < MAX_HOLDS:
            holds.append(Hold(at, None, side))
            note(self._call, seen.time, seen.packet, "held", f"the {side} puts the call on hold")

    def _announce(
        self,
        sdp: SessionDescription,
        side: Side,
        hop: int,
        seen: Sighting,
        tag: str | None,
        exchange: _Exchange | None,
    ) -> list[CallEvent]:
        where = (hop, side)
        last = self._last.get(where)
        anew = where in self._ended
        self._ended.discard(where)
        if last is not None and last.media == sdp.media and not anew:
            last.tag = tag if tag is not None else last.tag
            return []
        endpoints = list(describe(sdp, self._call.index, side, hop, seen))
        if last is None or {e.endpoint for e in last.endpoints} != {e.endpoint for e in endpoints}:
            self._count += len(endpoints)
            if self._count > MAX_ENDPOINTS:
                warn(self._call, "endpoint-limit", f"more than {MAX_ENDPOINTS} media endpoints: the rest is ignored")
                return []
        if exchange is not None:
            exchange.before.setdefault(where, last)
        self._last[where] = _Announced(sdp.media, endpoints, seen.source, tag)
        self._trace(sdp, side, hop, seen, endpoints)
        return [EndpointOffered(endpoint, seen.source) for endpoint in endpoints]

    def _restore(self, where: tuple[int, Side], before: _Announced | None, seen: Sighting) -> list[CallEvent]:
        now = self._last.pop(where, None)
        kept = {e.endpoint for e in before.endpoints} if before else set()
        kept |= {e.endpoint for a in self._last.values() for e in a.endpoints}
        events: list[CallEvent] = []
        if now is not None:
            events += [EndpointReleased(e, seen.time) for e in now.endpoints if e.endpoint not in kept]
        if before is not None:
            self._last[where] = before
            events += [EndpointOffered(e, before.source) for e in before.endpoints]
        return events

    def _trace(
        self, sdp: SessionDescription, side: Side, hop: int, seen: Sighting, endpoints: list[MediaEndpoint]
    ) -> None:
        parts = [f"{e.media} {e.endpoint} {e.direction}" for e in endpoints if not e.ice]
        if len(parts) < len(sdp.media):
            parts += [
                f"{m.media} rejected" if m.rejected else f"{m.media} at {m.address or 'no address'}"
                for m in sdp.media
                if m.rejected or literal(m.address, m.port) is None
            ]
        candidates = sum(e.ice for e in endpoints)
        if candidates:
            parts.append(f"{candidates} candidates")
        text = f"{side} at hop {hop}: {', '.join(parts) or 'no media'}"
        note(self._call, seen.time, seen.packet, "sdp-seen", text)


def _audio(sdp: SessionDescription) -> tuple[bool | None, bool]:
    """(the author receives audio, it sends audio); the first is None where no audio is on."""
    active = [media for media in sdp.media if media.media == "audio" and media.port]
    if not active:
        return None, True
    # Held in the old way, by the unspecified address, peers answer as to "inactive" (RFC 6337, section 5.1).
    active = [media for media in active if not media.held_by_address]
    receives = any(media.direction in _RECEIVING for media in active)
    return receives, any(media.direction in _SENDING for media in active)
