"""What transactions, dialogs and the core share: messages on their way out and in, and the clock.

In: nothing. Out: values. A message that goes out is put on a queue (`Layer.send`), never on a socket.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from decoders.sip import SipMessage
from recorder.sip_ua.api import Peer
from recorder.sip_ua.timers import Intervals, Timers
from recorder.sip_ua.wire import Flow, Target


class Hop(NamedTuple):
    """Where a message goes: over `flow` where that is open, else to `target`."""

    target: Target
    flow: Flow | None = None


class Send(NamedTuple):
    """A message to be sent."""

    data: bytes
    hop: Hop
    failed: Callable[[str, float], None] | None = None
    """To be told why it could not be sent, and when that became known."""


class Received(NamedTuple):
    """A message that came in."""

    message: SipMessage
    flow: Flow
    peer: Peer


class FailureKind(StrEnum):
    """Why a request got no final response."""

    TIMEOUT = "timeout"
    TRANSPORT = "transport"


class Failure(NamedTuple):
    """A request got no final response."""

    kind: FailureKind
    text: str


class ResponseUser(NamedTuple):
    """Who sent a request: told of its responses, or that there is none."""

    on_response: Callable[[Received, float], None]
    on_failure: Callable[[Failure, float], None]


@dataclass(slots=True)
class Layer:
    """Timers and the queue of what goes out."""

    intervals: Intervals = field(default_factory=Intervals)
    timers: Timers = field(default_factory=Timers)
    outbox: deque[Send] = field(default_factory=deque)

    def send(self, data: bytes, hop: Hop, failed: Callable[[str, float], None] | None = None) -> None:
        """Have a message sent."""
        self.outbox.append(Send(data, hop, failed))
