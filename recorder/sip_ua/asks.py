"""Requests of ours within a session: in which order they go out, and what is done about responses that can be mended.

In: requests (`Ask`), responses, time. Out: requests on the wire, and one outcome for each Ask. INVITE and UPDATE go one
at a time (RFC 3261, section 14; RFC 3311, section 5.1) and never while an offer of the peer is open; other requests go
at once. Mended are 401 and 407, 491 (section 14.1), 500 with a short Retry-After, and 422 (RFC 4028, section 7.3).
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from decoders.sip import SipMessage
from recorder.sip_ua.api import Body, Header, RefusedError, UnreachableError
from recorder.sip_ua.bodies import describes_session, session_description
from recorder.sip_ua.dialog import Dialog
from recorder.sip_ua.layer import Failure, Hop, Received, ResponseUser
from recorder.sip_ua.message import Request
from recorder.sip_ua.sender import Outgoing
from recorder.sip_ua.stack import Authorize, Stack
from recorder.sip_ua.timers import Timer

Outcome = SipMessage | RefusedError | UnreachableError
"""The 2xx, or why there is none."""
Answer = Callable[[SipMessage], Body | None]
"""Makes the answer to an offer in a 2xx."""

_MOST_TRIES = 10
"""Times that one request is sent, glare and challenges included."""
_LONGEST_WAIT = 10.0
"""s of a Retry-After that is waited for."""


@dataclass(slots=True, eq=False)
class Ask:
    """A request that is to be sent."""

    method: str
    body: Body | None
    headers: Sequence[Header]
    done: Callable[[Outcome, float], None]
    answer: Answer | None = None
    not_before: float = 0.0
    tries: int = 0
    authorized: Request | None = None
    """The last try with credentials, which the next one is."""
    sent: Outgoing | None = None
    """Set while it is on its way."""
    acknowledge: Callable[[float], None] | None = None
    """Sends the ACK of its 2xx again."""
    limit: Timer | None = None
    given_up: bool = False
    """Nobody waits for its outcome."""

    @property
    def exclusive(self) -> bool:
        """Whether it must wait for others like it."""
        return self.method in ("INVITE", "UPDATE")

    @property
    def negotiates(self) -> bool:
        """Whether it is part of an offer/answer exchange."""
        return self.method == "INVITE" or session_description(self.body) is not None


class Asker(Protocol):
    """The session that asks."""

    stack: Stack
    dialog: Dialog
    authorize: Authorize | None

    @property
    def back(self) -> Hop:
        """Where the peer's messages come from."""
        ...

    def headers_of(self, ask: Ask) -> list[Header]:
        """Header fields of a request, the caller's among them."""
        ...

    def may_negotiate(self) -> bool:
        """Whether no offer of the peer is open."""
        ...

    def accepted(self, ask: Ask, response: SipMessage, now: float) -> None:
        """A 2xx came."""
        ...

    def raise_interval(self, response: SipMessage) -> bool:
        """Take Min-SE of a 422; False where that was done before."""
        ...

    def broken(self, text: str, response: SipMessage | None, now: float) -> None:
        """The peer does not answer in the dialog, or no longer knows it."""
        ...


