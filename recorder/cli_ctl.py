"""`spanrec ctl`: recording sessions of a running service, from the command line.

In: where the service takes commands, what to do. Out: tables on a terminal, text or JSON elsewhere. What does it is
`siprec.control_client`; rich is imported only for a table.
"""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from recorder.siprec.control import SessionEvent, SessionInfo
    from recorder.siprec.control_client import ControlClient

ctl = typer.Typer(no_args_is_help=True, help="Control recording sessions of spanrec src and spanrec srs.")

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="ADDRESS",
        envvar="SPANREC_CONNECT",
        help="Socket, HOST:PORT or http URL of the service; its usual socket if none.",
        show_default=False,
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file", metavar="FILE", envvar="SPANREC_TOKEN_FILE", help="Token, for HOST:PORT.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Which = Annotated[str, typer.Argument(metavar="WHICH", help="Id or Call-ID of a session, or of a call in it.")]


@ctl.command("sessions")
def sessions_command(url: Url = None, token_file: TokenFile = None, as_json: Json = False) -> None:
    """List recording sessions, in progress and of the last minute."""
    _print_sessions(_client(url, token_file).sessions(), as_json)


@ctl.command("show")
def show_command(which: Which, url: Url = None, token_file: TokenFile = None, as_json: Json = False) -> None:
    """Tell all about a session."""
    found = _client(url, token_file).sessions(which)
    if not found:
        from recorder.status import StatusError

        raise StatusError(f"{which}: no recording session has this id, Call-ID or call")
    if as_json:
        _print_sessions(found, as_json)
        return
    for session in found:
        for line in _told(session):
            print(line)


@ctl.command("start")
def start_command(
    call: Annotated[str, typer.Argument(metavar="CALL", help="Id or Call-ID of a call in progress.")],
    srs: Annotated[str, typer.Option(metavar="URIS", help="Recording servers; those of the settings if none.")] = "",
    option: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Say otherwise: caller-name, group, from...")
    ] = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Record a call in progress."""
    options = dict(each.partition("=")[::2] for each in option or ())
    _print_ids(_client(url, token_file).start(call, srs, options), "begun", as_json)


@ctl.command("stop")
def stop_command(which: Which, url: Url = None, token_file: TokenFile = None, as_json: Json = False) -> None:
    """End recording sessions; the calls go on."""
    _print_ids(_client(url, token_file).stop(which), "ended", as_json)


@ctl.command("pause")
def pause_command(which: Which, url: Url = None, token_file: TokenFile = None, as_json: Json = False) -> None:
    """Record nothing for now."""
    _print_ids(_client(url, token_file).pause(which), "paused", as_json)


@ctl.command("resume")
def resume_command(which: Which, url: Url = None, token_file: TokenFile = None, as_json: Json = False) -> None:
    """Record again."""
    _print_ids(_client(url, token_file).resume(which), "resumed", as_json)


@ctl.command("request")
def request_command(
    which: Which,
    method: Annotated[str, typer.Argument(metavar="METHOD", help="INFO, MESSAGE, NOTIFY or OPTIONS.")],
    content_type: Annotated[str, typer.Option(metavar="TYPE", help="Of the body.")] = "",
    body: Annotated[str, typer.Option(metavar="TEXT", help="The body; - reads it from standard input.")] = "",
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Send a request within a session to the other side."""
    text = sys.stdin.read() if body == "-" else body
    answer = _client(url, token_file).request(which, method.upper(), content_type, text)
    print(json.dumps({"answer": answer}) if as_json else _clean(answer))


@ctl.command("events")
def events_command(url: Url = None, token_file: TokenFile = None, as_json: Json = False) -> None:
    """Tell what happens, as it happens, until stopped."""
    from recorder.siprec.session_json import event_json

    for event in _client(url, token_file).events():
        print(event_json(event).decode() if as_json else _event_line(event), flush=True)


@ctl.command("drain")
def drain_command(url: Url = None, token_file: TokenFile = None, as_json: Json = False) -> None:
    """Begin no sessions any more; those in progress go on."""
    text = _client(url, token_file).drain()
    print(json.dumps({"text": text}) if as_json else _clean(text))


def _client(url: str | None, token_file: Path | None) -> "ControlClient":
    from recorder.siprec.control_client import ControlClient
    from recorder.status_address import find_socket, parse_address
    from recorder.status_token import read_token

    place = (url or "").removeprefix("http://").rstrip("/") if (url or "").startswith("http://") else url
    address = find_socket(os.environ, sessions=True) if place is None else parse_address(place, names=True)
    return ControlClient(address, None if token_file is None else read_token(token_file))


def _print_ids(ids: Sequence[str], done: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"sessions": list(ids)}))
        return
    for each in ids:
        print(f"{_clean(each)} {done}")


def _print_sessions(found: Sequence["SessionInfo"], as_json: bool) -> None:
    if as_json:
        from recorder.siprec.session_json import sessions_json

        print(json.dumps(json.loads(sessions_json(found)), ensure_ascii=False, indent=2))
        return
    heads = ("SESSION", "STATE", "SINCE", "CALLER", "CALLEE", "SERVER", "LEGS", "NOTE")
    rows = [_row(session) for session in found]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*heads, box=None, header_style="bold")
        for row in rows:
            table.add_row(*map(Text, row))
        Console().print(table)
        return
    for row in (heads, *rows):
        print("\t".join(row))


def _row(session: "SessionInfo") -> tuple[str, ...]:
    from recorder.document import format_time

    packets = sum(leg.packets for leg in session.legs)
    return tuple(
        map(
            _clean,
            (
                session.id,
                session.state,
                format_time(session.since)[11:19],
                session.caller,
                session.callee,
                session.peer,
                f"{len(session.legs)} ({packets} packets)",
                session.note,
            ),
        )
    )


def _told(session: "SessionInfo") -> Iterable[str]:
    """Lines about one session."""
    from recorder.document import format_time

    facts = {
        "session": f"{session.id} ({session.role})",
        "state": session.state,
        "server" if session.role == "src" else "client": session.peer,
        "Call-ID": session.rs_call_id,
        "since": format_time(session.since),
        "caller": session.caller,
        "callee": session.callee,
        "calls": " ".join(session.calls),
        "their Call-IDs": " ".join(session.call_ids),
        "group": session.group,
        "instance": session.instance,
        "note": session.note,
    }
    for name, value in facts.items():
        if value:
            yield f"{name:<15}{_clean(value)}"
    for leg in session.legs:
        way = f"{leg.local} > {leg.remote}" if session.role == "src" else f"{leg.remote} > {leg.local}"
        secure = ", SRTP" if leg.encrypted else ""
        text = f"leg {leg.label}: {leg.participant}, {leg.codec}, {way}, {leg.packets} packets, {leg.lost} lost{secure}"
        yield f"{'':<15}{_clean(text)}"
    for attempt in session.attempts:
        yield f"{'tried':<15}{_clean(attempt)}"


def _event_line(event: "SessionEvent") -> str:
    from recorder.document import format_time

    parts = (format_time(event.at), event.kind, event.session, event.call_id, event.peer, event.text)
    return "  ".join(_clean(part) for part in parts if part)


def _clean(text: str) -> str:
    """Text from the wire, as a terminal may have it."""
    from recorder.console import printable

    return printable(text)
