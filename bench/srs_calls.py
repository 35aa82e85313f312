"""The whole recording server under load: `python -m bench.srs_calls --sessions 1000 --seconds 60 --rate 100`.

`spanrec srs` is started and gets recording sessions from `bench.srs_src`, as many as are asked for, at so many set-ups
a second, with media of two streams each. Said are set-up times, its CPU (of the main thread, which has the media, and
of the busiest others: the sessions', the publisher's) and memory, and, after it has been stopped, how many recordings
hold every sample of both sides. `--server` and `--store` drive one that runs already.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

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
    """Compare every recording with what was sent, on all processors."""
    paths = [str(path) for path in store.glob("2*/*/*/*/call.json")]
    whole = 0
    reasons: Counter[str] = Counter()
    with ProcessPoolExecutor(os.cpu_count() or 1) as pool:
        for good, why in pool.map(partial(check_one, seconds), paths, chunksize=8):
            whole += good
            reasons.update(why)
    return Checked(len(paths), whole, reasons)


def check_one(seconds: float, path: str) -> tuple[bool, tuple[str, ...]]:
    """Whether a recording is whole, and why it is not."""
    document = json.loads(Path(path).read_text())
    uri = (document["caller"] or {}).get("uri") or ""
    if not uri.startswith(CALLER):
        return False, ("not of ours",)
    number = int(uri[len(CALLER) :].partition("@")[0])
    told = verdict(Path(path).parent, {**document, "call_id": f"{0:08x}{number:08x}"}, seconds)
    return told.whole, told.reasons


def threads_of(process: int) -> dict[int, float]:
    """CPU seconds of each thread so far."""
    tasks = Path(f"/proc/{process}/task")
    stats = {int(each.name): (each / "stat").read_text().rpartition(")")[2].split() for each in tasks.iterdir()}
    return {number: (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK") for number, stat in stats.items()}


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


def said_by(log: Path) -> str:
    """What the server's log says beside recordings and sessions, its first lines."""
    usual = ('"call-recorded"', '"session-', "call-recorded", "session-start", "session-stop")
    lines = [line for line in log.read_text(errors="replace").splitlines() if not any(word in line for word in usual)]
    return "\n".join(lines[:40])


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


@dataclass(frozen=True, slots=True)
class Driven:
    """What was measured while the server ran."""

    sender: RtpSender
    told: Told
    wall: float
    cpu: float
    main: float
    """CPU s of the main thread."""
    others: list[float]
    """Of the busiest others."""


def load(options: argparse.Namespace, pid: int | None, server: tuple[str, int]) -> Driven:
    """Drive the server, and leave it to end what is to be ended."""
    before = threads_of(pid) if pid else {}
    sender, told, wall = drive(server, options.sessions, options.seconds, options.rate)
    time.sleep(GRACE)
    after = threads_of(pid) if pid else {}
    used = {thread: spent - before.get(thread, 0.0) for thread, spent in after.items()}
    main = used.pop(pid, 0.0) if pid else 0.0
    return Driven(sender, told, wall, main + sum(used.values()), main, sorted(used.values(), reverse=True)[:3])


def report(options: argparse.Namespace, driven: Driven, store: Path) -> None:
    """Look at what was recorded, and say all that there is to say."""
    checked = check(store, options.seconds)
    told, sent, pace = driven.told, int(driven.sender.sent.sum()), driven.sender.pace
    late = np.percentile(told.set_up_ms, [50, 99, 100]) if told.set_up_ms else [0, 0, 0]
    loaded = sent / 100 / 1000
    rows = [
        (
            options.sessions, told.set_up, told.done, dict(told.failed) or 0, told.retransmitted,
            f"{late[0]:.0f} / {late[1]:.0f} / {late[2]:.0f}", sent, checked.recordings, checked.whole,
            f"{driven.cpu:.1f}", f"{driven.main:.1f}; " + ", ".join(f"{each:.1f}" for each in driven.others),
            f"{driven.cpu / loaded * 100:.0f} %" if loaded else "",
            f"{pace.latest * 1000:.0f} / {pace.slipped:.1f}",
        )
    ]  # fmt: skip
    heads = (
        "sessions", "set up", "ended in order", "failed", "retransmitted", "set-up ms (half, 99 %, all)", "RTP packets",
        "recordings", "whole", "CPU s", "of these in the main thread; in others", "of a core per 1,000 sessions",
        "sender late, ms at most / s in all",
    )  # fmt: skip
    print(f"{driven.wall:.0f} s.\n\n" + table(heads, rows))
    for reason, count in checked.reasons.most_common(10):
        print(f"{count} x {reason}")


def main() -> None:
    options = arguments()
    print(f"On {machine()}. Sessions of {options.seconds:g} s, {options.rate:g} set-ups a second.", flush=True)
    if options.server:
        host, _, port = options.server.rpartition(":")
        report(options, load(options, options.pid, (host, int(port))), options.store)
        return
    with scratch(options.dir, int(options.sessions * (options.seconds + 4) * 33_000)) as directory:
        process = start(directory / "store", directory / "log", options.more)
        try:
            driven = load(options, process.pid, (HOST, PORT))
        finally:
            process.send_signal(signal.SIGTERM)
            _, _, used = os.wait4(process.pid, 0)
            process.returncode = 0
        print(said_by(directory / "log"), file=sys.stderr)
        report(options, driven, directory / "store")
        print(f"\n{used.ru_maxrss / 1024:.0f} MB at most.")


if __name__ == "__main__":
    main()
