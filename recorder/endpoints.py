"""Which call an RTP flow belongs to: the media endpoints that session descriptions announced, by time.

In: `MediaEndpoint`s as the tracker emits them, and the end of calls. Out: for a flow's source, destination and time,
the media description it belongs to and the rule that says so. Keeps no packets and never guesses: no rule, no answer.
"""

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
    MEDIA_ONLY = "media-only"


@dataclass(slots=True)
class Announcement:
    """A media endpoint and the time for which it holds."""

    endpoint: MediaEndpoint
    where: Endpoint
    """The endpoint it is entered under."""
    rank: int
    """0 as announced, 1 by the address that the announcing message came from (NAT), 2 an ICE candidate."""
    until: int | None = None


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

    def announce(self, endpoint: MediaEndpoint, signalled_from: Endpoint) -> None:
        """Take an endpoint in; also under the address its message came from, where NAT may have hidden the other."""
        self._add(Announcement(endpoint, endpoint.endpoint, 2 if endpoint.ice else 0))
        if not endpoint.ice and (signalled_from.high, signalled_from.low) != endpoint.endpoint[:2]:
            behind = Endpoint(signalled_from.high, signalled_from.low, endpoint.endpoint.port)
            self._add(Announcement(endpoint, behind, 1))

    def _add(self, announcement: Announcement) -> None:
        at = self._at.setdefault(announcement.where, [])
        new = announcement.endpoint
        for old in at:
            same = old.endpoint.call == new.call and old.endpoint.side is new.side and old.endpoint.hop == new.hop
            if same and old.endpoint.media_index == new.media_index and old.rank == announcement.rank:
                old.endpoint = replace(new, since=old.endpoint.since)
                old.until = None
                return
        at.append(announcement)
        if len(at) > MAX_PER_ENDPOINT:
            del at[0]
        self._of.setdefault(new.call, []).append(announcement)
        self.changed.add(announcement.where)

    def release(self, call: int, at: int) -> None:
        """The call ended: its endpoints hold for a short time more."""
        for announcement in self._of.get(call, ()):
            if announcement.until is None:
                announcement.until = at

    def forget(self, call: int) -> None:
        """The call is written: its endpoints are gone."""
        for announcement in self._of.pop(call, ()):
            at = self._at.get(announcement.where)
            if at is not None:
                at[:] = [a for a in at if a.endpoint.call != call]
                if not at:
                    del self._at[announcement.where]

    def others(self, claim_by: MediaEndpoint) -> list[MediaEndpoint]:
        """The other side's announcements for the same media description, its own hop first, newest first."""
        found = [
            a.endpoint
            for a in self._of.get(claim_by.call, ())
            if a.endpoint.side is claim_by.side.other
            and a.endpoint.media_index == claim_by.media_index
            and a.rank != 1
        ]
        found.sort(key=lambda e: (e.hop != claim_by.hop, e.ice, -e.since))
        return found

    def claim(self, source: Endpoint, destination: Endpoint, realm: int, at: int) -> Claim | None:
        """The claim on a flow whose first packet was seen at `at` (ns), by destination, else by source."""
        towards = self._holding(destination, realm, at)
        origin = self._holding(source, realm, at)
        if towards:
            calls = {a.endpoint.call for a in origin}
            best = next((a for a in towards if a.endpoint.call in calls), towards[0])
            receiver = best.endpoint
            senders = [a.endpoint for a in origin if a.endpoint.call == receiver.call]
            return self._claim(receiver.side.other, Rule.DESTINATION, receiver, receiver, senders)
        if origin:
            sender = origin[0].endpoint
            receivers = self.others(sender)
            receiver_or_none = receivers[0] if receivers else None
            return Claim(sender.side, Rule.SOURCE, sender, receiver_or_none, sender)
        return None

    def _claim(
        self, speaker: Side, rule: Rule, by: MediaEndpoint, receiver: MediaEndpoint, senders: list[MediaEndpoint]
    ) -> Claim:
        own = [e for e in senders if e.side is speaker] or self.others(by)
        return Claim(speaker, rule, by, receiver, own[0] if own else None)

    def _holding(self, where: Endpoint, realm: int, at: int) -> list[Announcement]:
        """Announcements of an endpoint that hold at a time, best first."""
        known = self._at.get(where)
        if not known:
            return []
        now = [
            a for a in known if a.endpoint.since <= at and (a.until is None or at <= a.until + GRACE)
        ] or [a for a in known if at < a.endpoint.since <= at + WAIT and (a.until is None or a.until >= at)]
        near = [a for a in now if a.endpoint.realm == realm] or now
        future = near and near[0].endpoint.since > at
        return sorted(near, key=lambda a: (a.rank, a.endpoint.since if future else -a.endpoint.since))
