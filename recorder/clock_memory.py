"""Capture time across a restart: what it is more than the monotonic clock, in a small file.

In: `CaptureClock.base`. Out: the same number for the next process, as long as the machine has not been started anew. A
clock that was set while calls are in progress, and a kill, then leave no hour of silence in any of them.
"""

import json
import os
from contextlib import suppress
from pathlib import Path

FILE = ".clock"
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def keep(out: Path, base: int) -> None:
    """Write it down; a disk that refuses costs only this."""
    fresh = out / f"{FILE}.fresh"
    with suppress(OSError):
        fresh.write_text(json.dumps({"boot": _boot(), "base": base}))
        os.replace(fresh, out / FILE)


def recall(out: Path) -> int | None:
    """What was kept since the machine was started, None where nothing was."""
    try:
        kept = json.loads((out / FILE).read_bytes())
        return int(kept["base"]) if kept["boot"] and kept["boot"] == _boot() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""
