"""A network in memory for user agents: time that jumps, datagrams that get lost, doubled and late, connections.

`run(job)` runs a coroutine in a loop whose clock jumps to the next timer whenever nothing is to be done; a call that
takes an hour takes milliseconds. `Network` carries messages between `MemoryTransports`.
"""

import asyncio
import itertools
import selectors
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

from capture.address import Endpoint, parse_endpoint
from decoders.sip import SipMessage, parse_message
from recorder.model import Transport
from recorder.sip_ua.api import Peer
from recorder.sip_ua.routing import literal_target
from recorder.sip_ua.wire import Failed, Flow, Target

T = TypeVar("T")


class _JumpingSelector(selectors.SelectSelector):
    """Never waits: moves the clock instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("the test waits for something that cannot happen")
        if not ready:
            self.now += timeout or 0.0
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop with a clock of its own."""

    def __init__(self) -> None:
        self._clock = _JumpingSelector()
        super().__init__(self._clock)
        self.failures: list[dict[str, Any]] = []
        self.set_exception_handler(lambda loop, context: self.failures.append(context))

    def time(self) -> float:
        return self._clock.now


def run(job: Coroutine[Any, Any, T]) -> T:
    """What a coroutine gives in jumping time; anything that failed unseen in the loop fails here."""
    loop = JumpingLoop()
    try:
        result = loop.run_until_complete(job)
        assert not loop.failures, loop.failures
        return result
    finally:
        loop.close()


@dataclass
class Seen:
    """A message on the network."""

    at: float
    source: Endpoint
    target: Endpoint
    transport: Transport
    data: bytes
    lost: bool = False

    @property
    def message(self) -> SipMessage:
        message = parse_message(self.data)
        assert message is not None
        return message

    def __str__(self) -> str:
        mark = " LOST" if self.lost else ""
        message = self.message
        return f"{self.at:8.2f} {self.source} > {self.target} {self.transport} {message!r}{mark}"


Fate = Callable[[Seen], Sequence[float]]
"""Delays after which copies of a datagram arrive; empty: it is lost."""


@dataclass
class Network:
    """Who listens where, and what was sent."""

    fate: Fate = field(default=lambda seen: (0.01,))
    hosts: dict[tuple[Transport, Endpoint], "MemoryTransports"] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def flow_of(self, seen: Seen) -> str:
        return f"{seen.source}>{seen.target}"

    def starts(self) -> list[str]:
        """Method or status of every message in order."""
        return [seen.message.method or str(seen.message.status) for seen in self.seen]

    def ladder(self) -> str:
        return "\n".join(map(str, self.seen))


def endpoint(text: str) -> Endpoint:
    host, _, port = text.rpartition(":")
    parsed = parse_endpoint(host, int(port))
    assert parsed is not None
    return parsed


class MemoryTransports:
    """`recorder.sip_ua.wire.Transports` over a Network."""

    def __init__(
        self,
        network: Network,
        address: str,
        served: Sequence[Transport] = (Transport.UDP, Transport.TCP, Transport.TLS),
    ) -> None:
        self.network = network
        self.address = endpoint(address)
        self.served = served
        self.on_message: Callable[[bytes, Flow, Peer], None] = lambda data, flow, peer: None
        self.on_lost: Callable[[Flow, str], None] = lambda flow, why: None
        self.connections: dict[int, MemoryTransports] = {}
        self.flows: dict[Target, Flow] = {}
        self.closed = False
        self.socket = Flow(next(network.numbers), Transport.UDP, self.address)
        self.open()

    def open(self) -> None:
        self.closed = False
        for transport in self.served:
            self.network.hosts[transport, self.address] = self

    def vanish(self) -> None:
        """The host is there no more: datagrams are lost, connections are refused."""
        self.closed = True
        for transport in self.served:
            self.network.hosts.pop((transport, self.address), None)

    def drop(self, why: str = "reset") -> None:
        """Every connection breaks, at both ends."""
        for flow, other in [(flow, self.connections.pop(flow)) for flow in list(self.connections)]:
            other.connections.pop(flow, None)
            for end in (self, other):
                for target, known in list(end.flows.items()):
                    if known.id == flow:
                        del end.flows[target]
                        end.on_lost(known, why)

    def send(self, data: bytes, target: Target, flow: Flow | None = None, failed: Failed | None = None) -> None:
        loop = asyncio.get_running_loop()
        if self.closed:
            return
        seen = Seen(loop.time(), self.address, target.endpoint, target.transport, data)
        self.network.seen.append(seen)
        if target.transport is Transport.UDP:
            delays = [delay + len(self.network.seen) * 1e-9 for delay in self.network.fate(seen)]
            seen.lost = not delays
            for delay in delays:
                loop.call_later(delay, self._deliver_datagram, data, target.endpoint)
            return
        if flow is not None and flow.id in self.connections:
            other = self.connections[flow.id]
        else:
            known = self.flows.get(target._replace(name=""))
            if known is None:
                there = self.network.hosts.get((target.transport, target.endpoint))
                if there is None:
                    seen.lost = True
                    if failed is not None:
                        loop.call_later(0.01, failed, "connection refused")
                    return
                known = self._connect(there, target)
            flow, other = known, self.connections[known.id]
        loop.call_later(0.01 + len(self.network.seen) * 1e-9, self._deliver_on, data, flow.id, other)

    def local(self, target: Target) -> tuple[str, int] | None:
        return (self.address.host, self.address.port) if target.transport in self.served else None

    async def close(self) -> None:
        self.vanish()

    def _connect(self, there: "MemoryTransports", target: Target) -> Flow:
        number = next(self.network.numbers)
        mine = Endpoint(self.address.high, self.address.low, 40000 + number)
        flow = Flow(number, target.transport, mine, target.endpoint)
        back = Flow(number, target.transport, target.endpoint, mine)
        self.flows[target._replace(name="")] = flow
        there.flows[Target(target.transport, mine)] = back
        self.connections[number] = there
        there.connections[number] = self
        return flow

    def _deliver_datagram(self, data: bytes, target: Endpoint) -> None:
        there = self.network.hosts.get((Transport.UDP, target))
        if there is not None:
            there.on_message(data, there.socket, Peer(self.address, Transport.UDP))

    def _deliver_on(self, data: bytes, number: int, other: "MemoryTransports") -> None:
        if number not in other.connections or other.closed:
            return
        flow = next((flow for flow in other.flows.values() if flow.id == number), None)
        if flow is not None and flow.remote is not None:
            other.on_message(data, flow, Peer(flow.remote, flow.transport))


async def locate(uri: str) -> Sequence[Target]:
    """Targets of a URI with a literal address; names lead nowhere."""
    target = literal_target(uri)
    return [target] if target is not None else []


def random(seed: int = 1) -> Random:
    return Random(seed)
