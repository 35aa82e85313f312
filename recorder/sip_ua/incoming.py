"""An INVITE of a peer outside of a dialog, until it is answered (RFC 3261, section 13.3).

In: the INVITE, what our side decides, a CANCEL. Out: responses, and a session where it is accepted.
"""

from collections.abc import Callable, Sequence

from recorder.sip_ua.api import Body, Header
from recorder.sip_ua.bodies import describes_session, session_description
from recorder.sip_ua.dialog import dialog_of_callee
from recorder.sip_ua.layer import Received
from recorder.sip_ua.message import encode_response
from recorder.sip_ua.server_transaction import InviteServer
from recorder.sip_ua.session import DialogSession
from recorder.sip_ua.session_timer import agree_as_server
from recorder.sip_ua.stack import Stack


class IncomingInvite:
    """One INVITE that waits for our answer."""

    def __init__(
        self, stack: Stack, received: Received, transaction: InviteServer, tag: str, contact: Callable[[], str]
    ) -> None:
        self.received = received
        self.cancelled = False
        self._stack = stack
        self._transaction = transaction
        self.tag = tag
        self._contact = contact

    @property
    def answered(self) -> bool:
        """Whether a final response was given."""
        return self._transaction.answered

    def progress(self, status: int, reason: str, now: float) -> None:
        """Send a provisional response; not to a peer that demands reliable ones, which we do not send (RFC 3262,
        section 3)."""
        if 100 < status < 200 and not self.answered and not self.received.message.requires("100rel"):
            self._respond(status, reason, [("Contact", self._contact())], now)

    def refuse(self, status: int, reason: str, headers: Sequence[Header], now: float) -> None:
        """Answer with a final response other than 2xx."""
        if status < 300:
            raise ValueError(f"{status} refuses nothing")
        if not self.answered:
            self._respond(status, reason, headers, now)

    def cancel(self, now: float) -> None:
        """The peer took it back."""
        if not self.answered:
            self.cancelled = True
            self._respond(487, "", (), now)

    def accept(
        self, body: Body, headers: Sequence[Header], params: Sequence[str], local_uri: str, now: float
    ) -> DialogSession | None:
        """Answer 200; None where it was answered before."""
        if self.answered:
            return None
        message = self.received.message
        contact = ";".join([self._contact(), *params])
        session = DialogSession(
            self._stack,
            dialog_of_callee(message, self.tag, local_uri),
            contact=contact,
            flow=self.received.flow,
            peer=self.received.peer,
            allows=frozenset(method.upper() for method in message.getlist("allow")),
            body=body,
        )
        timer = agree_as_server(message, self._stack.config.session_expires)
        data = encode_response(
            message,
            200,
            tag=self.tag,
            source=self.received.peer.address,
            headers=[*session.accepting_headers(message, timer), *headers],
            body=body,
        )
        self._stack.add(session)
        session.set_timer(timer, now)
        offered = session_description(body) is not None and not describes_session(message)
        cseq = message.cseq[0] if message.cseq else 0
        session.send_accepted(self._transaction, data, cseq, offered=offered, now=now)
        return session

    def _respond(self, status: int, reason: str, headers: Sequence[Header], now: float) -> None:
        data = encode_response(
            self.received.message,
            status,
            reason,
            tag=self.tag,
            source=self.received.peer.address,
            headers=[*headers, ("Server", self._stack.config.product)],
        )
        self._transaction.respond(status, data, now)
