"""Where a SIP URI leads (RFC 3263): NAPTR, SRV, addresses, in the order in which they are to be tried.

In: URIs, a resolver. Out: targets. Never raises for what the DNS says or does not say: a URI that leads nowhere gives
none. Answers are remembered for as long as they say, within bounds; a failure for a few seconds, so that an outage of
the DNS is not asked about for every call.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from capture.address import Endpoint, parse_endpoint
from decoders.sip_address import SipUri, parse_uri
from recorder.model import Transport
from recorder.sip_ua.routing import default_port, literal_target
from recorder.sip_ua.wire import Target

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

MOST_TARGETS = 16
MOST_REMEMBERED = 1024
LONGEST_TTL = 3600.0
SHORTEST_TTL = 5.0
FAILED_TTL = 5.0
TIMEOUT = 3.0
"""s for one question."""

_SERVICES = {"SIP+D2U": Transport.UDP, "SIP+D2T": Transport.TCP, "SIPS+D2T": Transport.TLS}
_PREFIXES = {Transport.UDP: "_sip._udp", Transport.TCP: "_sip._tcp", Transport.TLS: "_sips._tcp"}
_NAMED = {"udp": Transport.UDP, "tcp": Transport.TCP, "tls": Transport.TLS}


class Pointer(NamedTuple):
    """What a NAPTR record of SIP says: by which transport, and under which name its SRV records stand."""

    order: int
    preference: int
    transport: Transport
    replacement: str


class Service(NamedTuple):
    """An SRV record (RFC 2782)."""

    priority: int
    weight: int
    port: int
    host: str
    """Empty where the record says that the service is decidedly not there."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Records, and for how many seconds they hold."""

    records: tuple[Any, ...]
    ttl: float


class Names(Protocol):
    """Asks the DNS. An answer without records where there are none or where nobody answers; never raises."""

    async def pointers(self, name: str) -> Answer:
        """`Pointer`s of a domain."""
        ...

    async def services(self, name: str) -> Answer:
        """`Service`s under a name."""
        ...

    async def addresses(self, name: str) -> Answer:
        """Addresses of a host as text, IPv4 first."""
        ...


class DnsNames:
    """The system's DNS servers, or others."""

    def __init__(self, servers: Sequence[str] = (), port: int = 53, timeout: float = TIMEOUT) -> None:
        self._servers, self._port, self._timeout = servers, port, timeout
        self._resolver: Resolver | None = None

    async def pointers(self, name: str) -> Answer:
        """See `Names`."""
        found, ttl = await self._ask(name, "NAPTR")
        pointers = []
        for each in found:
            transport = _SERVICES.get(bytes(each.service).decode("ascii", "replace").upper())
            if transport is not None and bytes(each.flags).lower() == b"s":
                pointers.append(Pointer(each.order, each.preference, transport, str(each.replacement).rstrip(".")))
        return Answer(tuple(pointers), ttl)

    async def services(self, name: str) -> Answer:
        """See `Names`."""
        found, ttl = await self._ask(name, "SRV")
        services = [Service(each.priority, each.weight, each.port, str(each.target).rstrip(".")) for each in found]
        return Answer(tuple(services), ttl)

    async def addresses(self, name: str) -> Answer:
        """See `Names`. The system's own table of hosts comes first."""
        (four, ttl), (six, other) = await asyncio.gather(self._ask(name, "A"), self._ask(name, "AAAA"))
        found = [str(each.address) for each in (*four, *six)]
        if not found:
            return Answer(tuple(await _of_the_system(name)), FAILED_TTL)
        return Answer(tuple(found), min(each for each, there in ((ttl, four), (other, six)) if there))

    async def _ask(self, name: str, kind: str) -> tuple[list[Any], float]:
        # Takes a third of a second to import, and most servers are given by their addresses.
        from dns.asyncresolver import Resolver
        from dns.exception import DNSException

        if self._resolver is None:
            try:
                self._resolver = Resolver(configure=not self._servers)
            except DNSException:
                return [], FAILED_TTL
            if self._servers:
                self._resolver.nameservers = list(self._servers)
                self._resolver.port = self._port
        try:
            answer = await self._resolver.resolve(name, kind, lifetime=self._timeout, search=False)
        except (DNSException, OSError, ValueError, UnicodeError):
            return [], FAILED_TTL
        return list(answer), float(answer.rrset.ttl) if answer.rrset is not None else FAILED_TTL


