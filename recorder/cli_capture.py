"""`spanrec capture`: the live service as a command.

In: the command line, spanrec.toml. Out: a service that runs until it is told to stop (SIGTERM, SIGINT), reads its
policy again on SIGHUP, and has given up its privileges before it looks at a packet. Exit status 0 stopped as told,
1 it cannot run, 2 wrong usage.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recorder.replay_types import AudioFormat

if TYPE_CHECKING:
    from capture.live import LiveSource
    from capture.tunnel_source import TunnelSource
    from recorder.live_catalogue import LiveCatalogue
    from recorder.log import ServiceLog
    from recorder.service import CaptureService


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted of interfaces."""

    expression: str | None
    excluded: str
    """What other sources take."""
    promiscuous: bool
    megabytes: int
    """Of each ring."""
    sockets: int


DEFAULT_LISTEN = "127.0.0.1:9180"
MEGABYTE = 1 << 20


def capture_command(
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", metavar="OUT", envvar="SPANREC_OUT", help="Directory of the recordings.", show_default=False
        ),
    ],
    interface: Annotated[
        list[str] | None, typer.Option("-i", "--interface", metavar="NAME", help="Record what crosses this interface.")
    ] = None,
    hep: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Take HEP from proxies here: 127.0.0.1:9060.")
    ] = None,
    hep_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File with the key that HEP senders must show.")
    ] = None,
    tunnel: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS", help="Take ERSPAN, GRE, VXLAN, GENEVE and TZSP sent to this address of ours."),
    ] = None,
    watch: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Take captures that are rotated into this directory.")
    ] = None,
    stdin: Annotated[bool, typer.Option("--stdin", help="Take a capture from standard input.")] = False,
    filter_: Annotated[
        str | None, typer.Option("--filter", metavar="EXPRESSION", help="tcpdump expression for the kernel.")
    ] = None,
    promiscuous: Annotated[
        bool, typer.Option("--promiscuous/--no-promiscuous", help="Take frames for others, as on a mirror port.")
    ] = True,
    ring_size: Annotated[int, typer.Option(min=4, metavar="MB", help="Memory of each interface's ring.")] = 256,
    sockets: Annotated[int, typer.Option(min=1, metavar="N", help="Rings per interface (PACKET_FANOUT).")] = 1,
    audio_format: Annotated[AudioFormat, typer.Option("--format", help="Of the audio files.")] = AudioFormat.WAV,
    mono: Annotated[bool, typer.Option("--mono", help="Mix both participants into one channel.")] = False,
    workers: Annotated[
        int, typer.Option(min=0, metavar="N", help="Threads that share the work; 0: one per processor.")
    ] = 0,
    stop_at: Annotated[
        str, typer.Option(metavar="SIZE", help="Free space below which no recording is begun: 5%, 2GB.")
    ] = "2%",
    resume_at: Annotated[str, typer.Option(metavar="SIZE", help="Free space at which recording goes on.")] = "4%",
    listen: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Serve metrics and health here; empty: nowhere.")
    ] = DEFAULT_LISTEN,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File with the token that readers of calls must show.")
    ] = None,
    status_socket: Annotated[
        Path | None,
        typer.Option("--socket", metavar="PATH", help="Unix socket for spanrec top.", show_default="its usual place"),
    ] = None,
    user: Annotated[str | None, typer.Option(metavar="NAME", help="Become this user; for a start by root.")] = None,
    sandbox: Annotated[
        bool, typer.Option("--sandbox/--no-sandbox", help="Refuse system calls that a recorder never needs.")
    ] = True,
) -> None:
    """Record every call that crosses an interface, until stopped."""
    interfaces = interface or []
    if not (interfaces or hep or tunnel or watch or stdin):
        raise typer.BadParameter("name an interface (-i), --hep, --tunnel, --watch or --stdin to record from")
    if hep_key_file is not None and hep is None:
        raise typer.BadParameter("needs --hep", param_hint="--hep-key-file")
    from recorder import privileges
    from recorder.log import open_log
    from recorder.warmup import choose_kernel_cache, load_kernels_directly

    if user is not None:
        privileges.become(user)
        choose_kernel_cache()
    if interfaces or tunnel:
        privileges.require(interfaces)
    log = open_log(sys.stderr, environment=os.environ)
    log.adopt_libraries()
    with ExitStack() as stack:
        load_kernels_directly()
        # Before the interfaces are open: no packet waits for the compiler.
        _rehearse(log)
        sources: list[LiveSource] = []
        tunnels = _open_tunnels(tunnel or ())
        for source in tunnels:
            sources.append(source)
            stack.callback(source.close)
        if interfaces:
            taken = " or ".join(f"({source.expression})" for source in tunnels)
            wanted = Wanted(filter_, taken, promiscuous, ring_size, sockets)
            sources.append(_open_interfaces(interfaces, wanted, len(sources)))
            stack.callback(sources[-1].close)
        dropped = privileges.drop(user)
        log.logger.info("privileges-dropped", user=dropped.user, capabilities=len(dropped.capabilities))
        for other in _open_others(hep, hep_key_file, watch or (), stdin, out, len(sources)):
            if getattr(other, "exposed", False):
                log.logger.warning("hep-exposed", source=other.name, text="anybody may send here; use --hep-key-file")
            sources.append(other)
            stack.callback(other.close)
        service = _service(out, audio_format, mono, workers, (stop_at, resume_at), log)
        _serve_status(service, listen, token_file, status_socket, stack, log)
        if sandbox:
            _enter_sandbox(log)
        _run(service, sources, log)


