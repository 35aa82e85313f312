"""An INVITE of ours to one target: from the request to a session, a refusal or silence (RFC 3261, section 13.2).

In: an INVITE, a hop, responses, time. Out: the INVITE, CANCEL, PRACK (RFC 3262), ACK, and one outcome. Of several 2xx
that a forking proxy lets through the first makes the session; the others are acknowledged and ended with BYE, and so
is a 2xx that crosses our CANCEL. Challenges, redirections and other targets are its user's.
"""

from collections.abc import Callable
from dataclasses import dataclass

from decoders.sip import SipMessage
from recorder.sip_ua.api import Body, RefusedError, UnreachableError
from recorder.sip_ua.asks import Answer, refusal
from recorder.sip_ua.bodies import describes_session, session_description
from recorder.sip_ua.dialog import Dialog, dialog_of_caller
from recorder.sip_ua.layer import Failure, Hop, Received, ResponseUser
from recorder.sip_ua.message import Request
from recorder.sip_ua.session import DialogSession
from recorder.sip_ua.session_timer import agree_as_client
from recorder.sip_ua.stack import Authorize, Stack
from recorder.sip_ua.timers import Timer
from recorder.sip_ua.wire import Target

AttemptOutcome = tuple[DialogSession, SipMessage] | RefusedError | UnreachableError
"""The session with what answered our offer (or made one), or why there is none."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one attempt needs beside the request."""

    contact: str
    answer: Answer | None
    authorize: Authorize | None
    timeout: float
    """s until any response must have come."""
    answer_timeout: float
    """s until the final response must have come."""


@dataclass(slots=True)
class _Early:
    """A dialog that a provisional response made."""

    dialog: Dialog
    rseq: int = 0
    """Of the last reliable provisional response that was acknowledged."""
    described: SipMessage | None = None
    """Reliable provisional response with a session description."""


