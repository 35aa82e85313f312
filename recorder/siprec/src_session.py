"""One recording session of ours, wherever it goes: it begins at a server, moves to another when that fails, and ends.

In: pictures of the calls that it records, what an operator asks, what is known of servers. Out: one `Link` at a time,
legs at the forwarder, events. All of it runs in one asyncio loop. A session's identifiers (of calls, participants,
groups) are the same at every server (RFC 7865, section 6.10).
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from capture.port_pool import PortsExhausted
from recorder.sip_ua.api import Agent, Ended, EndedBy, RefusedError, Session, UnreachableError
from recorder.siprec.control import EventKind, SessionEvent, SessionState
from recorder.siprec.legs import Forwarder, LegId, LegReport, Source
from recorder.siprec.picture import CallPicture, Phase
from recorder.siprec.servers import Servers, goes_on
from recorder.siprec.snapshot import Elements
from recorder.siprec.src_decision import Insecure, Instance, OnBye, Protection, Server
from recorder.siprec.src_link import Link
from recorder.siprec.src_media import MediaOptions, RecordedCall, SrcMedia

FINAL = 4.0
"""s that the last update may take."""
GOODBYE = 4.0
"""s to wait for the answer to BYE."""
DRAIN = 5.0
"""s that media may take that waited for the answer, when the call is over already."""
RECENT = 12.0
"""s after the answer within which some may still wait."""
MOST_ATTEMPTS = 16
"""Attempts that are remembered."""
UNREACHABLE_LOOKS = 2
"""Looks in a row at which nobody listened at the server's media ports."""
SILENCE = 30_000_000_000
"""ns without RTCP from a server that sent some before, after which it is asked whether it is there."""
FRESH_RTCP = 3_000_000_000
SETTLED = 3.0
"""s after which a move is told of, whether media went out at the new server or not."""
MILLISECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What sessions work with."""

    agents: Mapping[str, Agent]
    """By name; the usual one has the empty name."""
    forwarder: Forwarder
    servers: Servers
    clock: Callable[[], int]
    """Capture time now, ns UTC."""
    local_host: Callable[[Server], Awaitable[str]]
    """Our address on the way to a server. Raises OSError where there is none."""
    tell: Callable[[SessionEvent], None]
    octets: Callable[[int], bytes]
    """So many random ones."""
    number: Callable[[], int]
    """The next running number."""


@dataclass(slots=True)
class _Move:
    """From one server to another."""

    before: str
    why: str
    old: dict[Source, LegReport]
    at: float
    """When it was complete, s of the loop's clock; 0: not yet."""


