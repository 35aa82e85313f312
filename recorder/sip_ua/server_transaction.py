"""Server transactions (RFC 3261, section 17.2; the Accepted state of RFC 6026, section 7.1).

In: retransmissions of a request that its user was given already, the user's responses, time. Out: octets to send.
A 2xx to an INVITE is sent again by the user until the ACK comes, other final responses are sent again here.
"""

from collections.abc import Callable
from enum import StrEnum

from recorder.sip_ua.layer import Hop, Layer
from recorder.sip_ua.timers import Timer


class ServerState(StrEnum):
    """States of figures 7 and 8. An INVITE begins in Proceeding, other requests in Trying."""

    TRYING = "trying"
    PROCEEDING = "proceeding"
    ACCEPTED = "accepted"
    COMPLETED = "completed"
    CONFIRMED = "confirmed"
    TERMINATED = "terminated"


class InviteServer:
    """The INVITE server transaction (section 17.2.1)."""

    def __init__(self, layer: Layer, hop: Hop, gone: Callable[[], None]) -> None:
        self.state = ServerState.PROCEEDING
        self.hop = hop
        self._layer = layer
        self._reliable = hop.target.transport != "udp"
        self._gone = gone
        self._last = b""
        self._retransmit: Timer | None = None
        self._limit: Timer | None = None

    @property
    def answered(self) -> bool:
        """Whether a final response was given."""
        return self.state is not ServerState.PROCEEDING

    @property
    def begun(self) -> bool:
        """Whether any response was given."""
        return bool(self._last)

    def respond(self, status: int, data: bytes, now: float) -> None:
        """Send a response; a 2xx again whenever its user asks. What does not fit the state is dropped."""
        if self.state is ServerState.ACCEPTED and 200 <= status < 300:
            self._layer.send(data, self.hop)
        if self.state is not ServerState.PROCEEDING:
            return
        self._last = data
        self._layer.send(data, self.hop)
        intervals = self._layer.intervals
        if 200 <= status < 300:
            self.state = ServerState.ACCEPTED
            self._start_limit(now + intervals.patience)  # timer L
        elif status >= 300:
            self.state = ServerState.COMPLETED
            self._start_limit(now + intervals.patience)  # timer H
            if not self._reliable:
                self._start_timer_g(intervals.t1, now)

    def repeated(self, now: float) -> None:
        """The INVITE came again."""
        if self.state in (ServerState.PROCEEDING, ServerState.COMPLETED) and self._last:
            self._layer.send(self._last, self.hop)

    def acknowledged(self, now: float) -> None:
        """An ACK came that belongs to this transaction."""
        if self.state is not ServerState.COMPLETED:
            return
        if self._retransmit is not None:
            self._retransmit.stop()
        self.state = ServerState.CONFIRMED
        if self._reliable:
            self.terminate()
        else:
            self._start_limit(now + self._layer.intervals.t4)  # timer I

    def terminate(self) -> None:
        """End it without a word."""
        if self.state is not ServerState.TERMINATED:
            for timer in (self._retransmit, self._limit):
                if timer is not None:
                    timer.stop()
            self.state = ServerState.TERMINATED
            self._gone()

    def _start_limit(self, until: float) -> None:
        if self._limit is not None:
            self._limit.stop()
        self._limit = self._layer.timers.start(until, lambda now: self.terminate())

    def _start_timer_g(self, interval: float, now: float) -> None:
        def fire(now: float) -> None:
            self._layer.send(self._last, self.hop)
            self._start_timer_g(min(interval * 2, self._layer.intervals.t2), now)

        self._retransmit = self._layer.timers.start(now + interval, fire)


class PlainServer:
    """The server transaction of all other requests (section 17.2.2)."""

    def __init__(self, layer: Layer, hop: Hop, gone: Callable[[], None]) -> None:
        self.state = ServerState.TRYING
        self.hop = hop
        self._layer = layer
        self._gone = gone
        self._last = b""
        self._limit: Timer | None = None

    @property
    def answered(self) -> bool:
        """Whether a final response was given."""
        return self.state in (ServerState.COMPLETED, ServerState.TERMINATED)

    def respond(self, status: int, data: bytes, now: float) -> None:
        """Send a response; one that comes after a final one is dropped."""
        if self.answered:
            return
        self._last = data
        self._layer.send(data, self.hop)
        if status < 200:
            self.state = ServerState.PROCEEDING
            return
        self.state = ServerState.COMPLETED
        if self.hop.target.transport != "udp":
            self.terminate()
        else:  # timer J
            until = now + self._layer.intervals.patience
            self._limit = self._layer.timers.start(until, lambda now: self.terminate())

    def repeated(self, now: float) -> None:
        """The request came again."""
        if self._last:
            self._layer.send(self._last, self.hop)

    def acknowledged(self, now: float) -> None:
        """Requests other than INVITE are not acknowledged: nothing happens."""

    def terminate(self) -> None:
        """End it without a word."""
        if self.state is not ServerState.TERMINATED:
            if self._limit is not None:
                self._limit.stop()
            self.state = ServerState.TERMINATED
            self._gone()


ServerTransaction = InviteServer | PlainServer
