"""Which call an RTP flow belongs to: the media endpoints that session descriptions announced, by time.

In: `MediaEndpoint`s as the tracker emits them, and the end of calls. Out: for a flow's source, destination and time,
the media description it belongs to and the rule that says so. Keeps no packets and never guesses: no rule, no answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from capture.address import Endpoint
from recorder.model import MediaEndpoint, Side

GRACE = 2_000_000_000
"""ns for which the endpoints of an ended call still take media, unless a newer call announces them."""
WAIT = 5_000_000_000
"""ns for which media may precede its session description."""
MAX_PER_ENDPOINT = 32


class Rule(StrEnum):
    """How a flow was claimed."""

    DESTINATION = "destination"
    SOURCE = "source"
    REVERSE = "reverse"
    IDENTITY = "media-identity"
    """It shows the media of a stream that is placed already, at a hop whose signalling was not seen."""
    MEDIA_ONLY = "media-only"


@dataclass(slots=True, eq=False)
class Announcement:
    """A media endpoint and the time for which it holds."""

    endpoint: MediaEndpoint
    where: Endpoint
    """The endpoint it is entered under."""
    rank: int
    """0 as announced, 1 by the address that the announcing message came from (NAT), 2 an ICE candidate."""
    until: int | None = None
    crowded_out: bool = False
    """Too many others were entered under `where` after it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A flow's place: `speaker` is heard, by the formats that `receiver` announced."""

    speaker: Side
    rule: Rule
    by: MediaEndpoint
    receiver: MediaEndpoint | None
    """What the receiving side announced at that hop, None where it was not seen."""
    sender: MediaEndpoint | None


