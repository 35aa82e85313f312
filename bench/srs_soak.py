"""Soak of the recording server with faults: `python -m bench.srs_soak --minutes 4 --seed 1`.

`spanrec srs` gets recording sessions of known audio from `bench.srs_soak_src`, with a small range of ports, so that
they come round often. By a seeded chance SIP messages are lost, ACKs and BYEs are never sent, clients die or are
started again, media go on after the BYE, the server is killed and started again. Afterwards every call is accounted
for (`bench.srs_soak_check`), and what the server holds is looked at: sessions, sockets, files, memory. Exit
status 1 where anything is wrong.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.faults_check import Recording, catalogued, disagreement
from bench.measure import ROOT, machine, scratch, spanrec, table
from bench.rtp_sender import RtpSender
from bench.srs_messages import HOST
from bench.srs_soak_check import Kill, Result, Verdict, judge, recordings
from bench.srs_soak_src import Fault, SoakCall, SoakClient
from recorder.siprec.control import SessionState
from recorder.siprec.control_client import ControlClient
from recorder.status import StatusError
from recorder.status_address import parse_address

SHORTEST = 5.0
"""s of media of a call at least."""
FAULTY = 0.4
"""Part of the calls that a fault comes to."""
LATE_CALLS = 3.0
"""s after SIGTERM in which calls still begin, to be refused."""
ENDING = 90.0
"""s before the end in which no call begins any more: what goes on ends, what is dead is found."""
CLOSING = 80.0
"""s after the last session in which all must be closed: calls whose client is gone without a word wait for a minute."""
PATIENCE = 240.0
"""s until the server records: the first time, its kernels may have to be compiled."""
PAIRS = 3
"""Pairs of ports for each stream that there may be at once: after a kill those of before are left alone for a while."""
SETTLED = 60.0
"""s of a process after which it should hold no more memory than then, but for `GROWTH`."""
GROWTH = 40.0  # MB
MOST_FIGURES = 40
SPARE = 8
"""Descriptors that it may hold more at the end than at the start."""
SETTINGS = """[srs]
listen = ["udp:{host}:{port}"]
ports = "{low}-{high}"
silence = 5
drain = 60
"""


class SoakError(RuntimeError):
    """The server is not as it must be for the run to go on."""


@dataclass(slots=True)
class Server:
    """`spanrec srs`, one process after the other over the same store."""

    place: Path
    process: subprocess.Popen[bytes] | None = None
    _from: int = 0

    @property
    def out(self) -> Path:
        return self.place / "store"

    @property
    def log(self) -> Path:
        return self.place / "log"

    def start(self) -> None:
        self._from = self.log.stat().st_size if self.log.exists() else 0
        command = [*spanrec(), "srs", "-o", str(self.out), "--status", "", "--socket", str(self.place / "status")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.place, stderr=log, env=environment)

    @property
    def ready(self) -> bool:
        """Whether it records."""
        assert self.process is not None
        with self.log.open("rb") as log:
            log.seek(self._from)
            said = log.read()
        if self.process.poll() is not None:
            raise SoakError(said.decode(errors="replace")[-3000:])
        return b'"recording"' in said

    def wait(self) -> None:
        until = time.monotonic() + PATIENCE
        while not self.ready:
            if time.monotonic() > until:
                raise SoakError("the server does not record")
            time.sleep(0.05)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        """SIGTERM."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def wait_for_end(self) -> int:
        """Its exit status."""
        assert self.process is not None
        return self.process.wait(120)

    def holds(self) -> tuple[int, int, float]:
        """Open UDP sockets, other descriptors, and MB of memory."""
        assert self.process is not None
        names = []
        for path in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                names.append(os.readlink(path))
            except OSError:
                continue  # closed meanwhile
        lines = Path(f"/proc/{self.process.pid}/net/udp").read_text().splitlines()[1:]
        datagrams = {f"socket:[{line.split()[9]}]" for line in lines}
        sockets = sum(name in datagrams for name in names)
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        return sockets, len(names) - sockets, resident / 1024

    def sessions(self) -> int:
        """Sessions in progress."""
        client = ControlClient(parse_address(str(self.place / "status")))
        return sum(each.state is not SessionState.ENDED for each in client.sessions())


class Held(NamedTuple):
    """What the server held at a time."""

    at: float
    """s since the start."""
    life: int  # how often it had been killed before
    sockets: int
    """UDP."""
    files: int
    memory: float
    """MB."""


