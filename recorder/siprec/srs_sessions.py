"""The recording server's sessions: all of them, what begins and ends them, and what an operator asks of them.

In: INVITEs by the user agent, commands by `SessionControl`. Out: sessions (`srs_session`), refusals that are counted,
events for whoever listens. All of it runs in the sessions' loop; only the methods of `SessionControl` may be called
from other threads.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from capture.address import Endpoint
from capture.errors import SpanrecError
from decoders.sip import SipMessage
from decoders.sip_address import parse_uri
from recorder.sip_ua.api import (
    Agent,
    Body,
    Ended,
    EndedBy,
    Header,
    Incoming,
    NewSession,
    Peer,
    RefusedError,
    Session,
    UnreachableError,
)
from recorder.siprec.admission import Admission, Refusal
from recorder.siprec.control import (
    ANSWER,
    ControlError,
    EventKind,
    Listener,
    SessionInfo,
)
from recorder.siprec.port_shares import PortShares, ShareSpent
from recorder.siprec.srs_answer import OfferError
from recorder.siprec.srs_calls import SessionCalls
from recorder.siprec.srs_events import SrsEvents
from recorder.siprec.srs_info import info_of
from recorder.siprec.srs_leaving import Leaving
from recorder.siprec.srs_message import (
    ACCEPT,
    CONTACT,
    Strictness,
    marks_missing,
    why_not_recorded,
    why_unsupported,
)
from recorder.siprec.srs_session import Reception, ServerSession, Surroundings
from recorder.siprec.srs_watch import asks_due

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, Any]], "Future[Any]"]
"""Has a coroutine run in the sessions' loop."""

