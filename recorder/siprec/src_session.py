"""One recording session of ours, wherever it goes: it begins at a server, goes on at another when that fails, and ends.

In: pictures of the calls that it records, what an operator asks, how its server does (`Stay`). Out: one `Link` at a
time, legs at the forwarder, events. All of it runs in one asyncio loop. A session's identifiers (of calls,
participants, groups) are the same at every server (RFC 7865, section 6.10).
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from capture.port_pool import PortsExhausted
from recorder.sip_ua.api import Ended, EndedBy, Session
from recorder.siprec.control import EventKind, SessionState
from recorder.siprec.legs import LegId, LegReport
from recorder.siprec.picture import CallPicture, Phase
from recorder.siprec.snapshot import Elements
from recorder.siprec.src_connect import Connector, Surroundings
from recorder.siprec.src_decision import Instance, OnBye
from recorder.siprec.src_farewell import finish, goodbye
from recorder.siprec.src_keeping import Keeping
from recorder.siprec.src_link import Link
from recorder.siprec.src_media import MediaOptions, RecordedCall, SrcMedia
from recorder.siprec.src_stay import Stay, why_ended
from recorder.siprec.src_telling import Telling

RECENT = 12.0
"""s after the answer within which some may still wait."""


class SrcSession:
    """A recording session. `done` is called once, when it is over."""

    def __init__(
        self, name: str, instance: Instance, around: Surroundings, done: Callable[["SrcSession"], None]
    ) -> None:
        self.id = name
        self.instance = instance
        self.state = SessionState.CONNECTING
        self.calls: list[RecordedCall] = []
        self.since = around.clock()
        self.note = ""
        self.link: Link | None = None
        self.media = SrcMedia(
            around.forwarder,
            MediaOptions(instance.media, instance.on_hold),
            number=around.number(),
            octets=around.octets,
        )
        self.connector = Connector(instance, around, self.media, self.calls, self._changed)
        peer = instance.servers[0].uri if instance.servers else ""
        self.telling = Telling(name, instance, around, self.calls, peer)
        self.keeping = Keeping(instance, around, self.calls, self.telling)
        self._around = around
        self._done = done
        self._stay = Stay(around.clock, around.servers, self.media, self.connector, self.telling.tell)
        self._wake = asyncio.Event()
        self._finishing = False
        self._started = self._over = False
        self._task: asyncio.Task[None] | None = None
        self._aside: set[asyncio.Task[None]] = set()

    # Calls

    def start(self) -> None:
        """Begin to connect; at least one call has been added."""
        self._without_server()
        self._begin(self._run)

    def start_with(self, session: Session, elements: Elements) -> None:
        """Begin with a dialog that a server asked for, and that was answered with our offer and these metadata."""
        link = self.connector.link(self.instance.servers[0])
        self._begin(partial(self._run_asked, link, session, elements))

    def _begin(self, life: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._task = asyncio.get_running_loop().create_task(self._live(life))
        # What is cancelled before its first step runs no line of its own.
        self._task.add_done_callback(lambda _: self._end())

    def takes(self, picture: CallPicture) -> bool:
        """Whether a call finds a place here too, and may be where this session is."""
        if self._finishing or self._over or self.call(picture.index) is not None or not self.media.room(picture):
            return False
        return self.link is None or not self.connector.why_not(self.link.server, RecordedCall(picture, 0))

    def add(self, picture: CallPicture, since: int, *, paused: bool = False, late: bool = False) -> RecordedCall:
        """Record a call too, from capture time `since` on. Raises PortsExhausted."""
        call = RecordedCall(picture, since, self.instance.overrides, by_rule=paused, late=late)
        call.associated = self._around.clock()
        self.telling.first = self.telling.first or picture
        self.media.add(call)
        self.calls.append(call)
        if self.state is SessionState.SPOOLING:
            self._miss("no recording server can be had")
        self._changed()
        return call

    def take(self, picture: CallPicture, *, paused: bool) -> None:
        """Something of a call changed; `paused`: a rule wants nothing recorded now."""
        call = self.call(picture.index)
        if call is None or call.until is not None:
            return
        call.picture = picture
        if picture.phase is Phase.OVER:
            self._call_over(call)
            return
        self._set_paused(call, by_rule=paused)
        if self.media.offer.host:
            try:
                self.media.follow(call)
            except (PortsExhausted, ValueError) as error:
                self.telling.tell(EventKind.FAILURE, f"a stream is not recorded: {error}", call=call)
        why = self.connector.why_not(self.link.server) if self.link is not None else ""
        if why:
            self.note = f"the call has become encrypted: {why}"
            self.telling.tell(EventKind.FAILURE, self.note, call=call)
            self.stop()
        self._changed()

    def call(self, index: int) -> RecordedCall | None:
        """A call in it that is being recorded."""
        return next((call for call in self.calls if call.picture.index == index and call.until is None), None)

    # Commands

    def set_paused(self, call: RecordedCall | None = None, *, paused: bool) -> None:
        """Record nothing of a call, or of all, for now; or again."""
        for each in [call] if call is not None else self.calls:
            self._set_paused(each, by_operator=paused)
        self._changed()

    def stop(self, call: RecordedCall | None = None) -> None:
        """End it, or leave a call of several; calls themselves go on."""
        if call is not None and self.instance.persistent:
            self._leave_out(call)
            return
        self._finishing = True
        if self.link is None and self._task is not None:
            self._task.cancel()
        self._changed()

    def abandon(self) -> None:
        """End it at once, whatever state it is in."""
        self._finishing = True
        for task in self._aside:
            task.cancel()
        if self._task is not None:
            self._task.cancel()
        else:
            self._end()

    # How the server does

    @property
    def uneasy(self) -> bool:
        """Whether it is to be looked at soon."""
        return self._stay.uneasy

    def look(self, reports: Mapping[LegId, LegReport]) -> None:
        """Look whether the server still takes media; once in two seconds, twice a second while it is `uneasy`."""
        if self.link is None or self.link.over:
            return
        found = self._stay.look(self.link, reports)
        if found.lost:
            self.lose(found.lost)
        elif found.ask:
            self._beside(self.link.ask_alive())

    def server_down(self) -> None:
        """The server of this session cannot be reached."""
        why = self._stay.unreachable(self.link) if self.link is not None else ""
        if why:
            self.lose(why)

    def lose(self, why: str) -> None:
        """The server is not there any more: go elsewhere."""
        link = self.link
        if link is None or link.over:
            return
        link.ended = Ended(EndedBy.TRANSPORT, text=why)
        self._around.servers.failed(link.server, unreachable=True)
        self._beside(goodbye(link))
        self._changed()

    def retry(self) -> None:
        """A server is back."""
        if self.state is SessionState.SPOOLING:
            self._changed()

    async def wait(self) -> None:
        """Until it is over."""
        tasks = [task for task in (self._task, *self._aside) if task is not None]
        if tasks:
            await asyncio.wait(tasks)

    # Its life

    async def _live(self, life: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await life()
        except asyncio.CancelledError:
            if not self._finishing:
                raise
        except (PortsExhausted, ValueError) as error:
            self._fail(str(error))
        except Exception as error:  # nobody foresaw it: those who listen must know that the calls are not recorded
            self._fail(f"broke off: {type(error).__name__}")
            raise
        finally:
            self._end()

    async def _run(self) -> None:
        while True:
            link = await self.connector.connect()
            if link is None:
                if not await self._wait_for_server():
                    return
                continue
            self._connected(link)
            if await self._serve(link) or not self._goes_on(link):
                return
            if self._stay.pause:
                await self._pause(self._stay.pause)

    async def _run_asked(self, link: Link, session: Session, elements: Elements) -> None:
        link.adopt(session, elements)
        acknowledgement = await session.acknowledged()
        if acknowledgement is None:
            self._fail("the server did not acknowledge")
            return
        await link.take_answer(acknowledgement)
        self._connected(link)
        self._around.servers.succeeded(link.server)
        await self._serve(link)

    def _connected(self, link: Link) -> None:
        self.link, self.telling.peer = link, link.server.uri
        self.keeping.served()
        self._around.servers.hold(link.server, +1)
        moved = self._stay.begin()
        self._set_state()
        if self.connector.warning:
            self.note = self.connector.warning
        if not moved and not self._started:
            self.telling.tell(EventKind.START, self.connector.warning)
        self._started = True

    async def _serve(self, link: Link) -> bool:
        """Keep the server up to date; says whether the session is over, and not only its dialog."""
        try:
            while not link.over:
                self._wake.clear()
                if self._finishing:
                    if not await finish(link, self._around.clock, recent=self._stay.seconds < RECENT) and (
                        not self.keeping.unheard()
                    ):
                        self.note = "the server was gone at the end: it may lack what it had not written yet"
                        self.telling.tell(EventKind.FAILURE, self.note)
                    return True
                wait = link.wait()
                if wait == 0:
                    await link.update()
                    self._take_away(link)
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._wake.wait()
            return self._finishing
        finally:
            self._around.servers.hold(link.server, -1)

    async def _wait_for_server(self) -> bool:
        """No server can be had: keep the calls, and try again. False where there is nothing to wait for."""
        if self.connector.ended_by:
            self._fail(f"{self.connector.ended_by}, after which no other server is tried")
            return False
        if not self._miss(self.connector.trouble):
            return False
        if not self._finishing:
            await self._pause(self.connector.until_retry())
        return not self._finishing

    def _miss(self, why: str) -> bool:
        """Calls are not delivered: keep them, or fail; whether they are kept."""
        if not self.instance.spool:
            self._fail(why)
            return False
        if self.keeping.miss(why):
            self.state = SessionState.SPOOLING
        return True

    async def _pause(self, seconds: float) -> None:
        """Wait, or until there is something to do."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)
        self._wake.clear()

    def _goes_on(self, link: Link) -> bool:
        """Whether a session whose dialog has ended goes on elsewhere."""
        ended = link.ended or Ended(EndedBy.TRANSPORT)
        why = why_ended(ended)
        self.connector.note(link.server, why)
        self.link = None
        if ended.by is EndedBy.PEER and self.instance.on_bye is OnBye.END:
            self.note = f"ended by the server: {why}"
            return False
        if not self._stay.leave(link, ended):
            self._miss("servers take it and end it at once")
            return False
        self.state = SessionState.CONNECTING
        self._without_server()
        now = self._around.clock()
        for call in self.calls:
            call.associated = now
        return True

    def _end(self) -> None:
        if self._over:
            return
        self._over = True
        self._stay.close()
        self.media.close()
        for call in self.calls:
            self.keeping.settle(call)
        if self.state is not SessionState.FAILED:
            self.state = SessionState.ENDED
        if self._started:
            sent, unsent = self.media.sent
            self.telling.tell(EventKind.STOP, self.note, {"packets": sent, "unsent": unsent})
        self.link = None
        self.connector.let_go()
        self._done(self)

    def _call_over(self, call: RecordedCall) -> None:
        if self.instance.persistent:
            self._leave_out(call)
        else:
            self._finishing = all(each.picture.phase is Phase.OVER for each in self.calls)
            self._changed()

    def _leave_out(self, call: RecordedCall) -> None:
        """A call of several is over, or is to be recorded no longer."""
        call.until = self._around.clock()
        self.media.forget(call)
        self.keeping.settle(call)
        if self.link is None:
            self.calls.remove(call)
        self._changed()

    def _take_away(self, link: Link) -> None:
        """The server knows by now of calls that are over."""
        if any(call.until is not None for call in self.calls):
            self.calls[:] = [call for call in self.calls if call.until is None]
            link.forget()

    # Small things

    def _set_paused(self, call: RecordedCall, *, by_rule: bool | None = None, by_operator: bool | None = None) -> None:
        before = call.paused
        call.by_rule = call.by_rule if by_rule is None else by_rule
        call.by_operator = call.by_operator if by_operator is None else by_operator
        if call.paused is before:
            return
        self.media.set_sending()
        if self.link is not None:
            self._set_state()
        self.telling.tell(EventKind.PAUSE if call.paused else EventKind.RESUME, "", call=call)

    def _without_server(self) -> None:
        self.keeping.without(asyncio.get_running_loop().time())

    def _set_state(self) -> None:
        paused = bool(self.calls) and all(call.paused for call in self.calls)
        self.state = SessionState.PAUSED if paused else SessionState.RECORDING

    def _fail(self, why: str) -> None:
        self.note = why
        self.state = SessionState.FAILED
        self.telling.tell(EventKind.FAILURE, why)

    def _changed(self) -> None:
        self._wake.set()

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)
