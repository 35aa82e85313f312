"""The command `spanrec`.

In: arguments, environment, spanrec.toml. Out: an exit status: 0 done, 1 nothing could be read or the work failed,
2 wrong usage, 3 done but some input was damaged. Results go to stdout, all else to stderr. Heavy modules are imported
by the commands that need them; `--version` imports none.
"""

import os
import sys
from pathlib import Path
from typing import NoReturn

from capture.errors import SpanrecError


def main() -> NoReturn:
    """Run the command line and exit."""
    if sys.argv[1:] == ["--version"]:
        from importlib.metadata import version

        print(f"spanrec {version('spanrec')}")
        sys.exit(0)
    _speak_utf8()
    try:
        _run()
    except SpanrecError as error:
        from recorder.console import note

        note(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _run() -> NoReturn:
    from recorder.collection import no_collections, no_last_collection

    with no_collections():
        from recorder import settings
        from recorder.cli_app import app
        from recorder.warmup import choose_kernel_cache

    choose_kernel_cache()
    values = settings.load(Path.cwd(), os.environ)
    try:
        app(default_map=settings.defaults(values))
    finally:
        no_last_collection()
    sys.exit(0)


def _speak_utf8() -> None:
    """Output is UTF-8 whatever the locale: the same call prints the same octets everywhere."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace")
