"""`spanrec capture` as an operator runs it, in a network namespace, for as long as a `with` block lasts.

In: a namespace, the sources, a directory to work in. Out: its recordings and its log. It is ended with SIGTERM, by its
own id.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recorder.document import CallDocument
from tests.live import recordings

ROOT = Path(__file__).resolve().parents[1]
START = 240.0
"""Seconds in which it must be ready: kernels may have to be compiled."""
_STARTING = threading.Lock()
"""One starts at a time, so that kernels are compiled once."""


@dataclass(frozen=True, slots=True)
class LiveRecorder:
    """A running service, and what it leaves."""

    out: Path
    log: Path

    def recordings(self) -> list[tuple[CallDocument, Path]]:
        """(document, directory) of each recording that is whole by now, in order of start."""
        return recordings(self.out)

    def messages(self, *events: str) -> list[dict[str, Any]]:
        """Lines of the log; only these events where some are named."""
        found = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in found if not events or line.get("event") in events]

    def wait_for(self, calls: int, seconds: float) -> bool:
        """Whether so many recordings are whole within the time."""
        deadline = time.monotonic() + seconds
        while len(self.recordings()) < calls:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True


@contextmanager
def recording(namespace: str, work: Path, *sources: str) -> Iterator[LiveRecorder]:
    """Record from `sources` ("-i", "rx0"...) below `work` until the block ends; then its recordings are complete."""
    work.mkdir(parents=True, exist_ok=True)
    live = LiveRecorder(work / "out", work / "log")
    command = [
        "ip", "netns", "exec", namespace, sys.executable, "-c", "from recorder.cli import main; main()", "capture",
        *sources, "-o", str(live.out), "--listen", "", "--socket", str(work / "status"), "--workers", "1",
        "--ring-size", "16", "--stop-at", "64MB", "--resume-at", "128MB",
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = None
    try:
        with _STARTING:
            with live.log.open("wb") as log:
                process = subprocess.Popen(command, cwd=work, stderr=log, stdout=log, env=environment)
            deadline = time.monotonic() + START
            while b'"recording"' not in live.log.read_bytes():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"spanrec capture did not start: {live.log.read_text()}")
                time.sleep(0.05)
        yield live
        process.send_signal(signal.SIGTERM)
        if process.wait(60):
            raise RuntimeError(f"spanrec capture ended with {process.returncode}: {live.log.read_text()}")
    finally:
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()