REMEMBERED = 60_000_000_000
"""ns for which sessions that are over are still listed."""
MOST_REMEMBERED = 1000
MOST_WAITING = 1000
"""INVITEs that are held until the engine runs; those beyond are refused."""
FAREWELL = 4.0
"""s that SRCs have to answer our BYE when the server ends. For us the sessions are over all the same."""
_UNKNOWN = Endpoint(0, 0, 0)
"""Of an SRC that has answered and is not known to be at the other end yet."""
_REQUESTS = frozenset({"INFO", "MESSAGE", "NOTIFY", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How the recording server behaves. Times in s."""

    strictness: Strictness = Strictness.LENIENT
    silence: float = 60.0
    """Without media and SIP from an SRC, after which it is asked whether it is there."""
    snapshot_after: float = 5.0
    """After which a session without metadata is asked for them."""
    host: str = ""
    """Address of ours at which media is received; empty: where the INVITE came to. Sessions that we begin need it."""


class RecordingServer:
    """Sessions with SRCs."""

    def __init__(
        self,
        agent: Agent,
        reception: Reception,
        calls: SessionCalls,
        admission: Admission,
        settings: ServerSettings | None = None,
        *,
        run: Run | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """`run` has a coroutine run in the loop of the agent, for commands of other threads. `clock`: wall, ns."""
        self.admission = admission
        self._agent = agent
        self._calls = calls
        self._settings = settings or ServerSettings()
        self._run = run
        self._clock = clock
        self._around = Surroundings(
            reception,
            calls.submit,
            clock,
            largest_body=admission.rules.largest_body,
            ended=self._ended,
            shares=PortShares(admission.rules.streams_of_one),
        )
        self._sessions: dict[int, ServerSession] = {}
        self._leaving = Leaving(reception)
        self._peers: dict[int, Peer] = {}
        self._over: OrderedDict[int, tuple[int, SessionInfo]] = OrderedDict()
        """When it ended, and how it stood."""
        self._numbers = 0
        self._events = SrsEvents(calls.identifiers, clock)
        self._waiting: deque[Incoming] | None = None
        """INVITEs that wait for `go_on`; None: nothing waits."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        agent.on_invite = self._invited

    @property
    def count(self) -> int:
        """Sessions in progress."""
        return len(self._sessions)

    # Sessions that SRCs begin

    def hold(self) -> None:
        """Answer no INVITE before `go_on`: of a session that was taken while nobody notes it nothing would be known
        after a kill."""
        self._waiting = deque()

    def go_on(self) -> None:
        """Sessions are noted from now on."""
        waiting, self._waiting = self._waiting, None
        for incoming in waiting or ():
            with suppress(UnreachableError):
                self._invited(incoming)

    def _invited(self, incoming: Incoming) -> None:
        """An INVITE outside a dialog."""
        if self._waiting is not None:
            if len(self._waiting) < MOST_WAITING:
                self._waiting.append(incoming)
            else:
                after = self.admission.rules.retry_after
                self._refuse(incoming, Refusal(503, "Starting", "starting", after), ())
            return
        refusal = self._why_refused(incoming)
        if refusal is not None:
            self._refuse(incoming, *refusal)
            return
        host = self._settings.host or incoming.local_address
        session = self._begin(host, incoming.peer.address, incoming.message)
        try:
            body = session.offered(incoming.message)
        except OfferError:
            session.abandon()
            self._refuse(incoming, Refusal(488, "Not Acceptable Here", "offer"), [ACCEPT])
            return
        except SpanrecError as error:
            session.abandon()
            spent = isinstance(error, ShareSpent)
            why = ("Full For This Client", "streams-of-one") if spent else ("No Media Port Left", "ports")
            self._refuse(incoming, Refusal(503, *why, self.admission.rules.retry_after), ())
            return
        try:
            dialog = incoming.accept(body, [ACCEPT], [CONTACT])
        except Exception:
            # Taken back meanwhile, or no way to answer: the ports are not lost with it.
            session.abandon()
            raise
        self._established(session, dialog, incoming.message)

    def _why_refused(self, incoming: Incoming) -> tuple[Refusal, Sequence[Header]] | None:
        message, peer = incoming.message, incoming.peer
        refusal = self.admission.judge(peer, len(message.body), asyncio.get_running_loop().time())
        if refusal is not None:
            return refusal, ()
        return why_not_recorded(message, self._settings.strictness) or why_unsupported(message)

    def _refuse(self, incoming: Incoming, refusal: Refusal, headers: Sequence[Header]) -> None:
        self.admission.count(refusal)
        after = [] if refusal.retry_after is None else [("Retry-After", str(refusal.retry_after))]
        incoming.refuse(refusal.status, refusal.reason, [*headers, *after])
        call_id = incoming.message.call_id or ""
        details: dict[str, str | int | float | None] = {"status": refusal.status, "why": refusal.why}
        self._events.refused(str(incoming.peer.address), call_id, f"refused: {refusal.reason}", details)

    def _begin(self, host: str, source: Endpoint, message: SipMessage) -> ServerSession:
        self._numbers += 1
        return ServerSession(self._numbers, self._around, host, source, marks_missing(message))

    def _established(self, session: ServerSession, dialog: Session, message: SipMessage) -> None:
        self._sessions[session.number] = session
        self._peers[session.number] = dialog.peer
        self._idle.clear()
        self.admission.begin(dialog.peer)
        session.established(dialog, message)
        self._events.of(EventKind.START, session)
        if dialog.over:
            session.ended(Ended(EndedBy.TRANSPORT))
            return
        if not session.state.complete and session.state.documents:
            self._spawn(self._ask(session))

    async def _ask(self, session: ServerSession) -> None:
        """Ask for a snapshot, once the dialog stands (RFC 7866, section 9.2)."""
        if session.session is not None and await session.session.acknowledged() is not None:
            await session.ask_for_snapshot()

    def _ended(self, session: ServerSession, ended: Ended) -> None:
        now = self._clock()
        if self._sessions.pop(session.number, None) is None:
            return
        self.admission.end(self._peers.pop(session.number))
        self._over[session.number] = (now, info_of(session, self._calls, self._around.reception))
        while self._over and (len(self._over) > MOST_REMEMBERED or self._first_over() < now - REMEMBERED):
            self._over.popitem(last=False)
        self._events.of(EventKind.STOP, session, ended.text, {"by": ended.by.value})
        if session.leaving:
            self._leaving.add(session, now)
        self._note_idle()

    def _note_idle(self) -> None:
        if not self._sessions and not self._leaving:
            self._idle.set()

    def _first_over(self) -> int:
        return next(iter(self._over.values()))[0]

    # What goes on

    async def watch(self, every: float = 1.0) -> None:
        """Look after the sessions, until cancelled."""
        while True:
            await asyncio.sleep(every)
            self.look(self._clock())

    def look(self, now: int) -> None:
        """Ask those that are silent whether they are there, and those without metadata for them."""
        self._leaving.look(now)
        self._note_idle()
        settings = self._settings
        sessions = list(self._sessions.values())
        for ask in asks_due(sessions, now, settings.silence, settings.snapshot_after, self._last_sign):
            self._spawn(ask)

    def _last_sign(self, session: ServerSession, *, ports: bool) -> int:
        """When a session last gave a sign of life, ns; `ports`: look at its ports too."""
        if not ports:
            return max(session.heard, self._calls.media.get(session.number, 0))
        states = [self._around.reception.state(line.port) for line in session.lines]
        return max((max(state.last or 0, state.rtcp_last or 0) for state in states), default=0)

    async def drain(self, seconds: float) -> int:
        """Begin nothing any more, and wait for the sessions to end; gives how many are left after some seconds."""
        self.admission.draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            pass
        return len(self._sessions)

    async def close(self) -> None:
        """End all sessions."""
        self.admission.draining = True
        for session in list(self._sessions.values()):
            self._spawn(session.stop())
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=FAREWELL)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._leaving.forget()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # SessionControl

    def sessions(self) -> Sequence[SessionInfo]:
        """See `SessionControl`."""
        return self._wait(self._list())

    def start(self, call: str, servers: str = "", options: Mapping[str, str] | None = None) -> Sequence[str]:
        """Have an SRC, `servers`, send us a call (RFC 7866, section 7.2): `call` is the user part of its URI that names
        what is wanted, as that SRC has it; empty where `servers` says it all."""
        return self._wait(self._call(call, servers))

    def stop(self, which: str) -> Sequence[str]:
        """See `SessionControl`."""
        return self._wait(self._each(which, lambda session: session.stop()))

    def pause(self, which: str) -> Sequence[str]:
        """See `SessionControl`."""
        return self._wait(self._pause(which, paused=True))

    def resume(self, which: str) -> Sequence[str]:
        """See `SessionControl`."""
        return self._wait(self._pause(which, paused=False))

    def request(self, which: str, method: str, content_type: str, body: bytes) -> str:
        """See `SessionControl`."""
        return self._wait(self._request(which, method, content_type, body))

    def listen(self, listener: Listener) -> Callable[[], None]:
        """See `SessionControl`."""
        return self._events.listen(listener)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self._run is None:
            work.close()
            raise ControlError("The recording server takes no commands here.")
        future: Future[T] = self._run(work)
        try:
            return future.result(ANSWER)
        except Late as late:
            future.cancel()
            raise ControlError(f"No effect within {ANSWER:.0f} s; see the list of sessions.") from late

    async def _list(self) -> Sequence[SessionInfo]:
        reception = self._around.reception
        running = [info_of(session, self._calls, reception) for session in self._sessions.values()]
        return [*(info for _, info in self._over.values()), *running]

    def _which(self, which: str) -> list[ServerSession]:
        found = []
        for session in self._sessions.values():
            info = info_of(session, self._calls, self._around.reception)
            if which in (info.id, info.rs_call_id, *info.calls, *info.call_ids):
                found.append(session)
        if not found:
            raise ControlError(f"No recording session and no call is known as {which!r}.")
        return found

    async def _each(self, which: str, do: Callable[[ServerSession], Coroutine[Any, Any, None]]) -> Sequence[str]:
        found = self._which(which)
        await asyncio.gather(*(do(session) for session in found))
        return [session.id for session in found]

    async def _pause(self, which: str, *, paused: bool) -> Sequence[str]:
        found = await self._each(which, lambda session: session.pause(paused))
        for session in self._which(which):
            self._events.of(EventKind.PAUSE if paused else EventKind.RESUME, session, session.note)
        return found

    async def _request(self, which: str, method: str, content_type: str, body: bytes) -> str:
        if method.upper() not in _REQUESTS:
            raise ControlError(f"{method} cannot be sent within a session; one of {', '.join(sorted(_REQUESTS))} can.")
        session = self._which(which)[0].session
        assert session is not None
        try:
            answer = await session.request(method.upper(), Body(content_type, body) if body else None)
        except (RefusedError, UnreachableError) as error:
            return str(error)
        return f"{answer.status} {answer.reason}"

    async def _call(self, call: str, uri: str) -> Sequence[str]:
        """Begin a session ourselves: without an offer, which the SRC makes."""
        parts = parse_uri(uri)
        if not parts.host:
            raise ControlError("Name the SRC by its SIP URI.")
        if not self._settings.host:
            raise ControlError("To begin sessions, the settings must tell our address for media.")
        if call and not parts.user:
            scheme, _, rest = uri.partition(":")
            uri = f"{scheme}:{call}@{rest}"
        refusal = self.admission.full()
        if self.admission.draining or refusal is not None:
            raise ControlError("Nothing more can be recorded now.")
        begun: list[ServerSession] = []

        def answer(message: SipMessage) -> Body | None:
            session = self._begin(self._settings.host, _UNKNOWN, message)
            try:
                body = session.offered(message)
            except SpanrecError:
                session.abandon()
                return None
            begun.append(session)
            return body

        new = NewSession(uri, None, answer=answer, headers=[("Require", "siprec"), ACCEPT], contact_params=[CONTACT])
        try:
            dialog = await self._agent.invite(new)
        except (RefusedError, UnreachableError) as error:
            for session in begun:
                session.abandon()
            raise ControlError(f"{uri} sends nothing: {error}") from error
        if not begun:
            raise ControlError(f"{uri} made no offer that can be taken.")
        self._established(begun[0], dialog, dialog.answer)
        return [begun[0].id]
