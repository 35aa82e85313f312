"""Media of many recording sessions: `python -m bench.srs_load --sessions 1000 --seconds 20`.

In: numbers of sessions, of two streams with 50 packets a second each. Out: a table of what receivers of this kind of
load took, lost and cost, with the same streams sent in real time to each in turn (`bench.rtp_sender`). Receivers are
those of `bench.srs_receive`, and `socat`, one process a stream, where it is there.

`bench.srs_calls` has the whole recording server, with SIP.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.live import cpu_of
from bench.measure import ROOT, machine, table
from bench.rtp_sender import RtpSender

HOST = "127.0.0.1"
SOCAT_STREAMS = 200
"""More processes than these tell nothing more."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one receiver did."""

    kind: str
    streams: int
    sent: int
    received: int | None
    dropped: int | None
    cpu: float
    delays: str
    sender_late: str


def send(ports: list[int], seconds: float) -> RtpSender:
    """Send a stream to each port."""
    sender = RtpSender(len(ports), round(seconds * 50))
    for stream, port in enumerate(ports):
        sender.begin(stream, HOST, port)
    while (sender.sent < sender.packets).any():
        sender.turn()
    sender.close()
    return sender


def ours(kind: str, streams: int, seconds: float, pace: float) -> Result:
    command = [sys.executable, "-m", "bench.srs_receive", kind, str(streams), str(pace)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        ports = json.loads(child.stdout.readline())
        sender = send(ports, seconds)
        time.sleep(0.3)
        child.stdin.close()
        told = json.loads(child.stdout.readline())
    delays = "" if kind == "python" else f"{told['median_ms']:g} / {told['late_ms']:g} / {told['latest_ms']:g}"
    return Result(
        kind, streams, int(sender.sent.sum()), told["packets"], told["dropped"], told["cpu"], delays, late(sender)
    )


def late(sender: RtpSender) -> str:
    return f"{sender.pace.late} of {sender.pace.slots}, {sender.pace.latest * 1000:.0f} ms at most"


def socat(streams: int, seconds: float) -> Result:
    """One process a stream, as recorders made of it have it."""
    first = 30_000
    ports = [first + 2 * number for number in range(min(streams, SOCAT_STREAMS))]
    command = ["socat", "-u", "-b", "2048", "", "OPEN:/dev/null"]
    children = []
    try:
        for port in ports:
            command[4] = f"UDP4-RECV:{port},bind={HOST},rcvbuf=524288"
            children.append(subprocess.Popen(command))
        time.sleep(1.0)
        before = sum(cpu_of(child.pid) for child in children)
        sender = send(ports, seconds)
        time.sleep(0.3)
        cpu = sum(cpu_of(child.pid) for child in children) - before
    finally:
        for child in children:
            child.kill()
        for child in children:
            child.wait()
    return Result("socat", len(ports), int(sender.sent.sum()), None, None, cpu, "", late(sender))


def row(result: Result) -> tuple[str, ...]:
    share = result.cpu / (result.sent / 100_000) * 100
    return (
        result.kind,
        str(result.streams),
        str(result.sent),
        "" if result.received is None else str(result.received),
        "" if result.dropped is None else str(result.dropped),
        f"{share:.1f} %",
        result.delays,
        result.sender_late,
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure receivers of many streams.")
    parser.add_argument("--sessions", type=int, default=1000, help="of two streams each (1000)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of media (20)")
    parser.add_argument("--pace", type=float, default=0.04, help="least seconds between two batches (0.04)")
    parser.add_argument("--only", help="one receiver: ports, each, reception, engine, python or socat")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    print(f"On {machine()}. {options.sessions} sessions, {options.seconds:g} s.\n", flush=True)
    rows = []
    for kind in [options.only] if options.only else ["ports", "each", "reception", "engine", "python", "socat"]:
        if kind == "socat" and shutil.which("socat") is None:
            print("socat is not installed", file=sys.stderr)
            continue
        streams = 2 * options.sessions
        found = (
            socat(streams, options.seconds) if kind == "socat" else ours(kind, streams, options.seconds, options.pace)
        )
        rows.append(row(found))
        print(rows[-1], file=sys.stderr, flush=True)
    heads = (
        "receiver", "streams", "packets sent", "received", "dropped by the kernel", "of a core per 1,000 sessions",
        "handed over after, ms (half, 99 %, all)", "sender's slots over 5 ms late",
    )  # fmt: skip
    print(table(heads, rows))


if __name__ == "__main__":
    main()
