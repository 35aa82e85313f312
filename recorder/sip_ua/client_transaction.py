"""Client transactions (RFC 3261, section 17.1; the Accepted state of RFC 6026, section 7.2).

In: a request in octets, responses, time. Out: octets to send, the responses that its user must see, and the failure
where there is none. The ACK for a 2xx is its user's; the ACK for other final responses is sent here.
"""

from collections.abc import Callable
from enum import StrEnum

from recorder.sip_ua.layer import Failure, FailureKind, Hop, Layer, Received, ResponseUser
from recorder.sip_ua.message import Request
from recorder.sip_ua.timers import Timer

NOBODY = ResponseUser(lambda received, now: None, lambda failure, now: None)
"""The user of a transaction that is gone: its own one would be kept by it, as it is by that one."""


def nothing() -> None:
    """Nobody is to be told."""


class ClientState(StrEnum):
    """States of figures 5 and 6. An INVITE begins in Calling, other requests in Trying."""

    CALLING = "calling"
    TRYING = "trying"
    PROCEEDING = "proceeding"
    ACCEPTED = "accepted"
    COMPLETED = "completed"
    TERMINATED = "terminated"


class InviteClient:
    """The INVITE client transaction (section 17.1.1)."""

    def __init__(
        self, layer: Layer, request: Request, via: str, hop: Hop, user: ResponseUser, gone: Callable[[], None]
    ) -> None:
        self.state = ClientState.CALLING
        self.hop = hop
        self._layer = layer
        self._request = request
        self._via = via
        self._data = request.encode(via)
        self._reliable = hop.target.transport != "udp"
        self._user = user
        self._gone = gone
        self._ack = b""
        self._retransmit: Timer | None = None
        self._limit: Timer | None = None

    def start(self, now: float) -> None:
        """Send the request."""
        intervals = self._layer.intervals
        self._layer.send(self._data, self.hop, self.failed)
        self._limit = self._layer.timers.start(now + intervals.patience, self._timer_b)
        if not self._reliable:
            self._start_timer_a(intervals.t1, now)

    def hush(self) -> None:
        """Send the request no more, but take what still comes: nobody waits for the answer."""
        self._stop(self._retransmit)

    def receive(self, received: Received, now: float) -> None:
        """A response came."""
        status, user = received.message.status or 0, self._user
        if self.state in (ClientState.CALLING, ClientState.PROCEEDING):
            if status < 200:
                self._stop(self._retransmit, self._limit)
                self.state = ClientState.PROCEEDING
            elif status < 300:
                self._enter(ClientState.ACCEPTED, now + self._layer.intervals.patience)  # timer M
            else:
                self._complete(received, now)
            user.on_response(received, now)
        elif self.state is ClientState.ACCEPTED and 200 <= status < 300:
            user.on_response(received, now)
        elif self.state is ClientState.COMPLETED and status >= 300:
            self._layer.send(self._ack, self.hop, self.failed)

    def failed(self, why: str, now: float) -> None:
        """The transport could not send, or lost the connection (section 17.1.4)."""
        if self.state in (ClientState.CALLING, ClientState.PROCEEDING):
            user = self._user
            self.terminate()
            user.on_failure(Failure(FailureKind.TRANSPORT, why), now)
        elif self.state is ClientState.COMPLETED:
            self.terminate()

    def terminate(self) -> None:
        """End it without a word."""
        if self.state is not ClientState.TERMINATED:
            self._stop(self._retransmit, self._limit)
            self.state = ClientState.TERMINATED
            self._user = NOBODY
            gone, self._gone = self._gone, nothing
            gone()

    def _complete(self, received: Received, now: float) -> None:
        self._ack = self._request.ack(received.message).encode(self._via)
        self._layer.send(self._ack, self.hop, self.failed)
        if self._reliable:
            self.terminate()
        else:  # timer D: at least 32 s
            self._enter(ClientState.COMPLETED, now + max(32.0, self._layer.intervals.patience))

    def _enter(self, state: ClientState, until: float) -> None:
        self._stop(self._retransmit, self._limit)
        self.state = state
        self._limit = self._layer.timers.start(until, lambda now: self.terminate())

    def _start_timer_a(self, interval: float, now: float) -> None:
        def fire(now: float) -> None:
            self._layer.send(self._data, self.hop, self.failed)
            self._start_timer_a(interval * 2, now)

        self._retransmit = self._layer.timers.start(now + interval, fire)

    def _timer_b(self, now: float) -> None:
        user = self._user
        self.terminate()
        user.on_failure(Failure(FailureKind.TIMEOUT, "no response"), now)

    @staticmethod
    def _stop(*timers: Timer | None) -> None:
        for timer in timers:
            if timer is not None:
                timer.stop()


class PlainClient:
    """The client transaction of all other requests (section 17.1.2)."""

    def __init__(
        self, layer: Layer, request: Request, via: str, hop: Hop, user: ResponseUser, gone: Callable[[], None]
    ) -> None:
        self.state = ClientState.TRYING
        self.hop = hop
        self._layer = layer
        self._data = request.encode(via)
        self._reliable = hop.target.transport != "udp"
        self._user = user
        self._gone = gone
        self._retransmit: Timer | None = None
        self._limit: Timer | None = None

    def start(self, now: float) -> None:
        """Send the request."""
        intervals = self._layer.intervals
        self._layer.send(self._data, self.hop, self.failed)
        self._limit = self._layer.timers.start(now + intervals.patience, self._timer_f)
        if not self._reliable:
            self._start_timer_e(intervals.t1, now)

    def hush(self) -> None:
        """Send the request no more."""
        if self._retransmit is not None:
            self._retransmit.stop()

    def receive(self, received: Received, now: float) -> None:
        """A response came."""
        if self.state not in (ClientState.TRYING, ClientState.PROCEEDING):
            return
        user = self._user
        if (received.message.status or 0) < 200:
            self.state = ClientState.PROCEEDING
        else:
            self.hush()
            if self._limit is not None:
                self._limit.stop()
            self.state = ClientState.COMPLETED
            if self._reliable:
                self.terminate()
            else:  # timer K
                self._limit = self._layer.timers.start(now + self._layer.intervals.t4, lambda now: self.terminate())
        user.on_response(received, now)

    def failed(self, why: str, now: float) -> None:
        """The transport could not send, or lost the connection (section 17.1.4)."""
        if self.state in (ClientState.TRYING, ClientState.PROCEEDING):
            user = self._user
            self.terminate()
            user.on_failure(Failure(FailureKind.TRANSPORT, why), now)

    def terminate(self) -> None:
        """End it without a word."""
        if self.state is not ClientState.TERMINATED:
            self.hush()
            if self._limit is not None:
                self._limit.stop()
            self.state = ClientState.TERMINATED
            self._user = NOBODY
            gone, self._gone = self._gone, nothing
            gone()

    def _start_timer_e(self, interval: float, now: float) -> None:
        def fire(now: float) -> None:
            self._layer.send(self._data, self.hop, self.failed)
            t2 = self._layer.intervals.t2
            self._start_timer_e(t2 if self.state is ClientState.PROCEEDING else min(interval * 2, t2), now)

        self._retransmit = self._layer.timers.start(now + interval, fire)

    def _timer_f(self, now: float) -> None:
        user = self._user
        self.terminate()
        user.on_failure(Failure(FailureKind.TIMEOUT, "no response"), now)


ClientTransaction = InviteClient | PlainClient
