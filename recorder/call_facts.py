"""What is known of a call when the policy decides about it: at its first message, or at its first media.

In: a call, the message that began it and where that was seen; or the addresses of media without signalling. Out:
`CallFacts`, a value. What is unknown is empty or None. The callee's media is unknown as yet.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from capture.address import Endpoint
from decoders.sip import SipMessage
from recorder.identities import address_of
from recorder.media_endpoints import literal
from recorder.model import Call, IdentityOrigin, Party, Sighting

if TYPE_CHECKING:
    from recorder.messages import Message  # which stands on kernels, and rules are read without those


class Heard(NamedTuple):
    """An identity as it can be compared. Its URI is parsed when that is asked for: few rules do."""

    uri: str
    name: str | None = None

    @property
    def user(self) -> str:
        """Number or user name, telephone numbers without visual separators; empty where there is none."""
        return _address(self.uri).user

    @property
    def host(self) -> str:
        """In lower case, without port."""
        return _address(self.uri).host


# The rules ask for the same few URIs one after the other.
_address = lru_cache(maxsize=64)(address_of)


def _none(_: str) -> Sequence[str]:
    return ()


@dataclass(frozen=True, slots=True)
class CallFacts:
    """A call as it begins."""

    call_id: str | None = None
    """None for media that no signalling explains."""
    started: int = 0
    """Capture time, ns since the epoch, UTC."""
    callers: tuple[Heard, ...] = ()
    """The caller by every header that names it, the most trusted first; diversions are none of them."""
    callees: tuple[Heard, ...] = ()
    """The callee likewise, and where the INVITE is sent to (its Request-URI)."""
    header: Callable[[str], Sequence[str]] = _none
    """Values of a header field of the INVITE by name, in any case or compact; lists split."""
    source: Endpoint | None = None
    """Of the INVITE, on the caller's side."""
    destination: Endpoint | None = None
    media: tuple[Endpoint, ...] = ()
    """Where the offer wants media; both ends of media without signalling."""
    realm: int = 0
    """Of the packet, as `capture.realms` tells."""


def facts_of_beginning(call: Call, heard: "Message | None") -> CallFacts:
    """Facts of a call in the moment when it begins; `heard` is the last message before it."""
    if call.received:
        return facts_of_received(call)
    if call.call_id is not None and heard is not None:
        return facts_of_call(call, heard.parsed, heard.seen)
    source, destination = call.caller.address, call.callee.address
    if source is None or destination is None:
        return CallFacts(call_id=call.call_id, started=call.started)
    return facts_of_media(call.started, source, destination, 0)


def facts_of_call(call: Call, message: SipMessage, seen: Sighting) -> CallFacts:
    """Facts of a call that `message` began: its INVITE, or where that was not seen, whatever came first."""
    invite = message.method == "INVITE"
    source, destination = (seen.source, seen.destination) if message.method else (seen.destination, seen.source)
    target = (Heard(message.request_uri),) if message.request_uri and invite else ()
    sdp = message.sdp() if invite else None
    offered = [literal(media.address, media.port) for media in sdp.media] if sdp is not None else []
    return CallFacts(
        call_id=call.call_id,
        started=call.started,
        callers=_identities(call.caller),
        callees=_identities(call.callee) + target,
        header=message.getlist if invite else _none,
        source=source,
        destination=destination,
        media=tuple(endpoint for endpoint in offered if endpoint is not None),
        realm=seen.realm,
    )


def facts_of_received(call: Call) -> CallFacts:
    """Facts of a call that an SRC sends us."""
    recorded = call.recorded_by[0] if call.recorded_by else None
    return CallFacts(
        call_id=call.call_id,
        started=call.started,
        callers=_identities(call.caller),
        callees=_identities(call.callee),
        source=recorded.src if recorded is not None else None,
        destination=recorded.srs if recorded is not None else None,
    )


def facts_of_media(started: int, source: Endpoint, destination: Endpoint, realm: int) -> CallFacts:
    """Facts of media that no signalling explains."""
    return CallFacts(started=started, media=(source, destination), realm=realm)


def _identities(party: Party) -> tuple[Heard, ...]:
    return tuple(
        Heard(identity.uri, identity.name)
        for identity in party.identities
        if identity.origin is not IdentityOrigin.DIVERSION
    )