@dataclass(slots=True)
class Run:
    """A soak in progress."""

    server: Server
    sender: RtpSender
    client: SoakClient
    chance: random.Random
    longest: float
    """s of media of a call."""
    begun: float = field(default_factory=time.monotonic)
    kills: list[Kill] = field(default_factory=list)
    killed: float | None = None
    """When it was killed, where it is not back yet."""
    held: list[Held] = field(default_factory=list)
    late: list[int] = field(default_factory=list)
    """Calls that began after the server was told to stop."""

    def turn(self) -> None:
        """Go on for a moment."""
        self.sender.turn()
        self.client.turn()
        if self.sender.pace.slots % 500 == 0:
            self.sender.drain()
        if self.killed is not None and self.sender.pace.slots % 25 == 0 and self.server.ready:
            kill = Kill(self.killed, time.time())
            self.kills.append(kill)
            self.killed = None
            self.client.server_is_back(kill.at)

    def kill(self) -> None:
        """SIGKILL, and start it again at once."""
        self.server.kill()
        self.killed = time.time()
        self.server.start()

    def draw(self) -> SoakCall:
        """Have a call recorded, of any length, with any fault."""
        others = [each for each in Fault if each is not Fault.NONE]
        fault = self.chance.choice(others) if self.chance.random() < FAULTY else Fault.NONE
        return self.client.begin(fault, round(self.chance.uniform(SHORTEST, self.longest) * 50))


def soak(run: Run, options: argparse.Namespace) -> None:
    """Let calls come, and kill the server now and then; then let all come to an end."""
    begun = run.begun = time.monotonic()
    loaded = max(options.minutes * 60 - ENDING, options.minutes * 20)
    kills = sorted(run.chance.uniform(0.1, 0.95) * loaded for _ in range(options.kills))
    due = looked = 0.0
    while (now := time.monotonic() - begun) < loaded:
        if now >= due and run.client.takes < run.sender.streams // 2 - options.calls:
            due += (SHORTEST + options.longest) / 2 / options.calls
            run.draw()
        if kills and now >= kills[0] and run.killed is None:
            kills.pop(0)
            run.kill()
        if now >= looked and run.killed is None:
            looked += 10.0
            run.held.append(Held(now, len(run.kills), *run.server.holds()))
        run.turn()
    until = time.monotonic() + ENDING
    if options.drain:
        drain(run, until)
        return
    while (run.client.busy or run.killed is not None) and time.monotonic() < until:
        run.turn()
    # What is dead is asked whether it is, and the client goes on to say that it knows nothing of it.
    asked = time.monotonic() + 1.0
    while time.monotonic() < until:
        run.turn()
        if time.monotonic() >= asked:
            asked += 1.0
            if run.server.sessions() == 0:
                break


def drain(run: Run, until: float) -> None:
    """Tell the server to stop while calls are in progress and others begin."""
    while run.killed is not None and time.monotonic() < until:
        run.turn()
    run.server.terminate()
    told = time.monotonic()
    due = told + 0.5
    while time.monotonic() < until and (run.client.busy or time.monotonic() < told + LATE_CALLS):
        if due <= time.monotonic() < told + LATE_CALLS:
            due += 0.1
            run.late.append(run.draw().number)
        run.turn()


def look(run: Run, base: tuple[int, int, float]) -> list[str]:
    """What the server holds at the end, with no session in progress."""
    until = time.monotonic() + CLOSING
    while time.monotonic() < until and any(
        now > then + spare for now, then, spare in zip(run.server.holds()[:2], base[:2], (0, SPARE), strict=True)
    ):
        for _ in range(500):
            run.turn()
    wrong: list[str] = []
    left = run.server.sessions()
    sockets, files, resident = run.server.holds()
    run.held.append(Held(time.monotonic() - run.begun, len(run.kills), sockets, files, resident))
    if left:
        wrong.append(f"{left} sessions are still there")
    if sockets > base[0]:
        wrong.append(f"{sockets - base[0]} sockets are still open")
    if files > base[1] + SPARE:
        wrong.append(f"{files - base[1]} descriptors more than at the start are still open")
    return wrong


def grown(held: Sequence[Held]) -> list[str]:
    """Whether memory grew, in any of the server's lives, once all that it needs was in use."""
    wrong = []
    for life in sorted({each.life for each in held}):
        figures = [each for each in held if each.life == life]
        before = [each.memory for each in figures if each.at - figures[0].at <= SETTLED]
        if max(each.memory for each in figures) > max(before) + GROWTH:
            wrong.append(f"memory grew from {max(before):.0f} to {max(each.memory for each in figures):.0f} MB")
    return wrong


def account(run: Run, workers: int) -> list[Verdict]:
    """Look at every call, on all processors."""
    found = recordings(run.server.out)
    calls: Sequence[SoakCall] = run.client.calls
    strange = [Verdict(-1, Fault.NONE, Result.WRONG, f"{place}: of no call") for place in found.get(-1, ())]
    with ProcessPoolExecutor(workers) as pool:
        judged = pool.map(judge, calls, [found.get(call.number, []) for call in calls], [run.kills] * len(calls))
        return [*strange, *judged]


def store_is_sound(out: Path) -> list[str]:
    """Nothing is left in progress, and the catalogue knows every recording."""
    wrong = [f"{path}: was left" for path in (out / ".live").iterdir()]
    rows, troubles = catalogued(out / "catalogue.sqlite")
    places = [place for each in recordings(out).values() for place in each]
    found = [Recording(place, json.loads((place / "call.json").read_text())) for place in places]
    return wrong + troubles + disagreement(rows, found, out, set())


