"""Break the live recorder and see what is lost: `python -m bench.faults kill --rounds 100`.

Calls go over a veth pair (`bench.wire`), `spanrec capture` records them, and meanwhile it is killed, its disk fills up,
its interface goes away, its settings are spoilt. Afterwards every call that was sent is accounted for, sample by sample
(`bench.faults_calls`), and all files are looked at (`bench.faults_check`). Needs root and iproute2. Exit status 1 where
anything was lost that must not be. `all` runs every fault; each takes `--seed`.
"""

import argparse
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.faults_calls import Tally, Up, account, align
from bench.faults_check import Flushed, Watch, catalogued, disagreement, flushed, lost_octets, unreadable
from bench.faults_other import Fault, disk, interface, refuse, reload, terminate
from bench.faults_service import Load, Service
from bench.measure import machine, scratch, table
from bench.veth import wire


@dataclass(slots=True)
class Kills:
    """What the rounds have shown so far."""

    ups: list[Up] = field(default_factory=list)
    left: list[dict[str, Flushed]] = field(default_factory=list)
    """Audio of calls in progress after each kill."""
    restarts: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def snapshot(out: Path, into: Path) -> None:
    """What a kill left, as long as nothing runs: working directories and catalogue."""
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir()
    shutil.copytree(out / ".live", into / ".live")
    for path in out.glob("catalogue.sqlite*"):
        shutil.copy(path, into)


def look(number: int, snap: Path, watch: Watch, kills: Kills) -> None:
    """Everything that must hold at the moment after a kill."""
    wrong = unreadable(snap / ".live") + watch.look()
    rows, troubles = catalogued(snap / "catalogue.sqlite")
    marked = {path.stem for path in (snap / ".live").glob("*.whole")}
    wrong += troubles + disagreement(rows, list(watch.recordings.values()), watch.out, marked)
    kills.wrong += [f"kill {number}: {each}" for each in wrong]
    kills.left.append(flushed(snap / ".live"))


def kill_rounds(service: Service, watch: Watch, options: argparse.Namespace, chance: random.Random) -> Kills:
    """Kill it at random moments and start it again at once."""
    kills = Kills()
    snap = service.place / "snapshot"
    for number in range(1, options.rounds + 1):
        opened, recording = service.began()
        time.sleep(chance.uniform(0.0, options.pause))
        killed = service.kill()
        kills.ups.append(Up(opened, recording, killed))
        snapshot(service.out, snap)
        watch_now = time.monotonic()
        found = set(watch.recordings)
        wrong_before = len(kills.wrong)
        look(number, snap, watch, kills)
        service.start()
        service.ready()
        kills.restarts.append(time.monotonic() - watch_now)
        fresh = len(watch.recordings) - len(found)
        said = f"kill {number}: {len(kills.left[-1])} in progress, {fresh} more published"
        print(f"{said}, {len(kills.wrong) - wrong_before} violations", file=sys.stderr, flush=True)
    return kills


def kill(options: argparse.Namespace) -> int:
    """Rounds of SIGKILL under load."""
    chance = random.Random(options.seed)
    with site(options) as (service, directory, sender):
        load = sender(options.rounds * 15 + 30)
        watch = Watch(service.out)
        service.start()
        service.ready()
        load.begin()
        time.sleep(options.hold)
        kills = kill_rounds(service, watch, options, chance)
        opened, recording = service.began()
        time.sleep(options.hold)
        load.stop()
        time.sleep(options.settle)
        status = service.stop()
        kills.ups.append(Up(opened, recording, time.time_ns()))
        kills.wrong += watch.look(again=True)
        recordings = list(watch.recordings.values())
        rows, troubles = catalogued(service.out / "catalogue.sqlite")
        kills.wrong += troubles + disagreement(rows, recordings, service.out, set())
        kills.wrong += lost_octets(kills.left, recordings)
        kills.wrong += [f"{path}: was left" for path in (service.out / ".live").iterdir()]
        if status:
            kills.wrong.append(f"SIGTERM: exit status {status}")
        tally = account(align(load, recordings), options.hold, recordings, kills.ups)
        tally.wrong += kills.wrong
        print(kill_table(options.rounds, tally, kills, load.latest_ms), flush=True)
        return verdict(tally.wrong, directory, options)


