"""`spanrec top`: the running service, on a terminal or as text.

In: where its status is served. Out: the live view, or once a table or JSON on stdout. Textual is imported only for
the live view.
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from recorder.status_client import StatusClient


def top_command(
    connect: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            envvar="SPANREC_CONNECT",
            help="Socket or HOST:PORT of the service; its usual socket if none.",
            show_default=False,
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar="SPANREC_TOKEN_FILE", help="Token, for HOST:PORT.", show_default=False),
    ] = None,
    interval: Annotated[float, typer.Option(metavar="SECONDS", min=0.2, max=60, help="How often to ask.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print the calls once, as text.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all once, as one JSON object.")] = False,
) -> None:
    """Watch calls in progress; Enter shows the SIP messages of one."""
    client = _client(connect, token_file)
    if as_json:
        _print_json(client)
    elif once or not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        _print_table(client)
    else:
        from recorder.top import Top

        Top(client, interval).run()


def _client(connect: str | None, token_file: Path | None) -> "StatusClient":
    from recorder.status_address import find_socket, parse_address
    from recorder.status_client import StatusClient
    from recorder.status_token import read_token

    address = find_socket(os.environ) if connect is None else parse_address(connect, names=True)
    return StatusClient(address, None if token_file is None else read_token(token_file))


def _print_json(client: "StatusClient") -> None:
    from recorder.status_json import calls_json, snapshot_json

    told = {"status": json.loads(snapshot_json(client.snapshot())), **json.loads(calls_json(client.calls()))}
    print(json.dumps(told, ensure_ascii=False, indent=2))


def _print_table(client: "StatusClient") -> None:
    from recorder.top_summary import summary
    from recorder.top_table import arranged, fitting, heading, line
    from recorder.top_text import plain

    snapshot = client.snapshot()
    calls = arranged(client.calls())
    shown = fitting(calls)
    for each in (*summary(snapshot, sum(width + 1 for _, width in shown)), (), heading(shown)):
        print(plain(each))
    for call in calls:
        print(plain(line(call, shown)))