def report(run: Run, verdicts: list[Verdict], wrong: list[str]) -> None:
    """The figures of a run."""
    tally = Counter((verdict.fault, verdict.result) for verdict in verdicts)
    rows = [
        (fault.value, *(tally[fault, result] for result in Result))
        for fault in Fault
        if any(tally[fault, result] for result in Result)
    ]
    print(table(("fault", *(result.value for result in Result)), rows))
    client = run.client
    print(f"\n{len(client.calls)} calls in {client.takes} sessions, {client.lost} SIP messages lost on purpose.")
    times = ", ".join(f"back after {kill.back - kill.at:.1f} s" for kill in run.kills)
    if run.late:
        print(f"{len(run.late)} calls began after SIGTERM.")
    outcomes = Counter(call.takes[-1].outcome for call in client.calls if not call.takes[-1].answered)
    if outcomes:
        print("Not taken: " + ", ".join(f"{count} x {outcome}" for outcome, count in outcomes.items()) + ".")
    print(f"{len(run.kills)} kills of the server{f': {times}' if times else ''}.")
    every = max(len(run.held) // MOST_FIGURES, 1)
    shown = [*run.held[:-1:every], *run.held[-1:]]
    held = "; ".join(f"{each.at:.0f}: {each.sockets}, {each.files}, {each.memory:.0f}" for each in shown)
    print(f"s: UDP sockets, other descriptors, MB: {held}")
    pace = run.sender.pace
    print(f"Sender late {pace.latest * 1000:.0f} ms at most, {pace.slipped:.1f} s in all.")
    moved = [verdict.cut for verdict in verdicts if verdict.cut]
    print(f"{sum(moved)} packets of {len(moved)} calls lie under others that were moved, for the sender was late.")
    for verdict in [each for each in verdicts if each.result is Result.WRONG][:40]:
        print(f"wrong: call {verdict.number}, {verdict.fault}: {verdict.text}")
    for each in wrong:
        print(f"wrong: {each}")


def free_port() -> int:
    """A UDP port that nobody has now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as tried:
        tried.bind((HOST, 0))
        return int(tried.getsockname()[1])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Soak the recording server with faults.")
    parser.add_argument("--minutes", type=float, default=4.0, help="in all (4)")
    parser.add_argument("--seed", type=int, default=1, help="of all that is left to chance (1)")
    parser.add_argument("--calls", type=int, default=100, help="at once, about (100)")
    parser.add_argument("--longest", type=float, default=40.0, help="s of media of a call (40)")
    parser.add_argument("--kills", type=int, default=1, help="of the server (1)")
    parser.add_argument("--drain", action="store_true", help="end by SIGTERM, with calls in progress and more to come")
    parser.add_argument("--loss", type=float, default=0.03, help="part of the SIP messages that are lost (0.03)")
    parser.add_argument("--dir", type=Path, help="for the recordings (in memory, if there is room)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where something was wrong, copy all of it there")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    print(f"On {machine()}. {options.calls} calls at once, seed {options.seed}.\n", flush=True)
    chance = random.Random(options.seed)
    calls = options.minutes * 60 / ((SHORTEST + options.longest) / 2) * options.calls
    takes = round(calls * 1.3 + (options.kills + 2) * options.calls)
    with scratch(options.dir, int(calls * options.longest * 33_000)) as place:
        server = Server(place)
        # Others of its kind may run beside it, on ports of their own.
        port, low = free_port(), 20_000 + 2_000 * (os.getpid() % 6)
        high = low + 2 * 2 * PAIRS * options.calls - 1
        (place / "spanrec.toml").write_text(SETTINGS.format(host=HOST, port=port, low=low, high=high))
        server.start()
        sender = RtpSender(2 * takes, round(options.longest * 50))
        client = SoakClient((HOST, port), sender, chance, options.loss)
        run = Run(server, sender, client, chance, options.longest)
        try:
            server.wait()
            base = server.holds()
            soak(run, options)
            wrong = []
            if not options.drain:
                wrong = look(run, base)
                server.terminate()
            status = server.wait_for_end()
            wrong += [f"exit status {status}"] if status else []
        except StatusError as error:
            raise SoakError(f"it does not tell of its sessions: {error}") from error
        finally:
            client.close()
            sender.close()
            if server.process is not None and server.process.poll() is None:
                server.kill()
        wrong += grown(run.held) + store_is_sound(server.out)
        verdicts = account(run, os.cpu_count() or 1)
        taken = [each.number for each in verdicts if each.number in run.late and each.result is not Result.REFUSED]
        wrong += [f"calls that began after SIGTERM were not refused: {taken}"] if taken else []
        report(run, verdicts, wrong)
        failed = bool(wrong) or any(each.result is Result.WRONG for each in verdicts)
        if failed and options.keep is not None:
            shutil.copytree(place, options.keep, dirs_exist_ok=True, ignore=shutil.ignore_patterns("status"))
        return int(failed)


if __name__ == "__main__":
    sys.exit(main())
