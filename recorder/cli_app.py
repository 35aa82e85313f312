"""The commands of `spanrec`, put together. In: the functions of the cli_ modules. Out: `app`."""

from importlib.metadata import version
from typing import Annotated

import typer

from recorder.cli_calls import calls
from recorder.cli_capture import capture_command
from recorder.cli_ctl import ctl
from recorder.cli_replay import replay_command
from recorder.cli_retention import expire_command, hold_command, release_command
from recorder.cli_run import run_command
from recorder.cli_src import src_command
from recorder.cli_srs import srs_command
from recorder.cli_top import top_command
from recorder.doctor import doctor_command

app = typer.Typer(
    name="spanrec",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("replay")(replay_command)
app.command("capture")(capture_command)
app.command("src")(src_command)
app.command("srs")(srs_command)
app.command("run")(run_command)
calls.command("hold")(hold_command)
calls.command("release")(release_command)
calls.command("expire")(expire_command)
app.add_typer(calls, name="calls")
app.command("doctor")(doctor_command)
app.command("top")(top_command)
app.add_typer(ctl, name="ctl")


def print_version(wanted: bool) -> None:
    """Answer --version among other options; alone, `cli` answers it sooner."""
    if wanted:
        print(f"spanrec {version('spanrec')}")
        raise typer.Exit


@app.callback()
def spanrec(
    _: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Record every phone call that crosses a wire: SIP and RTP in, audio and SIPREC metadata out."""
