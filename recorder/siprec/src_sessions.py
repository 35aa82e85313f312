"""All recording sessions of our SRC: which calls have which, from their first picture to their last.

In: pictures of calls, from any thread (`post`); what `decide` says of each; INVITEs of servers that ask for calls. Out:
sessions, events to listeners, calls that could not be delivered (`keep`). All else runs in the sessions' loop; what an
operator asks comes by `src_control`. Nothing is kept of a call or session that is over but for a minute's list.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from capture.port_pool import PortsExhausted
from capture.randomness import BufferedRandom
from recorder.sip_ua.api import Agent, Incoming
from recorder.siprec.control import EventKind, Listener, SessionEvent, SessionInfo
from recorder.siprec.legs import Forwarder, LegId
from recorder.siprec.picture import CallPicture, Phase
from recorder.siprec.servers import Servers
from recorder.siprec.src_connect import Noted, Surroundings, unnoted
from recorder.siprec.src_decision import Instance, Server, SrcDecision
from recorder.siprec.src_info import info_of
from recorder.siprec.src_invited import Wanted, invited
from recorder.siprec.src_media import RecordedCall, recordable
from recorder.siprec.src_session import SrcSession

LOOK = 0.5
"""s between looks at servers, and at sessions where something is to be settled soon."""
CALM = 4
"""Looks of which one is for all the others, each session in its turn."""
PING_PATIENCE = 1.0
"""s to wait for the answer to OPTIONS."""
REMEMBERED = 60.0
"""s for which sessions that are over are still listed."""
MOST_REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class Kept:
    """A call that was not delivered, or not all of it."""

    picture: CallPicture
    """Its last one."""
    instance: Instance
    since: int
    """From when on it was to be recorded, capture time in ns."""


@dataclass(frozen=True, slots=True)
class SrcOptions:
    """What settings say of all sessions."""

    invited: Instance | None = None
    """How calls are recorded for servers that ask for them; its list of servers does not count. None: they are
    refused."""
    admit: Callable[[Incoming], bool] = lambda incoming: bool(incoming.peer.user or incoming.peer.certificate)
    """Whether a server may ask: it must have been authenticated before any media goes there."""
    ping: float = PING_PATIENCE
    late: bool = False
    """The calls were kept until a server could be had: metadata say so, and nobody can ask for them."""


@dataclass(slots=True, eq=False)
class KnownCall:
    """A call in progress."""

    picture: CallPicture
    sessions: list[SrcSession] = field(default_factory=list)
    begun: bool = False
    paused: bool = False
    """By a rule."""
    noted: str = ""
    """Why it is not recorded, as it was told."""
    left_out: set[str] = field(default_factory=set)
    """Sessions that have no room for it, as it was told."""


class SrcSessions:
    """The sessions, and the calls in progress. To be made in the loop of its agents."""

    def __init__(
        self,
        agents: Mapping[str, Agent],
        forwarder: Forwarder,
        decide: Callable[[CallPicture], SrcDecision],
        *,
        local_host: Callable[[Server, str], Awaitable[str]],
        options: SrcOptions | None = None,
        keep: Callable[[Kept], None] = lambda kept: None,
        doubted: Callable[[CallPicture], None] = lambda picture: None,
        spared: Callable[[CallPicture], None] = lambda picture: None,
        clock: Callable[[], int] = time.time_ns,
        octets: Callable[[int], bytes] | None = None,
        noted: Noted = unnoted,
    ) -> None:
        """`clock` gives capture time in ns; `local_host` our address on the way of an agent to a server; `noted` is
        told of dialogs, `doubted` of a call that may have to be kept, for each session where that is so: `keep` or
        `spared` follows from each."""
        self.calls: dict[int, KnownCall] = {}
        self.sessions: dict[str, SrcSession] = {}
        self.servers = Servers(time.monotonic, self._server_changed)
        self.decide = decide
        self.clock = clock
        self._options = options or SrcOptions()
        self._keep = keep
        self._loop = asyncio.get_running_loop()
        self._agents = agents
        self._forwarder = forwarder
        self._listeners: list[Listener] = []
        self._persistent: dict[str, list[SrcSession]] = {}
        self._wanted: list[Wanted] = []
        self._ended: OrderedDict[str, tuple[float, SessionInfo]] = OrderedDict()
        self._names = count(1)
        self._looks = 0
        self._tasks: set[asyncio.Task[None]] = set()
        numbers = count(1)
        self.around = Surroundings(
            agents=agents,
            forwarder=forwarder,
            servers=self.servers,
            clock=clock,
            local_host=local_host,
            tell=self._tell,
            keep=self._kept,
            doubted=lambda call: doubted(call.picture),
            spared=lambda call: spared(call.picture),
            octets=octets or BufferedRandom().randbytes,
            number=lambda: next(numbers),
            noted=noted,
        )
        self._watch = self._loop.create_task(self._look_again_and_again())
        for agent in agents.values() if not self._options.late else ():
            agent.on_invite = self._invited

    def post(self, picture: CallPicture) -> None:
        """Something of a call changed; from any thread, in order."""
        self._loop.call_soon_threadsafe(self.take, picture)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Be told of events, in the loop; gives what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def watch(self, servers: Sequence[Server]) -> None:
        """Ping servers from now on, before any call needs them."""
        self.servers.watch(servers)

    async def close(self, patience: float = 5.0) -> None:
        """End all sessions, waiting at most `patience` s."""
        self._watch.cancel()
        sessions = list(self.sessions.values())
        for session in sessions:
            session.stop()
        if sessions:
            await asyncio.wait([asyncio.ensure_future(session.wait()) for session in sessions], timeout=patience)
        for session in list(self.sessions.values()):
            session.abandon()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(self._watch, *self._tasks, *(s.wait() for s in sessions), return_exceptions=True)

    def waited_for(self) -> frozenset[str]:
        """URIs of servers for which sessions have been waiting for a while."""
        waiting = (session.instance.servers for session in self.sessions.values() if session.keeping.waits)
        return frozenset(server.uri for servers in waiting for server in servers)

    def infos(self) -> list[SessionInfo]:
        """All sessions in progress, and those that ended in the last minute."""
        limit = time.monotonic() - REMEMBERED
        ended = [info for at, info in self._ended.values() if at >= limit]
        return [*(info_of(session) for session in self.sessions.values()), *ended]

    # Calls

    def take(self, picture: CallPicture) -> None:
        """Something of a call changed; in the loop."""
        known = self.calls.get(picture.index)
        if picture.phase is Phase.OVER:
            if known is not None:
                del self.calls[picture.index]
                for session in list(known.sessions):
                    session.take(picture, paused=known.paused)
                self._join_left_out()
            else:
                self._missed(picture)
            return
        if known is None:
            known = self.calls[picture.index] = KnownCall(picture)
        known.picture = picture
        decision = self.decide(picture)
        known.paused = decision.paused
        for session in list(known.sessions):
            session.take(picture, paused=known.paused)
        if decision.record and not known.begun:
            self._begin(known, decision)
        self._join_all_wanted(known)

    def record(self, known: KnownCall, instances: Sequence[Instance], since: int) -> list[SrcSession]:
        """Begin recording a call, a session (or a place in one) for each instance."""
        known.begun = True
        return [session for each in instances if (session := self._record(known, each, since)) is not None]

    def _begin(self, known: KnownCall, decision: SrcDecision) -> None:
        if not known.picture.streams:
            return
        if not any(recordable(known.picture, each.media) for each in decision.instances):
            why = "its media are of no kind that is recorded, or encrypted with keys that nobody has told"
            if known.noted != why:
                known.noted = why
                self._tell_call(EventKind.FAILURE, known.picture, why)
            return
        self.record(known, decision.instances, known.picture.started)

    def _record(self, known: KnownCall, instance: Instance, since: int) -> SrcSession | None:
        if not instance.servers:
            self._tell_call(EventKind.FAILURE, known.picture, "no recording server is named for it")
            return None
        if not instance.persistent:
            session = self.new_session(instance)
            self.join(session, known, since)
            session.start()
            return session
        shared = self._persistent.setdefault(instance.name, [])
        there = next((each for each in shared if each.takes(known.picture)), None)
        session = there or self.new_session(instance)
        try:
            self.join(session, known, since)
        except PortsExhausted as error:
            self._tell_call(EventKind.FAILURE, known.picture, f"it is not recorded: {error}")
            return None
        if there is None:
            shared.append(session)
            session.start()
        return session

    def new_session(self, instance: Instance) -> SrcSession:
        """A session that has not begun."""
        session = SrcSession(f"r{next(self._names)}", instance, self.around, self._done)
        self.sessions[session.id] = session
        return session

    def join(self, session: SrcSession, known: KnownCall, since: int) -> None:
        """Have a call recorded in a session too, or tell that it has no room. Raises PortsExhausted."""
        try:
            session.add(known.picture, since, paused=known.paused, late=self._options.late)
        except ValueError as error:
            self._tell_call(EventKind.FAILURE, known.picture, f"not recorded in {session.id}: {error}")
            return
        known.sessions.append(session)

    def join_wanted(self, wanted: Wanted, known: KnownCall) -> None:
        """Have a call recorded for a server that asked for it too, where it is meant. Raises PortsExhausted."""
        session, picture = wanted.session, known.picture
        if session in known.sessions or not wanted.fits(picture):
            return
        if session.takes(picture):
            self.join(session, known, self.clock())
        elif not session.media.room(picture) and session.id not in known.left_out:
            known.left_out.add(session.id)
            self._tell_call(
                EventKind.FAILURE, picture, f"not recorded in {session.id}, which has no room until a call of it ends"
            )

    def _join_all_wanted(self, known: KnownCall) -> None:
        for wanted in self._wanted:
            try:
                self.join_wanted(wanted, known)
            except PortsExhausted as error:
                self._tell_call(EventKind.FAILURE, known.picture, f"not recorded in {wanted.session.id}: {error}")

    def _join_left_out(self) -> None:
        """A call is over: one that has been left out may have its place."""
        if self._wanted:
            for known in list(self.calls.values()):
                if known.left_out:
                    self._join_all_wanted(known)

    def _missed(self, picture: CallPicture) -> None:
        """A call was over when it was first told of: no session could begin."""
        if picture.answered is not None and self.decide(picture).record:
            self._tell_call(EventKind.FAILURE, picture, "it was over before a session could begin")

    def _done(self, session: SrcSession) -> None:
        """A session is over."""
        if self.sessions.pop(session.id, None) is None:
            return
        for call in session.calls:
            known = self.calls.get(call.picture.index)
            if known is not None and session in known.sessions:
                known.sessions.remove(session)
        shared = self._persistent.get(session.instance.name, [])
        if session in shared:
            shared.remove(session)
            if not shared:
                del self._persistent[session.instance.name]
        self._wanted = [each for each in self._wanted if each.session is not session]
        self._ended[session.id] = (time.monotonic(), info_of(session))
        while len(self._ended) > MOST_REMEMBERED:
            self._ended.popitem(last=False)

    def _kept(self, call: RecordedCall, instance: Instance) -> None:
        self._keep(Kept(call.picture, instance, call.since))

    # Servers

    def _invited(self, incoming: Incoming) -> None:
        """A server asks for calls (RFC 7866, section 7.2)."""
        wanted = invited(self, incoming, self._options)
        if wanted is not None:
            self._wanted.append(wanted)

    def _server_changed(self, server: Server, up: bool) -> None:
        self._tell(SessionEvent(EventKind.SERVER_UP if up else EventKind.SERVER_DOWN, self.clock(), peer=server.uri))
        for session in list(self.sessions.values()):
            if up:
                session.retry()
            elif session.link is not None and session.link.server.uri == server.uri:
                session.server_down()

    async def _look_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            self.look()

    def look(self) -> None:
        """Look at servers and sessions; twice a second."""
        for server in self.servers.due():
            self._start(self._ping(server))
        now = self._loop.time()
        for session in self.sessions.values():
            session.keeping.look(now)
        self._looks += 1
        turn = self._looks % CALM
        sessions = [each for each in self.sessions.values() if each.uneasy or hash(each.id) % CALM == turn]
        legs: list[LegId] = [leg for session in sessions for leg in session.media.legs()]
        reports = self._forwarder.report(legs) if legs else {}
        for session in sessions:
            session.look(reports)
        limit = time.monotonic() - REMEMBERED
        while self._ended and next(iter(self._ended.values()))[0] < limit:
            self._ended.popitem(last=False)

    async def _ping(self, server: Server) -> None:
        agent = self._agents.get(self.servers.agent_of(server)) or next(iter(self._agents.values()))
        answered = False
        try:
            answered = await agent.ping(server.via or server.uri, server.credentials, self._options.ping) is not None
        finally:
            self.servers.pinged(server, answered=answered)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Events

    def _tell(self, event: SessionEvent) -> None:
        for listener in list(self._listeners):
            listener(event)

    def _tell_call(self, kind: EventKind, picture: CallPicture, text: str) -> None:
        self._tell(SessionEvent(kind, self.clock(), call=str(picture.id), call_id=picture.call_id or "", text=text))