def kill_table(rounds: int, tally: Tally, kills: Kills, latest_ms: float) -> str:
    """The figures of a run."""
    files = sum(len(left) for left in kills.left)
    seconds = sum(each.octets for left in kills.left for each in left.values()) / 32_000
    rows = [
        ("kills", rounds),
        ("calls sent", tally.calls),
        ("whole", tally.whole),
        ("interrupted, all outside of the declared interruptions right", tally.interrupted),
        ("absent: on the wire while nobody listened", tally.absent),
        ("s of media lost inside of declared interruptions", f"{tally.lost:.0f}"),
        ("s before a kill that were not on the disk, at most", f"{tally.longest:.1f}"),
        ("ms that audio after a restart stands aside, at most", f"{tally.astray:.0f}"),
        ("ms that the sender was late, at most", f"{latest_ms:.0f}"),
        ("pieces in which packets were moved, for the sender was late", tally.moved),
        ("audio files in progress looked at after kills", files),
        ("s of audio in them, all of it in the recordings", f"{seconds:.0f}"),
        ("s from a kill until it records again, mean", f"{sum(kills.restarts) / max(len(kills.restarts), 1):.1f}"),
        ("violations", len(tally.wrong)),
    ]
    return table(("", ""), rows)


@contextmanager
def site(options: argparse.Namespace) -> Iterator[tuple[Service, Path, Callable[[float], Load]]]:
    """A wire, a store on it, and a maker of loads."""
    with scratch(options.dir, 1 << 30) as directory, wire("faults") as over:
        service = Service(over, directory / "out", directory, "--stop-at", "1MB", "--resume-at", "2MB")

        loads: list[Load] = []

        def sender(seconds: float) -> Load:
            loads.append(Load(over, options.calls, seconds, options.hold))
            return loads[-1]

        try:
            yield service, directory, sender
        finally:
            for load in loads:
                load.close()
            if service.process is not None and service.process.poll() is None:
                service.kill()


def verdict(wrong: list[str], directory: Path, options: argparse.Namespace) -> int:
    """Say what was wrong; keep the store if that is wanted."""
    for each in wrong:
        print(f"violation: {each}", file=sys.stderr)
    if wrong and options.keep is not None:
        shutil.copytree(directory, options.keep, dirs_exist_ok=True, ignore=shutil.ignore_patterns("status"))
    return 1 if wrong else 0


def once(name: str, fault: Fault) -> Callable[[argparse.Namespace], int]:
    """A fault that comes once."""

    def run(options: argparse.Namespace) -> int:
        with site(options) as (service, directory, sender):
            wrong, rows = fault(service, sender, directory)
            print(table((name, ""), [*rows, ("violations", len(wrong))]), "\n", flush=True)
            return verdict(wrong, directory, options)

    return run


FAULTS: dict[str, Callable[[argparse.Namespace], int]] = {
    "kill": kill,
    "disk": once("disk", disk),
    "refuse": once("refuse", refuse),
    "interface": once("interface", interface),
    "reload": once("reload", reload),
    "terminate": once("terminate", terminate),
}


def arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Break the live recorder and see what is lost.")
    parser.add_argument("fault", choices=[*FAULTS, "all"])
    parser.add_argument("--rounds", type=int, default=100, help="kills (100)")
    parser.add_argument("--calls", type=int, default=60, help="at once (60)")
    parser.add_argument("--hold", type=float, default=8.0, help="seconds of media of each call (8)")
    parser.add_argument("--pause", type=float, default=4.0, help="most seconds between a restart and the next kill (4)")
    parser.add_argument("--settle", type=float, default=9.0, help="seconds after the last packet, for publishing (9)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments of the kills (1)")
    parser.add_argument("--dir", type=Path, help="for the recordings (in memory, if there is room)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where something was wrong, copy the store there")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    options = arguments(words)
    print(f"On {machine()}. {options.calls} calls of {options.hold:g} s at once.\n", flush=True)
    names = FAULTS if options.fault == "all" else (options.fault,)
    return max([FAULTS[name](options) for name in names])


if __name__ == "__main__":
    sys.exit(main())
