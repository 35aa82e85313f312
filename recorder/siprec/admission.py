"""Who may record here, and how much: decided for each INVITE that would begin a recording session.

In: who sends it (address, TLS certificate, digest user), how large it is, how many sessions there are. Out: nothing, or
a refusal with its SIP status; counts by reason. It reads no clock: time is an argument. Bounded by `MOST_SOURCES`.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import NamedTuple

from recorder.sip_ua.api import Peer

MOST_SOURCES = 4096
"""Addresses whose rate is remembered; who has not been heard for longest goes first."""
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Allowed:
    """Somebody who may record here: all that is given must fit."""

    network: Network | None = None
    certificate: str = ""
    """A name of its verified TLS certificate, as `Peer.certificate` has them: `DNS:sbc.example`, `URI:sip:…`, `CN:…`. A
    `*.` stands for one label."""
    user: str = ""
    """Who answered our digest challenge."""

    def fits(self, peer: Peer) -> bool:
        """Whether a peer is meant."""
        if self.network is not None:
            address = ip_address(peer.address.host)
            if address.version != self.network.version or address not in self.network:
                return False
        if self.certificate and not any(_named(self.certificate, name) for name in peer.certificate):
            return False
        return not self.user or self.user == peer.user


@dataclass(frozen=True, slots=True)
class AdmissionRules:
    """Limits."""

    allowed: tuple[Allowed, ...] = ()
    """Who may record here; empty: everybody."""
    most_sessions: int = 2000
    most_of_one: int = 2000
    """Sessions of one address."""
    streams_of_one: int = 4000
    """Pairs of ports of one address: four fifths of those that there usually are."""
    rate: float = 200.0
    """INVITEs a second of one address, in the long run."""
    burst: int = 400
    largest_body: int = 256 << 10
    """Octets of a body."""
    retry_after: int = 5
    """s that are asked for in a 503."""


class Refusal(NamedTuple):
    """An answer to an INVITE that is not admitted."""

    status: int
    reason: str
    why: str
    """A word that it is counted under."""
    retry_after: int | None = None


@dataclass(slots=True)
class _Source:
    """An address and what it may still send."""

    tokens: float
    at: float
    sessions: int = 0


@dataclass(slots=True)
class Admission:
    """Admits, or refuses politely."""

    rules: AdmissionRules
    full: Callable[[], str | None] = lambda: None
    """Asked for a word why nothing more can be recorded now: the disk, overload."""
    draining: bool = False
    """No new sessions: this process is about to end."""
    refused: dict[str, int] = field(default_factory=dict)
    """By reason."""
    admitted: int = 0
    sessions: int = 0
    """In progress."""
    rated: bool = False
    """Whoever challenges INVITEs counts them (`rate`): `judge` does not count them again."""
    _sources: "OrderedDict[str, _Source]" = field(default_factory=OrderedDict)

    def rate(self, peer: Peer, now: float) -> Refusal | None:
        """One more INVITE of a peer: whether it is within its rate."""
        if self._in_rate(peer, now):
            return None
        return Refusal(503, "Too Many Requests", "rate", self.rules.retry_after)

    def judge(self, peer: Peer, octets: int, now: float) -> Refusal | None:
        """Whether a new session may begin; `octets`: of the INVITE's body, `now`: monotonic, s. None where it may."""
        rules = self.rules
        refusal = None if self.rated else self.rate(peer, now)
        if refusal is not None:
            return refusal
        if rules.allowed and not any(each.fits(peer) for each in rules.allowed):
            return Refusal(403, "Not Allowed To Record Here", "not-allowed")
        if octets > rules.largest_body:
            return Refusal(413, "Request Entity Too Large", "too-large")
        if self.draining:
            return Refusal(503, "Shutting Down", "draining", rules.retry_after)
        if self.sessions >= rules.most_sessions:
            return Refusal(503, "Full", "full", rules.retry_after)
        if self._source(peer, now).sessions >= rules.most_of_one:
            return Refusal(503, "Full For This Client", "full-for-one", rules.retry_after)
        why = self.full()
        return None if why is None else Refusal(503, "Recording Not Possible Now", why, rules.retry_after)

    def count(self, refusal: Refusal) -> None:
        """It was answered so."""
        self.refused[refusal.why] = self.refused.get(refusal.why, 0) + 1

    def begin(self, peer: Peer) -> None:
        """A session of a peer begins."""
        self.admitted += 1
        self.sessions += 1
        self._source(peer, None).sessions += 1

    def end(self, peer: Peer) -> None:
        """It is over."""
        self.sessions -= 1
        source = self._sources.get(peer.address.host)
        if source is not None and source.sessions:
            source.sessions -= 1

    def _in_rate(self, peer: Peer, now: float) -> bool:
        source = self._source(peer, now)
        source.tokens = min(self.rules.burst, source.tokens + max(now - source.at, 0.0) * self.rules.rate)
        source.at = now
        if source.tokens < 1:
            return False
        source.tokens -= 1
        return True

    def _source(self, peer: Peer, now: float | None) -> _Source:
        host = peer.address.host
        source = self._sources.get(host)
        if source is None:
            source = self._sources[host] = _Source(float(self.rules.burst), now or 0.0)
            if len(self._sources) > MOST_SOURCES:
                others = (each for each, known in self._sources.items() if not known.sessions and each != host)
                idle = next(others, None)
                if idle is not None:
                    del self._sources[idle]
        self._sources.move_to_end(host)
        return source


def _named(wanted: str, name: str) -> bool:
    """Whether a certificate's name is the one that is wanted; a leading `*.` is any one label (RFC 6125)."""
    kind, _, value = wanted.partition(":")
    its_kind, _, its_value = name.partition(":")
    if kind.upper() != its_kind.upper():
        return False
    if value.startswith("*."):
        label, _, rest = its_value.partition(".")
        return bool(label) and rest.lower() == value[2:].lower()
    return value.lower() == its_value.lower()
