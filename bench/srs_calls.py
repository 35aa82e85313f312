"""The whole recording server under load: `python -m bench.srs_calls --sessions 1000 --seconds 60 --rate 100`.

`spanrec srs` is started and gets recording sessions from `bench.srs_src`, as many as are asked for, at so many set-ups
a second, with media of two streams each. Said are set-up times, its CPU and memory, and how many recordings hold every
sample of both sides. `--server` and `--store` drive one that runs already.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.live import cpu_of
from bench.live_check import verdict
from bench.measure import ROOT, machine, scratch, spanrec, table
from bench.rtp_sender import RtpSender
from bench.srs_src import RecordingClient, Told

HOST = "127.0.0.1"
PORT = 15060
CALLER = "sip:+4930"
"""What the URI of every caller of `bench.calls` begins with, before its number."""
GRACE = 12.0
"""s that the server is left after the last BYE, to end and publish."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What the store holds."""

    recordings: int
    whole: int
    reasons: Counter[str]
    """Why others are not."""


def check(store: Path, seconds: float) -> Checked:
    """Compare every recording with what was sent."""
    found = whole = 0
    reasons: Counter[str] = Counter()
    for path in store.glob("2*/*/*/*/call.json"):
        document = json.loads(path.read_text())
        found += 1
        uri = (document["caller"] or {}).get("uri") or ""
        if not uri.startswith(CALLER):
            reasons["not of ours"] += 1
            continue
        number = int(uri[len(CALLER) :].partition("@")[0])
        told = verdict(path.parent, {**document, "call_id": f"{0:08x}{number:08x}"}, seconds)
        whole += told.whole
        reasons.update(told.reasons)
    return Checked(found, whole, reasons)


def drive(server: tuple[str, int], sessions: int, seconds: float, rate: float) -> tuple[RtpSender, Told, float]:
    """Set all sessions up, send their media, end them; with the wall seconds that took."""
    sender = RtpSender(2 * sessions, round(seconds * 50))
    client = RecordingClient(server, sessions, sender, rate)
    begun = time.monotonic()
    limit = begun + sessions / rate + seconds + 90
    reports = 0
    while not client.over and time.monotonic() < limit:
        sender.turn()
        client.turn()
        if sender.pace.slots % 500 == 0:
            reports += sender.drain()
    wall = time.monotonic() - begun
    print(f"{reports + sender.drain()} RTCP packets came back", file=sys.stderr)
    client.close()
    sender.close()
    return sender, client.told, wall


def start(store: Path, log: Path, more: list[str]) -> subprocess.Popen[bytes]:
    """`spanrec srs`, as soon as it takes sessions."""
    command = [*spanrec(), "srs", "--listen", f"udp:{HOST}:{PORT}", "-o", str(store), *more]
    process = subprocess.Popen(command, cwd=ROOT, stderr=log.open("wb"), stdout=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while b'"recording"' not in log.read_bytes() and b"recording" not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > until:
            raise SystemExit(log.read_text())
        time.sleep(0.05)
    return process


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the recording server.")
    parser.add_argument("--sessions", type=int, default=1000, help="at once, of two streams each (1000)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of media of each (60)")
    parser.add_argument("--rate", type=float, default=100.0, help="set-ups a second (100)")
    parser.add_argument("--server", help="HOST:PORT of one that runs already")
    parser.add_argument("--store", type=Path, help="its store")
    parser.add_argument("--pid", type=int, help="its process")
    parser.add_argument("--dir", type=Path, help="for the recordings (in memory, if there is room)")
    parser.add_argument("more", nargs="*", help="options of spanrec srs, behind --")
    return parser.parse_args()


def report(options: argparse.Namespace, pid: int | None, server: tuple[str, int], store: Path) -> None:
    before = cpu_of(pid) if pid else 0.0
    sender, told, wall = drive(server, options.sessions, options.seconds, options.rate)
    cpu = cpu_of(pid) - before if pid else 0.0
    time.sleep(GRACE)
    checked = check(store, options.seconds)
    late = np.percentile(told.set_up_ms, [50, 99, 100]) if told.set_up_ms else [0, 0, 0]
    loaded = int(sender.sent.sum()) / 100 / 1000
    pace = sender.pace
    rows = [
        (
            options.sessions, told.set_up, told.done, dict(told.failed) or 0, told.retransmitted,
            f"{late[0]:.0f} / {late[1]:.0f} / {late[2]:.0f}", int(sender.sent.sum()), checked.recordings, checked.whole,
            f"{cpu:.1f}", f"{cpu / loaded * 100:.0f} %" if loaded else "",
            f"{pace.latest * 1000:.0f} / {pace.slipped:.1f}",
        )
    ]  # fmt: skip
    heads = (
        "sessions", "set up", "ended in order", "failed", "retransmitted", "set-up ms (half, 99 %, all)", "RTP packets",
        "recordings", "whole", "CPU s", "of a core per 1,000 sessions", "sender late, ms at most / s in all",
    )  # fmt: skip
    print(f"{wall:.0f} s.\n\n" + table(heads, rows))
    for reason, count in checked.reasons.most_common(10):
        print(f"{count} x {reason}")


def main() -> None:
    options = arguments()
    print(f"On {machine()}. Sessions of {options.seconds:g} s, {options.rate:g} set-ups a second.", flush=True)
    if options.server:
        host, _, port = options.server.rpartition(":")
        report(options, options.pid, (host, int(port)), options.store)
        return
    with scratch(options.dir, int(options.sessions * (options.seconds + 4) * 33_000)) as directory:
        process = start(directory / "store", directory / "log", options.more)
        try:
            report(options, process.pid, (HOST, PORT), directory / "store")
        finally:
            process.send_signal(signal.SIGTERM)
            _, _, used = os.wait4(process.pid, 0)
            process.returncode = 0
            print(f"\n{used.ru_maxrss / 1024:.0f} MB at most.")


if __name__ == "__main__":
    main()
