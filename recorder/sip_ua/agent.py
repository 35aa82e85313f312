"""The user agent: the core with a clock, transports and names to look up (`recorder.sip_ua.api.Agent`).

In: sessions to begin, INVITEs of peers. Out: sessions. All of it runs in one asyncio loop; nothing blocks.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from email.utils import formatdate
from functools import partial
from random import Random
from typing import Any, TypeVar

from capture.randomness import BufferedRandom
from decoders.sip import SipMessage
from recorder.model import Transport
from recorder.sip_ua.agent_session import AgentIncoming, AgentSession, Farewell
from recorder.sip_ua.api import Credentials, Incoming, NewSession, Peer, Reply, UnreachableError
from recorder.sip_ua.config import AgentConfig
from recorder.sip_ua.core import Core
from recorder.sip_ua.dialog import Dialog
from recorder.sip_ua.digest import Authorizer
from recorder.sip_ua.incoming import IncomingInvite
from recorder.sip_ua.invite import Attempt
from recorder.sip_ua.layer import Failure, Hop, Received, ResponseUser
from recorder.sip_ua.message import Request, with_tag
from recorder.sip_ua.outgoing import Beginning
from recorder.sip_ua.session import DialogSession
from recorder.sip_ua.stack import Authorize
from recorder.sip_ua.wire import Flow, Target, Transports

Locate = Callable[[str], Awaitable[Sequence[Target]]]
"""Targets of a URI in the order of preference (RFC 3263); none where it leads nowhere. Does not raise."""
Admit = Callable[[SipMessage, Peer], Reply | Peer]
"""Whether an INVITE may come in: the refusal (401 with a challenge), or who its sender is."""
MakeAuthorize = Callable[[Credentials], Authorize]
_In = TypeVar("_In")
_Out = TypeVar("_Out")


class SipAgent:
    """Sessions over SIP. `admit` is asked about each INVITE outside of a dialog."""

    def __init__(
        self,
        transports: Transports,
        locate: Locate,
        config: AgentConfig | None = None,
        *,
        authorizer: MakeAuthorize = Authorizer,
        admit: Admit | None = None,
        random: Random | None = None,
        date: Callable[[], str] | None = None,
    ) -> None:
        self.date: Callable[[], str] = date or partial(formatdate, usegmt=True)
        self.config = config or AgentConfig()
        self._transports = transports
        self._locate = locate
        self._authorizer = authorizer
        self._admit = admit
        self._loop = asyncio.get_running_loop()
        self._wake: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._attempts: set[Attempt] = set()
        self._farewells: set[asyncio.Future[None]] = set()
        self._closing = self._closed = False
        self._on_invite: Callable[[Incoming], None] | None = None
        self.core = Core(self.config, transports.local, self._find, random or BufferedRandom())
        transports.on_message = self._on_message
        transports.on_lost = self._on_lost

    @property
    def on_invite(self) -> Callable[[Incoming], None]:
        """Told of each INVITE outside of a dialog."""
        return self._on_invite or (lambda incoming: incoming.refuse(405))

    @on_invite.setter
    def on_invite(self, told: Callable[[Incoming], None]) -> None:
        self._on_invite = told
        self.core.on_invite = self._invited

    async def invite(self, new: NewSession) -> AgentSession:
        """Begin a session."""
        if self._closing:
            raise UnreachableError("the agent was closed")
        begun: dict[DialogSession, AgentSession] = {}

        def wrap(session: DialogSession, answer: SipMessage) -> None:
            begun[session] = AgentSession(self, session, answer)

        if new.answer is not None:
            new = replace(new, answer=self.guard(new.answer))
        beginning = Beginning(
            self.core,
            new,
            self._locate,
            self._authorize(new.credentials),
            self.now,
            self.pump,
            self.date,
            wrap,
            self._attempts,
        )
        session, _ = await beginning.run()
        return begun[session]

    async def ping(self, uri: str, credentials: Credentials | None = None, timeout: float = 5.0) -> SipMessage | None:
        """Send OPTIONS, target after target; the first final response, None where none came within `timeout` s."""
        try:
            async with asyncio.timeout(timeout):
                for target in await self._locate(uri):
                    response = await self._options(uri, target, self._authorize(credentials))
                    if response is not None:
                        return response
        except TimeoutError:
            pass
        return None

    async def end_left(
        self, dialog: Dialog, back: Target, credentials: Credentials | None = None, timeout: float = 5.0
    ) -> bool:
        """Say BYE in a dialog that an earlier process left open, to where its peer was (`back`) or to where the dialog
        leads; whether that was answered within `timeout` s."""
        targets = [*await self._locate(dialog.next_hop)]
        if back.transport is Transport.TLS:
            targets = [target._replace(transport=Transport.TLS) for target in targets]
        ways = [back, *targets] if back.transport is not Transport.UDP or not targets else [*targets, back]
        authorize = self._authorize(credentials)
        try:
            async with asyncio.timeout(timeout):
                for way in dict.fromkeys(ways):
                    request = dialog.request("BYE", (("User-Agent", self.config.product),))
                    if await self._exchange(request, way, authorize) is not None:
                        return True
        except TimeoutError:
            pass
        return False

    async def close(self, patience: float = 2.0) -> None:
        """End all sessions and close the transports, waiting at most `patience` s for answers."""
        self._closing = True
        self.core.on_invite = None
        for attempt in list(self._attempts):
            attempt.stop("the agent was closed", self.now())
        for session in self.core.sessions:
            session.bye(None, (), self.farewell(), self.now())
        self.pump()
        await self._wait_for_farewells(patience / 2)
        for session in self.core.sessions:
            session.hurry(self.now())
        self.pump()
        await self._wait_for_farewells(patience / 2)
        self._closed = True
        for farewell in self._farewells:
            farewell.set_result(None)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._wake is not None:
            self._wake.cancel()
        await self._transports.close()

    def now(self) -> float:
        """The present moment, s."""
        return self._loop.time()

    def start(self, job: Coroutine[Any, Any, None]) -> None:
        """Have a coroutine run; its exceptions go to the loop's handler."""
        task = self._loop.create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def pump(self) -> None:
        """Send what the core wants sent, and wake it in time."""
        if self._closed:
            return
        outbox = self.core.layer.outbox
        while outbox:
            send = outbox.popleft()
            failed = partial(self._failed, send.failed) if send.failed is not None else None
            self._transports.send(send.data, send.hop.target, send.hop.flow, failed)
        when = self.core.next_timeout()
        if self._wake is not None:
            if when is not None and self._wake.when() == when and not self._wake.cancelled():
                return
            self._wake.cancel()
        self._wake = self._loop.call_at(when, self._on_time) if when is not None else None

    def guard(self, function: Callable[[_In], _Out]) -> Callable[[_In], _Out | None]:
        """A function of ours that the core may call: its exceptions are reported and give None."""

        def guarded(value: _In) -> _Out | None:
            try:
                return function(value)
            except Exception as error:
                self._report(error)
                return None

        return guarded

    def farewell(self) -> "Farewell":
        """What waits for the answer to a BYE; `close` ends the waiting."""
        future: asyncio.Future[None] = self._loop.create_future()
        if self._closed:
            future.set_result(None)
        self._farewells.add(future)
        future.add_done_callback(self._farewells.discard)
        return Farewell(future)

    def local_host(self, flow: Flow, peer: Peer) -> str:
        """Host of our end of a flow, as `peer` sees it."""
        if flow.local.host not in ("0.0.0.0", "::"):
            return flow.local.host
        local = self._transports.local(Target(flow.transport, peer.address))
        return local[0].strip("[]") if local is not None else flow.local.host

    async def _wait_for_farewells(self, patience: float) -> None:
        if self._farewells:
            await asyncio.wait(self._farewells, timeout=patience)

    def _authorize(self, credentials: Credentials | None) -> Authorize | None:
        return self._authorizer(credentials) if credentials is not None else None

    def _invited(self, invite: IncomingInvite, now: float) -> None:
        peer = invite.received.peer
        if self._admit is not None:
            verdict = self._admit(invite.received.message, peer)
            if isinstance(verdict, Reply):
                invite.refuse(verdict.status, verdict.reason, verdict.headers, now)
                return
            peer = verdict
        try:
            self.on_invite(AgentIncoming(self, invite, peer))
        except Exception as error:
            self._report(error)
            invite.refuse(500, "", (), now)

    def _find(self, uri: str, then: Callable[[Sequence[Target], float], None]) -> None:
        async def find() -> None:
            targets = await self._locate(uri)
            then(targets, self.now())
            self.pump()

        self.start(find())

    async def _options(self, uri: str, target: Target, authorize: Authorize | None) -> SipMessage | None:
        return await self._exchange(self._options_request(uri, target), target, authorize)

    async def _exchange(self, request: Request, target: Target, authorize: Authorize | None) -> SipMessage | None:
        """The final response to a request that is neither INVITE nor of a session of ours; None where none came."""
        for _ in range(3):
            future: asyncio.Future[SipMessage | Failure] = self._loop.create_future()
            user = ResponseUser(partial(_final, future), partial(_failure, future))
            outgoing = self.core.sender.request(request, [Hop(target)], user, self.now())
            self.pump()
            try:
                outcome = await future
            except asyncio.CancelledError:
                outgoing.abandon(self.now())
                raise
            if not isinstance(outcome, SipMessage):
                return None
            again = authorize(outcome, request) if outcome.status in (401, 407) and authorize is not None else None
            if again is None:
                return outcome
            request = replace(again, cseq=request.cseq + 1)
        return None

    def _options_request(self, uri: str, target: Target) -> Request:
        local = self._transports.local(target)
        config = self.config
        identity = config.identity or f"<sip:{config.contact_user}@{local[0] if local else 'invalid'}>"
        headers = [
            ("Contact", self.core.contact(target, None)),
            ("Accept", config.accept),
            ("Supported", config.supported),
            ("User-Agent", config.product),
        ]
        call_id = f"{self.core.random.getrandbits(128):032x}"
        from_ = with_tag(identity, self.core.new_tag())
        return Request("OPTIONS", uri, from_, f"<{uri}>", call_id, 1, headers=tuple(headers))

    def _on_message(self, data: bytes, flow: Flow, peer: Peer) -> None:
        self.core.received(data, flow, peer, self.now())
        self.pump()

    def _on_lost(self, flow: Flow, why: str) -> None:
        self.core.lost(flow, why, self.now())
        self.pump()

    def _on_time(self) -> None:
        self.core.timeouts(self.now())
        self.pump()

    def _failed(self, failed: Callable[[str, float], None], why: str) -> None:
        failed(why, self.now())
        self.pump()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._report(error)

    def _report(self, error: BaseException) -> None:
        self._loop.call_exception_handler({"message": "a session's handler failed", "exception": error})


def _final(future: "asyncio.Future[SipMessage | Failure]", received: Received, now: float) -> None:
    if (received.message.status or 0) >= 200 and not future.done():
        future.set_result(received.message)


def _failure(future: "asyncio.Future[SipMessage | Failure]", failure: Failure, now: float) -> None:
    if not future.done():
        future.set_result(failure)
