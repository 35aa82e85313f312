"""Conditions of the policy's rules, each made once from what a rule says and then asked for every call.

In: values from the settings; `CallFacts`. Out: functions from facts to whether they hold. What is unknown of a call
holds for no condition. Raises ValueError, with a sentence, only while conditions are made. No text from the wire takes
long: regular expressions see LONGEST characters of it, and those that could take exponential time are refused.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from hashlib import sha256
from ipaddress import IPv4Network, ip_network
from typing import NamedTuple

from capture.address import V4_MAPPED, Endpoint, parse_endpoint
from recorder.call_facts import CallFacts, Heard
from recorder.policy_hours import Hours

Condition = Callable[[CallFacts], bool]
Matcher = Callable[[str], bool]

LONGEST = 256
"""Characters of a text from the wire that a regular expression sees."""

_TOKEN = re.compile(
    r"(?P<repeat>[*+]|\{\d*,\d*\})|(?P<times>\{\d+\})|(?P<open>\()|(?P<close>\))|(?P<or>\|)"
    r"|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.",
    re.DOTALL,
)
"""What matters of a regular expression: repeats and groups, outside of escapes and sets."""

_SCHEME = re.compile(r"^(sips?|tel):", re.IGNORECASE)


class Direction(StrEnum):
    """Of a call relative to what is local."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"
    INTERNAL = "internal"
    """Both sides are local."""
    TRANSIT = "transit"
    """Neither is."""


class Network(NamedTuple):
    """An IP network over the two halves of an address, IPv4 mapped into IPv6."""

    mask_high: int
    mask_low: int
    high: int
    low: int

    def holds(self, where: Endpoint) -> bool:
        """Whether an address lies in it."""
        return where.high & self.mask_high == self.high and where.low & self.mask_low == self.low


class Local(NamedTuple):
    """What the operator calls his own."""

    networks: tuple[Network, ...] = ()
    domains: tuple[Matcher, ...] = ()

    def holds(self, identities: Sequence[Heard], where: Endpoint | None) -> bool:
        """Whether a side is local: its address lies in a local network, or an identity's host is local."""
        if where is not None and any(network.holds(where) for network in self.networks):
            return True
        return any(self._has_host(identity.host) for identity in identities)

    def _has_host(self, host: str) -> bool:
        if any(domain(host) for domain in self.domains):
            return True
        address = parse_endpoint(host, 0) if self.networks else None
        return address is not None and any(network.holds(address) for network in self.networks)


def caller(patterns: Iterable[str]) -> Condition:
    """The caller is called so by any header."""
    matches = _identity(patterns)
    return lambda facts: matches(facts.callers)


def callee(patterns: Iterable[str]) -> Condition:
    """The callee is called so by any header."""
    matches = _identity(patterns)
    return lambda facts: matches(facts.callees)


def number(patterns: Iterable[str]) -> Condition:
    """Either participant is called so."""
    matches = _identity(patterns)
    return lambda facts: matches(facts.callers) or matches(facts.callees)


def caller_name(patterns: Iterable[str]) -> Condition:
    """The caller's display name."""
    matches = any_of(patterns)
    return lambda facts: any(identity.name is not None and matches(identity.name) for identity in facts.callers)


def header(name: str, patterns: Iterable[str]) -> Condition:
    """A header field of the INVITE has a value like this; `*` holds where it is there at all."""
    matches = any_of(patterns)
    return lambda facts: any(matches(value) for value in facts.header(name))


def address(networks: Iterable[Network]) -> Condition:
    """The INVITE's source or destination, or an address of media, lies in one of the networks."""
    chosen = tuple(networks)

    def holds(facts: CallFacts) -> bool:
        seen = (facts.source, facts.destination, *facts.media)
        return any(network.holds(where) for where in seen if where is not None for network in chosen)

    return holds


def direction(directions: Iterable[Direction], local: Local) -> Condition:
    """The call goes this way. Media without signalling goes none: who called is unknown."""
    chosen = frozenset(directions)

    def holds(facts: CallFacts) -> bool:
        if facts.source is None:
            return False
        sides = local.holds(facts.callers, facts.source), local.holds(facts.callees, facts.destination)
        return _DIRECTIONS[sides] in chosen

    return holds


def realm(realms: Iterable[int]) -> Condition:
    """The call was seen in one of these virtual networks."""
    chosen = frozenset(realms)
    return lambda facts: facts.realm in chosen


def hours(spans: Sequence[Hours]) -> Condition:
    """The call began in one of these hours."""
    return lambda facts: any(span.contain(facts.started) for span in spans)


