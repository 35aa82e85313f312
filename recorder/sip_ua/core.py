"""The user agent's core: every message that comes in finds its transaction, its session, or an answer.

In: octets with the flow that they came by, failures of transports, time, commands. Out: messages in `layer.outbox`,
calls of `on_invite` and of the sessions' callbacks. Never reads a clock, never touches a socket, never raises on octets
from a wire; what it holds is bounded by `AgentConfig`.
"""

from collections.abc import Callable, Sequence
from random import Random

from decoders.sip import SipMessage, parse_message
from decoders.sip_address import parse_uri, parse_via
from recorder.model import Transport
from recorder.sip_ua.api import Header, Peer, Reply
from recorder.sip_ua.checks import answerable, malformed, unacceptable
from recorder.sip_ua.config import AgentConfig
from recorder.sip_ua.dialog import DialogId
from recorder.sip_ua.incoming import IncomingInvite
from recorder.sip_ua.layer import Hop, Layer, Received
from recorder.sip_ua.message import MAGIC, encode_response
from recorder.sip_ua.routing import literal_target, response_hop, session_hops
from recorder.sip_ua.sender import Local, Sender
from recorder.sip_ua.server_transaction import InviteServer, PlainServer, ServerTransaction
from recorder.sip_ua.session import DialogSession
from recorder.sip_ua.session_timer import too_small
from recorder.sip_ua.stack import Hops
from recorder.sip_ua.wire import Flow, Target

Locate = Callable[[str, Callable[[Sequence[Target], float], None]], None]
"""Looks the targets of a URI up (RFC 3263) and gives them later, none where there are none."""
_Key = tuple[str, ...]
_KNOWN = frozenset({"BYE", "UPDATE", "PRACK", "INFO", "NOTIFY", "MESSAGE"})
"""Methods that we take within a session only."""


