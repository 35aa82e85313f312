"""`spanrec srs`: our recording server (SRS) as a command.

In: the command line, spanrec.toml. Out: a recording of every call that recording clients send, until told to stop: then
no new sessions are taken, and those in progress have the time that the settings give them; a second signal ends them.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recorder import cli_options as option
from recorder.replay_types import AudioFormat

if TYPE_CHECKING:
    from capture.media_ports import MediaPorts
    from recorder.log import ServiceLog
    from recorder.siprec.control import SessionEvent
    from recorder.siprec.srs_files import SrsFiles
    from recorder.siprec.srs_service import SrsService
    from recorder.siprec.srs_settings import SrsSettings


def srs_command(
    out: option.Out,
    sip: Annotated[
        list[str] | None,
        typer.Option(
            "--listen", metavar="SOCKET", help="Take SIP here: udp:0.0.0.0:5060, tcp:..., tls:...", show_default=False
        ),
    ] = None,
    media_address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Where media is received.", show_default="where SIP came to")
    ] = None,
    audio_format: option.Format = AudioFormat.WAV,
    mono: option.Mono = False,
    workers: option.Workers = 0,
    stop_at: option.StopAt = "2%",
    resume_at: option.ResumeAt = "4%",
    status: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Serve status and commands here; empty: nowhere.")
    ] = None,
    token_file: option.CommandTokenFile = None,
    status_socket: option.CommandSocket = None,
    user: option.User = None,
    sandbox: option.Sandbox = True,
) -> None:
    """Record what recording clients (SIPREC, RFC 7866) send."""
    from recorder import privileges
    from recorder.live_command import (
        Recording,
        enter_sandbox,
        event_teller,
        live_service,
        rehearse,
        run_service,
        serve_status,
        start_log,
    )
    from recorder.siprec.control_pages import ControlPages
    from recorder.siprec.srs_files import read_files
    from recorder.siprec.srs_service import media_ports
    from recorder.warmup import choose_kernel_cache, load_kernels_directly

    settings = srs_settings(sip or (), media_address)
    files = read_files(settings)  # the key may be for root alone
    if user is not None:
        privileges.become(user)
        choose_kernel_cache()
    log = start_log()
    with ExitStack() as stack:
        load_kernels_directly()
        rehearse(log)
        ports = media_ports(settings)
        stack.callback(ports.close)
        dropped = privileges.drop(user)
        log.logger.info("privileges-dropped", user=dropped.user, capabilities=len(dropped.capabilities))
        srs = make_srs(settings, event_teller(log, settings.webhooks, stack), log, ports=ports, files=files)
        stack.callback(srs.close)
        how = Recording(audio_format.value, mono, workers, stop_at, resume_at, followers=[srs.follower])
        service = live_service(out, log, how)
        srs.full, srs.correction, srs.certificate = service.why_full, service.correction, service.note_certificate
        srs.go_on(out)
        commands = ControlPages(srs.start(), srs.drain)
        stack.callback(commands.close)
        control = srs.settings.control
        serve_status(
            service,
            control.listen if status is None else status,
            token_file or control.token_file,
            status_socket or control.socket,
            stack,
            log,
            commands,
        )
        if sandbox:
            enter_sandbox(log)
        log.logger.info("sessions-ready", listening=list(srs.listening))
        run_service(service, [srs.source], log, srs.leave)


def make_srs(
    settings: "SrsSettings",
    tell: "Callable[[SessionEvent], None]",
    log: "ServiceLog",
    capture: int = 0,
    ports: "MediaPorts | None" = None,
    files: "SrsFiles | None" = None,
) -> "SrsService":
    """The SRS by the settings, not started. `capture`: index of its source. `ports`, `files`: made and
    read already."""
    from recorder.siprec.srs_service import SrsService, SrsTold

    told = SrsTold(
        event=tell,
        trouble=lambda text: log.logger.warning("received-not-kept", text=text),
        failed=lambda error: log.logger.error("srs-failed", text=f"{type(error).__name__}: {error}"),
    )
    return SrsService(settings, told=told, capture=capture, ports=ports, files=files)


def srs_settings(listen: Sequence[str], media_address: str | None) -> "SrsSettings":
    """Of the settings file, and what the command line says otherwise."""
    from capture.address import parse_endpoint
    from recorder import settings
    from recorder.sip_ua.listen import parse_listen
    from recorder.siprec.srs_settings import load_srs

    path = settings.file_of(Path.cwd(), os.environ)
    found = load_srs(settings.load(Path.cwd(), os.environ), path)
    if listen:
        found = replace(found, listen=tuple(map(parse_listen, listen)))
    if media_address is not None:
        if parse_endpoint(media_address, 0) is None:
            raise typer.BadParameter(f"{media_address!r} is no address", param_hint="--media-address")
        found = replace(found, media_address=media_address)
    return found