class EndpointRegistry:
    """The announced endpoints of all calls that may still get media."""

    def __init__(self) -> None:
        self._at: dict[Endpoint, list[Announcement]] = {}
        self._of: dict[int, list[Announcement]] = {}
        self.changed: set[Endpoint] = set()
        """Endpoints announced since the set was last cleared."""
        self.redescribed: set[int] = set()
        """Calls (by index) of which an endpoint was announced with other formats or keys than before, since the set was
        last cleared."""
        self._renewed: dict[int, int] = {}

    def announce(self, endpoint: MediaEndpoint, signalled_from: Endpoint) -> None:
        """Take an endpoint in; also under the address its message came from, where NAT may have hidden the other."""
        self._add(Announcement(endpoint, endpoint.endpoint, 2 if endpoint.ice else 0))
        if not endpoint.ice and (signalled_from.high, signalled_from.low) != endpoint.endpoint[:2]:
            behind = Endpoint(signalled_from.high, signalled_from.low, endpoint.endpoint.port)
            self._add(Announcement(endpoint, behind, 1))

    def _add(self, announcement: Announcement) -> None:
        where, new = announcement.where, announcement.endpoint
        own = self._of.setdefault(new.call, [])
        for old in own:
            if old.where != where or old.rank != announcement.rank or old.crowded_out:
                continue
            known = old.endpoint
            if known.side is new.side and known.hop == new.hop and known.media_index == new.media_index:
                if (old.endpoint.formats, old.endpoint.crypto) != (new.formats, new.crypto):
                    self._renewed[new.call] = new.since
                    self.redescribed.add(new.call)
                old.endpoint = new._replace(since=old.endpoint.since)
                if old.until is not None:
                    old.until = None
                    self.changed.add(where)
                return
        at = self._at.setdefault(where, [])
        at.append(announcement)
        if len(at) > MAX_PER_ENDPOINT:
            at.pop(0).crowded_out = True
        own.append(announcement)
        self._renewed[new.call] = new.since
        self.changed.add(where)

    def take_renewed(self) -> dict[int, int]:
        """Calls (by index) whose descriptions changed since this was last asked, and when (ns)."""
        renewed, self._renewed = self._renewed, {}
        return renewed

    def renewed_claim(self, claim: Claim) -> Claim:
        """A claim with what its endpoints announce now."""
        receiver = self._newest(claim.receiver) if claim.receiver else None
        sender = self._newest(claim.sender) if claim.sender else None
        if receiver is None and sender is not None:
            receiver = next(iter(self._opposite(sender)), None)
        if sender is None and receiver is not None:
            sender = next(iter(self._opposite(receiver)), None)
        return replace(claim, by=self._newest(claim.by), receiver=receiver, sender=sender)

    def _newest(self, endpoint: MediaEndpoint) -> MediaEndpoint:
        """What the author of an announcement announces for the same address now."""
        for announcement in self._of.get(endpoint.call, ()):
            known = announcement.endpoint
            same = known.side is endpoint.side and known.hop == endpoint.hop and known.endpoint == endpoint.endpoint
            if same and known.media_index == endpoint.media_index:
                return known
        return endpoint

    def release(self, call: int, at: int) -> None:
        """The call ended: its endpoints hold for a short time more."""
        for announcement in self._of.get(call, ()):
            if announcement.until is None:
                announcement.until = at

    def release_endpoint(self, endpoint: MediaEndpoint, at: int) -> None:
        """One endpoint is no longer the call's: a fork lost, or its offer was refused."""
        for announcement in self._of.get(endpoint.call, ()):
            known = announcement.endpoint
            if announcement.until is None and known.endpoint == endpoint.endpoint and known.hop == endpoint.hop:
                announcement.until = at

    def forget(self, call: int) -> None:
        """The call is written: its endpoints are gone."""
        self.redescribed.discard(call)
        for announcement in self._of.pop(call, ()):
            if not announcement.crowded_out:
                at = self._at[announcement.where]
                at.remove(announcement)
                if not at:
                    del self._at[announcement.where]

    def announced(self, call: int) -> Sequence[Announcement]:
        """All that a call announced and that was not forgotten."""
        return self._of.get(call, ())

    def of(self, call: int, side: Side) -> list[MediaEndpoint]:
        """What one side of a call announced, as announced, newest first."""
        found = [a.endpoint for a in self._of.get(call, ()) if a.endpoint.side is side and a.rank != 1]
        return sorted(found, key=lambda e: -e.since)

    def hops(self, endpoint: MediaEndpoint) -> frozenset[int]:
        """The hops at which its side announced this very endpoint."""
        return frozenset(
            a.endpoint.hop
            for a in self._of.get(endpoint.call, ())
            if a.endpoint.side is endpoint.side and a.endpoint.endpoint == endpoint.endpoint
        )

    def claims(self, source: Endpoint, destination: Endpoint, realm: int, at: int) -> list[Claim]:
        """The claims on a flow whose first packet was seen at `at` (ns), best first.

        One claim as a rule; more where a B2BUA leaves the media alone and several calls in progress announced both
        ends of the flow.
        """
        towards = self._holding(destination, realm, at)
        origin = self._holding(source, realm, at)
        if not towards:
            return [self._by_source(origin[0].endpoint)] if origin else []
        both = {a.endpoint.call for a in origin}
        matching = [a for a in towards if a.endpoint.call in both]
        best = matching[0] if matching else towards[0]
        claims = [self._by_destination(best.endpoint, origin)]
        calls = {best.endpoint.call}
        for other in matching:
            if other.endpoint.call not in calls and other.until is None and other.rank == best.rank:
                calls.add(other.endpoint.call)
                claims.append(self._by_destination(other.endpoint, origin))
        return claims

    def _by_destination(self, receiver: MediaEndpoint, origin: list[Announcement]) -> Claim:
        speaker = receiver.side.other
        senders = [a.endpoint for a in origin if a.endpoint.call == receiver.call and a.endpoint.side is speaker]
        senders = senders or self._opposite(receiver)
        return Claim(speaker, Rule.DESTINATION, receiver, receiver, senders[0] if senders else None)

    def _by_source(self, sender: MediaEndpoint) -> Claim:
        receivers = self._opposite(sender)
        return Claim(sender.side, Rule.SOURCE, sender, receivers[0] if receivers else None, sender)

    def _opposite(self, endpoint: MediaEndpoint) -> list[MediaEndpoint]:
        """The other side's announcements for the same media description, its own hop first, newest first."""
        found = [e for e in self.of(endpoint.call, endpoint.side.other) if e.media_index == endpoint.media_index]
        return sorted(found, key=lambda e: (e.hop != endpoint.hop, e.ice, -e.since))

    def _holding(self, where: Endpoint, realm: int, at: int) -> list[Announcement]:
        """Announcements of an endpoint that hold at a time, best first."""
        known = self._at.get(where)
        if not known:
            return []
        now = [a for a in known if a.endpoint.since <= at and (a.until is None or at <= a.until + GRACE)] or [
            a for a in known if at < a.endpoint.since <= at + WAIT and (a.until is None or a.until >= at)
        ]
        near = [a for a in now if a.endpoint.realm == realm] or now
        future = near and near[0].endpoint.since > at
        return sorted(near, key=lambda a: (a.rank, a.endpoint.since if future else -a.endpoint.since))