def _rehearse(log: "ServiceLog") -> None:
    """Compile what was never compiled here."""
    from recorder.rehearsal import rehearse_once

    seconds = rehearse_once("spanrec" in os.environ.get("NUMBA_CACHE_DIR", ""))
    if seconds:
        log.logger.info("rehearsed", seconds=round(seconds, 1))


def _open_tunnels(addresses: Sequence[str]) -> list["TunnelSource"]:
    """Sources of mirrors that end at this machine."""
    from capture.tunnel_source import TunnelSource

    return [TunnelSource(address, capture=number) for number, address in enumerate(addresses)]


def _open_interfaces(interfaces: Sequence[str], wanted: "Wanted", capture: int) -> "LiveSource":
    """A ring over the interfaces; where the system has no packet sockets, scapy's sniffer."""
    if not hasattr(socket, "AF_PACKET"):
        from capture.sniffer import SnifferSource

        return SnifferSource(interfaces, capture=capture, expression=wanted.expression, promiscuous=wanted.promiscuous)
    from capture.ring import RingOptions, RingSource

    options = RingOptions(
        expression=wanted.expression,
        excluded=wanted.excluded,
        promiscuous=wanted.promiscuous,
        ring_size=wanted.megabytes * MEGABYTE,
        sockets=wanted.sockets,
    )
    return RingSource(interfaces, options, capture=capture)


def _open_others(
    hep: str | None, key_file: Path | None, watch: Sequence[Path], stdin: bool, out: Path, capture: int
) -> Iterator["LiveSource"]:
    """Sources that need no privileges; `capture` is the index of the first."""
    if hep is not None:
        from capture.hep_source import HepSource

        yield HepSource(hep, key=None if key_file is None else _secret(key_file), capture=capture)
        capture += 1
    for directory in watch:
        from capture.watched_source import WatchedSource

        out.mkdir(parents=True, exist_ok=True)
        name = sha256(str(directory.resolve()).encode()).hexdigest()[:16]
        yield WatchedSource(directory, out / f".watched-{name}.json", capture=capture)
        capture += 1
    if stdin:
        from capture.pipe_source import PipeSource

        yield PipeSource(capture=capture)