class Core:
    """Transactions and sessions of one user agent."""

    def __init__(self, config: AgentConfig, local: Local, locate: Locate, random: Random) -> None:
        self.config = config
        self.layer = Layer(config.intervals)
        self.random = random
        self.sender = Sender(self.layer, local, random)
        self.on_invite: Callable[[IncomingInvite, float], None] | None = None
        self.dropped = 0
        """Messages that nothing could be done with."""
        self._locate = locate
        self._server: dict[_Key, ServerTransaction] = {}
        self._merging: dict[_Key, _Key] = {}
        """Call-ID, From tag and CSeq of each request outside of a dialog -> its transaction (section 8.2.2.2)."""
        self._invites: dict[_Key, IncomingInvite] = {}
        self._reinvites: dict[_Key, tuple[DialogSession, Received]] = {}
        self._sessions: dict[DialogId, DialogSession] = {}

    @property
    def sessions(self) -> Sequence[DialogSession]:
        """All sessions that messages may still come for."""
        return list(self._sessions.values())

    def next_timeout(self) -> float | None:
        """When `timeouts` is to be called next."""
        return self.layer.timers.next_timeout()

    def timeouts(self, now: float) -> None:
        """Time has passed."""
        self.layer.timers.run(now)

    def lost(self, flow: Flow, why: str, now: float) -> None:
        """A connection is gone."""
        self.sender.lost(flow, why, now)

    def received(self, data: bytes, flow: Flow, peer: Peer, now: float) -> None:
        """A message came in."""
        message = parse_message(data)
        if message is None:
            self.dropped += 1
        elif message.method is None:
            if not self.sender.receive(Received(message, flow, peer), now):
                self.dropped += 1
        elif not answerable(message):
            self.dropped += 1
        else:
            self._on_request(Received(message, flow, peer), now)

    def hops(self, uri: str, back: Hop, then: Hops, now: float) -> None:
        """Find where a request to `uri` goes; see `recorder.sip_ua.routing.session_hops`."""

        def found(targets: Sequence[Target], now: float) -> None:
            then(session_hops(targets, back), now)

        literal = literal_target(uri)
        if literal is not None:
            found([literal], now)
        else:
            self._locate(uri, found)

    def add(self, session: DialogSession) -> None:
        """Messages of the session's dialog are its own from now on."""
        self._sessions[session.dialog.id] = session

    def remove(self, session: DialogSession) -> None:
        """The session is over."""
        if self._sessions.get(session.dialog.id) is session:
            del self._sessions[session.dialog.id]

    def new_tag(self) -> str:
        """A tag that nobody used before (section 19.3)."""
        return f"{self.random.getrandbits(80):020x}"

    def contact(self, target: Target, flow: Flow | None, params: Sequence[str] = (), *, secure: bool = False) -> str:
        """Contact of ours for a dialog with `target`; `secure` where the request's URI is a sips one (section
        8.1.1.8)."""
        host, port = self.sender.local(target) or ("", 0)
        if flow is not None and (not host or not port):
            local = flow.local
            host, port = (f"[{local.host}]" if ":" in local.host else local.host), local.port
        transport = "" if target.transport is Transport.UDP or secure else f";transport={target.transport}"
        uri = f"{'sips' if secure else 'sip'}:{self.config.contact_user}@{host}{f':{port}' if port else ''}{transport}"
        return ";".join([f"<{uri}>", *params])

    def _on_request(self, received: Received, now: float) -> None:
        message = received.message
        key = _key(message, message.method or "")
        transaction = self._server.get(key)
        if message.method == "ACK":
            self._on_ack(received, transaction, now)
        elif transaction is not None:
            transaction.repeated(now)
        elif (refusal := malformed(message)) is not None:
            self._answer_statelessly(received, refusal)
        elif message.method == "CANCEL":
            self._on_cancel(received, key, now)
        elif len(self._server) >= self.config.max_transactions:
            self._answer_statelessly(received, self._busy())
        elif (refusal := unacceptable(message, self.config)) is not None:
            self._answer(received, key, refusal, now)
        elif message.to is not None and message.to.tag:
            self._within_session(received, key, now)
        else:
            self._outside(received, key, now)

    def _on_ack(self, received: Received, transaction: ServerTransaction | None, now: float) -> None:
        if transaction is not None:
            transaction.acknowledged(now)
        session = self._session_of(received.message)
        if session is not None:
            session.acknowledge(received.message, now)

    def _on_cancel(self, received: Received, key: _Key, now: float) -> None:
        """Section 9.2."""
        invite_key = _key(received.message, "INVITE")
        transaction = self._server.get(invite_key)
        if transaction is None:
            self._answer_statelessly(received, Reply(481))
            return
        invite = self._invites.get(invite_key)
        tag = invite.tag if invite is not None else ""
        self._begin(received, key).respond(200, self._encode(received, Reply(200), tag), now)
        if invite is not None:
            invite.cancel(now)
        within = self._reinvites.get(invite_key)
        if within is not None:
            within[0].cancelled(within[1], transaction, now)

    def _within_session(self, received: Received, key: _Key, now: float) -> None:
        session = self._session_of(received.message)
        if session is None:
            self._answer(received, key, Reply(481), now)
            return
        if session.requests >= self.config.max_requests:
            self._answer_statelessly(received, self._busy())
            return

        def gone() -> None:
            session.requests -= 1

        session.requests += 1
        transaction = self._begin(received, key, ended=gone)
        if received.message.method == "INVITE":
            self._reinvites[key] = session, received
        session.receive(received, transaction, now)

    def _outside(self, received: Received, key: _Key, now: float) -> None:
        message = received.message
        tag = message.from_.tag if message.from_ is not None else None
        merging = ("merged", message.call_id or "", tag or "", message.get("cseq") or "")
        looping = any(via.branch is not None and self.sender.holds(via.branch) for via in message.vias)
        if merging in self._merging or looping:
            self._answer(received, key, Reply(482), now)
        elif message.method == "INVITE":
            self._merging[merging] = key
            self._on_new_invite(received, key, merging, now)
        elif message.method == "OPTIONS":
            headers = [("Accept", self.config.accept), *self._capabilities()]
            self._answer(received, key, Reply(200, headers=headers), now)
        elif message.method in _KNOWN:
            self._answer(received, key, Reply(481), now)
        else:
            self._answer(received, key, Reply(405, headers=self._capabilities()), now)

    def _on_new_invite(self, received: Received, key: _Key, merging: _Key, now: float) -> None:
        message = received.message
        transaction = self._begin(received, key, merging)
        refusal = None
        if self.on_invite is None:
            refusal = Reply(405, headers=self._capabilities())
        elif len(self._sessions) >= self.config.max_sessions:
            refusal = self._busy()
        elif too_small(message, self.config.min_se):
            refusal = Reply(422, headers=[("Min-SE", str(self.config.min_se))])
        if refusal is not None or self.on_invite is None or not isinstance(transaction, InviteServer):
            self._respond(received, transaction, refusal or Reply(500), now)
            return
        hop = Target(received.flow.transport, received.peer.address)
        secure = parse_uri(message.request_uri or "").scheme == "sips"
        invite = IncomingInvite(
            self, received, transaction, self.new_tag(), lambda: self.contact(hop, received.flow, secure=secure)
        )
        self._invites[key] = invite
        self.on_invite(invite, now)
        if not transaction.begun:
            # Whoever answers at once spares both sides a message (section 17.2.1).
            transaction.respond(100, encode_response(message, 100, source=received.peer.address), now)

    def _session_of(self, message: SipMessage) -> DialogSession | None:
        ours = message.to.tag if message.to is not None else None
        theirs = message.from_.tag if message.from_ is not None else None
        return self._sessions.get((message.call_id or "", ours or "", theirs or ""))

    def _begin(
        self,
        received: Received,
        key: _Key,
        merging: _Key | None = None,
        ended: Callable[[], None] | None = None,
    ) -> ServerTransaction:
        def gone() -> None:
            if ended is not None:
                ended()
            self._server.pop(key, None)
            self._invites.pop(key, None)
            self._reinvites.pop(key, None)
            if merging is not None:
                self._merging.pop(merging, None)

        hop = response_hop(received.message, received.peer.address, received.flow)
        kind = InviteServer if received.message.method == "INVITE" else PlainServer
        transaction = self._server[key] = kind(self.layer, hop, gone)
        return transaction

    def _answer(self, received: Received, key: _Key, reply: Reply, now: float) -> None:
        self._respond(received, self._begin(received, key), reply, now)

    def _respond(self, received: Received, transaction: ServerTransaction, reply: Reply, now: float) -> None:
        transaction.respond(reply.status, self._encode(received, reply), now)

    def _answer_statelessly(self, received: Received, reply: Reply) -> None:
        hop = response_hop(received.message, received.peer.address, received.flow)
        self.layer.send(self._encode(received, reply), hop)

    def _encode(self, received: Received, reply: Reply, tag: str = "") -> bytes:
        return encode_response(
            received.message,
            reply.status,
            reply.reason,
            tag=tag or self.new_tag(),
            source=received.peer.address,
            headers=[*reply.headers, ("Server", self.config.product)],
            body=reply.body,
        )

    def _busy(self) -> Reply:
        return Reply(503, headers=[("Retry-After", str(self.config.retry_after))])

    def _capabilities(self) -> list[Header]:
        return [("Allow", self.config.allow), ("Supported", self.config.supported)]


def _key(message: SipMessage, method: str) -> _Key:
    """What the server transaction of a request is found by (section 17.2.3); ACK and CANCEL by their INVITE's."""
    if method == "ACK":
        method = "INVITE"
    top = message.getlist("via")[0]
    via = parse_via(top)
    if via is not None and via.branch and via.branch.startswith(MAGIC) and len(via.branch) > len(MAGIC):
        return via.branch, via.host.lower(), str(via.port or ""), method
    from_ = message.from_
    cseq = message.cseq
    return (
        "RFC 2543",
        message.request_uri or "",
        (from_.tag if from_ is not None else None) or "",
        message.call_id or "",
        str(cseq[0]) if cseq is not None else "",
        top,
        method,
    )