async def _of_the_system(name: str) -> list[str]:
    """What else the system knows of a host: /etc/hosts, for one."""
    try:
        async with asyncio.timeout(TIMEOUT):
            found = await asyncio.get_running_loop().getaddrinfo(name, None)
    except (OSError, TimeoutError, UnicodeError):
        return []
    return list(dict.fromkeys(str(each[4][0]) for each in found))


class Locator:
    """Targets of URIs, as the agent asks for them."""

    def __init__(
        self,
        names: Names | None = None,
        *,
        serves: Sequence[Transport] = (Transport.UDP, Transport.TCP, Transport.TLS),
        random: Random | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._names = names or DnsNames()
        self._serves = tuple(serves)
        self._random = random or SystemRandom()
        self._clock = clock or asyncio.get_running_loop().time
        self._known: OrderedDict[tuple[str, str], tuple[float, tuple[Any, ...]]] = OrderedDict()

    async def __call__(self, uri: str) -> list[Target]:
        """Targets of a URI, the first to be tried first."""
        literal = literal_target(uri)
        if literal is not None:
            return [literal] if literal.transport in self._serves else []
        parts = parse_uri(uri)
        host = (parts.params.get("maddr") or parts.host).rstrip(".")
        if parts.scheme not in ("sip", "sips") or not host or parse_endpoint(host, 0) is not None:
            return []
        found = await self._targets(parts, host)
        return list(dict.fromkeys(found))[:MOST_TARGETS]

    async def _targets(self, parts: SipUri, host: str) -> list[Target]:
        secure = parts.scheme == "sips"
        named = (parts.params.get("transport") or "").lower()
        transport = _NAMED.get(named) if named else None
        if named and transport is None:
            return []
        if secure and transport is not None:
            transport = Transport.TLS
        if parts.port is not None:
            chosen = transport or (Transport.TLS if secure else Transport.UDP)
            return await self._hosts([Service(0, 0, parts.port, host)], chosen, host)
        if transport is not None:
            ways = [(transport, f"{_PREFIXES[transport]}.{host}")]
        else:
            ways = await self._ways(host, secure)
        found: list[Target] = []
        told = False
        for each, name in ways:
            services = self._order([*await self._ask("services", name)])
            found += await self._hosts(services, each, host)
            told = told or bool(services)
        if told:
            return found
        chosen = transport or (Transport.TLS if secure else Transport.UDP)
        return await self._hosts([Service(0, 0, default_port(chosen), host)], chosen, host)

    async def _ways(self, host: str, secure: bool) -> list[tuple[Transport, str]]:
        """(transport, name of its SRV records), by NAPTR, else each of ours (RFC 3263, section 4.1)."""
        usable = [each for each in self._serves if not secure or each is Transport.TLS]
        pointers = sorted(each for each in await self._ask("pointers", host) if each.transport in usable)
        if pointers:
            return [(each.transport, each.replacement) for each in pointers]
        return [(each, f"{_PREFIXES[each]}.{host}") for each in usable]

    async def _hosts(self, services: Sequence[Service], transport: Transport, domain: str) -> list[Target]:
        """`domain` is what a certificate must show, wherever the DNS leads (RFC 5922, section 4)."""
        if transport not in self._serves:
            return []
        found = []
        for service in [each for each in services if each.host][:MOST_TARGETS]:
            literal = parse_endpoint(service.host, service.port)
            ends: list[Endpoint | None] = [literal]
            if literal is None:
                ends = [parse_endpoint(each, service.port) for each in await self._ask("addresses", service.host)]
            found += [Target(transport, end, domain) for end in ends if end is not None]
        return found

    def _order(self, services: list[Service]) -> list[Service]:
        """By priority, then by lot in proportion to the weights (RFC 2782)."""
        found: list[Service] = []
        for priority in sorted({each.priority for each in services}):
            left = sorted((each for each in services if each.priority == priority), key=lambda each: each.weight)
            while left:
                lot = self._random.randint(0, sum(each.weight for each in left))
                place = 0
                while lot > left[place].weight:
                    lot -= left[place].weight
                    place += 1
                found.append(left.pop(place))
        return found

    async def _ask(self, kind: str, name: str) -> tuple[Any, ...]:
        key = (kind, name.lower())
        until, records = self._known.get(key, (0.0, ()))
        if self._clock() < until:
            return records
        asked = {
            "pointers": self._names.pointers,
            "services": self._names.services,
            "addresses": self._names.addresses,
        }[kind]
        answer = await asked(name)
        ttl = min(max(answer.ttl, SHORTEST_TTL), LONGEST_TTL) if answer.records else FAILED_TTL
        self._known.pop(key, None)
        self._known[key] = (self._clock() + ttl, answer.records)
        if len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)
        return answer.records
