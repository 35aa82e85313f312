"""SIP, SDP, multipart and metadata at the sockets of a running recording server: `python -m tests.fuzz.srs_socket`.

In: a time, a seed. Mutated messages go to a `spanrec srs` of its own over UDP, and over TCP torn into pieces, within
dialogs and outside, while sessions with known audio are in progress. Out: a table: inputs, what the process held before
and after, how the calls in progress came out. Ends with 1 where the process died or grew, an exception went unforeseen,
a session stayed, or a call is not whole. All of it runs in a network namespace of its own, where nothing but loopback
is: what is mutated may name any host.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median

from capture.errors import SpanrecError
from recorder.siprec.control_client import ControlClient
from recorder.siprec.sip_settings import Ports
from tests.fuzz.srs_peer import DatagramPeer, StreamPeer
from tests.sipp_client import Client, available
from tests.srs_lab_habits import plain
from tests.srs_lab_stage import Habit, Stage, faults
from tests.srs_running import ROOT, RunningServer, running

ALONE = "SPANREC_FUZZ_ALONE"
MEDIA = Ports(40000, 49999)
SETTINGS = (
    *("rate = 100000", "burst = 100000", "max_sessions = 300", "snapshot_after = 5"),
    # What is mutated comes from one address, the calls in progress from another.
    *("max_sessions_of_one = 100", "max_streams_of_one = 1600"),
)
CALLS = 4
"""Sessions with known audio at any time."""
GROWTH_DESCRIPTORS, GROWTH_THREADS = 30, 4
"""What the process may hold more at the end."""
GROWTH_MB = 80.0
"""MB that it may hold more than before the attack, whatever for."""
LOOKS = 48
"""How often it is asked in the course of an attack what it holds."""
WARM = 130.0
"""s after which it knows as many sessions that are over as it will at any time: 64 s until one that nobody acknowledged
is, 60 in which its call waits for another. Memory is to stand still from then on."""
LEAK_MB = 0.3
"""MB for 1,000 inputs by which it may grow between the two halves of what follows: 300 octets for each."""
ENOUGH = 8
"""Looks of a half at least."""
FORGET = 75.0
"""s after which sessions that nobody acknowledged must be gone: RFC 3261 gives 32 s to the ACK, and 32 to our BYE."""
HABIT = Habit("call", "a call in progress", plain)


@dataclass(frozen=True, slots=True)
class Held:
    """What the process holds."""

    inputs: int
    """That it had got."""
    megabytes: float
    descriptors: int
    threads: int
    sessions: int


@dataclass
class Outcome:
    """What came of a run."""

    inputs: dict[str, int] = field(default_factory=dict)
    before: Held | None = None
    after: Held | None = None
    course: list[tuple[float, Held]] = field(default_factory=list)
    """What it held meanwhile, s after the begin of the attack."""
    growth: float | None = None
    """MB for 1,000 inputs, of a run that was long enough."""
    calls: int = 0
    packets: int = 0
    faults: list[str] = field(default_factory=list)


def held(server: RunningServer, inputs: int = 0) -> Held:
    """Ask the system, and the server."""
    sessions = len(_sessions(server))
    return Held(inputs, server.resident_mb(), server.descriptors(), server.threads(), sessions)


def _sessions(server: RunningServer) -> Sequence[str]:
    """In progress; those that are over are listed for a while too."""
    listed = ControlClient(server.socket).sessions()
    return [each.id for each in listed if each.state not in ("ended", "failed")]


@dataclass
class Calls:
    """Sessions with known audio, one after the other in each of some threads, until told to end."""

    server: RunningServer
    work: Path
    over: threading.Event = field(default_factory=threading.Event)
    stages: list[Stage] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Released for each session that is over."""

    def run(self, lane: int) -> None:
        number = 0
        while not self.over.is_set() or not number:
            name = f"call{lane}x{number}"
            transport = ("u1", "t1")[lane % 2]
            port = self.server.ports["tcp" if transport == "t1" else "udp"]
            stage = Stage(name, Client(self.work / name, transport, port, f"{name}@sipp"))
            HABIT.script(stage)
            try:
                stage.client.run(stage.steps, stage.packets)
            except RuntimeError as error:
                self.errors.append(str(error))
            self.stages.append(stage)
            number += 1
            self.begun.release()

    def judge(self, outcome: Outcome, *, exact: bool) -> None:
        """Hold their recordings against what was said."""
        from tests.srs_lab_sipp import recorded

        found = recorded(self.server)
        outcome.calls = len(self.stages)
        outcome.faults += self.errors
        for stage in self.stages:
            made = found.get(stage.client.call_id, [])
            outcome.packets += sum(stream.packets for document, _ in made for stream in document.streams)
            wrong = faults(HABIT, stage, made, audio=exact)
            outcome.faults += [f"{stage.client.call_id}: {each}" for each in wrong]


def attack(server: RunningServer, seconds: float, seed: int, outcome: Outcome) -> None:
    """Send what is mutated until the time is over."""
    peers = [
        DatagramPeer(server.ports["udp"], Random(f"{seed} udp")),
        StreamPeer(server.ports["tcp"], Random(f"{seed} tcp")),
    ]
    begun = looked = time.monotonic()
    try:
        while (now := time.monotonic()) < begun + seconds and server.alive:
            for peer in peers:
                peer.step()
            if now - looked >= seconds / LOOKS:
                looked = now
                inputs = sum(sum(peer.sent.values()) for peer in peers)
                outcome.course.append((now - begun, held(server, inputs)))
        for peer in peers:
            peer.end_dialogs()
    finally:
        for peer in peers:
            peer.close()
            for what, count in peer.sent.items():
                outcome.inputs[what] = outcome.inputs.get(what, 0) + count