class SrcSession:
    """A recording session. `done` is called once, when it is over."""

    def __init__(
        self, name: str, instance: Instance, around: Surroundings, done: Callable[["SrcSession"], None]
    ) -> None:
        self.id = name
        self.instance = instance
        self.state = SessionState.CONNECTING
        self.calls: list[RecordedCall] = []
        self.attempts: deque[str] = deque(maxlen=MOST_ATTEMPTS)
        self.since = around.clock()
        self.spooling = False
        """At some time no server could be had: not all of it was delivered."""
        self.note = ""
        self.paused = False
        """By an operator."""
        self.link: Link | None = None
        self.media = SrcMedia(
            around.forwarder,
            MediaOptions(instance.media, instance.on_hold),
            number=around.number(),
            octets=around.octets,
        )
        self._around = around
        self._done = done
        self._wake = asyncio.Event()
        self._finishing = False
        self._started = False
        self._lost: Ended | None = None
        self._move: _Move | None = None
        self._connected_at = 0.0
        self._unreachable = 0
        self._asked_alive = 0
        self._task: asyncio.Task[None] | None = None
        self._aside: set[asyncio.Task[None]] = set()

    # What others ask

    def start(self) -> None:
        """Begin to connect; at least one call has been added."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def start_with(self, link: Link, session: Session, elements: Elements) -> None:
        """Begin with a dialog that a server asked for, and that was answered with our offer."""
        self._task = asyncio.get_running_loop().create_task(self._run_invited(link, session, elements))

    def add(self, picture: CallPicture, since: int, *, paused: bool = False, late: bool = False) -> RecordedCall:
        """Record a call too. Raises PortsExhausted."""
        call = RecordedCall(picture, since, self.instance.overrides, paused=paused, late=late)
        call.associated = self._around.clock()
        self.media.add(call)
        self.calls.append(call)
        self._changed()
        return call

    def take(self, picture: CallPicture, *, paused: bool) -> None:
        """Something of a call changed."""
        call = self.call(picture.index)
        if call is None or call.until is not None:
            return
        call.picture = picture
        call.paused = paused or self.paused
        if picture.phase is Phase.OVER:
            self._over(call)
            return
        if self.media.offer.host:
            try:
                self.media.follow(call)
            except (PortsExhausted, ValueError) as error:
                self._tell(EventKind.FAILURE, f"a stream is not recorded: {error}", call=call)
        why = self._unsafe(self.link.server) if self.link is not None else ""
        if why:
            self.fail(f"the call is encrypted now: {why}")
        self._changed()

    def call(self, index: int) -> RecordedCall | None:
        """A call in it."""
        return next((call for call in self.calls if call.picture.index == index), None)

    def pause(self) -> None:
        """Record nothing for now."""
        self.set_paused(paused=True)

    def set_paused(self, *, paused: bool) -> None:
        """Record nothing for now, or again."""
        self.paused = paused
        for call in self.calls:
            call.paused = paused
        self.media.set_sending()
        if self.state in (SessionState.RECORDING, SessionState.PAUSED):
            self.state = SessionState.PAUSED if paused else SessionState.RECORDING
        self._tell(EventKind.PAUSE if paused else EventKind.RESUME, "")
        self._changed()

    def stop(self) -> None:
        """End it; its calls go on."""
        self._finishing = True
        if self.state in (SessionState.CONNECTING, SessionState.SPOOLING) and self._task is not None:
            self._task.cancel()
        self._changed()

    def fail(self, why: str) -> None:
        """End it because it must not go on."""
        self.note = why
        self._tell(EventKind.FAILURE, why)
        self.stop()

    def look(self, reports: Mapping[LegId, LegReport]) -> None:
        """Look whether the server still takes media; once a second."""
        link = self.link
        if link is None or link.over:
            return
        lines = [line for line in self.media.offer.lines if line.leg in reports and line.remote is not None]
        live = [reports[line.leg] for line in lines if line.leg is not None and not line.muted]
        self._unreachable = self._unreachable + 1 if live and all(each.unreachable for each in live) else 0
        if self._unreachable >= UNREACHABLE_LOOKS:
            self.lose("nobody listens at its media ports")
            return
        if self._move is not None and self._move.at:
            self._tell_move(reports)
        heard = [each.heard_from for each in live if each.heard_from is not None]
        now = self._around.clock()
        if heard and now - max(heard) > SILENCE and now - self._asked_alive > SILENCE:
            self._asked_alive = now
            self._beside(self._ask_alive(link))

    def server_down(self) -> None:
        """The server answers no pings: unless its RTCP is fresh, it is dead."""
        if self.link is None:
            return
        heard = [each.heard_from for each in self.media.reports().values() if each.heard_from is not None]
        if not heard or self._around.clock() - max(heard) > FRESH_RTCP:
            self.lose("it answers no OPTIONS")

    def lose(self, why: str) -> None:
        """The server is not there any more: go elsewhere."""
        link = self.link
        if link is None or link.over:
            return
        link.ended = Ended(EndedBy.TRANSPORT, text=why)
        self._around.servers.failed(link.server, unreachable=True)
        self._beside(self._leave(link))
        self._changed()

    def retry(self) -> None:
        """A server is back."""
        if self.state is SessionState.SPOOLING:
            self._changed()

    async def wait(self) -> None:
        """Until it is over."""
        if self._task is not None:
            await asyncio.wait([self._task, *self._aside])

    # Its life

    async def _run(self) -> None:
        try:
            while True:
                link = await self._connect()
                if link is None:
                    if not await self._wait_for_server():
                        break
                    continue
                if await self._serve(link) or not self._goes_on(link):
                    break
        except asyncio.CancelledError:
            if not self._finishing:
                raise
        except PortsExhausted as error:
            self.note = str(error)
            self._tell(EventKind.FAILURE, str(error))
            self.state = SessionState.FAILED
        finally:
            self._end()

    async def _run_invited(self, link: Link, session: Session, elements: Elements) -> None:
        try:
            self.link = link
            link.adopt(session, elements)
            acknowledgement = await session.acknowledged()
            if acknowledgement is None:
                self.note = "the server did not acknowledge"
                return
            await link.take_answer(acknowledgement)
            self._established(link)
            await self._serve(link)
        finally:
            self._end()

    async def _connect(self) -> Link | None:
        """A dialog with the first server that takes the session; None where there is none for now."""
        around, instance = self._around, self.instance
        order = around.servers.order(instance.servers, instance.choice, last_resort=not instance.spool)
        if self._move is not None:  # who has just been left comes last
            order.sort(key=lambda server: server.uri == (self._move.before if self._move is not None else ""))
        for server in order:
            why = self._unsafe(server)
            if why:
                self._attempt(server, why)
                continue
            link = self._link(server)
            try:
                await self._prepare(server)
                await link.establish()
            except RefusedError as refusal:
                self._attempt(server, str(refusal))
                if refusal.status >= 500 or refusal.status in (408, 480, 486) or refusal.retry_after is not None:
                    around.servers.failed(server, retry_after=refusal.retry_after)
                if not goes_on(refusal.status, instance.final):
                    self._finishing = True
                    self.state = SessionState.FAILED
                    self._tell(EventKind.FAILURE, f"{server.uri}: {refusal}, which ends it")
                    return None
                continue
            except (UnreachableError, OSError) as error:
                self._attempt(server, str(error))
                around.servers.failed(server, unreachable=True)
                continue
            self.link = link
            self._established(link)
            return link
        return None

    async def _prepare(self, server: Server) -> None:
        """Have legs ready for a server."""
        around = self._around
        host = self.instance.media_host or await around.local_host(server)
        secure = self._secure(server)
        if self._lost is not None:
            since = self._alive_until()
            self._lost = None
            self.media.move(around.number(), host, since, secure=secure)
        else:
            self.media.begin(host, secure=secure)

    def _established(self, link: Link) -> None:
        around = self._around
        loop = asyncio.get_running_loop()
        around.servers.succeeded(link.server)
        around.servers.hold(link.server, +1)
        self._connected_at = loop.time()
        self._unreachable = 0
        self._attempt(link.server, "recording")
        self.state = SessionState.PAUSED if self.paused else SessionState.RECORDING
        if self._move is not None:
            self._move.at = loop.time()
        elif not self._started:
            self._tell(EventKind.START, "")
        self._started = True

    async def _serve(self, link: Link) -> bool:
        """Keep the server up to date; says whether the session is over, and not only its dialog."""
        try:
            while not link.over:
                self._wake.clear()
                if self._finishing:
                    await self._finish(link)
                    return True
                wait = link.wait()
                if wait == 0:
                    await link.update()
                    self._take_away(link)
                    continue
                try:
                    await asyncio.wait_for(self._wake.wait(), wait)
                except TimeoutError:
                    continue
            return self._finishing
        finally:
            self._around.servers.hold(link.server, -1)

    async def _finish(self, link: Link) -> None:
        """The last update, then BYE."""
        await self._drain()
        now = self._around.clock()
        for call in self.calls:
            call.until = call.until or now
        before = dict(link.said)
        if link.wait() is not None:
            try:
                await asyncio.wait_for(link.update(final=True), FINAL)
            except TimeoutError:
                link.notes.append("does not answer the last update")
        final = link.last_words(before)
        self._close_media()
        try:
            await asyncio.wait_for(link.end(final), GOODBYE)
        except TimeoutError:
            link.notes.append("does not answer BYE")

    async def _drain(self) -> None:
        """Let go out what has waited."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._connected_at > RECENT:
            return
        until, before = loop.time() + DRAIN, -1
        while loop.time() < until:
            sent = sum(report.packets for report in self.media.reports().values())
            if sent == before:
                return
            before = sent
            await asyncio.sleep(0.1)

    async def _wait_for_server(self) -> bool:
        """No server can be had: keep the call, and try again. False where it is over, or nothing is kept."""
        if self._finishing:
            if not self.spooling and self.state is not SessionState.FAILED:
                self._give_up()
            return False
        if not self.spooling:
            self._give_up()
        if self.state is SessionState.FAILED:
            return False
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), self._until_retry())
        self._wake.clear()
        return not self._finishing

    def _give_up(self) -> None:
        text = "no recording server can be had"
        if self.instance.spool:
            self.spooling = True
            self.state = SessionState.SPOOLING
            self._tell(EventKind.SPOOLED, f"{text}: the call is kept")
        else:
            self.state = SessionState.FAILED
            self._tell(EventKind.FAILURE, text)

    def _until_retry(self) -> float:
        """s until a server may be tried again."""
        servers = self._around.servers
        return max(0.2, min((servers.wait(server) for server in self.instance.servers), default=10.0))

    def _goes_on(self, link: Link) -> bool:
        """Whether a session whose dialog has ended goes on elsewhere."""
        ended = link.ended or Ended(EndedBy.TRANSPORT)
        why = ended.text or {EndedBy.PEER: "it said BYE", EndedBy.TIMER: "its session timer ran out"}.get(
            ended.by, "it was lost"
        )
        self._attempt(link.server, why)
        self.link = None
        if ended.by is EndedBy.PEER and self.instance.on_bye is OnBye.END:
            self.note = f"ended by the server: {why}"
            return False
        old = {leg.source: report for leg, report in self.media.reports().items()}
        self._lost = ended
        self._move = _Move(link.server.uri, why, old, 0.0)
        self.state = SessionState.CONNECTING
        for call in self.calls:
            call.associated = self._around.clock()
        return True

    def _alive_until(self) -> int:
        """Capture time until which the server that was left is known to have been there."""
        now = self._around.clock()
        lost, move = self._lost, self._move
        if lost is None or move is None or lost.by is EndedBy.PEER:
            return now
        heard = [each.heard_from for each in move.old.values() if each.heard_from is not None]
        return max([*heard, now - self._around.servers.silent_for(move.before) * MILLISECOND])

    def _end(self) -> None:
        self._close_media()
        if self._move is not None and self._move.at:
            self._tell_move({}, late=True)
        self.link = None
        if self.state is not SessionState.FAILED:
            self.state = SessionState.ENDED
        if self._started:
            sent, unsent = self.media.sent
            self._tell(EventKind.STOP, self.note, details={"packets": sent, "unsent": unsent})
        self._done(self)

    def _close_media(self) -> None:
        self.media.close()

    def _over(self, call: RecordedCall) -> None:
        """A call has ended."""
        if not self.instance.persistent:
            self._finishing = all(each.picture.phase is Phase.OVER for each in self.calls)
        else:
            call.until = self._around.clock()
            self.media.forget(call)
        self._changed()

    def _take_away(self, link: Link) -> None:
        """The server knows of calls that are over."""
        if any(call.until is not None for call in self.calls):
            self.calls[:] = [call for call in self.calls if call.until is None]
            link.forget()

    # Small things

    def _link(self, server: Server) -> Link:
        agent = self._around.agents[self.instance.agent]
        return Link(agent, server, self.instance, self.media, self._around.clock, self._changed, self.calls)

    def _secure(self, server: Server) -> bool:
        """Whether media go out as SRTP."""
        encrypted = any(call.encrypted for call in self.calls)
        return server.protection is Protection.SAVP or (server.protection is Protection.SAME and encrypted)

    def _unsafe(self, server: Server) -> str:
        """Why a server must not have this session (RFC 7866, section 12); empty where it may."""
        secure, hidden = self._secure(server), uses_tls(server)
        if secure and not hidden and not server.keys_in_clear:
            return "media keys would go there unencrypted; use TLS"
        if any(call.encrypted for call in self.calls) and not (secure and (hidden or server.keys_in_clear)):
            if self.instance.insecure is Insecure.REFUSE:
                return "the call is encrypted, and this server would get it in the clear"
            self.note = "the call is encrypted, its recording is not"
        return ""

    def _attempt(self, server: Server, outcome: str) -> None:
        self.attempts.append(f"{server.uri}: {outcome}"[:200])

    def _changed(self) -> None:
        self._wake.set()

    async def _ask_alive(self, link: Link) -> None:
        """Within the dialog: a failure ends it, by the agent."""
        if link.session is None or link.over:
            return
        try:
            await link.session.request("OPTIONS")
        except (RefusedError, UnreachableError):
            return
        link.notes.append("sends no receiver reports any more")

    async def _leave(self, link: Link) -> None:
        """Say BYE to a server that is thought dead, in case that it is not."""
        if link.session is not None and not link.session.over:
            try:
                await asyncio.wait_for(link.session.bye(), GOODBYE)
            except TimeoutError:
                return

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    def _tell(
        self,
        kind: EventKind,
        text: str,
        *,
        call: RecordedCall | None = None,
        details: Mapping[str, str | int | float | None] | None = None,
    ) -> None:
        about = call or (self.calls[0] if self.calls else None)
        self._around.tell(
            SessionEvent(
                kind=kind,
                at=self._around.clock(),
                session=self.id,
                call=str(about.picture.id) if about is not None else "",
                call_id=(about.picture.call_id or "") if about is not None else "",
                peer=self.link.server.uri if self.link is not None else "",
                text=text,
                details={**(details or {}), "instance": self.instance.name}
                if self.instance.name
                else dict(details or {}),
            )
        )

    def _tell_move(self, reports: Mapping[LegId, LegReport], *, late: bool = False) -> None:
        """What lies between the last packet to one server and the first to the next, once that is known."""
        move = self._move
        assert move is not None
        new = {leg.source: report for leg, report in reports.items()}
        settled = all(source in new and new[source].first is not None for source in move.old)
        if not settled and not late and asyncio.get_running_loop().time() - move.at < SETTLED:
            return
        self._move = None
        details: dict[str, str | int | float | None] = {"from": move.before}
        details.update(_between(move.old, new))
        self._tell(EventKind.FAILOVER, move.why, details=details)


def _between(
    old: Mapping[Source, LegReport], new: Mapping[Source, LegReport]
) -> Iterator[tuple[str, str | int | float | None]]:
    """Of each direction: last packet to the old server, first to the new, ms between them, packets that are lost."""
    for source, report in old.items():
        now = new.get(source)
        first = now.first if now is not None else None
        side = f"{source.side} {source.media_index}"
        yield f"{side} last", report.last
        yield f"{side} first", first
        if report.last is not None and first is not None:
            yield f"{side} gap ms", max(0, first - report.last) / 1e6
        yield f"{side} lost", now.unsent if now is not None else None


def uses_tls(server: Server) -> bool:
    """Whether signalling goes to a server by TLS."""
    uri = (server.via or server.uri).lower()
    return uri.startswith("sips:") or ";transport=tls" in uri
