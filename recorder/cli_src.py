"""`spanrec src`: our recording client (SRC) as a command.

In: the command line, spanrec.toml. Out: a recording session at a server for every call that is seen, until told to stop
(SIGTERM, SIGINT), or with -r until the captures have been played to their end. Exit status as of `spanrec capture`.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recorder import cli_options as option

if TYPE_CHECKING:
    from capture.live import LiveSource
    from recorder.call_facts import CallFacts
    from recorder.log import ServiceLog
    from recorder.siprec.control import SessionEvent
    from recorder.siprec.spool import Spool
    from recorder.siprec.spooling import Spooling
    from recorder.siprec.src_decision import SrcDecision
    from recorder.siprec.src_files import SrcFiles
    from recorder.siprec.src_rules import SrcRules
    from recorder.siprec.src_service import SrcService
    from recorder.siprec.src_sessions import Kept
    from recorder.siprec.src_settings import SrcSettings

FORWARD_RING = 32 << 20
"""Octets of the ring that media is forwarded from: it is never left to itself for long."""
FORWARD_BLOCK = 64 << 10
FORWARD_RETIRE = 2
"""ms after which the kernel hands over what has come."""
FORWARD_PACE = 0.002
LEAD = 0.5
"""s before a capture's first packet."""
SPOOL = ".spool"
"""Below the documents: calls that wait for a server."""
SESSIONS = ".sessions"
"""Likewise: which sessions are in progress."""
LAST = 20.0
"""s that sessions have to end after a capture's last packet."""


def src_command(
    srs: Annotated[
        str | None,
        typer.Option(metavar="URIS", help='Recording servers in order: "sip:rec1.example;transport=tcp, sip:rec2".'),
    ] = None,
    interface: Annotated[
        list[str] | None, typer.Option("-i", "--interface", metavar="NAME", help="Take calls from this interface.")
    ] = None,
    read: Annotated[
        list[Path] | None, typer.Option("-r", "--read", metavar="CAPTURE", help="Take calls from captures instead.")
    ] = None,
    speed: Annotated[float, typer.Option(min=0.01, metavar="X", help="Seconds of a capture in a second.")] = 1.0,
    hep: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Take signalling as HEP from proxies too: 127.0.0.1:9060.")
    ] = None,
    hep_key_file: option.HepKeyFile = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="OUT", envvar="SPANREC_OUT", show_default="its state directory",
            help="Directory for documents of the calls, and recordings where asked for.",
        ),
    ] = None,
    record: Annotated[bool, typer.Option("--record", help="Record the calls here too.")] = False,
    filter_: option.Filter = None,
    promiscuous: option.Promiscuous = True,
    ring_size: option.RingSize = 128,
    workers: option.Workers = 0,
    listen: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Serve status and commands here; empty: nowhere.")
    ] = None,
    token_file: option.CommandTokenFile = None,
    status_socket: option.CommandSocket = None,
    user: option.User = None,
    sandbox: option.Sandbox = True,
) -> None:  # fmt: skip
    """Give every call on an interface or in a capture a SIPREC session at a recording server."""
    interfaces, captures = interface or [], read or []
    if bool(interfaces) == bool(captures):
        raise typer.BadParameter("name an interface (-i), or captures (-r), and not both")
    if captures and hep is not None:
        raise typer.BadParameter("goes with an interface (-i)", param_hint="--hep")
    from recorder import privileges
    from recorder.allocator import keep_little
    from recorder.live_command import (
        Recording,
        enter_sandbox,
        event_teller,
        live_service,
        open_others,
        rehearse,
        run_service,
        serve_status,
        start_log,
    )
    from recorder.siprec.control_pages import ControlPages
    from recorder.siprec.src_files import read_files
    from recorder.warmup import choose_kernel_cache, load_kernels_directly

    keep_little()
    rules = Rules(srs)
    settings = rules.settings
    files = read_files(settings)  # the key may be for root alone
    if user is not None:
        privileges.become(user)
        choose_kernel_cache()
    if interfaces:
        privileges.require(interfaces)
    if not settings.usual.servers and not settings.servers.servers:
        raise typer.BadParameter("name a recording server: --srs, or srs in [src] of spanrec.toml")
    store = out or _state_directory()
    log = start_log()
    with ExitStack() as stack:
        load_kernels_directly()
        rehearse(log)
        ends = _Ends(interfaces, captures, speed, ring_size << 20, filter_, promiscuous)
        calls, media = ends.open(stack)
        dropped = privileges.drop(user)
        log.logger.info("privileges-dropped", user=dropped.user, capabilities=len(dropped.capabilities))
        sources = [calls]
        store.mkdir(parents=True, exist_ok=True)
        for other in open_others(hep, hep_key_file, (), False, store, 1):
            sources.append(other)
            stack.callback(other.close)
        tell = event_teller(log, settings.webhooks, stack)
        spool = None if captures else open_spool(settings, store, tell)
        kept = None if captures else store / SESSIONS
        src, spooling = make_src(rules, tell, log, ends.clock, spool, recording=record, kept=kept, files=files)
        stack.callback(src.close)
        commands = ControlPages(src.start(media), media=src.media_counts)
        stack.callback(commands.close)
        control = settings.control
        reload = partial(rules.reload, log)
        how = Recording(workers=workers, audio=record, followers=[src.follower], reloaded=reload)
        if spooling is not None:
            how = replace(how, published=spooling.published, recent_media=True)
        service = live_service(store, log, how)
        src.overloaded = lambda: service.overloaded
        serve_status(
            service,
            control.listen if listen is None else listen,
            token_file or control.token_file,
            status_socket or control.socket,
            stack,
            log,
            commands,
        )
        if sandbox:
            enter_sandbox(log)
        log.logger.info(
            "sessions-ready", listening=list(src.listening), servers=[s.uri for s in settings.usual.servers]
        )
        run_service(service, sources, log)
        if captures and not service.stopping:
            src.wait(LAST)


