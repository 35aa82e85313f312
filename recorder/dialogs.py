"""Dialog identity of one call: transactions, tags, hops and the way of its INVITE (RFC 3261, sections 12 and 17).

In: what a message says of its dialog, and where it was seen. Out: who sent it (caller or callee, by tag and never by
direction), at which hop, and the signalling addresses at both ends of the way. Every table is bounded.
"""

from functools import lru_cache
from typing import NamedTuple

from capture.address import Endpoint
from decoders.sip import SipMessage
from decoders.sip_address import parse_name_address
from recorder.model import Side, Sighting

MAX_TAGS = 64
MAX_HOPS = 64
UNKNOWN_NUMBER = -1
_SHORT = 512
"""Characters of a From and To whose tags are remembered."""


_ABSENT = [""]
_CALLER, _CALLEE = Side.CALLER, Side.CALLEE
"""As values of the module they are found in a third of the time, which counts for every message."""


class Exchange(NamedTuple):
    """What a message says of its transaction and dialog."""

    method: str
    """Of the transaction: a response has that of its CSeq."""
    status: int | None
    number: int
    """CSeq number, UNKNOWN_NUMBER where unsound."""
    from_key: str
    """From tag; the URI where there is none (RFC 2543)."""
    to_tag: str | None

    @property
    def initial_invite(self) -> bool:
        """A request that begins a dialog."""
        return self.status is None and self.method == "INVITE" and self.to_tag is None


def read_exchange(message: SipMessage) -> Exchange | None:
    """The exchange of a message, None where it cannot be told."""
    cseq, method, headers = message.cseq, message.method, message.headers
    number, named = cseq or (UNKNOWN_NUMBER, None)
    if method is None:
        if named is None:
            return None
        method = named.upper()
    from_, to = headers.get("from", _ABSENT)[0], headers.get("to", _ABSENT)[0]
    from_tag, to_tag = _tags(from_, to) if len(from_) + len(to) <= _SHORT else _tags.__wrapped__(from_, to)
    return Exchange(method, message.status, number, from_tag or _sender(message), to_tag)


def _sender(message: SipMessage) -> str:
    return message.from_.uri if message.from_ else ""


@lru_cache(maxsize=4096)
def _tags(from_: str, to: str) -> tuple[str | None, str | None]:
    """Tags of a From and a To: the messages of a call repeat both to the letter."""
    return _tag(from_), _tag(to)


def _tag(value: str) -> str | None:
    """Tag of a From or To, read without the rest of the address."""
    start = value.find(";tag=", value.rfind(">") + 1)
    if start < 0:
        address = parse_name_address(value) if "tag" in value.lower() else None
        return (address.tag or None) if address else None
    end = value.find(";", start + 5)
    tag = (value[start + 5 :] if end < 0 else value[start + 5 : end]).strip()
    return tag.strip('"') or None


def top_branch(message: SipMessage) -> str | None:
    """Branch of the topmost Via, read without the rest of it where it is written as usual."""
    values = message.headers.get("via")
    if not values:
        return None
    first = values[0].partition(",")[0]
    start = first.find(";branch=z9hG4bK")
    if start < 0 or '"' in first:
        return message.top_branch
    end = first.find(";", start + 8)
    return (first[start + 8 :] if end < 0 else first[start + 8 : end]).strip()


class DialogTags:
    """Which tags are the caller's and which the callee's, and which of the callee's dialogs live.

    A call that forks has several callee tags at one hop; a B2BUA that keeps the Call-ID gives each hop its own.
    """

    __slots__ = ("_callee", "_caller", "_confirmed", "_hops")

    def __init__(self) -> None:
        self._caller: dict[str, None] = {}
        self._callee: dict[str, None] = {}
        self._hops: dict[str, set[int]] = {}
        """Callee tag to the hops at which it was heard."""
        self._confirmed: dict[str, set[int]] = {}
        """Callee tag to the hops at which its 2xx was heard."""

    def requester(self, exchange: Exchange) -> Side:
        """Who sent the request of the exchange. Where no tag is known, the caller: the first to be heard."""
        from_key, callers = exchange.from_key, self._caller
        if from_key not in callers and (from_key in self._callee or exchange.to_tag in callers):
            return _CALLEE
        return _CALLER

    def learn(self, exchange: Exchange, requester: Side) -> None:
        """Remember both tags of an exchange."""
        caller, callee = (exchange.from_key, exchange.to_tag)
        if requester is _CALLEE:
            caller, callee = callee or "", exchange.from_key
        callers, callees = self._caller, self._callee
        if caller not in callers and caller and len(callers) < MAX_TAGS:
            callers[caller] = None
        if callee and callee not in callees and callee not in callers and len(callees) < MAX_TAGS:
            callees[callee] = None

    def branch(self, tag: str, hop: int) -> bool:
        """The callee's dialog `tag` was heard at `hop`. True where it is new beside others: the call has forked."""
        hops = self._hops.get(tag)
        if hops is not None and hop in hops:
            return False
        if hops is not None:
            hops.add(hop)
        elif len(self._hops) < MAX_TAGS:
            self._hops[tag] = {hop}
        return bool(self.others(tag, hop))

    def others(self, tag: str, hop: int) -> list[str]:
        """Other callee dialogs heard at `hop`."""
        return [other for other, hops in self._hops.items() if other != tag and hop in hops]

    def confirm(self, tag: str, hop: int) -> None:
        """The dialog `tag` was answered at `hop`."""
        if len(self._confirmed) < MAX_TAGS:
            self._confirmed.setdefault(tag, set()).add(hop)

    def confirmed(self, tag: str) -> bool:
        """Whether the dialog was answered and has not ended."""
        return tag in self._confirmed

    def end(self, tag: str, hop: int) -> bool:
        """A dialog ends at `hop`. True where no other answered dialog goes on there."""
        here = any(hop in hops for hops in self._confirmed.values())
        self._confirmed.pop(tag, None)
        if here:
            return not any(hop in hops for hops in self._confirmed.values())
        return not self._confirmed


