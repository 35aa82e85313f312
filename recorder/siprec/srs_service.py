"""Our recording server beside the engine of a live service: its threads, what they stand on, in which order they end.

In: settings, a service's word why nothing more can be recorded. Out: a source of the media of sessions, a `Follower`,
both for the service, and the commands of an operator. Two threads: the engine's (`follower`, `source`), the sessions'.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass, field
from pathlib import Path

from capture.errors import SpanrecError
from capture.media_ports import MediaPortOptions, MediaPorts
from decoders.sip import SipMessage
from recorder.sip_ua.agent import Admit
from recorder.sip_ua.api import Peer, Reply
from recorder.sip_ua.config import AgentConfig
from recorder.sip_ua.framing import MAX_BODY
from recorder.siprec.admission import Admission
from recorder.siprec.control import SessionEvent
from recorder.siprec.loop import SessionLoop
from recorder.siprec.media_reception import MediaReception
from recorder.siprec.port_ledger import PortLedger
from recorder.siprec.sip_stack import SipStack, StackOptions, open_stack
from recorder.siprec.srs_calls import SessionCalls
from recorder.siprec.srs_files import SrsFiles, read_files
from recorder.siprec.srs_sessions import RecordingServer, ServerSettings
from recorder.siprec.srs_settings import SrsSettings

OPENING = 20.0
"""s that opening the sockets may take."""
GOODBYE = 10.0
"""s that ending all sessions may take."""


@dataclass(frozen=True, slots=True)
class SrsTold:
    """Who is told what; all of it in the sessions' thread."""

    event: Callable[[SessionEvent], None] = lambda event: None
    trouble: Callable[[str], None] = lambda text: None
    """A disk that refuses what was received."""
    failed: Callable[[BaseException], None] = lambda error: None
    """What nobody foresaw, and ended nothing."""


@dataclass(frozen=True, slots=True)
class _Open:
    """What is open in the sessions' loop."""

    stack: SipStack
    server: RecordingServer
    watch: "asyncio.Task[None]"


def media_ports(settings: SrsSettings, capture: int = 0) -> MediaPorts:
    """Where media is received; `capture` is the index of the source in its batches. CAP_BPF and CAP_NET_ADMIN make it
    cheaper."""
    return MediaPorts(MediaPortOptions(low=settings.ports.low, high=settings.ports.high), capture=capture)


@dataclass(eq=False)
class SrsService:
    """Between `start` and `close`."""

    settings: SrsSettings
    full: Callable[[], str | None] = lambda: None
    """A word why nothing more can be recorded now; asked in the sessions' thread."""
    correction: Callable[[], int] = lambda: 0
    """What is added to wall-clock times to have capture times, ns."""
    told: SrsTold = field(default_factory=SrsTold)
    capture: int = 0
    """Index of the source in its batches."""
    ports: MediaPorts | None = None
    """Made before rights were given up, so that one socket may take what comes to all; None: made here."""
    files: SrsFiles | None = None
    """Read before rights were given up; None: read at `start`."""
    certificate: Callable[[str | None], None] = lambda trouble: None
    """Told in the sessions' thread, twice a minute, why our certificate cannot be renewed, None where it can."""

    def __post_init__(self) -> None:
        ports = self.ports or media_ports(self.settings, self.capture)
        self.source = MediaReception(ports, announced=self.settings.announce)
        self.follower = SessionCalls(
            keep=self.settings.keep_received,
            correction=self.correction,
            trouble=self.told.trouble,
            failed=self.told.failed,
            running=self._noted_from_now_on,
        )
        self.admission = Admission(self.settings.rules, self.full)
        self._loop = SessionLoop(self.told.failed)
        self._open: _Open | None = None

    def go_on(self, out: Path) -> None:
        """Calls of an earlier run that was interrupted may be in progress in the store `out`: leave their ports alone
        until their SRCs have noticed, lest one call be heard in another's recording; and know what had been taken and
        not noted yet. To be called before `start`."""
        left = self.source.remember(PortLedger(out, trouble=self.told.trouble))
        self.follower.taken_before({each.name: each.since for each in left if each.name})

    def start(self) -> RecordingServer:
        """Open the sockets. Gives the operator's commands. Raises SpanrecError where a socket cannot be opened."""
        self._loop.start()
        try:
            opened = self._open = self._loop.run(self._begin()).result(OPENING)
        except (Late, SpanrecError):
            self._loop.close()
            raise
        return opened.server

    def _noted_from_now_on(self) -> None:
        """The engine takes calls; in its thread."""
        if self._open is not None:
            self._loop.call(self._open.server.go_on)

    @property
    def listening(self) -> Sequence[str]:
        """Where clients reach us."""
        return [str(each) for each in self._open.stack.listening] if self._open is not None else ()

    def drain(self) -> str:
        """Take no new sessions from now on; says so."""
        self.admission.draining = True
        left = self._open.server.count if self._open is not None else 0
        return f"No new sessions are taken; {left} are in progress."

    def leave(self) -> None:
        """Take no new sessions, wait for the others as long as the settings say, then end what is left. The follower
        learns of it in its next turn."""
        if self._open is not None:
            self._loop.run(self._open.server.drain(self.settings.drain)).result()
            self._end_sessions()

    def _end_sessions(self) -> None:
        if self._open is None:
            return
        try:
            self._loop.run(self._open.server.close()).result(GOODBYE)
        except Late:
            self.told.failed(TimeoutError("sessions did not end in time"))

    def close(self) -> None:
        """End all sessions, then what carries them."""
        self._end_sessions()
        opened, self._open = self._open, None
        if opened is not None:
            try:
                self._loop.run(self._end(opened)).result(GOODBYE)
            except Late:
                self.told.failed(TimeoutError("the user agent did not end in time"))
            self._loop.close()
        self.source.close()

    async def _begin(self) -> _Open:
        settings = self.settings
        config = AgentConfig(
            session_expires=settings.session_expires,
            max_sessions=settings.rules.most_sessions,
            retry_after=settings.rules.retry_after,
        )
        files = self.files or read_files(settings)
        options = StackOptions(
            settings.listen,
            settings.tls,
            config,
            contexts=files.tls,
            trouble=self.certificate,
            largest_body=max(MAX_BODY, 2 * settings.rules.largest_body),
        )
        ask = files.challenge
        admit = rate_first(self.admission, ask, time.monotonic) if ask is not None else None
        stack = await open_stack(options, lambda: admit)
        behaviour = ServerSettings(
            settings.strictness, settings.silence, settings.snapshot_after, settings.media_address
        )
        server = RecordingServer(stack.agent, self.source, self.follower, self.admission, behaviour, run=self._loop.run)
        server.listen(self.told.event)
        server.hold()
        return _Open(stack, server, asyncio.get_running_loop().create_task(server.watch()))

    async def _end(self, opened: _Open) -> None:
        opened.watch.cancel()
        await opened.stack.agent.close()


def rate_first(admission: Admission, ask: Admit, clock: Callable[[], float]) -> Admit:
    """`ask`, but only where a peer is within its rate: a challenge costs more than it looks. `clock`: monotonic, s."""
    admission.rated = True

    def admit(message: SipMessage, peer: Peer) -> Reply | Peer:
        refusal = admission.rate(peer, clock())
        if refusal is None:
            return ask(message, peer)
        admission.count(refusal)
        return Reply(refusal.status, refusal.reason, headers=[("Retry-After", str(refusal.retry_after))])

    return admit