class Asks:
    """All requests of one session."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._waiting: deque[Ask] = deque()
        self._current: Ask | None = None
        self._others: list[Ask] = []
        self._wake: Timer | None = None
        self._closed: str | None = None

    @property
    def inviting(self) -> bool:
        """Whether an INVITE of ours is on its way."""
        return self._current is not None and self._current.method == "INVITE"

    @property
    def negotiating(self) -> bool:
        """Whether an offer of ours is open."""
        return self._current is not None and self._current.negotiates

    def add(self, ask: Ask, now: float) -> None:
        """Send a request as soon as that may be."""
        if self._closed is not None:
            ask.done(UnreachableError(self._closed), now)
        elif ask.exclusive:
            self._waiting.append(ask)
            self.advance(now)
        else:
            self._others.append(ask)
            self._send(ask, now)

    def advance(self, now: float) -> None:
        """Send the next request that waits, where that may be by now."""
        if self._current is not None or not self._waiting or self._closed is not None:
            return
        ask = self._waiting[0]
        if ask.not_before > now:
            if self._wake is not None:
                self._wake.stop()
            self._wake = self._asker.stack.layer.timers.start(ask.not_before, self.advance)
        elif not ask.negotiates or self._asker.may_negotiate():
            self._current = self._waiting.popleft()
            self._send(self._current, now)

    def give_up(self, ask: Ask, now: float) -> None:
        """Nobody waits for the answer to a request any more: the next one may go out, and silence ends nothing. An
        INVITE goes on, for its answer changes the session whoever waits."""
        if ask.method == "INVITE":
            return
        ask.given_up = True
        if ask.sent is not None:
            ask.sent.abandon(now)
        if ask in self._waiting:
            self._waiting.remove(ask)
        elif ask in self._others:
            self._others.remove(ask)
        elif ask is self._current:
            self._current = None
        self.advance(now)

    def close(self, why: str, now: float) -> None:
        """The session is over: nothing more is sent, who waits is told. A 2xx that still comes is acknowledged."""
        if self._closed is not None:
            return
        self._closed = why
        if self._wake is not None:
            self._wake.stop()
        asks = [*self._waiting, *([self._current] if self._current else []), *self._others]
        self._waiting.clear()
        self._others.clear()
        self._current = None
        for ask in asks:
            if ask.limit is not None:
                ask.limit.stop()
            ask.done(UnreachableError(why), now)

    def _send(self, ask: Ask, now: float) -> None:
        def known(hops: list[Hop], now: float) -> None:
            if self._closed is None and not ask.given_up:
                self._transmit(ask, hops, now)

        ask.tries += 1
        self._asker.stack.hops(self._asker.dialog.next_hop, self._asker.back, known, now)

    def _transmit(self, ask: Ask, hops: list[Hop], now: float) -> None:
        dialog, stack = self._asker.dialog, self._asker.stack
        request = dialog.request(ask.method, self._asker.headers_of(ask), ask.body)
        if ask.authorized is not None:
            extra = [header for header in ask.authorized.headers if header[0].lower().endswith("authorization")]
            request = dialog.request(ask.method, [*request.headers, *extra], ask.body, request.cseq)
        user = ResponseUser(
            lambda received, now: self._on_response(ask, request, received, now),
            lambda failure, now: self._on_failure(ask, failure, now),
        )
        ask.sent = sent = stack.sender.request(request, hops, user, now)
        if ask.method == "INVITE":
            ask.limit = stack.layer.timers.start(now + stack.config.answer_timeout, sent.cancel)

    def _on_response(self, ask: Ask, request: Request, received: Received, now: float) -> None:
        response = received.message
        status = response.status or 0
        if status < 200:
            return
        if ask.limit is not None:
            ask.limit.stop()
        if 200 <= status < 300:
            self._on_success(ask, request, response, now)
            return
        sent, ask.sent = ask.sent, None
        if sent is None or self._closed is not None or ask.given_up or self._mend(ask, request, response, now):
            return
        self._finish(ask, refusal(response), now)
        if status in (408, 481):
            self._asker.broken(f"{ask.method} was answered {status}", response, now)

    def _on_success(self, ask: Ask, request: Request, response: SipMessage, now: float) -> None:
        if ask.acknowledge is not None:
            ask.acknowledge(now)
            return
        first = ask.sent is not None
        if first and self._closed is None:
            self._asker.dialog.refresh(response)
        if ask.method == "INVITE" and first:
            self._acknowledge(ask, request, response, now)
        ask.sent = None
        if first and self._closed is None:
            self._asker.accepted(ask, response, now)
            self._finish(ask, response, now)

    def _acknowledge(self, ask: Ask, request: Request, response: SipMessage, now: float) -> None:
        body = None
        if ask.answer is not None and session_description(ask.body) is None and describes_session(response):
            body = ask.answer(response)
        credentials = [header for header in request.headers if header[0].lower().endswith("authorization")]
        ack = self._asker.dialog.request("ACK", credentials, body, request.cseq)

        def known(hops: list[Hop], now: float) -> None:
            ask.acknowledge = self._asker.stack.sender.acknowledge(ack, hops, now)

        self._asker.stack.hops(self._asker.dialog.next_hop, self._asker.back, known, now)

    def _on_failure(self, ask: Ask, failure: Failure, now: float) -> None:
        if ask.limit is not None:
            ask.limit.stop()
        ask.sent = None
        if self._closed is None and not ask.given_up:
            text = f"{ask.method}: {failure.text}"
            self._finish(ask, UnreachableError(text), now)
            self._asker.broken(text, None, now)

    def _mend(self, ask: Ask, request: Request, response: SipMessage, now: float) -> bool:
        """Have a request sent again where the response allows it."""
        status = response.status
        if ask.tries >= _MOST_TRIES:
            return False
        if status in (401, 407):
            authorize = self._asker.authorize
            ask.authorized = authorize(response, request) if authorize is not None else None
            if ask.authorized is None:
                return False
            self._send(ask, now)
            return True
        if not ask.exclusive:
            return False
        ask.authorized = None  # a nonce is good for one try
        if status == 422:
            if not self._asker.raise_interval(response):
                return False
            self._send(ask, now)
            return True
        wait = self._glare_time() if status == 491 else _waiting_time(response) if status == 500 else None
        if wait is None:
            return False
        ask.not_before = now + wait
        self._current = None
        self._waiting.appendleft(ask)
        self.advance(now)
        return True

    def _glare_time(self) -> float:
        """s to wait after a 491 (section 14.1), in steps of 10 ms: he who owns the Call-ID waits longer."""
        tenths = self._asker.stack.random.randint
        return (tenths(210, 400) if self._asker.dialog.caller else tenths(0, 200)) / 100

    def _finish(self, ask: Ask, outcome: Outcome, now: float) -> None:
        if ask is self._current:
            self._current = None
        elif ask in self._others:
            self._others.remove(ask)
        ask.done(outcome, now)
        self.advance(now)


class NoAsks:
    """Those of a session that is over: whoever asks is told so."""

    negotiating = False

    def __init__(self, why: str) -> None:
        self._why = why

    def add(self, ask: Ask, now: float) -> None:
        """See `Asks`."""
        ask.done(UnreachableError(self._why), now)

    def advance(self, now: float) -> None:
        """Nothing waits."""

    def give_up(self, ask: Ask, now: float) -> None:
        """It is given up already."""

    def close(self, why: str, now: float) -> None:
        """It is."""


def _waiting_time(response: SipMessage) -> float | None:
    """s to wait before a request that was answered 500 is sent again; None: it is not."""
    after = refusal(response).retry_after
    return max(after, 0.5) if after is not None and after <= _LONGEST_WAIT else None


def refusal(response: SipMessage) -> RefusedError:
    """What a final response other than 2xx means to who asked."""
    return RefusedError(response.status or 0, response.reason or "", response)
