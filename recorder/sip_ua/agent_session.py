"""Sessions and INVITEs as those who lead them see them: `recorder.sip_ua.api` over the core, with asyncio."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from decoders.sip import SipMessage
from decoders.sip_address import parse_name_address
from recorder.sip_ua.api import Body, Ended, Header, Peer, Reply, UnreachableError
from recorder.sip_ua.asks import Answer, Outcome
from recorder.sip_ua.incoming import IncomingInvite
from recorder.sip_ua.layer import Received
from recorder.sip_ua.session import DialogSession, Respond
from recorder.sip_ua.wire import Flow

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Farewell:
    """Waits until nothing more is to be expected of a session."""

    def __init__(self, over: "asyncio.Future[None]") -> None:
        self.over = over

    def __call__(self) -> None:
        """There is nothing more."""
        if not self.over.done():
            self.over.set_result(None)


class Driver(Protocol):
    """The agent, as its sessions see it."""

    def now(self) -> float:
        """The present moment, s."""
        ...

    def pump(self) -> None:
        """Send what the core wants sent."""
        ...

    def start(self, job: Coroutine[Any, Any, None]) -> None:
        """Have a coroutine run."""
        ...

    def local_host(self, flow: Flow, peer: Peer) -> str:
        """Host of our end of a flow, as `peer` sees it."""
        ...

    def guard(self, function: Callable[[_In], _Out]) -> Callable[[_In], _Out | None]:
        """A function of ours that the core may call: its exceptions are reported and give None."""
        ...

    def farewell(self) -> Farewell:
        """What waits for the answer to a BYE, as long as the agent lives."""
        ...

    def date(self) -> str:
        """Value of a Date header field."""
        ...


def _ignore(ended: Ended) -> None:
    """It has been told already."""


def _ignore_bye(bye: SipMessage | None) -> None:
    """Nobody waits for it."""


async def _refuse(message: SipMessage) -> Reply:
    return Reply(488)


class AgentSession:
    """`recorder.sip_ua.api.Session`."""

    def __init__(self, driver: Driver, core: DialogSession, answer: SipMessage) -> None:
        self.core = core
        self.answer = answer
        self.on_request: Callable[[SipMessage], Awaitable[Reply]] = _refuse
        self.on_end: Callable[[Ended], None] = _ignore
        self.on_parted: Callable[[SipMessage | None], None] = _ignore_bye
        self._driver = driver
        self._ack: asyncio.Future[SipMessage | None] = asyncio.get_running_loop().create_future()
        core.on_request = self._on_request
        core.on_end = self._on_end
        core.on_parted = self._on_parted
        core.on_invited = self._on_invited
        core.on_ack = self._on_ack

    @property
    def call_id(self) -> str:
        """Call-ID of the dialog."""
        return self.core.dialog.call_id

    @property
    def peer(self) -> Peer:
        """Who is at the other end."""
        return self.core.peer

    @peer.setter
    def peer(self, peer: Peer) -> None:
        self.core.peer = peer

    @property
    def local_uri(self) -> str:
        """URI of our From."""
        address = parse_name_address(self.core.dialog.local)
        return address.uri if address is not None else ""

    @property
    def remote_uri(self) -> str:
        """URI of the peer's From or To."""
        address = parse_name_address(self.core.dialog.remote)
        return address.uri if address is not None else ""

    @property
    def allows(self) -> frozenset[str]:
        """Methods that the peer takes."""
        return self.core.allows

    @property
    def local_address(self) -> str:
        """Host of our end of its transport."""
        return self._driver.local_host(self.core.flow, self.core.peer)

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.core.over

    @property
    def parted(self) -> bool:
        """Whether the peer knows that it has ended, or there is nothing more to wait for."""
        return self.core.parted

    async def reinvite(
        self, body: Body | None, headers: Sequence[Header] = (), answer: Answer | None = None
    ) -> SipMessage:
        """Send a re-INVITE, wait for its 2xx."""
        return await self._ask("INVITE", body, headers, self._driver.guard(answer) if answer is not None else None)

    async def request(self, method: str, body: Body | None = None, headers: Sequence[Header] = ()) -> SipMessage:
        """Send another request, wait for its 2xx."""
        return await self._ask(method, body, headers, None)

    async def bye(self, body: Body | None = None, headers: Sequence[Header] = ()) -> None:
        """End it."""
        farewell = self._driver.farewell()
        self.core.bye(body, headers, farewell, self._driver.now())
        self._driver.pump()
        await farewell.over

    async def acknowledged(self) -> SipMessage | None:
        """Wait for the ACK of the INVITE that was accepted last."""
        return await asyncio.shield(self._ack)

    async def _ask(
        self, method: str, body: Body | None, headers: Sequence[Header], answer: Answer | None
    ) -> SipMessage:
        result = await self._outcome(method, body, headers, answer)
        if isinstance(result, SipMessage):
            return result
        try:
            raise result
        finally:
            del result  # its traceback leads here, and must not lead back

    async def _outcome(
        self, method: str, body: Body | None, headers: Sequence[Header], answer: Answer | None
    ) -> Outcome:
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def done(result: Outcome, now: float) -> None:
            if not outcome.done():
                outcome.set_result(result)

        ask = self.core.ask(method, body, headers, done, self._driver.now(), answer)
        self._driver.pump()
        try:
            return await outcome
        except asyncio.CancelledError:
            self.core.give_up(ask, self._driver.now())
            self._driver.pump()
            raise

    def _on_request(self, received: Received, respond: Respond) -> None:
        self._driver.start(self._reply(received.message, respond))

    async def _reply(self, message: SipMessage, respond: Respond) -> None:
        reply = Reply(500)
        try:
            reply = await self.on_request(message)
        finally:  # a failure of who answers is an answer too, and then an exception of theirs
            try:
                respond(reply, self._driver.now())
            except ValueError:
                respond(Reply(500), self._driver.now())
                raise
            finally:
                self._driver.pump()

    def _on_invited(self) -> None:
        if self._ack.done():
            self._ack = asyncio.get_running_loop().create_future()

    def _on_ack(self, message: SipMessage, now: float) -> None:
        if not self._ack.done():
            self._ack.set_result(message)

    def _on_end(self, ended: Ended, now: float) -> None:
        if not self._ack.done():
            self._ack.set_result(None)
        on_end = self._driver.guard(self.on_end)
        # References that lead in circles are let go of: there are many sessions, and the collector comes late.
        self.on_end, self.on_request = _ignore, _refuse
        driver, core = self._driver, self.core
        core.on_request = lambda received, respond: respond(Reply(481), driver.now())
        core.on_end, core.on_ack, core.on_invited = (lambda *_: None), (lambda *_: None), (lambda: None)
        if core.parted:
            core.on_parted = _ignore_bye
        on_end(ended)

    def _on_parted(self, bye: SipMessage | None) -> None:
        on_parted, self.on_parted = self._driver.guard(self.on_parted), _ignore_bye
        on_parted(bye)


