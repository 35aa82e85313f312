"""Faults that are no kill: a disk that is full or refuses, an interface that goes away, settings, a stop.

In: a service that records a load. Out: sentences about what did not go as it must. Each fault comes in the middle of
calls; the calls that begin when it is over must be whole.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.calls import expected_samples
from bench.faults_calls import SECOND, align
from bench.faults_check import (
    MS,
    Recording,
    Watch,
    astray,
    catalogued,
    digest,
    disagreement,
    nanoseconds,
    published,
    unreadable,
)
from bench.faults_service import Load, Service, wait_until
from bench.signalling import MEDIA_NS
from bench.veth import add_pair, run

Sender = Callable[[float], Load]
Fault = Callable[[Service, Sender, Path], tuple[list[str], list[tuple[str, object]]]]
"""A fault: what went wrong, and rows of a table."""
OLD = 6
"""Recordings that must be there before a fault that they must survive."""
CALM = 6.0
"""s after a fault from which on calls that begin must be whole."""
SETTLED = 9.0
"""s after which calls that have ended are published."""


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[Path]:
    """A file system of its own in memory."""
    place = directory / "small"
    place.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(place))
    try:
        yield place
    finally:
        run("umount", "-l", str(place))


def alarmed(service: Service, code: str) -> bool:
    """Whether an alarm is in force."""
    return any(f'code="{code}"' in line and line.endswith(" 1.0") for line in service.metrics().splitlines())


def reached(service: Service, code: str, wanted: bool, seconds: float = 90.0) -> None:
    """Wait until an alarm is in force, or is over."""
    wait_until(lambda: alarmed(service, code) is wanted, f"alarm {code} {'begins' if wanted else 'ends'}", seconds)


def settle(service: Service, watch: Watch) -> list[str]:
    """Stop the service and look at everything."""
    status = service.stop()
    wrong = watch.look(again=True) + ([f"SIGTERM: exit status {status}"] if status else [])
    rows, troubles = catalogued(service.out / "catalogue.sqlite")
    wrong += troubles + disagreement(rows, list(watch.recordings.values()), service.out, set())
    return wrong + [f"{path}: was left" for path in (service.out / ".live").iterdir()]


def whole(load: Load, recordings: list[Recording], begin: int, end: int) -> tuple[int, list[str]]:
    """Calls that were on the wire within a time, ns: how many, and what is not whole of them."""
    by_call = {each.document["call_id"]: each for each in recordings}
    wrong: list[str] = []
    count = 0
    for call in align(load, recordings):
        if call.invited < begin or call.ended > end:
            continue
        count += 1
        recording = by_call.get(call.call_id)
        if recording is None or recording.document["audio"] is None:
            wrong.append(f"call {call.number}: has no audio")
            continue
        samples, started = recording.samples(), nanoseconds(recording.document["audio"]["started"])
        for channel, side in enumerate(("caller", "callee")):
            sent = expected_samples(call.number, side, load.hold)
            at = (call.media[0] + channel * 7_300_000 - started) * 8 // MS
            if astray(samples[:, channel], sent, at, 0, len(sent)) is None:
                wrong.append(f"call {call.number}: {side} is not whole: {recording.place}")
    return count, wrong


def disk(service: Service, sender: Sender, directory: Path) -> tuple[list[str], list[tuple[str, object]]]:
    """The disk becomes full in the middle of calls, and has room again."""
    with small_disk(directory, "24m") as place:
        service.out = place / "out"
        watch = Watch(service.out)
        service.start()
        service.ready()
        load = sender(120.0)
        load.begin()
        time.sleep(load.hold + SETTLED)
        wrong = watch.look()
        before = dict(watch.recordings)
        filler = place / "filler"
        with filler.open("wb") as file:
            _fill(file.fileno())
        full_at = time.time_ns()
        reached(service, "disk-full", True)
        time.sleep(load.hold)
        wrong += unreadable(service.out / ".live")
        filler.unlink()
        free_at = time.time_ns()
        reached(service, "disk-full", False)
        took = (time.time_ns() - free_at) / 1e9
        again_at = time.time_ns()
        time.sleep(2 * load.hold + 2)
        reached(service, "disk-failing", False)
        end = time.time_ns()
        load.stop()
        time.sleep(SETTLED)
        wrong += settle(service, watch)
        recordings = list(watch.recordings.values())
        wrong += [f"{path}: is gone" for path in before.keys() - watch.recordings.keys()]
        early, troubles = whole(load, recordings, load.began, full_at - 2 * SECOND)
        late, more = whole(load, recordings, again_at + SECOND, end)
        wrong += troubles + more
        known = {each.document["call_id"] for each in recordings}
        wrong += [f"call {call.number}: is missing" for call in load.calls() if call.call_id not in known]
        codes = [{w["code"] for w in each.document["warnings"]} for each in recordings]
        rows: list[tuple[str, object]] = [
            ("whole calls before the disk was full", early),
            ("calls without audio for want of space, which say so", sum("disk-full" in each for each in codes)),
            ("calls cut short by the disk, which say so", sum("disk-failing" in each for each in codes)),
            ("s until the alarm was over, once there was room", f"{took:.1f}"),
            ("whole calls afterwards", late),
        ]
        return wrong, rows


def _fill(descriptor: int) -> None:
    """Write until there is no room."""
    for size in (1 << 20, 4096):
        while True:
            try:
                os.write(descriptor, bytes(size))
            except OSError:
                break


def refuse(service: Service, sender: Sender, directory: Path) -> tuple[list[str], list[tuple[str, object]]]:
    """Every write of the service fails for a while, as on a disk that became read-only."""
    watch = Watch(service.out)
    service.start()
    service.ready()
    load = sender(120.0)
    load.begin()
    time.sleep(load.hold + SETTLED)
    wait_until(lambda: len(published(service.out)) >= OLD, f"{OLD} recordings are published")
    wrong = watch.look()
    before = contents(service.out)
    bad_at = time.time_ns()
    service.refuse_writes(True)
    reached(service, "disk-failing", True)
    time.sleep(load.hold)
    wrong += unreadable(service.out / ".live")
    wrong += changed(before, service.out)
    service.refuse_writes(False)
    good_at = time.time_ns()
    time.sleep(CALM + 3 * load.hold)
    end = time.time_ns()
    reached(service, "disk-failing", False)
    if service.running.poll() is not None:
        wrong.append("the service ended")
    load.stop()
    time.sleep(SETTLED)
    wrong += settle(service, watch)
    recordings = list(watch.recordings.values())
    wrong += changed(before, service.out)
    early, troubles = whole(load, recordings, load.began, bad_at - 2 * SECOND)
    late, more = whole(load, recordings, good_at + round(CALM * SECOND), end)
    if not late:
        wrong.append("no call was whole after the disk took writes again")
    known = {each.document["call_id"] for each in recordings}
    wrong += troubles + more
    wrong += [f"call {call.number}: is missing" for call in load.calls() if call.call_id not in known]
    codes = [{w["code"] for w in each.document["warnings"]} for each in recordings]
    return wrong, [
        ("whole calls before", early),
        ("files of recordings from before, compared octet by octet, during and after", len(before)),
        ("calls that say that the disk refused", sum("disk-failing" in each for each in codes)),
        ("whole calls afterwards, recorded by the same process", late),
    ]


def contents(out: Path) -> dict[Path, str]:
    """Digest of every file of every recording."""
    return {path: digest(path) for place in published(out) for path in sorted(place.iterdir())}


def changed(before: dict[Path, str], out: Path) -> list[str]:
    """Files that are gone, or not what they were."""
    now = contents(out)
    return [
        f"{path}: {'has changed' if path in now else 'is gone'}" for path in before if now.get(path) != before[path]
    ]


def interface(service: Service, sender: Sender, directory: Path) -> tuple[list[str], list[tuple[str, object]]]:
    """The interface goes down and up, then is deleted and made anew."""
    over = service.over
    watch = Watch(service.out)
    service.start()
    service.ready()
    load = sender(30.0)
    load.begin()
    time.sleep(load.hold / 2)
    run("ip", "-n", over.namespace, "link", "set", over.receiver, "down")
    reached(service, "source-down", True)
    time.sleep(3.0)
    run("ip", "-n", over.namespace, "link", "set", over.receiver, "up")
    reached(service, "source-down", False)
    up_at = time.time_ns()
    time.sleep(2 * load.hold + 1)
    end = time.time_ns()
    load.stop()
    time.sleep(SETTLED)
    wrong = watch.look()
    first, troubles = whole(load, list(watch.recordings.values()), up_at, end)
    wrong += troubles
    codes = [{w["code"] for w in each.document["warnings"]} for each in watch.recordings.values()]
    run("ip", "-n", over.namespace, "link", "del", over.receiver)
    reached(service, "source-down", True)
    add_pair(over.namespace, over.sender, over.receiver)
    reached(service, "source-down", False)
    anew_at = time.time_ns()
    again = sender(2 * load.hold + 1)
    again.begin()
    again.finish()
    time.sleep(SETTLED)
    wrong += settle(service, watch)
    fresh = [each for each in watch.recordings.values() if nanoseconds(each.document["started"]) > anew_at]
    second, troubles = whole(again, fresh, anew_at, time.time_ns())
    return wrong + troubles, [
        ("whole calls after down and up", first),
        ("calls in progress meanwhile that say so", sum("source-down" in each for each in codes)),
        ("whole calls after deleting and making anew", second),
    ]


def reload(service: Service, sender: Sender, directory: Path) -> tuple[list[str], list[tuple[str, object]]]:
    """SIGHUP with broken settings, then with good ones."""
    watch = Watch(service.out)
    service.settings.write_text('[[rule]]\nname = "a"\naction = "record"\ntags = ["old"]\n')
    service.start()
    service.ready()
    load = sender(60.0)
    load.begin()
    time.sleep(3.0)
    service.settings.write_text('[[rule]]\naction = "recrod"\ntags = ["bad"\n')
    service.hang_up()
    reached(service, "settings-refused", True)
    refused_at = time.time_ns()
    time.sleep(3.0)
    service.settings.write_text('[[rule]]\nname = "b"\naction = "record"\ntags = ["new"]\n')
    service.hang_up()
    wait_until(lambda: bool(service.events("settings-taken")), "the good settings are taken")
    time.sleep(1.0)
    taken_at = time.time_ns()
    time.sleep(load.hold)
    load.stop()
    time.sleep(SETTLED)
    wrong = settle(service, watch)
    old = new = 0
    for each in watch.recordings.values():
        started, tags = nanoseconds(each.document["started"]), each.document.get("tags")
        if started < refused_at + 2 * SECOND:
            old += tags == ["old"]
            wrong += [f"{each.place}: tags {tags}, not those of before"] if tags != ["old"] else []
        elif started > taken_at:
            new += tags == ["new"]
            wrong += [f"{each.place}: tags {tags}, not the new ones"] if tags != ["new"] else []
    return wrong, [("calls by the old rules while the file was broken", old), ("calls by the new ones", new)]


def terminate(service: Service, sender: Sender, directory: Path) -> tuple[list[str], list[tuple[str, object]]]:
    """SIGTERM in the middle of calls."""
    watch = Watch(service.out)
    service.start()
    service.ready()
    load = sender(30.0)
    load.begin()
    time.sleep(load.hold)
    at = time.time_ns()
    began = time.monotonic()
    wrong = settle(service, watch)
    took = time.monotonic() - began
    load.stop()
    recordings = list(watch.recordings.values())
    by_call = {each.document["call_id"]: each for each in recordings}
    cut = 0
    for call in align(load, recordings):
        if call.invited + MEDIA_NS + SECOND > at:
            continue
        recording = by_call.get(call.call_id)
        heard = (
            0 if recording is None or recording.document["audio"] is None else recording.document["audio"]["samples"]
        )
        expected = (min(call.media[1], at) - call.media[0]) * 8 // MS
        if heard < expected - 4000:
            wrong.append(f"call {call.number}: {heard} of {expected} samples that were on the wire")
        cut += call.ended > at
    return wrong, [("calls in progress, all with their audio to the end", cut), ("s until it was gone", f"{took:.1f}")]
