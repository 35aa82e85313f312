"""Options that several of the live commands have: `spanrec capture`, `src` and `srs`.

In: nothing. Out: types of parameters, for typer. What an option is where nobody gives it, each command says itself.
"""

from pathlib import Path
from typing import Annotated

import typer

from recorder.replay_types import AudioFormat

Out = Annotated[
    Path,
    typer.Option(
        "-o", "--out", metavar="OUT", envvar="SPANREC_OUT", help="Directory of the recordings.", show_default=False
    ),
]
HepKeyFile = Annotated[Path | None, typer.Option(metavar="FILE", help="File with the key that HEP senders must show.")]
Filter = Annotated[
    str | None, typer.Option("--filter", metavar="EXPRESSION", help="tcpdump expression for the kernel.")
]
Promiscuous = Annotated[
    bool, typer.Option("--promiscuous/--no-promiscuous", help="Take frames for others, as on a mirror port.")
]
RingSize = Annotated[int, typer.Option(min=4, metavar="MB", help="Memory of each interface's ring.")]
Format = Annotated[AudioFormat, typer.Option("--format", help="Of the audio files.")]
Mono = Annotated[bool, typer.Option("--mono", help="Mix both participants into one channel.")]
Workers = Annotated[int, typer.Option(min=0, metavar="N", help="Threads that share the work; 0: one per processor.")]
StopAt = Annotated[str, typer.Option(metavar="SIZE", help="Free space below which no recording is begun: 5%, 2GB.")]
ResumeAt = Annotated[str, typer.Option(metavar="SIZE", help="Free space at which recording goes on.")]
TokenFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="File with the token that readers of calls must show.")
]
CommandTokenFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="File with the token that commands over TCP must show.")
]
StatusSocket = Annotated[
    Path | None,
    typer.Option("--socket", metavar="PATH", help="Unix socket for spanrec top.", show_default="its usual place"),
]
CommandSocket = Annotated[
    Path | None,
    typer.Option("--socket", metavar="PATH", help="Unix socket for spanrec ctl.", show_default="its usual place"),
]
User = Annotated[str | None, typer.Option(metavar="NAME", help="Become this user; for a start by root.")]
Sandbox = Annotated[
    bool, typer.Option("--sandbox/--no-sandbox", help="Refuse system calls that a recorder never needs.")
]
