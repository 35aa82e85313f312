"""Requests on their way out: which transport, which hop after a failure, which responses are whose.

In: requests, hops, responses, failures of transports. Out: client transactions. A request too large for UDP goes by TCP
and comes back to UDP where the peer has no TCP (RFC 3261, section 18.1.1); a hop that fails gives way to the next.
"""

from collections.abc import Callable, Sequence
from random import Random

from capture.address import Endpoint
from decoders.sip_address import parse_via
from recorder.model import Transport
from recorder.sip_ua.client_transaction import (
    NOBODY,
    ClientState,
    ClientTransaction,
    InviteClient,
    PlainClient,
    nothing,
)
from recorder.sip_ua.layer import Failure, FailureKind, Hop, Layer, Received, ResponseUser
from recorder.sip_ua.message import MAGIC, Request, via_value
from recorder.sip_ua.routing import LARGEST_DATAGRAM
from recorder.sip_ua.wire import Flow, Target

_REMEMBER = 600.0
"""s for which a peer counts as one without TCP."""
_MOST_REMEMBERED = 1024

Local = Callable[[Target], tuple[str, int] | None]
"""Our host and port as seen from a target (`Transports.local`)."""


class Sender:
    """All client transactions of a core."""

    def __init__(self, layer: Layer, local: Local, random: Random) -> None:
        self.layer = layer
        self.local = local
        self._random = random
        self._transactions: dict[tuple[str, str], ClientTransaction] = {}
        self._without_tcp: dict[Endpoint, float] = {}

    def __len__(self) -> int:
        return len(self._transactions)

    def request(self, request: Request, hops: Sequence[Hop], user: ResponseUser, now: float) -> "Outgoing":
        """Send a request to the first of `hops` that takes it."""
        outgoing = Outgoing(self, request, hops, user)
        outgoing.start(now)
        return outgoing

    def acknowledge(self, request: Request, hops: Sequence[Hop], now: float) -> Callable[[float], None]:
        """Send the ACK for a 2xx, which is no transaction; gives what sends it again."""
        if not hops:
            return lambda now: None
        small, branch = hops[0], self.new_branch()
        data = self._encoded(request, small, branch)
        if data is None:
            return lambda now: None
        large = self._as_tcp(small) if len(data) > LARGEST_DATAGRAM else None
        if large is None or self.lacks_tcp(large, now):
            self.layer.send(data, small)
            return lambda now: self.layer.send(data, small)
        return self._acknowledge_by_tcp(data, small, self._encoded(request, large, branch) or data, large)

    def _acknowledge_by_tcp(self, data: bytes, hop: Hop, over_tcp: bytes, large: Hop) -> Callable[[float], None]:
        def failed(why: str, now: float) -> None:
            self.note_without_tcp(large, now)
            self.layer.send(data, hop)

        def send(now: float) -> None:
            self.layer.send(over_tcp, large, failed)

        self.layer.send(over_tcp, large, failed)
        return send

    def receive(self, received: Received, now: float) -> bool:
        """Give a response to its transaction; False where it belongs to none and is dropped."""
        message = received.message
        cseq = message.cseq
        values = message.getlist("via")
        via = parse_via(values[0]) if values else None
        if cseq is None or via is None or via.branch is None:
            return False
        transaction = self._transactions.get((via.branch, cseq[1]))
        if transaction is None:
            return False
        transaction.receive(received, now)
        return True

    def lost(self, flow: Flow, why: str, now: float) -> None:
        """A connection is gone: what waits for a response on it waits in vain."""
        for transaction in list(self._transactions.values()):
            hop = transaction.hop
            same = hop.target.transport is flow.transport and hop.target.endpoint == flow.remote
            if hop.flow == flow or (same and flow.reliable):
                transaction.failed(f"connection lost: {why}", now)

    def holds(self, branch: str) -> bool:
        """Whether a branch is of a request of ours that is under way."""
        return any((branch, method) in self._transactions for method in ("INVITE", "OPTIONS"))

    def new_branch(self) -> str:
        """A branch that nobody used before."""
        return f"{MAGIC}{self._random.getrandbits(96):024x}"

    def open(
        self,
        request: Request,
        hop: Hop,
        branch: str,
        user: ResponseUser,
        now: float,
        gone: Callable[[], None] = nothing,
    ) -> ClientTransaction | None:
        """Begin a client transaction; None where our transports do not serve the hop. `gone` is told of its end."""
        via = self._via(hop, branch)
        if via is None:
            return None
        key = (branch, request.method)
        kind = InviteClient if request.method == "INVITE" else PlainClient

        def forget() -> None:
            self._transactions.pop(key, None)
            gone()

        transaction = kind(self.layer, request, via, hop, user, forget)
        self._transactions[key] = transaction
        transaction.start(now)
        return transaction

    def plan(self, request: Request, hops: Sequence[Hop], now: float) -> list[Hop]:
        """`hops`, with TCP in front of UDP where the request is too large for that."""
        planned: list[Hop] = []
        for hop in hops:
            large = self._as_tcp(hop)
            if large is not None and not self.lacks_tcp(large, now):
                data = self._encoded(request, hop, MAGIC + "0" * 24)
                if data is not None and len(data) > LARGEST_DATAGRAM:
                    planned.append(large)
            planned.append(hop)
        return planned

    def note_without_tcp(self, hop: Hop, now: float) -> None:
        """A peer does not take TCP connections."""
        if len(self._without_tcp) >= _MOST_REMEMBERED:
            self._without_tcp.clear()
        self._without_tcp[hop.target.endpoint] = now + _REMEMBER

    def lacks_tcp(self, hop: Hop, now: float) -> bool:
        """Whether a peer is known not to take TCP connections."""
        return self._without_tcp.get(hop.target.endpoint, 0.0) > now

    def _as_tcp(self, hop: Hop) -> Hop | None:
        if hop.target.transport is not Transport.UDP:
            return None
        target = hop.target._replace(transport=Transport.TCP)
        return Hop(target) if self.local(target) is not None else None

    def _encoded(self, request: Request, hop: Hop, branch: str) -> bytes | None:
        via = self._via(hop, branch)
        return request.encode(via) if via is not None else None

    def _via(self, hop: Hop, branch: str) -> str | None:
        local = self.local(hop.target)
        return via_value(hop.target.transport, local[0], local[1], branch) if local is not None else None


