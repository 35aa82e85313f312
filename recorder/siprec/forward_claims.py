"""Whose media a flow on the wire is, for the forwarder: what the registry says, asked again as calls go on.

In: flows that the forwarder has found, the registry of media endpoints, and capture time, once for each turn of the
engine's loop. Out: flows placed as sources of calls with their formats and keys, or passed over. Used by the engine's
thread alone. The registry is asked when a flow is new, when an endpoint of it is announced, and once a second as long
as somebody claims the flow or its media are kept.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Protocol

from capture.address import Endpoint
from decoders.sdp import CryptoKey, PayloadFormat
from recorder.encryption import protection
from recorder.endpoints import Claim, EndpointRegistry
from recorder.model import MediaEndpoint, Side
from recorder.renewal import formats_of
from recorder.siprec.forward import NewFlow
from recorder.siprec.legs import Source

ASKED_EVERY = 1_000_000_000
"""ns of capture time until nobody is asked for again whose media this is, unless an endpoint is announced."""
CONFIRMED_EVERY = 5_000_000_000
"""The same for a flow that somebody claims: only that its call is over, or its endpoint given up, comes without a sign,
and both hold for seconds more."""
UNCLAIMED = 16_000_000_000
"""ns after its first packet for which a flow's media is kept though nobody has announced it: longer than packets are
kept at all, as signalling may be far behind where the machine has more to do than it can."""
MOST_UNCLAIMED = 4
"""Times that are asked in vain for a flow that is passed over: those of calls that are over would be half of all."""
MOST_ASKED = 4096
"""Flows that are asked for again in one turn."""


class PlacesFlows(Protocol):
    """What of the forwarder is spoken to here."""

    def take_new_flows(self) -> list[NewFlow]:
        """Flows that nobody has spoken for."""
        ...

    def take_gone_flows(self) -> list[int]:
        """Numbers of flows that are forgotten."""
        ...

    def place(
        self, flow: NewFlow, source: Source, formats: Mapping[int, PayloadFormat], crypto: Sequence[CryptoKey] = ()
    ) -> None:
        """A flow carries a source."""
        ...

    def pass_over(self, flow: NewFlow) -> None:
        """A flow is of nobody."""
        ...


@dataclass(frozen=True, slots=True)
class _Answer:
    """One source that a flow carries."""

    source: Source
    formats: Mapping[int, PayloadFormat]
    crypto: tuple[CryptoKey, ...]
    rank: tuple[bool, int]
    """Less is nearer to the speaker."""


@dataclass(slots=True)
class _Flow:
    """A flow that the forwarder knows."""

    flow: NewFlow
    answers: dict[Source, _Answer] = field(default_factory=dict)
    """As placed."""
    claims: list[Claim] = field(default_factory=list)
    """What the answers follow from."""
    passed_over: bool = False
    due: bool = True
    """Whether it is asked for again once a second."""
    unclaimed: int = 0
    """How often in a row it was asked for, passed over already, and nobody claimed it."""


class ForwardClaims:
    """The flows of one forwarder."""

    def __init__(
        self,
        registry: EndpointRegistry,
        forwarder: PlacesFlows,
        wanted: Callable[[MediaEndpoint], bool] = lambda _: True,
        lingers: Callable[[int], bool] = lambda _: False,
    ) -> None:
        """`wanted` says of an announced endpoint whether its media may be forwarded at all, `lingers` of a call that is
        over (by `Call.index`) whether its session may yet have to be sent what was said in it."""
        self._registry = registry
        self._forwarder = forwarder
        self._wanted = wanted
        self._lingers = lingers
        self._flows: dict[int, _Flow] = {}
        self._at: dict[Endpoint, set[int]] = {}
        """Endpoint -> flows from it or to it."""
        self._due: dict[int, deque[tuple[int, int, int]]] = {ASKED_EVERY: deque(), CONFIRMED_EVERY: deque()}
        """How long an answer holds -> (when to ask again, number, first packet) of flows that are `due`, in order."""
        self._announced: AbstractSet[Endpoint] = frozenset()
        """What of `_changed` is answered already."""
        self._changed: AbstractSet[Endpoint] = frozenset()

    def turn(self, now: int) -> None:
        """Answer for what is new, and ask again what is due, at capture time `now` (ns)."""
        for number in self._forwarder.take_gone_flows():
            self._forget(number)
        asked = [self._meet(flow, now) for flow in self._forwarder.take_new_flows()]
        for endpoint in self._newly_announced():
            asked += self._at.get(endpoint, ())
        if self._registry.redescribed:
            asked += self._of_calls(self._registry.redescribed)
            self._registry.redescribed.clear()
        asked += self._take_due(now)
        self._ask(dict.fromkeys(asked), now)

    def _newly_announced(self) -> AbstractSet[Endpoint]:
        changed = self._registry.changed
        if changed is self._changed and len(changed) == len(self._announced):
            return frozenset()  # the set only grows, until it is another one
        new = changed - self._announced
        self._changed, self._announced = changed, frozenset(changed)
        return new

    def _meet(self, flow: NewFlow, now: int) -> int:
        self._forget(flow.number)
        self._flows[flow.number] = _Flow(flow)
        for endpoint in (flow.source, flow.destination):
            self._at.setdefault(endpoint, set()).add(flow.number)
        self._ask_again(flow, ASKED_EVERY, now)
        return flow.number

    def _ask_again(self, flow: NewFlow, after: int, now: int) -> None:
        self._due[after].append((now + after, flow.number, flow.first))

    def _of_calls(self, calls: AbstractSet[int]) -> list[int]:
        """Flows that carry media of these calls."""
        return [
            number for number, known in self._flows.items() if any(source.call in calls for source in known.answers)
        ]

    def _take_due(self, now: int) -> list[int]:
        found: list[int] = []
        for after, due in self._due.items():
            # A clock that was set back must not silence the questions.
            while due and len(found) < MOST_ASKED and not now < due[0][0] <= now + after:
                _, number, first = due.popleft()
                known = self._flows.get(number)
                if known is None or known.flow.first != first:
                    continue
                known.unclaimed = known.unclaimed + 1 if known.passed_over and not known.claims else 0
                if known.unclaimed > MOST_UNCLAIMED:
                    known.due = False  # only an announcement can change that
                    continue
                found.append(number)
                self._ask_again(known.flow, CONFIRMED_EVERY if known.claims else ASKED_EVERY, now)
        return found

    def _ask(self, numbers: Mapping[int, None], now: int) -> None:
        """Ask for flows, and place those that are nearest to their speakers first."""
        changed: list[tuple[_Answer, _Flow]] = []
        for number in numbers:
            known = self._flows.get(number)
            if known is None:
                continue
            flow = known.flow
            claims = self._registry.claims(flow.source, flow.destination, flow.realm, max(now, flow.first))
            if claims and (known.answers or known.passed_over) and _are_same(claims, known.claims):
                continue
            if known.answers and self._is_left(claims) and all(self._lingers(each.call) for each in known.answers):
                continue
            known.claims = claims
            if claims and not known.due:
                known.due, known.unclaimed = True, 0
                self._ask_again(flow, ASKED_EVERY, now)
            answers = self._answers(flow, claims)
            if known.answers.keys() - answers.keys() or (not answers and self._is_stale(known, now)):
                self._forwarder.pass_over(known.flow)
                known.answers, known.passed_over = {}, True
            changed += [(each, known) for each in answers.values() if known.answers.get(each.source) != each]
        changed.sort(key=lambda each: (each[0].rank, each[1].flow.first))
        for answer, known in changed:
            known.answers[answer.source], known.passed_over = answer, False
            self._forwarder.place(known.flow, answer.source, answer.formats, answer.crypto)

    def _is_left(self, claims: Sequence[Claim]) -> bool:
        """Whether no call in progress claims a flow."""
        return not any(self._wanted(claim.by) for claim in claims)

    def _is_stale(self, known: _Flow, now: int) -> bool:
        """Whether it is time to let go of what an unclaimed flow has waiting."""
        return not known.passed_over and now - known.flow.first > UNCLAIMED

    def _answers(self, flow: NewFlow, claims: Sequence[Claim]) -> dict[Source, _Answer]:
        found: dict[Source, _Answer] = {}
        for claim in claims:
            answer = self._answer(flow, claim) if self._wanted(claim.by) else None
            if answer is not None:
                found.setdefault(answer.source, answer)
        return found

    def _answer(self, flow: NewFlow, claim: Claim) -> _Answer | None:
        encrypted, keys = protection(self._registry, claim)
        if encrypted and not keys:
            return None  # DTLS-SRTP: nobody but its ends can read it
        away = claim.sender is None or claim.sender.endpoint != flow.source
        # The caller's own hop is the first, the callee's the last.
        hop = claim.by.hop if claim.speaker is Side.CALLER else -claim.by.hop
        return _Answer(
            source=Source(claim.by.call, claim.speaker, claim.by.media_index),
            formats=formats_of(claim),
            crypto=tuple(keys) if encrypted else (),
            rank=(away, hop),
        )

    def _forget(self, number: int) -> None:
        known = self._flows.pop(number, None)
        if known is None:
            return
        for endpoint in (known.flow.source, known.flow.destination):
            numbers = self._at.get(endpoint)
            if numbers is not None:
                numbers.discard(number)
                if not numbers:
                    del self._at[endpoint]


def _are_same(one: Sequence[Claim], other: Sequence[Claim]) -> bool:
    """Whether claims follow from the very same announcements: those that change are made anew."""
    return len(one) == len(other) and all(
        first.by is second.by and first.receiver is second.receiver and first.sender is second.sender
        for first, second in zip(one, other, strict=True)
    )