class AgentIncoming:
    """`recorder.sip_ua.api.Incoming`."""

    def __init__(self, driver: Driver, core: IncomingInvite, peer: Peer) -> None:
        self.message = core.received.message
        self.peer = peer
        self._core = core
        self._driver = driver

    @property
    def cancelled(self) -> bool:
        """Whether the peer took it back."""
        return self._core.cancelled

    @property
    def local_address(self) -> str:
        """Host of our end of its transport."""
        return self._driver.local_host(self._core.received.flow, self.peer)

    def progress(self, status: int, reason: str = "") -> None:
        """Send a provisional response."""
        self._core.progress(status, reason, self._driver.now())
        self._driver.pump()

    def accept(
        self, body: Body, headers: Sequence[Header] = (), contact_params: Sequence[str] = (), local_uri: str = ""
    ) -> AgentSession:
        """Answer 200. Raises UnreachableError where it was taken back or answered before."""
        dated = [("Date", self._driver.date()), *headers]
        session = self._core.accept(body, dated, contact_params, local_uri, self._driver.now())
        if session is None:
            raise UnreachableError("the INVITE was taken back or has been answered")
        session.peer = self.peer
        accepted = AgentSession(self._driver, session, self.message)
        self._driver.pump()
        return accepted

    def refuse(self, status: int, reason: str = "", headers: Sequence[Header] = ()) -> None:
        """Answer with a final response other than 2xx."""
        self._core.refuse(status, reason, headers, self._driver.now())
        self._driver.pump()
