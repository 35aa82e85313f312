"""`spanrec replay`: captures in, recordings out.

In: the command line. Out: `ReplayOptions` for the engine, what it tells printed, an exit status. The engine is
imported when it is first needed.
"""

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

import typer

from recorder.replay_types import BATCH_SIZE, AudioFormat, Dissector, ReplayOptions, ReplaySummary, Reporter, Selection

DAMAGED = 3
"""Exit status: done, but some input was damaged or was no capture."""

Engine = Callable[[ReplayOptions, Reporter], ReplaySummary]


def replay_command(
    captures: Annotated[
        list[str],
        typer.Argument(
            metavar="CAPTURE...", help="pcap or pcapng, plain, .gz or .zst; directories; - for standard input."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", metavar="OUT", envvar="SPANREC_OUT", help="Directory of the recordings.", show_default=False
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of the table.")] = False,
    number: Annotated[
        list[str] | None,
        typer.Option(metavar="NUMBER", help="Only calls from or to this number; * stands for any characters."),
    ] = None,
    call_id: Annotated[list[str] | None, typer.Option(metavar="ID", help="Only the call with this Call-ID.")] = None,
    address: Annotated[
        list[str] | None,
        typer.Option(metavar="CIDR", help="Only calls with a signalling or media address in this CIDR."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Only calls that started at or after: 2026-03-01T09:15, UTC."),
    ] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Only calls that started before.")] = None,
    audio_format: Annotated[
        AudioFormat, typer.Option("--format", envvar="SPANREC_FORMAT", help="Of the audio files.")
    ] = AudioFormat.WAV,
    mono: Annotated[
        bool, typer.Option("--mono", envvar="SPANREC_MONO", help="Mix both participants into one channel.")
    ] = False,
    keep_packets: Annotated[
        bool, typer.Option("--keep-packets", envvar="SPANREC_KEEP_PACKETS", help="Write packets.pcapng for each call.")
    ] = False,
    dissector: Annotated[
        Dissector, typer.Option(envvar="SPANREC_DISSECTOR", help="Who strips links, tunnels and TLS.")
    ] = Dissector.NATIVE,
    keylog: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar="SPANREC_KEYLOG", help="TLS key log file, for --dissector tshark."),
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Compare the figures with tshark's.")] = False,
    workers: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", envvar="SPANREC_WORKERS", help="Threads that share the work; 0: one per processor."
        ),
    ] = 0,
    batch_size: Annotated[
        int, typer.Option(min=1, metavar="N", envvar="SPANREC_BATCH_SIZE", help="Packets handled at once.")
    ] = BATCH_SIZE,
    quiet: Annotated[
        bool, typer.Option("--quiet", envvar="SPANREC_QUIET", help="Print nothing but what went wrong.")
    ] = False,
) -> None:
    """Record every call in captures. Several captures are one in time order."""
    if keylog is not None and dissector is not Dissector.TSHARK:
        raise typer.BadParameter("needs --dissector tshark", param_hint="--keylog")
    options = ReplayOptions(
        captures=tuple(captures),
        out=out,
        workers=workers,
        batch_size=batch_size,
        selection=selection(number, call_id, address, since, until),
        audio_format=audio_format,
        mono=mono,
        keep_packets=keep_packets,
        dissector=dissector,
        keylog=keylog,
        verify=verify,
    )
    status = run(options, as_json, quiet, load_engine(quiet))
    if status:
        raise typer.Exit(status)


def run(options: ReplayOptions, as_json: bool, quiet: bool, engine: Engine) -> int:
    """Replay, print, and give the exit status."""
    from recorder.console import note
    from recorder.reporting import ConsoleReporter

    with ConsoleReporter(live=sys.stderr.isatty() and not quiet) as reporter:
        summary = engine(options, reporter)
    if as_json:
        reporter.print_json(summary, options.out)
    elif not quiet:
        reporter.print_calls(summary, colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ)
    if options.verify:
        for difference in summary.differences:
            note(f"tshark differs: {difference}")
        if not summary.differences and not quiet:
            note("tshark finds the same calls, streams, packets and losses")
    return DAMAGED if summary.damaged else 0


def load_engine(quiet: bool) -> Engine:
    """Import the engine; says so where that takes long because its kernels have to be compiled first."""
    from recorder.collection import no_collections
    from recorder.console import note
    from recorder.warmup import kernels_are_cached, load_kernels_directly

    compiled = kernels_are_cached()
    if not quiet and not compiled:
        note("compiling kernels, once: this takes up to a minute")
    with no_collections():
        load_kernels_directly()
        if not compiled:
            from recorder.compiling import compile_kernels

            compile_kernels()
        from recorder.replay import replay

    return replay


def selection(
    numbers: list[str] | None,
    call_ids: list[str] | None,
    addresses: list[str] | None,
    since: str | None,
    until: str | None,
) -> Selection:
    """Criteria as given, checked."""
    try:
        networks = tuple(ip_network(address, strict=False) for address in addresses or ())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--address") from error
    return Selection(
        numbers=tuple(numbers or ()),
        call_ids=tuple(call_ids or ()),
        addresses=networks,
        since=None if since is None else parse_time(since, "--from"),
        until=None if until is None else parse_time(until, "--to"),
    )


def parse_time(text: str, option: str) -> int:
    """Nanoseconds of a date or a time in ISO 8601, UTC where it names no zone: the machine's zone never counts."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no time such as 2026-03-01T09:15:00Z", param_hint=option) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since_epoch = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since_epoch.days * 86_400 + since_epoch.seconds) * 1_000_000_000 + since_epoch.microseconds * 1000
