"""The whole live recorder on a wire: `python -m bench.live --calls 2000 --seconds 120`.

Calls are sent over a veth pair in real time by `bench.wire`; `spanrec capture` records them from the other end. Said
are the frames that were sent, read and dropped, the recorder's CPU and memory, how late audio reached the disk, and for
how many calls every packet of both sides was heard and stands in the recording. Needs root and iproute2. `--step` looks
for the breaking point: more calls with every round until something is lost.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
import wave
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from bench.calls import FRAME, expected_samples
from bench.measure import ROOT, machine, scratch, table
from bench.veth import Wire, wire

CUT = 0.005
"""Of the packets of a direction, at most, that moving others may cut."""
FAR = 1600
"""Samples by which packets may be moved at once."""
GRACE = 8.0
"""Seconds that the recorder is left after the last frame, to end and publish the calls."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one run showed."""

    calls: int
    sent: dict[str, float]
    read: int
    dropped: int
    cpu: float
    wall: float
    peak_mb: float
    delay: float
    recorded: int
    whole: int
    shed: int


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the live recorder.")
    parser.add_argument("--calls", type=int, default=2000, help="at once: 100 packets a second each (2000)")
    parser.add_argument("--seconds", type=float, default=120.0, help="of media of each call (120)")
    parser.add_argument("--ramp", type=float, default=20.0, help="seconds in which all calls begin (20)")
    parser.add_argument("--step", type=int, default=0, help="so many calls more in each further round, until it breaks")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--ring-size", type=int, default=256, help="MB (256)")
    parser.add_argument("--dir", type=Path, help="for the recordings (in memory, if there is room)")
    return parser.parse_args()


class Recorder:
    """`spanrec capture` in the wire's namespace."""

    def __init__(self, over: Wire, out: Path, options: argparse.Namespace) -> None:
        self.log = out.parent / "log"
        program = "from recorder.cli import main; main()"
        command = over.inside(
            sys.executable, "-c", program, "capture", "-i", over.receiver, "-o", str(out), "--listen", "",
            "--socket", str(out.parent / "status"), "--workers", str(options.workers),
            "--ring-size", str(options.ring_size), "--stop-at", "64MB", "--resume-at", "128MB",
        )  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, cwd=out.parent, stderr=self.log.open("wb"), env=environment)
        while b'"recording"' not in self.log.read_bytes():
            if self.process.poll() is not None:
                raise SystemExit(self.log.read_text())
            time.sleep(0.05)
        self.socket = out.parent / "status"

    def ask(self, page: str) -> str:
        """A page of its status."""
        said = subprocess.run(
            ["curl", "-s", "--unix-socket", str(self.socket), f"http://localhost{page}"],
            capture_output=True, text=True, check=False, timeout=20,
        )  # fmt: skip
        return said.stdout

    def end(self) -> tuple[float, float]:
        """Stop it; CPU seconds and peak of memory in MB of its life."""
        self.process.send_signal(signal.SIGTERM)
        _, _, used = os.wait4(self.process.pid, 0)
        self.process.returncode = 0
        return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def metric(text: str, name: str) -> float:
    """Sum of a metric's samples."""
    return sum(float(value) for value in re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE))


def check(out: Path, seconds: float) -> tuple[int, int]:
    """Recordings, and how many of them hold every sample of both sides in one unbroken piece."""
    whole = recorded = 0
    for path in out.glob("2*/*/*/*/call.json"):
        document = json.loads(path.read_text())
        recorded += 1
        if document["call_id"] is None:
            continue
        number = int(document["call_id"][8:16], 16)
        if document["audio"] is None:
            continue
        with wave.open(str(path.parent / "audio.wav")) as file:
            heard = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
        complete = all(each["lost"] == 0 and each["packets"] == round(seconds * 50) for each in document["streams"])
        whole += complete and all(
            holds(heard[:, channel], expected_samples(number, side, seconds))
            for channel, side in enumerate(("caller", "callee"))
        )
    return recorded, whole