def _secret(path: Path) -> str:
    """The first line of a file that others must not read."""
    from recorder.status_token import read_token

    return read_token(path)


def _service(
    out: Path,
    audio_format: AudioFormat,
    mono: bool,
    workers: int,
    marks: tuple[str, str],
    log: "ServiceLog",
) -> "CaptureService":
    """The service, with policy and retention of the settings file where there is one."""
    from recorder import settings
    from recorder.catalogue import FILE
    from recorder.catalogue_upkeep import newest_recording
    from recorder.cautious_clock import CautiousClock
    from recorder.disk_guard import DiskGuard
    from recorder.policy import PolicyHolder
    from recorder.policy_file import load_policy
    from recorder.retention_rules import load_retention
    from recorder.retention_run import RetentionRun
    from recorder.service import CaptureService, ServiceOptions

    path = settings.file_of(Path.cwd(), os.environ)
    found = settings.load(Path.cwd(), os.environ)
    holder = PolicyHolder(
        load_policy(found, path),
        lambda text: log.logger.warning("settings-refused", text=text),
        load_retention(found, path),
        lambda text: log.logger.info("settings-taken", text=text),
    )

    def note(text: str) -> None:
        log.logger.warning("retention", text=text)

    clock = CautiousClock(newest_recording(out / FILE), note)
    retention = RetentionRun(
        out=out,
        retention=lambda: holder.retention,
        clock=lambda: clock.read(time.time_ns(), time.monotonic_ns()),
        announce=lambda deleted: log.logger.info("recording-deleted", **deleted.fields()),
        note=note,
    )

    def upkeep(catalogue: "LiveCatalogue") -> None:
        retention(catalogue.connection)

    guard = DiskGuard(*marks)
    options = ServiceOptions(
        out=out,
        form=audio_format.value,
        mono=mono,
        workers=workers or len(os.sched_getaffinity(0)),
        disk_low=guard.low,
        disk_scarce=guard.scarce,
        upkeep=upkeep,
        settings=path,
    )
    return CaptureService(options, holder, log)


def _serve_status(
    service: "CaptureService",
    listen: str,
    token_file: Path | None,
    at: Path | None,
    stack: ExitStack,
    log: "ServiceLog",
) -> None:
    from recorder.status_address import own_socket, parse_address
    from recorder.status_server import StatusServer
    from recorder.status_token import read_token

    server = StatusServer(
        service.board, lambda error: log.logger.error("status-failed", text=f"{type(error).__name__}: {error}")
    )
    stack.callback(server.close)
    own = at or own_socket(os.environ)
    own.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    places = [server.listen(own)]
    if listen:
        token = read_token(token_file) if token_file is not None else None
        places.append(server.listen(parse_address(listen), token))
    server.start()
    log.logger.info("status-served", at=[str(place) for place in places])


def _enter_sandbox(log: "ServiceLog") -> None:
    from recorder.sandbox import enter

    entered = enter()
    log.logger.info("sandboxed", threads=entered.threads)


def _run(service: "CaptureService", sources: Sequence["LiveSource"], log: "ServiceLog") -> None:
    """Run until a signal says to stop."""
    from recorder.notify import ServiceManager

    manager = ServiceManager(os.environ)

    def stop(number: int, _: object) -> None:
        # Nothing is logged here: the thread may be in the middle of a line.
        service.stopped_by = signal.Signals(number).name
        service.stopping = True
        manager.stopping("finishing recordings")

    def reload(_: int, __: object) -> None:
        manager.reloading()
        service.reload = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    signal.signal(signal.SIGHUP, reload)

    def beat(sentence: str) -> None:
        manager.beat()
        if not service.reload:
            manager.reloaded(sentence)
        manager.status(sentence)

    def ready() -> None:
        names = [source.name for source in sources]
        log.logger.info("recording", sources=names)
        manager.ready(f"recording from {', '.join(names)}")

    service.run(sources, ready, beat)
