"""The ring source alone, beside tcpdump that writes the same traffic to memory: `python -m bench.ring --seconds 120`.

Calls are sent over a veth pair in real time by `bench.wire`, once for each reader. Said are the frames that were sent,
that came out and that were dropped, and the CPU seconds of each reader; what it costs to bring a frame to the reader's
ring is the sender's. Needs root, iproute2, and tcpdump for its row.
"""

import argparse
import json
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.measure import ROOT, machine, scratch, table
from bench.veth import Wire, wire

SETTLE = 0.5
"""Seconds that a reader is left after the last frame."""
RING_MB = 128
"""Of both readers' rings."""


@dataclass(frozen=True, slots=True)
class Read:
    """What a reader made of the traffic."""

    name: str
    sent: dict[str, float]
    packets: int
    dropped: int
    cpu: float
    wall: float


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the ring source beside tcpdump.")
    parser.add_argument("--calls", type=int, default=2000, help="at once: 100 packets a second each (2000)")
    parser.add_argument("--seconds", type=float, default=120.0, help="of media of each call (120)")
    parser.add_argument("--sockets", type=int, default=1, help="that share the interface (1)")
    parser.add_argument("--dir", type=Path, help="for what tcpdump writes (in memory, if there is room)")
    parser.add_argument("--without", action="append", default=[], choices=["ring", "tcpdump"])
    parser.add_argument("--read", metavar="INTERFACE", help=argparse.SUPPRESS)
    return parser.parse_args()


def read(interface: str, sockets: int) -> None:
    """The reader, in a process of its own: until a line comes in, or the end of the input."""
    from capture.ring import RingOptions, RingSource

    source = RingSource([interface], RingOptions(promiscuous=True, sockets=sockets, ring_size=RING_MB << 20))
    asked = threading.Event()

    def listen() -> None:
        sys.stdin.readline()
        asked.set()

    threading.Thread(target=listen, daemon=True).start()
    before = resource.getrusage(resource.RUSAGE_SELF)
    print("ready", flush=True)
    packets = batches = 0
    while not asked.is_set():
        batch = source.poll(0.2)
        if batch is not None:
            packets += len(batch)
            batches += 1
    time.sleep(1.0)  # the kernel is asked for its counts once a second
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"packets": packets, "batches": batches, "dropped": source.counters().dropped, "cpu": cpu}))
    source.close()


def send(over: Wire, options: argparse.Namespace) -> dict[str, float]:
    """Send all calls; what the sender says."""
    command = over.inside(sys.executable, "-m", "bench.wire", over.sender, "--realtime")
    command += ["--calls", str(options.calls), "--seconds", str(options.seconds)]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=options.seconds + 120)
    time.sleep(SETTLE)
    found: dict[str, float] = json.loads(said.stdout)
    return found


def with_ring(over: Wire, options: argparse.Namespace) -> Read:
    """The ring source's row."""
    command = over.inside(
        sys.executable, "-m", "bench.ring", "--read", over.receiver, "--sockets", str(options.sockets)
    )
    reader = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert reader.stdout is not None
    try:
        reader.stdout.readline()
        began = time.monotonic()
        sent = send(over, options)
        wall = time.monotonic() - began
        said, _ = reader.communicate("\n", timeout=20)
    finally:
        reader.kill()
    found = json.loads(said)
    print(f"{found['batches']} batches of {found['packets'] / max(found['batches'], 1):.0f} frames", file=sys.stderr)
    return Read("ring source", sent, found["packets"], found["dropped"], found["cpu"], wall)


def with_tcpdump(
    over: Wire,
    options: argparse.Namespace,
    sending: Callable[[Wire, argparse.Namespace], dict[str, float]] = send,
    ring_mb: int = RING_MB,
) -> Read:
    """tcpdump's row: it writes all that `sending` sends."""
    with scratch(options.dir, int(options.calls * (options.seconds + 4) * 23_100)) as directory:
        out = directory / "tcpdump.pcap"
        command = over.inside("tcpdump", "-i", over.receiver, "-n", "-s", "0", "-B", str(ring_mb << 10), "-Z", "root")
        reader = subprocess.Popen([*command, "-w", str(out)], stderr=subprocess.PIPE, text=True)
        assert reader.stderr is not None
        try:
            reader.stderr.readline()
            began = time.monotonic()
            sent = sending(over, options)
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            wall = time.monotonic() - began
            reader.send_signal(signal.SIGINT)
            _, said = reader.communicate(timeout=60)
        finally:
            reader.kill()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    captured = re.search(r"(\d+) packets? captured", said)
    dropped = re.search(r"(\d+) packets? dropped by kernel", said)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if captured is None or dropped is None:
        raise SystemExit(f"tcpdump says: {said}")
    return Read("tcpdump -w", sent, int(captured[1]), int(dropped[1]), cpu, wall)


def main() -> None:
    options = arguments()
    if options.read:
        read(options.read, options.sockets)
        return
    print(f"On {machine()}. {options.calls} calls of {options.seconds:g} s.\n", flush=True)
    found = []
    with wire("ring") as over:
        if "ring" not in options.without:
            found.append(with_ring(over, options))
        if "tcpdump" not in options.without and shutil.which("tcpdump"):
            found.append(with_tcpdump(over, options))
    rows = [
        (
            each.name, f"{each.sent['packets']:.0f}", each.packets, each.dropped, f"{each.cpu:.2f}",
            f"{each.cpu / max(each.packets, 1) * 1e6:.3f}", f"{each.cpu / each.wall * 100:.1f} %",
            f"{each.sent['cpu']:.2f}", f"{each.sent['late_ms']:.1f} / {each.sent['latest_ms']:.1f}",
        )
        for each in found
    ]  # fmt: skip
    heads = (
        "", "sent", "read", "dropped", "CPU s", "µs a packet", "of a core",
        "sender's CPU s", "slots late, ms (99 %, most)",
    )  # fmt: skip
    print(table(heads, rows))


if __name__ == "__main__":
    main()