def holds(heard: "np.ndarray", sent: "np.ndarray") -> bool:
    """Whether every packet that was sent stands in what was heard, in order, but for CUT of them.

    Where the sender was late for a while, the recorder moves whole packets, as for a clock that drifts: silence lies
    between two of them then, or one is cut by the next.
    """
    loud, first = np.flatnonzero(heard), np.flatnonzero(sent)
    if not len(loud) or not len(first):
        return False
    packets = sent.reshape(-1, FRAME)
    shift, place, cut = int(loud[0]) - int(first[0]), 0, 0
    while place < len(packets):
        begin = place * FRAME + shift
        there = heard[max(begin, 0) : begin + (len(packets) - place) * FRAME]
        count = len(there) // FRAME if begin >= 0 else 0
        equal = (there[: count * FRAME].reshape(-1, FRAME) == packets[place : place + count]).all(axis=1)
        run = int(np.argmin(equal)) if count and not equal.all() else count
        place += run
        if place == len(packets):
            break
        moved = search(heard, packets[place], place * FRAME + shift)
        if moved is None:
            cut += 1
            place += 1
        else:
            shift += moved
    return cut <= CUT * len(packets)


def search(heard: "np.ndarray", packet: "np.ndarray", near: int) -> int | None:
    """By how many samples a packet stands away from where it was expected; None where it does not stand within FAR."""
    low = max(near - FAR, 0)
    window = heard[low : near + FAR + FRAME]
    if len(window) < FRAME:
        return None
    found = np.flatnonzero((np.lib.stride_tricks.sliding_window_view(window, FRAME) == packet).all(axis=1))
    return int(found[np.argmin(np.abs(found + low - near))]) + low - near if len(found) else None


def one_round(calls: int, options: argparse.Namespace) -> Round:
    need = int(calls * (options.seconds + 4) * 33_000)
    with scratch(options.dir, need) as directory, wire("live") as over:
        out = directory / "out"
        recorder = Recorder(over, out, options)
        idle = cpu_of(recorder.process.pid)
        began = time.monotonic()
        command = over.inside(sys.executable, "-m", "bench.wire", over.sender, "--realtime")
        command += ["--calls", str(calls), "--seconds", str(options.seconds), "--ramp", str(options.ramp)]
        said = subprocess.run(
            command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=options.seconds + 120
        )
        wall = time.monotonic() - began
        busy = cpu_of(recorder.process.pid) - idle
        time.sleep(GRACE)
        told = recorder.ask("/metrics")
        _, peak = recorder.end()
        alarms = [line for line in recorder.log.read_text().splitlines() if "call-recorded" not in line]
        print("\n".join(alarms[4:24]), file=sys.stderr)
        recorded, whole = check(out, options.seconds)
        return Round(
            calls, json.loads(said.stdout), int(metric(told, "spanrec_packets_total")),
            int(metric(told, "spanrec_kernel_drops_total")), busy, wall, peak,
            metric(told, "spanrec_disk_delay_max_seconds"), recorded, whole,
            int(metric(told, "spanrec_calls_shed_total")),
        )  # fmt: skip


def cpu_of(process: int) -> float:
    """User and system seconds of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    options = arguments()
    print(f"On {machine()}. Calls of {options.seconds:g} s.\n", flush=True)
    rows = []
    for number in range(options.rounds):
        each = one_round(options.calls + number * options.step, options)
        rows.append(
            (
                each.calls,
                f"{each.sent['packets']:.0f}",
                each.read,
                each.dropped,
                each.recorded,
                each.whole,
                each.shed,
                f"{each.cpu:.1f}",
                f"{each.cpu / each.wall * 1000 / each.calls * 100:.1f} %",
                f"{each.delay:.2f}",
                f"{each.peak_mb:.0f}",
                f"{each.sent['late_ms']:.1f} / {each.sent['latest_ms']:.1f}",
            )
        )
        print(rows[-1], file=sys.stderr, flush=True)
        if options.step and (each.dropped or each.whole < each.calls):
            break
    heads = (
        "calls", "sent", "read", "dropped", "recorded", "whole", "shed", "CPU s", "of a core per 1,000 calls",
        "longest delay to disk, s", "peak MB", "slots late, ms (99 %, most)",
    )  # fmt: skip
    print(table(heads, rows))


if __name__ == "__main__":
    main()