def fuzz(work: Path, seconds: float, seed: int, *, exact: bool) -> Outcome:
    """Fuzz a server of our own. `exact`: see to every sample of the calls, and that no session stays."""
    outcome = Outcome()
    with running(work / "srs", MEDIA, *SETTINGS) as server:
        calls = Calls(server, work)
        lanes = [threading.Thread(target=calls.run, args=(lane,)) for lane in range(CALLS)]
        for lane in lanes:
            lane.start()
        # What it holds once it has recorded calls is what it holds for good.
        calls.begun.acquire()
        outcome.before = held(server)
        attack(server, seconds, seed, outcome)
        calls.over.set()
        for lane in lanes:
            lane.join()
        if not server.alive:
            outcome.faults.append(f"the process died: {server.log.read_text()[-2000:]}")
            return outcome

        def forgotten() -> bool:
            with suppress(SpanrecError):
                return not _sessions(server)
            return False

        if exact and not server.wait_for(forgotten, FORGET):
            outcome.faults.append(f"{len(_sessions(server))} sessions are still there")
        outcome.after = held(server)
        outcome.growth = growth(outcome.course)
        if exact:
            outcome.faults += _grown(outcome.before, outcome.after, outcome.growth)
    told = [f"{line['event']}: {line.get('text', '')}" for line in server.messages("srs-failed", "failed")]
    outcome.faults += told
    calls.judge(outcome, exact=exact)
    return outcome


def growth(course: Sequence[tuple[float, Held]]) -> float | None:
    """MB for 1,000 inputs by which memory grew once the process was warm: the middle of the second half of the looks
    against that of the first. None where the run was too short to tell."""
    warm = [each for at, each in course if at >= WARM]
    half = len(warm) // 2
    if half < ENOUGH:
        return None
    first, second = warm[:half], warm[-half:]
    megabytes = median(each.megabytes for each in second) - median(each.megabytes for each in first)
    inputs = median(each.inputs for each in second) - median(each.inputs for each in first)
    return 1000 * megabytes / max(inputs, 1)


def _grown(before: Held, after: Held, grown: float | None) -> list[str]:
    """What it holds more of than it should."""
    bounds = (("megabytes", GROWTH_MB), ("descriptors", GROWTH_DESCRIPTORS), ("threads", GROWTH_THREADS))
    found = [
        f"{name} grew from {getattr(before, name):.0f} to {getattr(after, name):.0f}"
        for name, bound in bounds
        if getattr(after, name) - getattr(before, name) > bound
    ]
    if grown is not None and grown > LEAK_MB:
        found.append(f"memory grows by {grown:.2f} MB for 1,000 inputs")
    return found


def alone(arguments: Sequence[str]) -> int:
    """The same, where nothing but loopback is."""
    command = 'ip link set lo up && exec "$0" -m tests.fuzz.srs_socket "$@"'
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    shell = ["unshare", "--net", *user, "sh", "-c", command, sys.executable, *arguments]
    return subprocess.run(shell, cwd=ROOT, env={**os.environ, ALONE: "1"}, check=False).returncode


def tell(outcome: Outcome) -> None:
    """The table."""
    total = sum(outcome.inputs.values())
    print("| what | figure |\n| --- | --: |")
    print(f"| inputs | {total} |")
    for what, count in sorted(outcome.inputs.items()):
        print(f"| of them {what} | {count} |")
    looks = [("before", outcome.before), ("after", outcome.after)]
    for name in ("megabytes", "descriptors", "threads", "sessions"):
        told = [f"{when} {getattr(each, name):.0f}" for when, each in looks if each is not None]
        print(f"| {name} | {', '.join(told)} |")
    course = ", ".join(f"{at:.0f}: {each.megabytes:.0f} ({each.sessions})" for at, each in outcome.course)
    print(f"| s: megabytes (sessions) | {course} |")
    grown = "not told: too short" if outcome.growth is None else f"{outcome.growth:.2f}"
    print(f"| MB for 1,000 inputs, from {WARM:.0f} s on | {grown} |")
    print(f"| calls in progress meanwhile | {outcome.calls}, {outcome.packets} packets |")
    print(f"| found | {'; '.join(outcome.faults) or 'nothing'} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.srs_socket", description="Fuzz the recording server.")
    parser.add_argument("--seconds", type=float, default=60.0, help="of sending (60)")
    parser.add_argument("--seed", type=int, default=1, help="of random mutation (1)")
    parser.add_argument(
        "--short", action="store_true", help="look at no samples, and not wait until what is left is forgotten"
    )
    parser.add_argument("--dir", type=Path, help="a new directory; it is kept")
    options = parser.parse_args()
    if not available:
        print("sipp is not installed: the recording server is not fuzzed at its sockets", file=sys.stderr)
        return 0
    if ALONE not in os.environ:
        return alone(sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="fuzz-srs-") as directory:
        outcome = fuzz(options.dir or Path(directory), options.seconds, options.seed, exact=not options.short)
    tell(outcome)
    return bool(outcome.faults)


if __name__ == "__main__":
    sys.exit(main())
