"""A 2xx of ours to an INVITE, sent again until its ACK comes (RFC 3261, section 13.3.1.4)."""

from collections.abc import Callable

from recorder.sip_ua.layer import Layer
from recorder.sip_ua.server_transaction import InviteServer
from recorder.sip_ua.timers import Timer


class Unacknowledged:
    """Waits for an ACK; `expired` is told where none comes within 64*T1."""

    def __init__(
        self, layer: Layer, transaction: InviteServer, data: bytes, expired: Callable[[float], None], now: float
    ) -> None:
        self._layer = layer
        self._transaction = transaction
        self._data = data
        transaction.respond(200, data, now)
        self._limit = layer.timers.start(now + layer.intervals.patience, self._expire)
        self._expired = expired
        self._retransmit = self._start(layer.intervals.t1, now)

    def stop(self) -> None:
        """The ACK is there, or nobody waits for it any more."""
        self._limit.stop()
        self._retransmit.stop()

    def _start(self, interval: float, now: float) -> Timer:
        def fire(now: float) -> None:
            self._transaction.respond(200, self._data, now)
            self._retransmit = self._start(min(interval * 2, self._layer.intervals.t2), now)

        return self._layer.timers.start(now + interval, fire)

    def _expire(self, now: float) -> None:
        self.stop()
        self._expired(now)
