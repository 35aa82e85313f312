"""`spanrec capture` in a wire's namespace as a process that is killed, stopped, started again and asked.

In: a wire, a store. Out: a process and what it logs. `Load` is the sender of calls at the other end of the wire.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.calls import plan
from bench.faults_check import nanoseconds
from bench.measure import ROOT
from bench.signalling import MEDIA_NS, Int64
from bench.veth import Wire
from bench.wire import starts_of

PATIENCE = 120.0
"""s that anything is waited for."""


class FaultError(RuntimeError):
    """What was waited for did not come."""


def wait_until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Wait for a condition; raises FaultError with `what` where it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise FaultError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.05)


class Service:
    """`spanrec capture`, one process after the other over the same store."""

    def __init__(self, over: Wire, out: Path, place: Path, *options: str) -> None:
        """`place`: a directory for its log, its settings (spanrec.toml) and its socket."""
        self.over, self.out, self.place = over, out, place
        self._options = options
        self.log = place / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self._from = 0
        """Where in the log the process in progress begins."""

    @property
    def settings(self) -> Path:
        return self.place / "spanrec.toml"

    def start(self) -> None:
        """Start it and return at once."""
        self._from = self.log.stat().st_size if self.log.exists() else 0
        program = "from recorder.cli import main; main()"
        command = self.over.inside(
            sys.executable, "-c", program, "capture", "-i", self.over.receiver, "-o", str(self.out), "--listen", "",
            "--socket", str(self.place / "status"), *self._options,
        )  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.place, stderr=log, env=environment)

    def ready(self) -> None:
        """Wait until it records."""

        def recording() -> bool:
            if self.running.poll() is not None:
                raise FaultError(f"the service ended\n{self.log.read_text()[-3000:]}")
            return bool(self.events("recording"))

        wait_until(recording, "the service records")

    @property
    def running(self) -> "subprocess.Popen[bytes]":
        """The process in progress."""
        if self.process is None:
            raise FaultError("the service was not started")
        return self.process

    def events(self, name: str, code: str | None = None) -> list[dict[str, Any]]:
        """What the process in progress has logged under a name."""
        found = []
        with self.log.open("rb") as log:
            log.seek(self._from)
            for line in log.read().splitlines():
                if line.startswith(b"{"):
                    event = json.loads(line)
                    if event["event"] == name and (code is None or event.get("code") == code):
                        found.append(event)
        return found

    def began(self) -> tuple[int, int]:
        """When its sockets were open and when it began to read from them, ns."""
        opened, reading = (self.events(name)[0]["time"] for name in ("privileges-dropped", "recording"))
        return nanoseconds(opened), nanoseconds(reading)

    def kill(self) -> int:
        """SIGKILL; when it was gone, ns."""
        self.running.send_signal(signal.SIGKILL)
        self.running.wait()
        return time.time_ns()

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        self.running.send_signal(signal.SIGTERM)
        return self.running.wait(PATIENCE)

    def hang_up(self) -> None:
        """SIGHUP."""
        self.running.send_signal(signal.SIGHUP)

    def refuse_writes(self, refused: bool) -> None:
        """Every file of the process is as on a disk that takes nothing more, or not any longer (RLIMIT_FSIZE)."""
        limit = 0 if refused else resource.RLIM_INFINITY
        resource.prlimit(self.running.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def metrics(self) -> str:
        """What it tells Prometheus."""
        said = subprocess.run(
            ["curl", "-s", "--unix-socket", str(self.place / "status"), "http://localhost/metrics"],
            capture_output=True, text=True, check=False, timeout=20,
        )  # fmt: skip
        return said.stdout


@dataclass(frozen=True, slots=True)
class Sent:
    """A call that was sent, in time of the wall clock, ns."""

    number: int
    call_id: str
    addresses: tuple[str, str]
    """Where caller and callee send their media from."""
    invited: int
    media: tuple[int, int]
    ended: int
    """Its BYE."""


class Load:
    """`bench.wire` as a process: calls that follow one another."""

    def __init__(self, over: Wire, calls: int, seconds: float, hold: float) -> None:
        self._starts: Int64
        self._starts, self.hold = starts_of(calls, seconds, hold, 0.0)
        command = over.inside(
            sys.executable, "-m", "bench.wire", over.sender, "--calls", str(calls), "--seconds", str(seconds),
            "--hold", str(hold), "--wait", "--realtime",
        )  # fmt: skip
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            raise FaultError("the sender did not start")
        self.began = 0
        self.stopped: int | None = None
        self.latest_ms = 0.0
        """How late packets were sent at most, known once it has stopped."""

    def begin(self) -> None:
        """The first call begins."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.began = time.time_ns() + 50_000_000

    def stop(self) -> None:
        """No more packets from now on."""
        self._process.terminate()
        self.finish()

    def close(self) -> None:
        """Leave no process and no pipe behind."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def finish(self) -> None:
        """Wait until all is sent, or it has stopped."""
        assert self._process.stdout is not None
        said = self._process.stdout.readline()  # its process takes a while to end
        self.stopped = time.time_ns()
        self.latest_ms = json.loads(said)["latest_ms"]
        self._process.wait(PATIENCE)

    def calls(self) -> list[Sent]:
        """Calls that have begun until it was stopped."""
        until = self.stopped or time.time_ns()
        talk = round(self.hold * 1e9)
        found = []
        for number, start in enumerate(self._starts.tolist()):
            invited = self.began + start
            if invited > until:
                break
            known = plan(number, round(self.hold * 50))
            ends = tuple(f"{leg.address}:{leg.port}" for leg in (known.caller, known.callee))
            first = invited + MEDIA_NS
            found.append(
                Sent(
                    number, known.call_id, (ends[0], ends[1]), invited, (first, min(first + talk, until)),
                    first + talk + 30_000_000,
                )
            )  # fmt: skip
        return found