class Outgoing:
    """One request on its way."""

    def __init__(self, sender: Sender, request: Request, hops: Sequence[Hop], user: ResponseUser) -> None:
        self.request = request
        self._sender = sender
        self._hops = list(hops)
        self._user = user
        self._transaction: ClientTransaction | None = None
        self._branch = ""
        self._provisional = False
        self._cancelling = False
        self._done = False

    @property
    def hop(self) -> Hop | None:
        """Where it went last."""
        return self._transaction.hop if self._transaction is not None else None

    def start(self, now: float) -> None:
        """Send it."""
        self._hops = self._sender.plan(self.request, self._hops, now)
        self._next("no way to it", now)

    def cancel(self, now: float) -> None:
        """Take an INVITE back (section 9.1): at once, or as soon as a provisional response has come."""
        if self._cancelling or self._done:
            return
        self._cancelling = True
        if self._provisional:
            self._send_cancel(now)

    def abandon(self, now: float) -> None:
        """Nobody waits for it: send it no more, and take an INVITE back should the peer answer after all."""
        self._hops.clear()
        if self._transaction is not None:
            self._transaction.hush()
        if self.request.method == "INVITE":
            self.cancel(now)

    def _next(self, why: str, now: float) -> None:
        while self._hops:
            hop = self._hops.pop(0)
            self._branch = self._sender.new_branch()
            user = ResponseUser(self._on_response, self._on_failure)
            opened = self._sender.open(self.request, hop, self._branch, user, now, self._gone)
            self._transaction = opened or self._transaction
            if self._transaction is not None and self._transaction.state is not ClientState.TERMINATED:
                return
        self._sender.layer.timers.start(now, lambda now: self._fail(Failure(FailureKind.TRANSPORT, why), now))

    def _on_response(self, received: Received, now: float) -> None:
        if (received.message.status or 0) < 200:
            first, self._provisional = not self._provisional, True
            if first and self._cancelling:
                self._send_cancel(now)
        else:
            self._done = True
        user = self._user
        if self._done and self._transaction is not None and self._transaction.state is ClientState.TERMINATED:
            self._user = NOBODY
        user.on_response(received, now)

    def _gone(self) -> None:
        """The transaction is over: after the final response nothing more comes, and no cycle of references is left."""
        if self._done:
            self._user = NOBODY

    def _on_failure(self, failure: Failure, now: float) -> None:
        failed = self.hop
        if failure.kind is FailureKind.TRANSPORT and not self._provisional and not self._cancelling and self._hops:
            following = self._hops[0].target
            if failed is not None and failed.target._replace(transport=Transport.UDP) == following:
                self._sender.note_without_tcp(failed, now)
            self._next(failure.text, now)
        else:
            self._fail(failure, now)

    def _fail(self, failure: Failure, now: float) -> None:
        if not self._done:
            self._done = True
            user, self._user = self._user, NOBODY
            user.on_failure(failure, now)

    def _send_cancel(self, now: float) -> None:
        hop = self.hop
        if hop is None:
            return
        nobody = ResponseUser(lambda received, now: None, lambda failure, now: None)
        self._sender.open(self.request.cancel(), hop, self._branch, nobody, now)
        self._sender.layer.timers.start(now + self._sender.layer.intervals.patience, self._give_up)

    def _give_up(self, now: float) -> None:
        """No final response came to what was cancelled (section 9.1)."""
        if not self._done and self._transaction is not None:
            self._transaction.terminate()
            self._fail(Failure(FailureKind.TIMEOUT, "no final response after CANCEL"), now)
