"""What a session asks of the core that it lives in."""

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Protocol

from decoders.sip import SipMessage
from recorder.sip_ua.config import AgentConfig
from recorder.sip_ua.layer import Hop, Layer
from recorder.sip_ua.message import Request
from recorder.sip_ua.sender import Sender

if TYPE_CHECKING:
    from recorder.sip_ua.session import DialogSession

Hops = Callable[[list[Hop], float], None]
"""Given the hops to a URI, when they are known."""
Authorize = Callable[[SipMessage, Request], Request | None]
"""Makes of a 401 or 407 and the request that it answers one with credentials; None where it has none to offer."""


class Stack(Protocol):
    """The core, as sessions see it."""

    layer: Layer
    config: AgentConfig
    sender: Sender
    random: Random

    def hops(self, uri: str, back: Hop, then: Hops, now: float) -> None:
        """Find where a request to `uri` goes; `back` is where the session's messages come from."""
        ...

    def add(self, session: "DialogSession") -> None:
        """Messages of the session's dialog are its own from now on."""
        ...

    def remove(self, session: "DialogSession") -> None:
        """The session is over."""
        ...
