"""What those who lead recording sessions see of the user agent: sessions, not transactions.

In: nothing. Out: the types of the conversation between `recorder.siprec` and the agent. A `Session` is an established
INVITE dialog (RFC 3261, section 12), whoever began it. All of it belongs to one event loop; nothing here blocks. Bodies
and header values are the caller's to make; what the agent adds is Via, Max-Forwards, From, To, Call-ID, CSeq, Contact,
Route, Date, Allow, Supported, Session-Expires, Content-Length, credentials.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from capture.address import Endpoint
from decoders.sip import SipMessage
from recorder.model import Transport

Header = tuple[str, str]
"""Name and value; a value with a line break in it is refused with ValueError."""


@dataclass(frozen=True, slots=True)
class Body:
    """The body of a message."""

    content_type: str
    data: bytes
    disposition: str | None = None
    parts: "tuple[Body, ...]" = field(default=(), repr=False, compare=False)
    """What it was made of, where that is known and it has several parts: nobody need take it apart."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """For digest authentication (RFC 7616, RFC 8760)."""

    user: str
    password: str = field(repr=False)
    realm: str | None = None
    """None: whatever realm asks."""


@dataclass(frozen=True, slots=True)
class NewSession:
    """An INVITE that begins a session."""

    uri: str
    """Request-URI; where it is sent follows from it by RFC 3263 unless `via` says otherwise."""
    body: Body | None
    """None: the peer makes the offer (RFC 3261, section 13.2.1)."""
    answer: Callable[[SipMessage], Body | None] | None = None
    """Makes the answer to the peer's offer, which goes out in the ACK (or in the PRACK); None ends the session."""
    from_: str = ""
    """From as a name-addr without tag; empty: the agent's own."""
    to: str = ""
    """To likewise; empty: `uri`."""
    headers: Sequence[Header] = ()
    """Further ones: Require, Accept..."""
    contact_params: Sequence[str] = ()
    """Header parameters of our Contact in every request and response of the session: `+sip.src`."""
    credentials: Credentials | None = None
    via: str | None = None
    """SIP URI of an outbound proxy: where the request goes instead."""
    session_expires: int | None = 1800
    """s that are asked for between refreshes (RFC 4028); None: no session timer of ours."""
    timeout: float = 5.0
    """s to wait for any response of one target before the next is tried."""
    answer_timeout: float = 32.0
    """s to wait for the final response."""


class RefusedError(Exception):
    """The peer answered with a final response of 3xx to 6xx that the agent could not act on."""

    def __init__(self, status: int, reason: str, response: SipMessage | None) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason
        self.response = response
        """None where the agent itself is the author, e.g. 408."""

    @property
    def retry_after(self) -> float | None:
        """s of a Retry-After header, None where there is none."""
        value = (self.response.get("retry-after") or "") if self.response is not None else ""
        digits = value.strip().split("(")[0].split(";")[0].strip()
        return float(digits) if digits.isdecimal() and len(digits) < 8 else None


class UnreachableError(Exception):
    """No target of a URI could be reached, or none answered: a sentence says which and why."""


class EndedBy(StrEnum):
    """Who ended a session."""

    US = "us"
    PEER = "peer"
    """By BYE."""
    TIMER = "timer"
    """The session timer ran out (RFC 4028), or no ACK came for a 2xx (RFC 3261, section 13.3.1.4)."""
    TRANSPORT = "transport"
    """A request in the dialog got no answer, or 408 or 481 (RFC 3261, section 12.2.1.2)."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a session ended."""

    by: EndedBy
    message: SipMessage | None = None
    """The BYE, or the response that ended it."""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """Our final response to a request within a session."""

    status: int
    reason: str = ""
    """Empty: the usual phrase."""
    body: Body | None = None
    headers: Sequence[Header] = ()


@dataclass(frozen=True, slots=True)
class Peer:
    """Who sent a request."""

    address: Endpoint
    transport: Transport
    certificate: tuple[str, ...] = ()
    """Subject alternative names (`DNS:a.example`, `URI:sip:a.example`, `IP:…`) of a verified TLS certificate, and
    `CN:…`."""
    user: str | None = None
    """Who answered our digest challenge."""


