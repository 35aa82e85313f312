"""`spanrec capture`: the live service as a command.

In: the command line, spanrec.toml. Out: a service that runs until it is told to stop (SIGTERM, SIGINT), reads its
policy again on SIGHUP, and has given up its privileges before it looks at a packet. Exit status 0 stopped as told,
1 it cannot run, 2 wrong usage.
"""

import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recorder import cli_options as option
from recorder.replay_types import AudioFormat

if TYPE_CHECKING:
    from capture.live import LiveSource
    from capture.tunnel_source import TunnelSource


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
    out: option.Out,
    interface: Annotated[
        list[str] | None, typer.Option("-i", "--interface", metavar="NAME", help="Record what crosses this interface.")
    ] = None,
    hep: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Take HEP from proxies here: 127.0.0.1:9060.")
    ] = None,
    hep_key_file: option.HepKeyFile = None,
    tunnel: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS", help="Take ERSPAN, GRE, VXLAN, GENEVE and TZSP sent to this address of ours."),
    ] = None,
    watch: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Take captures that are rotated into this directory.")
    ] = None,
    stdin: Annotated[bool, typer.Option("--stdin", help="Take a capture from standard input.")] = False,
    filter_: option.Filter = None,
    promiscuous: option.Promiscuous = True,
    ring_size: option.RingSize = 256,
    sockets: Annotated[int, typer.Option(min=1, metavar="N", help="Rings per interface (PACKET_FANOUT).")] = 1,
    audio_format: option.Format = AudioFormat.WAV,
    mono: option.Mono = False,
    workers: option.Workers = 0,
    stop_at: option.StopAt = "2%",
    resume_at: option.ResumeAt = "4%",
    listen: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Serve metrics and health here; empty: nowhere.")
    ] = DEFAULT_LISTEN,
    token_file: option.TokenFile = None,
    status_socket: option.StatusSocket = None,
    user: option.User = None,
    sandbox: option.Sandbox = True,
) -> None:
    """Record every call that crosses an interface, until stopped."""
    interfaces = interface or []
    if not (interfaces or hep or tunnel or watch or stdin):
        raise typer.BadParameter("name an interface (-i), --hep, --tunnel, --watch or --stdin to record from")
    if hep_key_file is not None and hep is None:
        raise typer.BadParameter("needs --hep", param_hint="--hep-key-file")
    from recorder import privileges
    from recorder.live_command import (
        Recording,
        enter_sandbox,
        live_service,
        open_others,
        rehearse,
        run_service,
        serve_status,
        start_log,
    )
    from recorder.warmup import choose_kernel_cache, load_kernels_directly

    if user is not None:
        privileges.become(user)
        choose_kernel_cache()
    if interfaces or tunnel:
        privileges.require(interfaces)
    log = start_log()
    with ExitStack() as stack:
        load_kernels_directly()
        # Before the interfaces are open: no packet waits for the compiler.
        rehearse(log)
        sources: list[LiveSource] = []
        tunnels = open_tunnels(tunnel or ())
        for source in tunnels:
            sources.append(source)
            stack.callback(source.close)
        if interfaces:
            taken = " or ".join(f"({source.expression})" for source in tunnels)
            wanted = Wanted(filter_, taken, promiscuous, ring_size, sockets)
            sources.append(open_interfaces(interfaces, wanted, len(sources)))
            stack.callback(sources[-1].close)
        dropped = privileges.drop(user)
        log.logger.info("privileges-dropped", user=dropped.user, capabilities=len(dropped.capabilities))
        for other in open_others(hep, hep_key_file, watch or (), stdin, out, len(sources)):
            if getattr(other, "exposed", False):
                log.logger.warning("hep-exposed", source=other.name, text="anybody may send here; use --hep-key-file")
            sources.append(other)
            stack.callback(other.close)
        how = Recording(audio_format.value, mono, workers, stop_at, resume_at)
        service = live_service(out, log, how)
        serve_status(service, listen, token_file, status_socket, stack, log)
        if sandbox:
            enter_sandbox(log)
        run_service(service, sources, log)


def open_tunnels(addresses: Sequence[str]) -> list["TunnelSource"]:
    """Sources of mirrors that end at this machine."""
    from capture.tunnel_source import TunnelSource

    return [TunnelSource(address, capture=number) for number, address in enumerate(addresses)]


def open_interfaces(interfaces: Sequence[str], wanted: "Wanted", capture: int) -> "LiveSource":
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