class Hops:
    """Numbers for pairs of signalling endpoints, in order of first sighting. The last number takes the overflow.

    A pair is known again by its hosts where a peer answers or calls back from another port, or over another TCP
    connection; but not where several hops lie between the same two hosts.
    """

    __slots__ = ("_count", "_numbers")

    def __init__(self) -> None:
        self._numbers: dict[tuple[Endpoint, Endpoint, int], int] = {}
        """Each pair in both orders."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def known(self, seen: Sighting) -> int | None:
        """Hop of a sighting, whichever way the message went; None for a new pair."""
        _, _, _, source, destination, _, realm = seen
        return self._numbers.get((source, destination, realm))

    def between_hosts(self, seen: Sighting) -> int | None:
        """The only hop between the two hosts, None where there are none or several."""
        hosts = {seen.source[:2], seen.destination[:2]}
        found = {
            number
            for (one, other, where), number in self._numbers.items()
            if where == seen.realm and {one[:2], other[:2]} == hosts
        }
        return found.pop() if len(found) == 1 else None

    def enter(self, seen: Sighting, number: int | None = None) -> int:
        """Give a new pair its number, or that of a hop known otherwise."""
        if number is None:
            number = min(self._count, MAX_HOPS - 1)
            self._count = min(self._count + 1, MAX_HOPS)
        if len(self._numbers) < 8 * MAX_HOPS:
            self._numbers[seen.source, seen.destination, seen.realm] = number
            self._numbers[seen.destination, seen.source, seen.realm] = number
        return number


class _Step(NamedTuple):
    source: Endpoint
    destination: Endpoint
    hop: int


class Path:
    """The way of the initial INVITE over proxies, put in order whatever the order of sighting.

    Hops are joined where one ends at the host at which the next begins, or at the very endpoint where hosts do not
    tell nodes apart (several programs on one machine).
    """

    __slots__ = ("_answered", "_exact", "_ordered", "_steps")

    def __init__(self) -> None:
        self._steps: list[_Step] = []
        self._answered: set[int] = set()
        self._exact = False
        self._ordered: list[_Step] = []

    def forward(self, source: Endpoint, destination: Endpoint, hop: int) -> bool:
        """An initial INVITE was seen at `hop`. True where that is news."""
        if any(step.hop == hop for step in self._steps) or len(self._steps) >= MAX_HOPS:
            return False
        self._steps.append(_Step(source, destination, hop))
        self._exact = self._exact or source[:2] == destination[:2]
        self._order()
        return True

    def answer(self, hop: int) -> None:
        """A 2xx was seen at `hop`: of several branches, this is the one."""
        if hop not in self._answered:
            self._answered.add(hop)
            if len(self._steps) > 2:
                self._order()

    @property
    def caller(self) -> Endpoint | None:
        """Source of the first hop's INVITE."""
        return self._ordered[0].source if self._ordered else None

    @property
    def callee(self) -> Endpoint | None:
        """Destination of the last hop's INVITE, on the answered branch where there is one."""
        return self._ordered[-1].destination if self._ordered else None

    @property
    def first_hop(self) -> int | None:
        """The caller's own hop."""
        return self._ordered[0].hop if self._ordered else None

    def _order(self) -> None:
        first = self._steps[0]
        if len(self._steps) == 1:
            self._ordered = [first]
            return
        visited = {first.hop}
        while (before := self._next(first.source, visited, backwards=True)) is not None:
            visited.add(before.hop)
            first = before
        ordered, nodes = [first], [first.source, first.destination]
        visited = {first.hop}
        while (after := self._next(ordered[-1].destination, visited, backwards=False)) is not None:
            visited.add(after.hop)
            ordered.append(after)
            nodes.append(after.destination)
        # What hangs together with nothing (a node that sends from another address) went further in order of sighting.
        loose = [
            step
            for step in self._steps
            if step.hop not in visited and not any(self._same(node, step.source) for node in nodes)
        ]
        self._ordered = ordered + loose

    def _next(self, node: Endpoint, visited: set[int], backwards: bool) -> _Step | None:
        joined = [
            step
            for step in self._steps
            if step.hop not in visited and self._same(step.destination if backwards else step.source, node)
        ]
        answered = [step for step in joined if step.hop in self._answered]
        best = answered or joined
        return best[-1] if best else None

    def _same(self, one: Endpoint, other: Endpoint) -> bool:
        return one == other if self._exact else one[:2] == other[:2]