def percent(share: float) -> Condition:
    """The call is among the first `share` percent by `place`."""
    return lambda facts: place(facts) * 100 < share


def media_only(wanted: bool) -> Condition:
    """The call is media that no signalling explains, or it is not."""
    return lambda facts: (facts.call_id is None) is wanted


def place(facts: CallFacts) -> float:
    """Where a call stands between 0 and 1: the same at every hop, after a restart, and on every machine.

    The first 4 octets of the SHA-256 of its Call-ID, as a big-endian number, by 2^32. Media without signalling has its
    two `ip:port` in order, with a blank between, in place of a Call-ID.
    """
    name = facts.call_id if facts.call_id is not None else " ".join(sorted(map(str, facts.media)))
    digest = sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:4], "big") / (1 << 32)


def network(text: str) -> Network:
    """A network or an address from text. Raises ValueError."""
    try:
        parsed = ip_network(text.strip(), strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is no address and no network; write 192.0.2.1 or 192.0.2.0/24") from None
    value, mask = int(parsed.network_address), int(parsed.netmask)
    low = (1 << 64) - 1
    if isinstance(parsed, IPv4Network):
        return Network(low, low >> 32 << 32 | mask, 0, V4_MAPPED | value)
    return Network(mask >> 64, mask & low, value >> 64, value & low)


def any_of(patterns: Iterable[str]) -> Matcher:
    """Whether a text is like any of the patterns."""
    compiled = [matcher(pattern) for pattern in patterns]
    if len(compiled) == 1:
        return compiled[0]
    return lambda text: any(matches(text) for matches in compiled)


def matcher(pattern: str) -> Matcher:
    """A pattern: `/…/` is a regular expression, found anywhere; else the whole text, `*` standing for any characters.

    Letters count in either case, but not in a regular expression. Raises ValueError with a sentence.
    """
    if not pattern:
        raise ValueError("an empty pattern; write * for any text")
    if len(pattern) > 1 and pattern[0] == pattern[-1] == "/":
        found = regular(pattern[1:-1]).search
        return lambda text: found(text[:LONGEST]) is not None
    first, *others = map(re.escape, pattern.split("*"))
    source = first
    if others:
        # Each run takes the first place where its text fits and never looks back, so that no text takes long.
        source += "".join(f"(?>.*?{part})" for part in others[:-1] if part) + ".*" + others[-1]
    fits = re.compile(source, re.IGNORECASE | re.DOTALL).fullmatch
    return lambda text: fits(text) is not None


def regular(source: str) -> "re.Pattern[str]":
    """A regular expression that takes long on no text. Raises ValueError with a sentence."""
    if _nests(source):
        raise ValueError(
            f"/{source}/: a group that is repeated holds repeats or alternatives, which can take for ever on a crafted "
            "text; write it without"
        )
    try:
        return re.compile(source)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"/{source}/: is no regular expression: {error}") from error


def _identity(patterns: Iterable[str]) -> Callable[[Sequence[Heard]], bool]:
    """Whether any of some identities fits: by its whole URI where a pattern is a regular expression, by user@host with
    an @, else by its number or user name."""
    by_user: list[Matcher] = []
    by_rest: list[tuple[Matcher, Callable[[Heard], str]]] = []
    for pattern in patterns:
        if pattern[:1] == "/":
            by_rest.append((matcher(pattern), lambda identity: identity.uri))
        elif "@" in pattern:
            by_rest.append((matcher(_SCHEME.sub("", pattern)), lambda identity: f"{identity.user}@{identity.host}"))
        else:
            by_user.append(matcher(_SCHEME.sub("", pattern)))

    def matches(identities: Sequence[Heard]) -> bool:
        for identity in identities:
            for fits in by_user:
                if fits(identity.user):
                    return True
            for fits, text in by_rest:
                if fits(text(identity)):
                    return True
        return False

    return matches


def _nests(source: str) -> bool:
    """Whether a repeated group holds repeats or alternatives, as in (a+)+ and (a|aa)*."""
    groups = [False]
    """For each group around the token: whether it holds any so far."""
    closed = False
    for token in _TOKEN.finditer(source):
        kind = token.lastgroup
        if closed and kind in ("repeat", "times"):
            return True
        closed = False
        if kind in ("repeat", "or"):
            groups[-1] = True
        elif kind == "open":
            groups.append(False)
        elif kind == "close" and len(groups) > 1:
            closed = groups.pop()
            groups[-1] = groups[-1] or closed
    return False


_DIRECTIONS = {
    (False, True): Direction.INBOUND,
    (True, False): Direction.OUTBOUND,
    (True, True): Direction.INTERNAL,
    (False, False): Direction.TRANSIT,
}
