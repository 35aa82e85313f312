"""What the commands that run a service have in common: its log, its sources, its status, its end.

In: options of the command line, spanrec.toml. Out: the parts of a service, ready to run, and its run until a signal
tells it to stop (SIGTERM, SIGINT); SIGHUP has it read its settings again.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from capture.live import LiveSource
    from recorder.document import CallDocument
    from recorder.live_catalogue import LiveCatalogue
    from recorder.log import ServiceLog
    from recorder.service import CaptureService
    from recorder.service_types import Follower
    from recorder.siprec.control import SessionEvent
    from recorder.siprec.sip_settings import Webhook
    from recorder.status_server import Commands


def start_log() -> "ServiceLog":
    """The log of a service, on standard error."""
    from recorder.log import open_log

    log = open_log(sys.stderr, environment=os.environ)
    log.adopt_libraries()
    return log


def rehearse(log: "ServiceLog") -> None:
    """Compile what was never compiled here."""
    from recorder.rehearsal import rehearse_once

    seconds = rehearse_once("spanrec" in os.environ.get("NUMBA_CACHE_DIR", ""))
    if seconds:
        log.logger.info("rehearsed", seconds=round(seconds, 1))


def open_others(
    hep: str | None, key_file: Path | None, watch: Sequence[Path], stdin: bool, out: Path, capture: int
) -> Iterator["LiveSource"]:
    """Sources that need no privileges; `capture` is the index of the first."""
    if hep is not None:
        from capture.hep_source import HepSource

        yield HepSource(hep, key=None if key_file is None else read_secret_file(key_file), capture=capture)
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


def read_secret_file(path: Path) -> str:
    """The first line of a file that others must not read."""
    from recorder.status_token import read_token

    return read_token(path)


@dataclass(frozen=True, slots=True)
class Recording:
    """How a live service records."""

    form: str = "wav"
    mono: bool = False
    workers: int = 0
    """0: one per processor."""
    stop_at: str = "2%"
    resume_at: str = "4%"
    audio: bool = True
    """Write audio where the policy says so; without it, documents are all that is kept of calls."""
    followers: Sequence["Follower"] = ()
    reloaded: Callable[[], None] = lambda: None
    """Told when the settings have been read again."""
    recent_media: bool = False
    published: "Callable[[CallDocument, Path], None]" = lambda document, directory: None
    """Told of each recording and its directory, in the publisher's thread."""


def live_service(out: Path, log: "ServiceLog", how: Recording) -> "CaptureService":
    """The service, with policy and retention of the settings file where there is one."""
    from recorder import settings
    from recorder.catalogue import FILE
    from recorder.catalogue_upkeep import newest_recording
    from recorder.cautious_clock import CautiousClock
    from recorder.disk_guard import DiskGuard
    from recorder.policy import PolicyHolder, without_audio
    from recorder.policy_file import load_policy
    from recorder.retention_rules import load_retention
    from recorder.retention_run import RetentionRun
    from recorder.service import CaptureService
    from recorder.service_types import ServiceOptions

    path = settings.file_of(Path.cwd(), os.environ)
    found = settings.load(Path.cwd(), os.environ)

    def taken(text: str) -> None:
        log.logger.info("settings-taken", text=text)
        how.reloaded()

    holder = PolicyHolder(
        load_policy(found, path),
        lambda text: log.logger.warning("settings-refused", text=text),
        load_retention(found, path),
        taken,
        adapt=(lambda policy: policy) if how.audio else without_audio,
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

    guard = DiskGuard(how.stop_at, how.resume_at)
    options = ServiceOptions(
        out=out,
        form=how.form,
        mono=how.mono,
        workers=how.workers or len(os.sched_getaffinity(0)),
        disk_low=guard.low,
        disk_scarce=guard.scarce,
        upkeep=upkeep,
        settings=path,
        recent_media=how.recent_media,
        published=how.published,
    )
    return CaptureService(options, holder, log, how.followers)


def serve_status(
    service: "CaptureService",
    listen: str,
    token_file: Path | None,
    at: Path | None,
    stack: ExitStack,
    log: "ServiceLog",
    commands: "Commands | None" = None,
) -> None:
    """Serve status, metrics and health, and `commands` below /v1."""
    from recorder.status_address import own_socket, parse_address
    from recorder.status_server import StatusServer
    from recorder.status_token import read_token

    server = StatusServer(
        service.board,
        lambda error: log.logger.error("status-failed", text=f"{type(error).__name__}: {error}"),
        commands,
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


def enter_sandbox(log: "ServiceLog") -> None:
    """Refuse from now on what a recorder never needs."""
    from recorder.sandbox import enter

    entered = enter()
    log.logger.info("sandboxed", threads=entered.threads)


def event_teller(
    log: "ServiceLog", webhooks: "Sequence[Webhook]", stack: ExitStack
) -> "Callable[[SessionEvent], None]":
    """Writes what happens to recording sessions into the log, and tells it to those who want to know."""
    from recorder.siprec.webhooks import Webhooks

    write = event_logger(log)
    if not webhooks:
        return write
    hooks = Webhooks(webhooks, lambda text: log.logger.warning("webhook-failed", text=text))
    hooks.start()
    stack.callback(hooks.close)

    def tell(event: "SessionEvent") -> None:
        write(event)
        hooks.tell(event)

    return tell


def event_logger(log: "ServiceLog") -> "Callable[[SessionEvent], None]":
    """Writes what happens to recording sessions into the log."""

    def tell(event: "SessionEvent") -> None:
        known = {"session": event.session, "call": event.call, "call_id": event.call_id, "peer": event.peer}
        told = {**known, "text": event.text, **event.details}
        said = {key: value for key, value in told.items() if value not in ("", None)}
        log.logger.info(f"session-{event.kind}", **said)

    return tell


def run_service(
    service: "CaptureService",
    sources: Sequence["LiveSource"],
    log: "ServiceLog",
    leave: Callable[[], None] | None = None,
) -> None:
    """Run until a signal says to stop. `leave` is what comes before stopping, in a thread of its own, and may take its
    time; a second signal does not wait for it."""
    from recorder.notify import ServiceManager

    manager = ServiceManager(os.environ)

    def left() -> None:
        assert leave is not None
        try:
            leave()
        finally:
            service.stopping = True

    def stop(number: int, _: object) -> None:
        # Nothing is logged here: the thread may be in the middle of a line.
        first = not service.stopped_by
        service.stopped_by = signal.Signals(number).name
        manager.stopping("finishing recordings")
        if leave is not None and first:
            threading.Thread(target=left, name="spanrec-leave", daemon=True).start()
        else:
            service.stopping = True

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