class Attempt:
    """One INVITE at one target."""

    def __init__(
        self,
        stack: Stack,
        request: Request,
        hop: Hop,
        plan: Plan,
        done: Callable[[AttemptOutcome, float], None],
        now: float,
    ) -> None:
        self._stack = stack
        self._request = request
        self._plan = plan
        self._done: Callable[[AttemptOutcome, float], None] | None = done
        self._early: dict[str, _Early] = {}
        self._again: dict[str, Callable[[float], None]] = {}
        """To tag of each 2xx -> sends its ACK again."""
        user = ResponseUser(self._on_response, self._on_failure)
        self._outgoing = stack.sender.request(request, [hop], user, now)
        start = stack.layer.timers.start
        self._silence: Timer = start(now + plan.timeout, self._on_silence)
        self._limit: Timer = start(now + plan.answer_timeout, self._on_limit)

    def cancel(self, now: float) -> None:
        """Nobody wants an answer any more; `done` is not told."""
        self._done = None
        self._silence.stop()
        self._limit.stop()
        self._outgoing.abandon(now)

    def stop(self, why: str, now: float) -> None:
        """Take it back; its user is told that there is no session."""
        self._outgoing.abandon(now)
        self._finish(UnreachableError(why), now)

    def _finish(self, outcome: AttemptOutcome, now: float) -> None:
        done, self._done = self._done, None
        self._silence.stop()
        self._limit.stop()
        if done is not None:
            done(outcome, now)

    def _on_silence(self, now: float) -> None:
        self._outgoing.abandon(now)
        self._finish(UnreachableError(f"no response within {self._plan.timeout:g} s"), now)

    def _on_limit(self, now: float) -> None:
        self._outgoing.abandon(now)
        self._finish(RefusedError(408, "no final response", None), now)

    def _on_failure(self, failure: Failure, now: float) -> None:
        self._finish(UnreachableError(failure.text), now)

    def _on_response(self, received: Received, now: float) -> None:
        status = received.message.status or 0
        self._silence.stop()
        if status < 200:
            self._on_provisional(received, now)
        elif status < 300:
            self._on_success(received, now)
        else:
            self._finish(refusal(received.message), now)

    def _on_provisional(self, received: Received, now: float) -> None:
        """Acknowledge a reliable one that comes in its turn (RFC 3262, section 4)."""
        message = received.message
        number = (message.get("rseq") or "").strip()
        tag = message.to.tag if message.to is not None else None
        if not tag or not message.requires("100rel") or not number.isdecimal() or len(number) > 10:
            return
        if tag not in self._early and len(self._early) >= 16:
            return
        early = self._early.setdefault(tag, _Early(dialog_of_caller(self._request, message)))
        if early.rseq and int(number) != early.rseq + 1:
            return
        early.rseq = int(number)
        body = None
        if describes_session(message):
            if self._plan.answer is not None and self._late_offer and early.described is None:
                body = self._plan.answer(message)
            early.described = early.described or message
        headers = [("RAck", f"{early.rseq} {self._request.cseq} INVITE")]
        self._send(early.dialog, "PRACK", headers, body, received, now)

    @property
    def _late_offer(self) -> bool:
        return session_description(self._request.body) is None

    def _on_success(self, received: Received, now: float) -> None:
        message = received.message
        tag = (message.to.tag if message.to is not None else None) or ""
        if tag in self._again:
            self._again[tag](now)
            return
        if len(self._again) >= 16:
            return
        early = self._early.get(tag)
        dialog = dialog_of_caller(self._request, message)
        if early is not None:
            dialog.local_cseq = max(dialog.local_cseq, early.dialog.local_cseq)
        described = early.described if early is not None else None
        offer = self._late_offer and described is None and describes_session(message)
        body = self._plan.answer(message) if offer and self._plan.answer is not None else None
        self._acknowledge(dialog, tag, body, received, now)
        session = DialogSession(
            self._stack,
            dialog,
            contact=self._plan.contact,
            flow=received.flow,
            peer=received.peer,
            allows=frozenset(method.upper() for method in message.getlist("allow")),
            body=body or self._request.body,
            authorize=self._plan.authorize,
        )
        self._stack.add(session)
        if self._done is None or (offer and body is None):
            session.bye(None, (), lambda: None, now)
            self._finish(RefusedError(488, "the offer in the 2xx cannot be answered", message), now)
            return
        session.set_timer(agree_as_client(message), now)
        answer = described if described is not None and not describes_session(message) else message
        self._finish((session, answer), now)

    def _acknowledge(self, dialog: Dialog, tag: str, body: Body | None, received: Received, now: float) -> None:
        credentials = [header for header in self._request.headers if header[0].lower().endswith("authorization")]
        ack = dialog.request("ACK", credentials, body, self._request.cseq)
        self._again[tag] = lambda now: None

        def known(hops: list[Hop], now: float) -> None:
            self._again[tag] = self._stack.sender.acknowledge(ack, hops, now)

        self._stack.hops(dialog.next_hop, _back(received), known, now)

    def _send(
        self,
        dialog: Dialog,
        method: str,
        headers: list[tuple[str, str]],
        body: Body | None,
        received: Received,
        now: float,
    ) -> None:
        request = dialog.request(method, headers, body)

        def on_response(answer: Received, now: float) -> None:
            authorize = self._plan.authorize
            if answer.message.status in (401, 407) and authorize is not None:
                again = authorize(answer.message, request)
                if again is not None:
                    credentials = [each for each in again.headers if each not in request.headers]
                    self._send(dialog, method, [*headers, *credentials], body, received, now)

        def known(hops: list[Hop], now: float) -> None:
            user = ResponseUser(on_response, lambda failure, now: None)
            self._stack.sender.request(request, hops, user, now)

        self._stack.hops(dialog.next_hop, _back(received), known, now)


def _back(received: Received) -> Hop:
    return Hop(Target(received.flow.transport, received.peer.address), received.flow)