class Session(Protocol):
    """An established dialog."""

    peer: Peer
    answer: SipMessage
    """The 2xx to our INVITE (or the reliable provisional response where only that had the session description, RFC
    3262), or the peer's INVITE."""
    on_request: Callable[[SipMessage], Awaitable[Reply]]
    """Asked for the answer to the peer's re-INVITE, UPDATE, INFO, NOTIFY, MESSAGE; set it at once. BYE, OPTIONS, ACK,
    UPDATE without a body (a refresh) and glare (491, 500 with Retry-After) are the agent's. Where the reply to a
    re-INVITE makes an offer, wait for `acknowledged` to have the answer."""
    on_end: Callable[[Ended], None]
    """Told once, whoever ended it; nothing is to be sent afterwards."""
    on_parted: Callable[[SipMessage | None], None]
    """Told once, after `on_end`, where the peer does not know of the end at once: when it has answered our BYE, or sent
    one that crossed ours, which is told then, or when there is nothing more to wait for. Until then it may send media.
    """

    @property
    def call_id(self) -> str:
        """Call-ID of the dialog."""
        ...

    @property
    def local_uri(self) -> str:
        """URI of our From."""
        ...

    @property
    def remote_uri(self) -> str:
        """URI of the peer's From or To."""
        ...

    @property
    def allows(self) -> frozenset[str]:
        """Methods of the peer's Allow, upper case; empty where it sent none (then UPDATE is not used)."""
        ...

    @property
    def local_address(self) -> str:
        """Host of our end of its transport, for SDP."""
        ...

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        ...

    @property
    def parted(self) -> bool:
        """Whether it has ended and `on_parted` has nothing more to tell."""
        ...

    async def reinvite(
        self,
        body: Body | None,
        headers: Sequence[Header] = (),
        answer: Callable[[SipMessage], Body | None] | None = None,
    ) -> SipMessage:
        """Send a re-INVITE; gives the 2xx, which has been acknowledged. One at a time: a second waits for the first.
        Glare is tried again (RFC 3261, section 14.1). Without a body the peer makes the offer, and `answer` the
        answer. Raises RefusedError (the session goes on as before) or UnreachableError (it is over)."""
        ...

    async def request(self, method: str, body: Body | None = None, headers: Sequence[Header] = ()) -> SipMessage:
        """Send UPDATE, INFO, OPTIONS, NOTIFY, MESSAGE; gives the 2xx. Raises as `reinvite`."""
        ...

    async def bye(self, body: Body | None = None, headers: Sequence[Header] = ()) -> None:
        """End it. Never raises; without an answer it ends all the same."""
        ...

    async def acknowledged(self) -> SipMessage | None:
        """The ACK of the INVITE that we accepted last (with the answer in it where we made the offer); None where the
        session ended before. Once a re-INVITE has been passed to `on_request`, it is about that one."""
        ...


class Incoming(Protocol):
    """An INVITE outside a dialog that waits for our answer."""

    message: SipMessage
    peer: Peer

    @property
    def local_address(self) -> str:
        """Host of our end of its transport, for SDP."""
        ...

    def progress(self, status: int, reason: str = "") -> None:
        """Send a provisional response; 100 was sent."""
        ...

    def accept(
        self, body: Body, headers: Sequence[Header] = (), contact_params: Sequence[str] = (), local_uri: str = ""
    ) -> Session:
        """Answer 200 and send it again until it is acknowledged. Raises UnreachableError where the peer took it back
        or it was answered."""
        ...

    def refuse(self, status: int, reason: str = "", headers: Sequence[Header] = ()) -> None:
        """Answer with a final response other than 2xx."""
        ...

    @property
    def cancelled(self) -> bool:
        """Whether the peer took it back: it was answered 487 and can no longer be accepted."""
        ...


class Agent(Protocol):
    """The user agent."""

    on_invite: Callable[[Incoming], None]
    """Told of each INVITE outside a dialog, retransmissions aside; answers 405 where it is not set."""

    async def invite(self, new: NewSession) -> Session:
        """Begin a session: targets of the URI are tried in order (RFC 3263, section 4.3), 401 and 407 are answered,
        redirections followed within limits. Cancelling the task sends CANCEL. Raises RefusedError or
        UnreachableError."""
        ...

    async def ping(self, uri: str, credentials: Credentials | None = None, timeout: float = 5.0) -> SipMessage | None:
        """OPTIONS to a peer: any final response means that it is there; None: no answer."""
        ...

    async def close(self, patience: float = 2.0) -> None:
        """End all sessions and close all transports, waiting at most `patience` s for answers."""
        ...
