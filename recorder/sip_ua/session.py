"""A session: an established INVITE dialog with its offer/answer state and its session timer, from either side.

In: requests of the peer, requests that we are to send, time. Out: requests and responses, questions to `on_request`,
one `on_end`. Glare is decided here (RFC 3261, section 14.2; RFC 3311, section 5.2).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from decoders.sip import SipMessage
from recorder.sip_ua.accepted import Unacknowledged
from recorder.sip_ua.api import Body, Ended, EndedBy, Header, Peer, Reply
from recorder.sip_ua.asks import Answer, Ask, Asks, NoAsks, Outcome
from recorder.sip_ua.bodies import describes_session, session_description
from recorder.sip_ua.dialog import Dialog
from recorder.sip_ua.layer import Hop, Received, ResponseUser
from recorder.sip_ua.message import check, encode_response
from recorder.sip_ua.refresher import Refresher
from recorder.sip_ua.server_transaction import InviteServer, ServerTransaction
from recorder.sip_ua.session_timer import (
    SessionTimer,
    agree_as_client,
    agree_as_server,
    min_se,
    supports_timer,
    too_small,
)
from recorder.sip_ua.stack import Authorize, Stack
from recorder.sip_ua.wire import Flow, Target

Respond = Callable[[Reply, float], None]
_ASKED = frozenset({"INVITE", "UPDATE", "INFO", "NOTIFY", "MESSAGE"})
"""Requests that `on_request` answers."""
_MOST_BYES = 3
"""Of one session: each challenge needs another."""


class DialogSession:
    """One session."""

    def __init__(
        self,
        stack: Stack,
        dialog: Dialog,
        *,
        contact: str,
        flow: Flow,
        peer: Peer,
        allows: frozenset[str],
        body: Body | None = None,
        authorize: Authorize | None = None,
    ) -> None:
        self.stack = stack
        self.dialog = dialog
        self.contact = contact
        self.flow = flow
        self.peer = peer
        self.allows = allows
        self.authorize = authorize
        self.over = False
        self.parted = False
        """The peer knows that it is over, by our BYE or its own, or there is nothing more to wait for."""
        self.requests = 0
        """Of the peer, in transactions that are still there."""
        self.on_request: Callable[[Received, Respond], None] = lambda received, respond: respond(Reply(488), 0.0)
        self.on_end: Callable[[Ended, float], None] = lambda ended, now: None
        self.on_parted: Callable[[SipMessage | None], None] = lambda bye: None
        """Told where that comes after `on_end`; of its BYE, where that crossed ours."""
        self.on_invited: Callable[[], None] = lambda: None
        """A re-INVITE came: the next ACK is its own."""
        self.on_ack: Callable[[SipMessage, float], None] = lambda message, now: None
        self.body = session_description(body)
        """What we last said of ourselves in an offer or answer, without what came with it."""
        self._asks: Asks | NoAsks = Asks(self)
        self._least = 0
        """Min-SE that a 422 demanded."""
        self._refresher = Refresher(self)
        self._serving: tuple[Received, ServerTransaction] | None = None
        """A request that carries an offer, or asks for one, and has no final response."""
        self._unacknowledged: dict[int, Unacknowledged] = {}
        self._offered = False
        """Our offer went out in a 2xx and waits for its answer in the ACK."""
        self._goodbye: Callable[[float], None] | None = None
        """Sends the BYE that waits for an ACK."""

    @property
    def back(self) -> Hop:
        """Where the peer's messages come from."""
        return Hop(Target(self.flow.transport, self.peer.address), self.flow)

    def ask(
        self,
        method: str,
        body: Body | None,
        headers: Sequence[Header],
        done: Callable[[Outcome, float], None],
        now: float,
        answer: Answer | None = None,
    ) -> Ask:
        """Send a request when its turn comes; `done` is told its outcome. Raises ValueError for a header that no
        message can have."""
        check(headers, body)
        ask = Ask(method, body, headers, done, answer)
        self._asks.add(ask, now)
        return ask

    def give_up(self, ask: Ask, now: float) -> None:
        """Nobody waits for a request any more."""
        self._asks.give_up(ask, now)

    def bye(self, body: Body | None, headers: Sequence[Header], done: Callable[[], None], now: float) -> None:
        """End the session. A BYE must not overtake the ACK of our 2xx (section 15); `done`: there is nothing more to
        wait for."""
        check(headers, body)
        if self.over:
            done()
            return
        if self._unacknowledged:
            self._goodbye = lambda now: self._send_bye(body, headers, done, now)
        else:
            self._send_bye(body, headers, done, now)
        self._end(Ended(EndedBy.US), now)

    def hurry(self, now: float) -> None:
        """Do not wait for an ACK any longer."""
        self._say_goodbye(now)

    def headers_of(self, ask: Ask) -> list[Header]:
        """Header fields of a request of ours."""
        config = self.stack.config
        headers: list[Header] = [("User-Agent", config.product)]
        if ask.method in ("INVITE", "UPDATE"):
            headers = [("Contact", self.contact), ("Allow", config.allow), ("Supported", config.supported), *headers]
            agreed = self._refresher.timer
            if agreed is not None:
                timer = SessionTimer(max(agreed.interval, self._least), agreed.ours)
                headers.append(("Session-Expires", timer.header(request=True)))
                if self._least:
                    headers.append(("Min-SE", str(self._least)))
        return [*headers, *ask.headers]

    def may_negotiate(self) -> bool:
        """Whether no INVITE and no offer of the peer is open."""
        return self._serving is None and not self._unacknowledged

    def accepted(self, ask: Ask, response: SipMessage, now: float) -> None:
        """A 2xx to a request of ours came."""
        if ask.exclusive:
            body = session_description(ask.body)
            self.body = body if body is not None else self.body
            self.note_allow(response)
            self.set_timer(agree_as_client(response), now)

    def raise_interval(self, response: SipMessage) -> bool:
        """Take Min-SE of a 422 (RFC 4028, section 7.3); False where that was done before."""
        least = min_se(response)
        timer = self._refresher.timer
        if timer is None or least <= max(self._least, timer.interval):
            return False
        self._least = least
        return True

    def broken(self, text: str, response: SipMessage | None, now: float) -> None:
        """The peer is gone (section 12.2.1.2): whoever is there still is told by a BYE."""
        if not self.over:
            self._send_bye(None, (), lambda: None, now)
            self._end(Ended(EndedBy.TRANSPORT, response, text), now)

    def note_allow(self, message: SipMessage) -> None:
        """Keep what the peer says that it takes."""
        methods = frozenset(method.upper() for method in message.getlist("allow"))
        self.allows = methods or self.allows

    def _send_bye(
        self,
        body: Body | None,
        headers: Sequence[Header],
        done: Callable[[], None],
        now: float,
        credentials: Sequence[Header] = (),
        tries: int = 1,
    ) -> None:
        def known(hops: list[Hop], now: float) -> None:
            self.stack.sender.request(request, hops, user, now)

        def over() -> None:
            self._part(None)
            done()

        def on_response(received: Received, now: float) -> None:
            status = received.message.status or 0
            if status in (401, 407) and tries < _MOST_BYES and self.authorize is not None:
                again = self.authorize(received.message, request)
                if again is not None:
                    named = [header for header in again.headers if header[0].lower().endswith("authorization")]
                    self._send_bye(body, headers, done, now, named, tries + 1)
                    return
            if status >= 200:
                over()

        own = ("User-Agent", self.stack.config.product)
        request = self.dialog.request("BYE", [own, *headers, *credentials], body)
        user = ResponseUser(on_response, lambda failure, now: over())
        self.stack.hops(self.dialog.next_hop, self.back, known, now)

    def _say_goodbye(self, now: float) -> None:
        for waiting in self._unacknowledged.values():
            waiting.stop()
        self._unacknowledged.clear()
        goodbye, self._goodbye = self._goodbye, None
        if goodbye is not None:
            self.stack.remove(self)
            goodbye(now)

    def receive(self, received: Received, transaction: ServerTransaction, now: float) -> None:
        """A request of the peer came, other than ACK and CANCEL."""
        message = received.message
        method = message.method or ""
        if self.over:
            self._respond(received, transaction, Reply(200 if method == "BYE" else 481), now)
            if method == "BYE" and self._goodbye is None:
                self._part(message)
        elif not self.dialog.in_order(message):
            self._respond(received, transaction, Reply(500, "CSeq out of order"), now)
        elif method == "BYE":
            self._respond(received, transaction, Reply(200), now)
            self.parted = True
            self._end(Ended(EndedBy.PEER, message), now)
        elif method == "OPTIONS":
            self._respond(received, transaction, Reply(200, headers=[("Accept", self.stack.config.accept)]), now)
        elif method not in _ASKED:
            self._respond(received, transaction, Reply(481 if method == "PRACK" else 405), now)
        else:
            refusal = self._glare(received) if method in ("INVITE", "UPDATE") else None
            if refusal is not None:
                self._respond(received, transaction, refusal, now)
            else:
                self._serve(received, transaction, now)

    def acknowledge(self, message: SipMessage, now: float) -> None:
        """An ACK of the peer came."""
        number = message.cseq[0] if message.cseq else -1
        waiting = self._unacknowledged.pop(number, None)
        if waiting is None:
            return
        waiting.stop()
        self._offered = False
        self.on_ack(message, now)
        if self._unacknowledged:
            return
        self._say_goodbye(now)
        self._asks.advance(now)

    def cancelled(self, received: Received, transaction: ServerTransaction, now: float) -> None:
        """The peer takes a re-INVITE back that has no final response."""
        if not transaction.answered:
            self._respond(received, transaction, Reply(487), now)
            self._served(transaction, now)

    def send_accepted(self, transaction: InviteServer, data: bytes, cseq: int, *, offered: bool, now: float) -> None:
        """Send a 2xx to an INVITE until it is acknowledged."""

        def expired(now: float) -> None:
            self._unacknowledged.clear()
            if self.over:
                self._say_goodbye(now)
            else:
                self._send_bye(None, (), lambda: None, now)
                self._end(Ended(EndedBy.TIMER, text="no ACK came"), now)

        self._offered = offered
        self._unacknowledged[cseq] = Unacknowledged(self.stack.layer, transaction, data, expired, now)

    def _glare(self, received: Received) -> Reply | None:
        """The refusal of an INVITE or UPDATE that comes at the wrong time, or asks for too short an interval."""
        message = received.message
        least = self.stack.config.min_se
        if too_small(message, least):
            return Reply(422, headers=[("Min-SE", str(least))])
        negotiates = message.method == "INVITE" or describes_session(message)
        if not negotiates:
            return None
        if self._serving is not None:
            return Reply(500, headers=[("Retry-After", str(self.stack.random.randint(0, 10)))])
        if self._asks.negotiating or self._offered:
            return Reply(491)
        return None

    def _serve(self, received: Received, transaction: ServerTransaction, now: float) -> None:
        message = received.message
        negotiates = message.method == "INVITE" or (message.method == "UPDATE" and describes_session(message))
        if message.method == "INVITE":
            transaction.respond(100, encode_response(message, 100, source=received.peer.address), now)
            self.on_invited()
        if negotiates:
            self._serving = received, transaction

        def respond(reply: Reply, now: float) -> None:
            if transaction.answered:
                return
            if self.over:
                self._respond(received, transaction, Reply(487), now)
            elif reply.status < 300 and message.method in ("INVITE", "UPDATE"):
                self._accept(received, transaction, reply, now)
            else:
                self._respond(received, transaction, reply, now)
            self._served(transaction, now)

        if message.method == "UPDATE" and not message.body:
            respond(Reply(200), now)  # no more than a refresh
        else:
            self.on_request(received, respond)

    def _accept(self, received: Received, transaction: ServerTransaction, reply: Reply, now: float) -> None:
        message = received.message
        self.dialog.refresh(message)
        self.flow = received.flow
        self.peer = replace(self.peer, address=received.peer.address, transport=received.peer.transport)
        self.note_allow(message)
        timer = agree_as_server(message, self.stack.config.session_expires)
        headers = [*self.accepting_headers(message, timer), *reply.headers]
        full = Reply(reply.status, reply.reason, reply.body, headers)
        data = self._encode(received, full)
        body = session_description(reply.body)
        self.body = body if body is not None else self.body
        self.set_timer(timer, now)
        if isinstance(transaction, InviteServer):
            offered = body is not None and not describes_session(message)
            cseq = message.cseq[0] if message.cseq else 0
            self.send_accepted(transaction, data, cseq, offered=offered, now=now)
        else:
            transaction.respond(reply.status, data, now)

    def accepting_headers(self, request: SipMessage, timer: SessionTimer | None) -> list[Header]:
        """Header fields of our 2xx to an INVITE or UPDATE."""
        config = self.stack.config
        headers: list[Header] = [("Contact", self.contact), ("Allow", config.allow), ("Supported", config.supported)]
        if timer is not None:
            headers.append(("Session-Expires", timer.header(request=False)))
            if supports_timer(request) and not timer.ours:
                headers.append(("Require", "timer"))
        return [*headers, ("Server", config.product)]

    def _respond(self, received: Received, transaction: ServerTransaction, reply: Reply, now: float) -> None:
        headers = list(reply.headers)
        if reply.status == 405 or received.message.method == "OPTIONS":
            headers += [("Allow", self.stack.config.allow), ("Supported", self.stack.config.supported)]
        transaction.respond(
            reply.status, self._encode(received, Reply(reply.status, reply.reason, reply.body, headers)), now
        )

    def _encode(self, received: Received, reply: Reply) -> bytes:
        return encode_response(
            received.message,
            reply.status,
            reply.reason,
            source=received.peer.address,
            headers=reply.headers,
            body=reply.body,
        )

    def _served(self, transaction: ServerTransaction, now: float) -> None:
        if self._serving is not None and self._serving[1] is transaction:
            self._serving = None
            self._asks.advance(now)

    def set_timer(self, timer: SessionTimer | None, now: float) -> None:
        """A session timer was agreed on, or none; it begins anew."""
        self._refresher.set(timer, now)

    def expire(self, now: float) -> None:
        """End the session: nobody refreshed it."""
        if not self.over:
            self._send_bye(None, [("Reason", 'SIP;cause=408;text="Session timer"')], lambda: None, now)
            self._end(Ended(EndedBy.TIMER, text="the session timer ran out"), now)

    def _end(self, ended: Ended, now: float) -> None:
        self.over = True
        self._refresher.stop()
        if self._goodbye is None:
            for waiting in self._unacknowledged.values():
                waiting.stop()
            self._unacknowledged.clear()
            if ended.by is not EndedBy.TIMER:  # else the peer may be there, and its BYE cross ours
                self.stack.remove(self)
        serving, self._serving = self._serving, None
        if serving is not None and not serving[1].answered:  # the dialog is gone (section 15.1.2)
            self._respond(*serving, Reply(487), now)
        asks, self._asks = self._asks, NoAsks("the session is over")  # no references in circles
        asks.close("the session is over", now)
        self.on_end(ended, now)

    def _part(self, bye: SipMessage | None) -> None:
        """Nothing more comes that is of the session."""
        if self.parted:
            return
        self.parted = True
        self.stack.remove(self)
        told, self.on_parted = self.on_parted, lambda bye: None
        told(bye)
