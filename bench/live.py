"""The whole live recorder on a wire: `python -m bench.live --calls 2000 --seconds 120`.

Calls are sent over a veth pair in real time by `bench.wire`; `spanrec capture` records them from the other end. Said
are the frames that were sent, read and dropped, the recorder's CPU and memory, how late audio reached the disk, and for
how many calls every packet of both sides was heard and stands in the recording. Needs root and iproute2. `--step` looks
for the breaking point: more calls with every round until something is lost. `--tcpdump` sends the traffic of the first
round once more, to a tcpdump that writes it to the same place, with a ring as large.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.live_check import Verdict, verdicts
from bench.measure import ROOT, machine, scratch, table
from bench.ring import with_tcpdump
from bench.veth import Wire, wire

MOST_SAID = 40
MOST_KEPT = 20
LATENESS = "late.npy"
"""How late each slot was sent, s."""
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
    cut: int
    """Packets that moving others cut, of all calls."""
    moves: int


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the live recorder.")
    parser.add_argument("--calls", type=int, default=2000, help="at once: 100 packets a second each (2000)")
    parser.add_argument("--seconds", type=float, default=120.0, help="of media of each call (120)")
    parser.add_argument("--ramp", type=float, default=20.0, help="seconds in which all calls begin (20)")
    parser.add_argument("--step", type=int, default=0, help="so many calls more in each further round, until it breaks")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--tcpdump", action="store_true", help="have tcpdump write the same traffic after it")
    parser.add_argument("--ring-size", type=int, default=256, help="MB (256)")
    parser.add_argument("--dir", type=Path, help="for the recordings (in memory, if there is room)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="copy the log and recordings that are not whole there")
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


def one_round(calls: int, options: argparse.Namespace) -> Round:
    need = int(calls * (options.seconds + 4) * 33_000)
    with scratch(options.dir, need) as directory, wire("live") as over, long_queue():
        out = directory / "out"
        share(over)
        recorder = Recorder(over, out, options)
        idle = cpu_of(recorder.process.pid)
        began = time.monotonic()
        sent = send(over, calls, options, "--lateness", str(directory / LATENESS))
        wall = time.monotonic() - began
        busy = cpu_of(recorder.process.pid) - idle
        time.sleep(GRACE)
        told = recorder.ask("/metrics")
        _, peak = recorder.end()
        alarms = [line for line in recorder.log.read_text().splitlines() if "call-recorded" not in line]
        print("\n".join(alarms[4:24]), file=sys.stderr)
        found = list(verdicts(out, options.seconds))
        explain(found, directory, options.keep)
        return Round(
            calls, sent, int(metric(told, "spanrec_packets_total")),
            int(metric(told, "spanrec_kernel_drops_total")), busy, wall, peak,
            metric(told, "spanrec_disk_delay_max_seconds"), len(found), sum(each.whole for each in found),
            int(metric(told, "spanrec_calls_shed_total")), sum(each.cut for each in found),
            sum(each.moves for each in found),
        )  # fmt: skip


def send(over: Wire, calls: int, options: argparse.Namespace, *more: str) -> dict[str, float]:
    """Send all calls in real time; what the sender says."""
    command = over.inside(sys.executable, "-m", "bench.wire", over.sender, "--realtime")
    command += ["--cpu", str((os.cpu_count() or 1) - 1)]
    command += ["--calls", str(calls), "--seconds", str(options.seconds), "--ramp", str(options.ramp), *more]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=options.seconds + 120)
    found: dict[str, float] = json.loads(said.stdout)
    return found


def beside_tcpdump(options: argparse.Namespace) -> str:
    """What tcpdump makes of the first round's traffic."""
    with wire("live") as over, long_queue():
        share(over)
        read = with_tcpdump(over, options, lambda over, options: send(over, options.calls, options), options.ring_size)
    return (
        f"tcpdump -w: {read.sent['packets']:.0f} sent, {read.packets} read, {read.dropped} dropped, "
        f"{read.cpu:.1f} CPU s, {read.cpu / read.wall * 1000 / options.calls * 100:.1f} % of a core per 1,000 calls, "
        f"slots late {read.sent['late_ms']:.1f} / {read.sent['latest_ms']:.1f} ms"
    )


def explain(found: list[Verdict], directory: Path, keep: Path | None) -> None:
    """Say of each call that is not whole why, and keep the first of them where that is wanted."""
    broken = [each for each in found if not each.whole]
    for each in broken[:MOST_SAID]:
        print(f"not whole: call {each.number}: {'; '.join(each.reasons)}", file=sys.stderr)
    if len(broken) > MOST_SAID:
        print(f"not whole: {len(broken) - MOST_SAID} more", file=sys.stderr)
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        for each in broken[:MOST_KEPT]:
            shutil.copytree(each.place, keep / each.place.name, dirs_exist_ok=True)
        for name in ("log", LATENESS):
            if (directory / name).exists():
                shutil.copy(directory / name, keep)
        reasons = [{"call": each.number, "place": each.place.name, "reasons": each.reasons} for each in broken]
        (keep / "reasons.json").write_text(json.dumps(reasons, indent=1) + "\n")


def share(over: Wire) -> None:
    """Have the kernel take frames in on the first processor, while the sender keeps to the last.

    A network card's interrupts do not come out of the sender's time either: half of what a frame costs it is the
    receiving side of the wire. Without kernel support or a second processor, all stays with the sender.
    """
    steering = f"/sys/class/net/{over.receiver}/queues/rx-0/rps_cpus"
    subprocess.run(over.inside("sh", "-c", f"echo 1 > {steering}"), check=False, capture_output=True, timeout=20)


@contextmanager
def long_queue(frames: int = 20_000) -> Iterator[None]:
    """Let the kernel's queue before all programs hold so many frames, as docs/appliance.md advises; then as before."""
    setting = Path("/proc/sys/net/core/netdev_max_backlog")
    before = setting.read_text()
    setting.write_text(str(max(frames, int(before))))
    try:
        yield
    finally:
        setting.write_text(before)


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
                f"{each.cut} / {each.moves}",
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
        "calls", "sent", "read", "dropped", "recorded", "whole", "shed", "packets cut / moves", "CPU s",
        "of a core per 1,000 calls", "longest delay to disk, s", "peak MB", "slots late, ms (99 %, most)",
    )  # fmt: skip
    print(table(heads, rows))

    if options.tcpdump:
        print(beside_tcpdump(options))


if __name__ == "__main__":
    main()