class _Ends:
    """The two sources of one and the same packets: for the engine, and for the forwarder."""

    def __init__(
        self,
        interfaces: Sequence[str],
        captures: Sequence[Path],
        speed: float,
        ring: int,
        expression: str | None,
        promiscuous: bool,
    ) -> None:
        self.clock: Callable[[], int] = time.time_ns
        self._interfaces, self._captures, self._speed = interfaces, captures, speed
        self._ring, self._expression, self._promiscuous = ring, expression, promiscuous

    def open(self, stack: ExitStack) -> "tuple[LiveSource, LiveSource]":
        """Open both."""
        if self._captures:
            from capture.paced_source import Pace, PacedSource

            pace = Pace(self._speed)
            self.clock = lambda: pace.now() or time.time_ns()
            calls: LiveSource = PacedSource(self._captures, pace, lead=LEAD)
            media: LiveSource = PacedSource(self._captures, pace, lead=LEAD)
        else:
            from capture.ring import RingOptions, RingSource

            options = RingOptions(expression=self._expression, promiscuous=self._promiscuous, ring_size=self._ring)
            calls = RingSource(self._interfaces, options)
            media = forwarding_ring(self._interfaces, self._expression, promiscuous=self._promiscuous)
        stack.callback(calls.close)
        stack.callback(media.close)
        return calls, media


def forwarding_ring(interfaces: Sequence[str], expression: str | None, *, promiscuous: bool) -> "LiveSource":
    """A ring of its own that media is forwarded from as soon as it comes."""
    from capture.ring import RingOptions, RingSource

    return RingSource(
        interfaces,
        RingOptions(
            expression=expression,
            promiscuous=promiscuous,
            ring_size=FORWARD_RING,
            block_size=FORWARD_BLOCK,
            retire_ms=FORWARD_RETIRE,
            pace=FORWARD_PACE,
        ),
    )


