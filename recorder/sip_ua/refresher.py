"""Keeps a session fresh, and gives it up when nobody does (RFC 4028, section 10).

In: what was agreed, time. Out: refreshes, or OPTIONS where no session timer was agreed; the end of the session. A
refresh is an UPDATE where the peer allows it, else a re-INVITE with the session description as it was last said, under
the same version: nothing is negotiated anew.
"""

from collections.abc import Callable, Sequence
from typing import Protocol
from weakref import proxy

from decoders.sip import SipMessage
from recorder.sip_ua.api import Body, Header
from recorder.sip_ua.asks import Answer, Outcome
from recorder.sip_ua.session_timer import SessionTimer
from recorder.sip_ua.stack import Stack
from recorder.sip_ua.timers import Timer


class Refreshed(Protocol):
    """The session."""

    stack: Stack
    over: bool
    allows: frozenset[str]
    body: Body | None

    def ask(
        self,
        method: str,
        body: Body | None,
        headers: Sequence[Header],
        done: Callable[[Outcome, float], None],
        now: float,
        answer: Answer | None = None,
    ) -> object:
        """Send a request."""
        ...

    def expire(self, now: float) -> None:
        """End the session: nobody refreshed it."""
        ...


class Refresher:
    """The session timer of one session."""

    def __init__(self, session: Refreshed) -> None:
        self.timer: SessionTimer | None = None
        """What was agreed."""
        self._session: Refreshed = proxy(session)  # whose it is: it goes when that goes
        self._alarms: list[Timer] = []

    def set(self, timer: SessionTimer | None, now: float) -> None:
        """A session timer was agreed on, or none; it begins anew."""
        self.stop()
        self.timer = timer
        if timer is not None:
            self._at(now + timer.end_after, self._session.expire)
            if timer.ours:
                self._at(now + timer.refresh_after, self._refresh)
        else:
            self._probe_later(now)

    def stop(self) -> None:
        """The session is over."""
        for alarm in self._alarms:
            alarm.stop()
        self._alarms = []

    def _at(self, when: float, action: Callable[[float], None]) -> None:
        self._alarms.append(self._session.stack.layer.timers.start(when, action))

    def _refresh(self, now: float) -> None:
        timer, session = self.timer, self._session

        def done(outcome: Outcome, now: float) -> None:
            if not isinstance(outcome, SipMessage) and not session.over and timer is not None:
                self._at(now + timer.interval / 8, self._refresh)

        if "UPDATE" in session.allows:
            session.ask("UPDATE", None, (), done, now)
        else:
            session.ask("INVITE", session.body, (), done, now)

    def _probe_later(self, now: float) -> None:
        interval = self._session.stack.config.session_expires
        if interval is not None:
            self._at(now + interval / 2, self._probe)

    def _probe(self, now: float) -> None:
        """Without a session timer: is the peer still there? Any answer but 408 and 481 says so."""
        self._alarms = []
        accept = [("Accept", self._session.stack.config.accept)]
        self._session.ask("OPTIONS", None, accept, lambda outcome, now: None, now)
        if not self._session.over:
            self._probe_later(now)
