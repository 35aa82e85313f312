"""`spanrec srs` as an operator runs it, over loopback, for as long as a `with` block lasts.

In: a directory to work in, lines for `[srs]`. Out: where it takes SIP, its recordings, its log, what the system says of
its process. It is ended with SIGTERM, by its own id, and has then to have ended well.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recorder.document import CallDocument
from recorder.siprec.sip_settings import Ports
from tests.live import recordings

ROOT = Path(__file__).resolve().parents[1]
START = 240.0
"""s in which it must be ready: kernels may have to be compiled."""
END = 60.0
_STARTING = threading.Lock()
"""One starts at a time, so that kernels are compiled once."""


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that takes sessions."""

    out: Path
    log: Path
    socket: Path
    pid: int
    ports: dict[str, int]
    """Of SIP, by transport."""
    media: Ports

    def recordings(self) -> list[tuple[CallDocument, Path]]:
        """(document, directory) of each recording that is whole by now, in order of start."""
        return recordings(self.out)

    def messages(self, *events: str) -> list[dict[str, Any]]:
        """Lines of the log; only these events where some are named."""
        found = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in found if not events or line.get("event") in events]

    def wait_for(self, enough: Callable[[], bool], seconds: float) -> bool:
        """Whether something comes true within the time."""
        deadline = time.monotonic() + seconds
        while not enough():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    @property
    def alive(self) -> bool:
        """The process is there."""
        return Path(f"/proc/{self.pid}/stat").exists()

    def resident_mb(self) -> float:
        """Memory that is its own: what maps the recordings does not count."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) / 1024

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/task"))


@contextmanager
def running(work: Path, media: Ports, *settings: str) -> Iterator[RunningServer]:
    """A server below `work` until the block ends; then its recordings are complete."""
    work.mkdir(parents=True, exist_ok=True)
    own = {each.partition("=")[0].strip() for each in settings}
    usual = [f'ports = "{media.low}-{media.high}"', "drain = 5", 'control = ""']
    ours = [*(each for each in usual if each.partition(" ")[0] not in own), *settings]
    (work / "spanrec.toml").write_text("\n".join(["[srs]", *ours, ""]))
    out, log, status = work / "out", work / "log", work / "status"
    command = [
        sys.executable, "-c", "from recorder.cli import main; main()", "srs", "-o", str(out),
        "--listen", "udp:127.0.0.1:0", "--listen", "tcp:127.0.0.1:0", "--workers", "1", "--stop-at", "64MB",
        "--resume-at", "128MB", "--socket", str(status),
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = None
    try:
        with _STARTING, log.open("wb") as written:
            process = subprocess.Popen(command, cwd=work, stderr=written, stdout=written, env=environment)
            deadline = time.monotonic() + START
            while b'"sessions-ready"' not in log.read_bytes() or b'"recording"' not in log.read_bytes():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"spanrec srs did not start: {log.read_text()}")
                time.sleep(0.05)
        ready = next(line for line in map(json.loads, _lines(log)) if line["event"] == "sessions-ready")
        ports = {each.partition(":")[0]: int(each.rpartition(":")[2]) for each in ready["listening"]}
        yield RunningServer(out, log, status, process.pid, ports, media)
        process.send_signal(signal.SIGTERM)
        if process.wait(END):
            raise RuntimeError(f"spanrec srs ended with {process.returncode}: {log.read_text()[-3000:]}")
    finally:
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()


def _lines(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if line.startswith("{")]
