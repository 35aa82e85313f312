"""`spanrec src` on a wire and two recording servers behind another, as processes that are killed, stopped and asked.

In: a directory. Out: a `Lab` within a `with` block: the wire that `bench.wire` sends to, two namespaces joined by a
veth pair, and programs in them. Needs root and iproute2; everything is gone afterwards.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.faults_service import FaultError, wait_until
from bench.measure import ROOT
from bench.veth import Wire, run, wire

CLIENT, PORT = "10.77.0.1", 5060
SERVERS = {"A": ("10.77.0.2", "40000-44499"), "B": ("10.77.0.3", "44500-49999")}
"""Address and media ports of each."""
_TICK = os.sysconf("SC_CLK_TCK")
_MAIN = "from recorder.cli import main; main()"
_PROFILED = """
import cProfile, sys
from recorder.siprec.loop import SessionLoop
run, profile = SessionLoop._run, cProfile.Profile()
def profiled(self):
    profile.enable()
    try:
        run(self)
    finally:
        profile.disable()
        profile.dump_stats(PLACE)
SessionLoop._run = profiled
from recorder.cli import main; main()
"""


class Program:
    """`spanrec` with the same arguments, one process after the other."""

    def __init__(self, namespace: str, place: Path, *arguments: str, settings: str = "", profile: bool = False) -> None:
        """`place`: a directory of its own. `profile`: the sessions' thread is profiled into `place`/profile."""
        place.mkdir(parents=True)
        self.place, self.log = place, place / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self._from = 0
        (place / "spanrec.toml").write_text(settings)
        text = _MAIN
        if profile:
            text = _PROFILED.replace("PLACE", repr(str(place / "profile")))
        self._command = [
            "ip", "netns", "exec", namespace, sys.executable, "-c", text, *arguments, "--socket", str(place / "status"),
        ]  # fmt: skip

    def start(self) -> None:
        """Start it and return at once."""
        self._from = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, cwd=self.place, stderr=log, stdout=log, env={**os.environ, "PYTHONPATH": str(ROOT)}
            )

    def ready(self) -> None:
        """Wait until it records."""

        def recording() -> bool:
            if self.running.poll() is not None:
                raise FaultError(f"it ended\n{self.log.read_text()[-3000:]}")
            return b'"recording"' in self.log.read_bytes()[self._from :]

        wait_until(recording, "the program is ready", 240.0)

    @property
    def running(self) -> "subprocess.Popen[bytes]":
        """The process in progress."""
        if self.process is None:
            raise FaultError("it was not started")
        return self.process

    def end(self, how: signal.Signals = signal.SIGTERM, patience: float = 60.0) -> None:
        """Send a signal and wait until it is gone; one that stays is killed."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def events(self, *names: str) -> list[dict[str, Any]]:
        """What all its processes have logged under these names; all there is without."""
        found = []
        for line in self.log.read_bytes().splitlines():
            if line.startswith(b"{"):
                try:
                    event = json.loads(line)
                except ValueError:
                    continue  # a kill cut it off
                if not names or event["event"] in names:
                    found.append(event)
        return found

    def sessions(self) -> list[dict[str, Any]]:
        """`spanrec ctl sessions`, those in progress."""
        said = subprocess.run(
            [sys.executable, "-c", _MAIN, "ctl", "sessions", "--json", "--url", str(self.place / "status")],
            cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        listed = json.loads(said.stdout)
        found: list[dict[str, Any]] = listed["sessions"] if isinstance(listed, dict) else listed
        return [each for each in found if each["state"] not in ("ended", "failed")]

    def cpu(self) -> float:
        """User and system seconds so far."""
        return _cpu(Path(f"/proc/{self.running.pid}/stat"))

    def cpu_of_threads(self) -> list[float]:
        """The same of each thread, most first."""
        return sorted((_cpu(each / "stat") for each in Path(f"/proc/{self.running.pid}/task").iterdir()), reverse=True)

    def holds(self) -> "Holds":
        """What it holds now."""
        process = Path(f"/proc/{self.running.pid}")
        lines = (process / "status").read_text().splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) // 1024 for line in lines if line.endswith(" kB")}
        descriptors, threads = (len(os.listdir(process / kind)) for kind in ("fd", "task"))
        return Holds(descriptors, threads, sizes["VmRSS"], sizes["RssAnon"])


@dataclass(frozen=True, slots=True)
class Holds:
    """Resources of a process."""

    descriptors: int
    threads: int
    mb: int
    """Resident memory."""
    own: int = 0
    """That of it which is no file's, MB."""


@dataclass(frozen=True, slots=True)
class Lab:
    """Where all of it runs."""

    wire: Wire
    servers: str
    """Namespace of the servers."""
    place: Path

    def client(self, srs: str, *, settings: str = "", profile: bool = False) -> Program:
        """`spanrec src`, its calls from the wire, by these `settings`; not started."""
        return Program(
            self.wire.namespace, self.place / "src", "src", "-i", self.wire.receiver, "--srs", srs,
            "-o", str(self.place / "src" / "out"), "--listen", "", settings=settings, profile=profile,
        )  # fmt: skip

    def server(self, name: str) -> Program:
        """`spanrec srs`, A or B; not started."""
        address, ports = SERVERS[name]
        place = self.place / name
        sockets = [each for kind in ("udp", "tcp") for each in ("--listen", f"{kind}:{address}:{PORT}")]
        return Program(
            self.servers, place, "srs", *sockets, "-o", str(place / "out"), "--status", "", "--workers", "1",
            settings=f'[srs]\nports = "{ports}"\ndrain = 2\n',
        )  # fmt: skip

    def sender(self, *options: str) -> "subprocess.Popen[str]":
        """`bench.wire` at the other end of the wire; the process prints a line of JSON at its end."""
        command = self.wire.inside(sys.executable, "-m", "bench.wire", self.wire.sender, "--realtime", *options)
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def uri(name: str) -> str:
    """Of a server."""
    return f"sip:rec@{SERVERS[name][0]}:{PORT};transport=tcp"


@contextmanager
def programs(stack: ExitStack, *all_: Program) -> Iterator[None]:
    """Start programs and wait until they are ready; they end with the stack."""
    for each in all_:
        stack.callback(each.end)
        each.start()
    for each in all_:
        each.ready()
    yield


@contextmanager
def lab(place: Path) -> Iterator[Lab]:
    """Make the namespaces."""
    with ExitStack() as stack:
        over = stack.enter_context(wire("srcload"))
        behind = f"spanrec-srcsrs-{os.getpid()}"
        run("ip", "netns", "add", behind)
        stack.callback(run, "ip", "netns", "del", behind)
        run("ip", "-n", over.namespace, "link", "add", "client", "type", "veth", "peer", "name", "servers")
        run("ip", "-n", over.namespace, "link", "set", "servers", "netns", behind)
        run("ip", "-n", over.namespace, "addr", "add", f"{CLIENT}/24", "dev", "client")
        run("ip", "-n", over.namespace, "link", "set", "client", "up")
        for address, _ in SERVERS.values():
            run("ip", "-n", behind, "addr", "add", f"{address}/24", "dev", "servers")
        run("ip", "-n", behind, "link", "set", "servers", "up")
        run("ip", "-n", behind, "link", "set", "lo", "up")
        yield Lab(over, behind, place)


def _cpu(stat: Path) -> float:
    try:
        fields = stat.read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK
