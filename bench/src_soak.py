"""`python -m bench.src_load soak`: recording servers that come and go under calls, and where every call is afterwards.

In: options, a directory. Out: processes started and killed, a report. A call is accounted for where a server has
published it, or it was delivered late, or it waits in the spool. Descriptors and memory of the client must be flat:
what it holds late in the run is compared with what it held after the first third.
"""

import argparse
import json
import random
import signal
import statistics
import subprocess
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.src_accounts import at, spooled
from bench.src_programs import SERVERS, Holds, Program, lab, programs, uri
from bench.src_report import Report

SIDES = ("caller", "callee")
SETTLE = 10.0
"""s after the last call in which recordings are written."""
EVERY = 10.0
"""s between two looks at what the client holds."""
MORE_MEMORY, MORE_MB = 1.15, 48
"""By how much its memory may grow between the first third of a run and its last quarter: times, and MB."""
MORE_DESCRIPTORS = 16
"""That may be open at the end beside those at the start: sockets of sessions that are just ending."""


@dataclass(slots=True)
class Looks:
    """What the client held, now and then."""

    client: Program
    held: list[tuple[float, Holds]] = field(default_factory=list)
    """(s since the first, what)."""
    _first: float = 0.0

    def look(self) -> None:
        """Look, where it is time."""
        now = time.monotonic()
        self._first = self._first or now
        if not self.held or now - self._first - self.held[-1][0] >= EVERY:
            self.held.append((now - self._first, self.client.holds()))

    def wait(self, seconds: float, sender: "subprocess.Popen[str]") -> None:
        """Wait while calls are sent."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and sender.poll() is None:
            time.sleep(0.5)
            self.look()


def soak(options: argparse.Namespace, place: Path, report: Report) -> None:
    """Servers that come and go."""
    chance = random.Random(options.seed)
    with lab(place) as made, ExitStack() as stack:
        servers = {name: made.server(name) for name in SERVERS}
        settings = f"[src]\nspool_at_once = {options.at_once}\n"
        client = made.client(f"{uri('A')}, {uri('B')}", settings=settings)
        stack.enter_context(programs(stack, *servers.values(), client))
        sender = made.sender(
            "--calls", str(options.calls), "--seconds", str(options.minutes * 60), "--hold", str(options.hold)
        )
        looks, done = Looks(client), Counter[str]()
        looks.look()
        while sender.poll() is None:
            looks.wait(chance.uniform(0.6, 1.4) * options.every, sender)
            if sender.poll() is None:
                disturb(chance, servers, done)
        for each in servers.values():
            each.ready()
        time.sleep(SETTLE)
        waited = drain(options.grace, client, looks, place / "src" / "out" / ".spool")
        left = client.sessions()
        after = client.holds()
        calls = json.loads(sender.communicate()[0])["calls"]
        for each in (client, *servers.values()):
            each.end()
    report.say(f"{calls} calls; {dict(done)}; the spool was given {waited:.0f} s")
    judge_soak(calls, options, place, client, report)
    judge_looks(looks.held, after, report)
    late = [each for each in left if each["state"] != "recording"]
    report.expect(not late, f"sessions left that are no late delivery: {len(late)}")


def drain(patience: float, client: Program, looks: Looks, spool: Path) -> float:
    """Wait until nothing is in the spool, and no session is left; how long, s."""
    began = time.monotonic()
    while time.monotonic() - began < patience and (spooled(spool) or client.sessions()):
        time.sleep(2.0)
        looks.look()
    return time.monotonic() - began


def judge_looks(held: list[tuple[float, Holds]], after: Holds, report: Report) -> None:
    """Whether the client holds more and more."""
    report.say("      (s: descriptors, threads, MB, of it no file's): ")
    for at_, each in held:
        report.say(f"      {at_:.0f}: {each.descriptors}, {each.threads}, {each.mb}, {each.own}")
    first, count = held[0][1], len(held)
    early = [each.own for _, each in held[count // 4 : count // 2]] or [first.own]
    late = [each.own for _, each in held[-max(count // 4, 1) :]]
    then, now = statistics.median(early), statistics.median(late)
    flat = now <= then * MORE_MEMORY + MORE_MB
    report.expect(flat, f"memory that is no file's: {then:.0f} MB early, {now:.0f} MB late")
    report.expect(
        after.descriptors <= first.descriptors + MORE_DESCRIPTORS,
        f"descriptors {first.descriptors} -> {after.descriptors}; threads {first.threads} -> {after.threads}",
    )


def disturb(chance: random.Random, servers: dict[str, Program], done: Counter[str]) -> None:
    """One or both servers end, and come back."""
    kind = chance.choice(("kill", "kill", "terminate", "both"))
    done[kind] += 1
    if kind == "both":
        for each in servers.values():
            each.end(signal.SIGKILL)
        time.sleep(chance.uniform(4, 10))
        for each in servers.values():
            each.start()
        for each in servers.values():
            each.ready()
        return
    one = servers[chance.choice(tuple(servers))]
    one.end(signal.SIGKILL if kind == "kill" else signal.SIGTERM)
    one.start()
    one.ready()


def judge_soak(calls: int, options: argparse.Namespace, place: Path, client: Program, report: Report) -> None:
    """Where every call is."""
    servers = [at(place / name / "out") for name in SERVERS]
    waiting = spooled(place / "src" / "out" / ".spool")
    known = at(place / "src" / "out")
    ids = {known[number].documents[0]["call_id"]: number for number in known if known[number].documents}
    delivered = {ids.get(each.get("call_id", "")) for each in client.events("session-delivered")}
    where: Counter[str] = Counter()
    lost, short = [], []
    expected = 2 * options.hold * 50
    for number in range(calls):
        here = [found[number] for found in servers if number in found]
        both = [(name, found[number]) for name, found in zip(SERVERS, servers, strict=True) if number in found]
        names = [name if each.documents else f"{name}, not published" for name, each in both]
        names += ["late"] if number in delivered else []
        names += ["still in the spool"] if number in waiting else []
        where[" + ".join(names) or "nowhere"] += 1
        if all("not published" in name for name in names):
            lost.append(number)
        elif number not in waiting and sum(each.packets(side) for each in here for side in SIDES) < 0.9 * expected:
            short.append(number)
    for name, count in where.most_common():
        report.say(f"      {count} calls: {name}")
    report.expect(not lost, f"neither published, nor delivered, nor in the spool: {len(lost)} {lost[:20]}")
    report.say(f"      with less than 90 % of their packets in all recordings together: {len(short)} {short[:20]}")
    counted = Counter(each["event"] for each in client.events())
    report.say(f"      events: { ({k: v for k, v in counted.items() if k.startswith(('session-', 'src-', 'spool'))}) }")
    odd = client.events("session-failure", "src-failed", "spool-failed")
    for each in odd[:5]:
        report.say(f"      {each}")
