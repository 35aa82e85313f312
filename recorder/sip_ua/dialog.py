"""Dialogs (RFC 3261, section 12): who the two sides are, which way requests take, and in which order.

In: the messages that make a dialog and refresh its target. Out: requests within it. Holds no transaction, no timer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from decoders.sip import SipMessage
from decoders.sip_address import parse_name_address, parse_uri
from recorder.sip_ua.api import Body, Header
from recorder.sip_ua.message import Request, with_tag, without_tag

_MAX_ROUTES = 32
_TARGET_REFRESH = ("INVITE", "UPDATE", "SUBSCRIBE", "NOTIFY", "REFER")

DialogId = tuple[str, str, str]
"""Call-ID, local tag, remote tag."""


@dataclass(slots=True)
class Dialog:
    """One dialog, as one of its sides has it."""

    call_id: str
    local: str
    """Our From of requests in it, with the tag."""
    remote: str
    """Our To of requests in it, with the tag where the peer has one."""
    local_tag: str
    remote_tag: str
    remote_target: str
    """URI of the peer's Contact."""
    routes: tuple[str, ...]
    """Route set, first hop first."""
    local_cseq: int
    """Of our last request."""
    remote_cseq: int | None
    """Of the peer's last request."""
    caller: bool
    """Whether we sent the INVITE that made it, and so own the Call-ID."""

    @property
    def id(self) -> DialogId:
        """What a message's dialog is found by."""
        return self.call_id, self.local_tag, self.remote_tag

    @property
    def next_hop(self) -> str:
        """URI that a request is sent to first."""
        return _uri(self.routes[0]) if self.routes else self.remote_target

    def request(
        self, method: str, headers: Sequence[Header] = (), body: Body | None = None, cseq: int | None = None
    ) -> Request:
        """The next request of ours (section 12.2.1.1); with `cseq` an ACK, or a request that is sent again."""
        if cseq is None:
            self.local_cseq += 1
            cseq = self.local_cseq
        uri, routes = self.remote_target, self.routes
        if routes and "lr" not in parse_uri(_uri(routes[0])).params:  # a strict router wants itself in the Request-URI
            uri, routes = _uri(routes[0]), (*routes[1:], f"<{self.remote_target}>")
        return Request(method, uri, self.local, self.remote, self.call_id, cseq, routes, tuple(headers), body)

    def in_order(self, request: SipMessage) -> bool:
        """Whether a request of the peer comes in its turn (section 12.2.2); remembers its number if so. Equal numbers
        pass: there are peers that never count."""
        number = request.cseq[0] if request.cseq else 0
        if self.remote_cseq is not None and number < self.remote_cseq:
            return False
        self.remote_cseq = number
        return True

    def refresh(self, message: SipMessage) -> None:
        """Take the Contact of a target refresh request or of the 2xx to one (section 12.2)."""
        method = message.method or (message.cseq[1] if message.cseq else "")
        contact = message.contact
        if method in _TARGET_REFRESH and contact is not None and _usable(contact.uri):
            self.remote_target = contact.uri


def dialog_of_caller(request: Request, response: SipMessage) -> Dialog:
    """The dialog that a provisional or 2xx response to our INVITE makes (section 12.1.2)."""
    contact = response.contact
    from_ = parse_name_address(request.from_)
    to = response.to
    return Dialog(
        call_id=request.call_id,
        local=request.from_,
        remote=response.get("to") or request.to,
        local_tag=(from_.tag if from_ else None) or "",
        remote_tag=(to.tag if to else None) or "",
        remote_target=contact.uri if contact is not None and _usable(contact.uri) else request.uri,
        routes=tuple(reversed(response.getlist("record-route")[:_MAX_ROUTES])),
        local_cseq=request.cseq,
        remote_cseq=None,
        caller=True,
    )


def dialog_of_callee(request: SipMessage, tag: str, local: str = "") -> Dialog:
    """The dialog that our 2xx to an INVITE makes, with `tag` in its To (section 12.1.1). `local`: name-addr in place
    of the To that the peer wrote, for requests of ours."""
    from_, contact = request.from_, request.contact
    usable = contact is not None and _usable(contact.uri)
    return Dialog(
        call_id=request.call_id or "",
        local=with_tag(without_tag(local or request.get("to") or ""), tag),
        remote=request.get("from") or "",
        local_tag=tag,
        remote_tag=(from_.tag if from_ else None) or "",
        remote_target=contact.uri if contact is not None and usable else (from_.uri if from_ else ""),
        routes=tuple(request.getlist("record-route")[:_MAX_ROUTES]),
        local_cseq=0,
        remote_cseq=request.cseq[0] if request.cseq else 0,
        caller=False,
    )


def _uri(route: str) -> str:
    address = parse_name_address(route)
    return address.uri if address is not None else route


def _usable(uri: str) -> bool:
    return parse_uri(uri).scheme in ("sip", "sips") and not any(character.isspace() for character in uri)