class Rules:
    """The rules in force, and what they stand on."""

    def __init__(self, srs: str | None) -> None:
        """`srs`: servers that the command line names instead of those of the settings."""
        from recorder.siprec.sip_settings import Secrets

        self._srs = srs
        self._secrets = Secrets()
        self.settings, self._rules = self._load()

    def decide(self, facts: "CallFacts") -> "SrcDecision":
        """What to do with a call that begins."""
        return self._rules.decide(facts)

    def reload(self, log: "ServiceLog") -> None:
        """Take the rules of the settings again. They have been checked, but for files that they name and the command
        line: where these do not fit, that is told, and the old ones stay. Sockets stay as they are."""
        from capture.errors import SpanrecError

        try:
            _, self._rules = self._load()
        except (SpanrecError, typer.BadParameter) as error:
            log.logger.warning("settings-refused", text=f"{error}; the rules of recording sessions stay as they were")

    def _load(self) -> "tuple[SrcSettings, SrcRules]":
        from capture.errors import SpanrecError
        from recorder import settings
        from recorder.siprec.src_rules import load_rules
        from recorder.siprec.src_settings import load_src

        path = settings.file_of(Path.cwd(), os.environ)
        values = settings.load(Path.cwd(), os.environ)
        found = load_src(values, path, secrets=self._secrets)
        if self._srs is not None:
            try:
                servers = found.servers.find(self._srs)
            except (ValueError, SpanrecError) as error:
                raise typer.BadParameter(str(error), param_hint="--srs") from error
            found = replace(found, usual=replace(found.usual, servers=servers))
        return found, load_rules(values, path, found)


def _state_directory() -> Path:
    """Where what is known of calls stands, where nothing else is said."""
    given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "spanrec-src"


def open_spool(settings: "SrcSettings", store: Path, tell: "Callable[[SessionEvent], None]") -> "Spool":
    """Where calls wait for a server. Raises SpoolError."""
    import shutil

    from recorder.siprec.spool import Spool

    directory = settings.spool.directory or store / SPOOL
    now = time.time_ns()
    return Spool(
        directory,
        most_octets=settings.spool.max_size.of(shutil.disk_usage(store).total),
        most_age=now - settings.spool.max_age.before(now),
        clock=time.time_ns,
        tell=tell,
    )


def make_src(
    rules: Rules,
    tell: "Callable[[SessionEvent], None]",
    log: "ServiceLog",
    clock: Callable[[], int],
    spool: "Spool | None",
    *,
    recording: bool,
    kept: Path | None,
    files: "SrcFiles | None" = None,
) -> "tuple[SrcService, Spooling | None]":
    """The SRC by the settings, not started, and what fills its spool. `clock` gives capture time in ns; `recording`:
    calls are recorded here too, and keep their packets; `kept`: where sessions in progress are written down; `files`:
    read before the process became another user."""
    from recorder.siprec.control import EventKind, SessionEvent
    from recorder.siprec.spooling import Spooling
    from recorder.siprec.src_service import SrcService, SrcTold

    def lost(why: str, kept: "Kept") -> None:
        picture = kept.picture
        text = f"not delivered, or not all of it, and {why}"
        tell(SessionEvent(EventKind.FAILURE, clock(), call=str(picture.id), call_id=picture.call_id or "", text=text))

    def failed(error: BaseException) -> None:
        log.logger.error("src-failed", text=f"{type(error).__name__}: {error}")

    if spool is None:
        told = SrcTold(tell, partial(lost, "calls of captures are not kept"), failed=failed)
        return SrcService(rules.settings, rules.decide, told, clock, None, kept, files), None
    spooling = Spooling(
        spool,
        lambda text: log.logger.error("spool-failed", text=text),
        partial(lost, "it was over before its packets could be kept"),
        leave_packets=recording,
    )
    told = SrcTold(tell, spooling.keep, spooling.doubted, spooling.spared, failed)
    return SrcService(rules.settings, rules.decide, told, clock, spool, kept, files), spooling
