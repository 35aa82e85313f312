"""Our SRC beside the engine of a live service: its threads, what they stand on, and in which order they end.

In: settings, decisions about calls, packets of a source of its own. Out: a `Follower` for the service, the commands of
an operator, sessions at recording servers. Three threads: the engine's (`follower`), the forwarder's, the sessions'.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass, field, replace
from pathlib import Path

from capture.errors import SpanrecError
from capture.live import LiveSource
from recorder.call_facts import CallFacts
from recorder.sip_ua.agent import Admit
from recorder.sip_ua.api import Credentials
from recorder.sip_ua.config import AgentConfig
from recorder.sip_ua.digest import Challenger
from recorder.siprec.control import EventKind, SessionEvent
from recorder.siprec.figures import MediaCounts
from recorder.siprec.forward import ForwardOptions, MediaForwarder
from recorder.siprec.forward_values import growing
from recorder.siprec.late_delivery import LateDelivery
from recorder.siprec.leftovers import Leftover, Leftovers, end_all
from recorder.siprec.loop import SessionLoop
from recorder.siprec.picture import CallPicture
from recorder.siprec.sip_stack import SipStack, StackOptions, open_stack
from recorder.siprec.spool import Delivery, Spool
from recorder.siprec.src_connect import Noted, unnoted
from recorder.siprec.src_control import SrcControl
from recorder.siprec.src_decision import Instance, Server, SrcDecision
from recorder.siprec.src_files import SrcFiles, read_files
from recorder.siprec.src_follower import SrcFollower
from recorder.siprec.src_sessions import Kept, SrcOptions, SrcSessions
from recorder.siprec.src_settings import SrcSettings

OPENING = 20.0
"""s that opening the sockets may take."""
LOOK = 10.0
"""s between two looks at what the system dropped."""
GOODBYE = 5.0
"""s that sessions have to end."""


@dataclass(frozen=True, slots=True)
class SrcTold:
    """Who is told what; all of it in threads of the SRC."""

    event: Callable[[SessionEvent], None] = lambda event: None
    kept: Callable[[Kept], None] = lambda kept: None
    """A call that was not delivered, or not all of it, is over; in the sessions' loop, as the next two."""
    doubted: Callable[[CallPicture], None] = lambda picture: None
    """A call may have to be kept: its packets are kept from now on. `kept` or `spared` follows."""
    spared: Callable[[CallPicture], None] = lambda picture: None
    failed: Callable[[BaseException], None] = lambda error: None
    """What nobody foresaw, and ended nothing."""


@dataclass(frozen=True, slots=True)
class _Open:
    """What is open in the sessions' loop."""

    stacks: Mapping[str, SipStack]
    sessions: SrcSessions
    delivery: "tuple[Delivery, asyncio.Task[None]] | None"
    ending: "asyncio.Task[None]"
    """Ends what an earlier process left."""
    watching: "asyncio.Task[None]"
    """Looks after what the system drops."""


@dataclass(eq=False)
class SrcService:
    """Between `start` and `close`."""

    settings: SrcSettings
    choose: Callable[[CallFacts], SrcDecision]
    told: SrcTold = field(default_factory=SrcTold)
    clock: Callable[[], int] = time.time_ns
    """Capture time, ns."""
    spool: Spool | None = None
    """Calls that wait for a server; they are delivered while this runs."""
    kept_sessions: Path | None = None
    """Where it is written down which sessions are in progress, so that after a kill the next start can end them."""
    files: SrcFiles | None = None
    """Read already; None: they are read at the start."""
    overloaded: Callable[[], bool] = lambda: False
    """Whether there is more traffic than can be recorded: then nothing else is begun. Asked in the sessions' loop."""

    def __post_init__(self) -> None:
        ports = self.settings.ports
        self.forwarder = MediaForwarder(ForwardOptions(ports.low, ports.high, growing(self.settings.history)))
        self.follower = SrcFollower(self.forwarder, self.choose, self._post, unserved=self._unserved)
        self._loop = SessionLoop(self.told.failed)
        self._open: _Open | None = None
        self._source: LiveSource | None = None
        self._thread: threading.Thread | None = None

    def start(self, source: LiveSource) -> SrcControl:
        """Open the sockets, and forward what comes from `source`. Gives the operator's commands.

        Raises SpanrecError where a socket cannot be opened."""
        self.forwarder.prepare()
        self._loop.start()
        try:
            opened = self._open = self._loop.run(self._begin()).result(OPENING)
        except (Late, SpanrecError):
            self._loop.close()
            raise
        self._source = source
        self._thread = threading.Thread(target=self._forward, args=(source,), name="spanrec-forward", daemon=True)
        self._thread.start()
        return SrcControl(opened.sessions, self._loop.run, self.settings.servers.find, self.settings.usual)

    @property
    def listening(self) -> Sequence[str]:
        """Where servers reach us, as far as that was told."""
        stacks = self._open.stacks.values() if self._open is not None else ()
        return [str(each) for stack in stacks for each in stack.listening]

    def media_counts(self) -> MediaCounts:
        """What was sent to servers so far."""
        done = self.forwarder.forwarded()
        return MediaCounts(done.packets, done.unsent, self._dropped())

    def busy(self) -> bool:
        """Whether sessions are in progress."""
        return self._open is not None and bool(self._open.sessions.sessions)

    def wait(self, seconds: float) -> bool:
        """Wait until no session is in progress; whether that came about."""
        until = time.monotonic() + seconds
        while self.busy() and time.monotonic() < until:
            time.sleep(0.05)
        return not self.busy()

    def close(self) -> None:
        """End all sessions, then what carries them."""
        opened, self._open = self._open, None
        if opened is None:
            return
        try:
            self._loop.run(self._end(opened)).result(GOODBYE * 3)
        except Late:
            self.told.failed(TimeoutError("sessions did not end in time"))
        self.forwarder.stopping = True
        if self._thread is not None:
            self._thread.join(GOODBYE)
        self._loop.close()

    async def _begin(self) -> _Open:
        settings = self.settings
        config = AgentConfig(identity=settings.identity)
        files = self.files or read_files(settings)

        def admit() -> Admit | None:
            """Who servers are that ask for calls, where users are named."""
            return None if files.users is None else Challenger(files.users.get, time.monotonic)

        stacks: dict[str, SipStack] = {}
        for name, listen in {"": settings.listen, **settings.sockets}.items():
            stacks[name] = await open_stack(StackOptions(listen, settings.tls, config, contexts=files.tls), admit)

        async def local_host(server: Server, agent: str) -> str:
            return await stacks[agent].local_host(server.via or server.uri)

        leftovers = Leftovers(self.kept_sessions, self.told.failed) if self.kept_sessions is not None else None
        left = leftovers.found() if leftovers is not None else []
        noted = leftovers.note if leftovers is not None else unnoted
        sessions = SrcSessions(
            {name: stack.agent for name, stack in stacks.items()},
            self.forwarder,
            self.follower.decide,
            local_host=local_host,
            options=self._options(),
            keep=self.told.kept,
            doubted=self._doubted,
            spared=self.told.spared,
            clock=self.clock,
            noted=noted,
        )
        ending = asyncio.get_running_loop().create_task(self._end_left(left, stacks))
        sessions.listen(self._heard)
        sessions.watch(settings.usual.servers)
        watching = asyncio.get_running_loop().create_task(self._watch_drops())
        delivery = self._delivery(stacks, local_host, noted, sessions.waited_for)
        return _Open(stacks, sessions, delivery, ending, watching)

    def _dropped(self) -> int:
        """Packets of all traffic that the system dropped before the forwarder had them."""
        return self._source.counters().dropped if self._source is not None else 0

    async def _watch_drops(self) -> None:
        """Tell of packets that never reached the forwarder: nobody knows of which calls they were."""
        told = 0
        while True:
            await asyncio.sleep(LOOK)
            dropped = self._dropped()
            if dropped > told:
                text = (
                    f"{dropped - told} packets were dropped before they could be sent on; calls in progress lack some"
                )
                self.told.event(SessionEvent(EventKind.FAILURE, self.clock(), text=text))
                told = dropped

    async def _end_left(self, left: Sequence[Leftover], stacks: Mapping[str, SipStack]) -> None:
        """End the sessions of an earlier process that was killed."""

        async def goodbye(one: Leftover, credentials: Credentials | None) -> bool:
            stack = stacks.get(one.agent, stacks[""])
            return await stack.agent.end_left(one.dialog, one.back, credentials)

        await end_all(left, goodbye, {server.uri: server.credentials for server in self._known_servers()})

    def _known_servers(self) -> Sequence[Server]:
        return [*self.settings.usual.servers, *self.settings.servers.servers.values()]

    def _delivery(
        self,
        stacks: Mapping[str, SipStack],
        local_host: Callable[[Server, str], Awaitable[str]],
        noted: Noted,
        waited_for: Callable[[], frozenset[str]],
    ) -> "tuple[Delivery, asyncio.Task[None]] | None":
        if self.spool is None:
            return None
        agents = {name: stack.agent for name, stack in stacks.items()}
        deliver = LateDelivery(agents, local_host, self._with_credentials, self.settings.ports, noted)
        delivery = Delivery(self.spool, deliver, self.settings.spool.at_once, waited_for, self._is_overloaded)
        return delivery, asyncio.get_running_loop().create_task(delivery.run())

    def _is_overloaded(self) -> bool:
        """By who tells it now: that comes after the start."""
        return self.overloaded()

    def _with_credentials(self, instance: Instance) -> Instance:
        """An instance that was kept, with what the settings say of its servers now."""
        by_uri = {server.uri: server for server in self._known_servers()}
        return replace(instance, servers=tuple(by_uri.get(each.uri, each) for each in instance.servers))

    def _options(self) -> SrcOptions:
        allowed = self.settings.allowed
        if not allowed:
            return SrcOptions()
        return SrcOptions(self.settings.usual, lambda incoming: any(each.fits(incoming.peer) for each in allowed))

    async def _end(self, opened: _Open) -> None:
        if opened.delivery is not None:
            opened.delivery[1].cancel()
            await asyncio.gather(opened.delivery[1], return_exceptions=True)
        for task in (opened.ending, opened.watching):
            task.cancel()
        await asyncio.gather(opened.ending, opened.watching, return_exceptions=True)
        await opened.sessions.close(GOODBYE)
        for stack in opened.stacks.values():
            await stack.agent.close()

    def _unserved(self, decision: SrcDecision) -> bool:
        """Whether some recording of a call would find no server now; in the engine's thread."""
        opened = self._open
        if opened is None or self.spool is None:
            return False
        is_up = opened.sessions.servers.is_up
        return any(each.spool and not any(map(is_up, each.servers)) for each in decision.instances)

    def _post(self, picture: CallPicture) -> None:
        if self._open is not None:
            self._open.sessions.post(picture)

    def _doubted(self, picture: CallPicture) -> None:
        """In the sessions' loop."""
        self.follower.spool(picture.index)
        self.told.doubted(picture)

    def _heard(self, event: SessionEvent) -> None:
        """In the sessions' loop."""
        if event.kind is EventKind.SERVER_UP and self._open is not None and self._open.delivery is not None:
            self._open.delivery[0].retry()
        self.told.event(event)

    def _forward(self, source: LiveSource) -> None:
        try:
            self.forwarder.run(source)
        except Exception as error:  # the service must know: it is of no use without
            self.told.failed(error)
        finally:
            source.close()
