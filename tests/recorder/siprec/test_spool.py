"""Calls that wait for a server: kept whole, bounded, delivered oldest first, found again after a restart."""

import asyncio
import gc
import re
import weakref
from dataclasses import replace
from uuid import uuid4

import pytest

from capture.errors import SpanrecError
from recorder.sip_ua.api import Credentials
from recorder.siprec import spool as spool_module
from recorder.siprec.control import EventKind
from recorder.siprec.spool import FILE, PACKETS, PARTIAL, Delivery, Outcome, Spool, SpoolError
from recorder.siprec.spool_entry import SpooledCall, from_json, to_json
from recorder.siprec.src_decision import Instance, Overrides, Protection, Server
from tests.siprec_fakes import OPUS, SECOND, START, held, over, picture, stream

DAY = 86_400 * SECOND
INSTANCE = Instance(
    (Server("sip:a", protection=Protection.SAVP), Server("sips:b", weight=3)),
    name="../x",
    final=re.compile("4.."),
    overrides=Overrides(caller_name="Desk", group=uuid4()),
    headers=(("X-A", "1"),),
)


def a_call(number=1, **changes):
    made = over(picture(number, started=START + number * SECOND))
    return replace(SpooledCall(made, INSTANCE, START, START + 60 * SECOND), **changes)


class Kept:
    """A spool in a directory of its own."""

    def __init__(self, path, **changes):
        self.now = START + 100 * SECOND
        self.events = []
        options = {"most_octets": 10_000_000, "most_age": 7 * DAY, **changes}
        self.spool = Spool(path, clock=lambda: self.now, tell=self.events.append, **options)

    def put(self, call, size=1000):
        work = self.spool.work(call)
        (work / PACKETS).write_bytes(bytes(size))
        return self.spool.put(call, work)

    def told(self):
        return [event.kind for event in self.events]


def test_what_is_kept_comes_back_as_it_was():
    call = a_call()
    assert from_json(to_json(call)) == call
    other = replace(call.picture, streams=(stream(call.picture.parties[0].side, formats={111: OPUS}),))
    for each in (held(other, call.picture.parties[0].side), replace(other, call_id=None)):
        assert from_json(to_json(replace(call, picture=each))).picture == each


def test_passwords_are_not_kept():
    secret = Server("sip:a", credentials=Credentials("user", "pass-word-1"))
    call = a_call(instance=replace(INSTANCE, servers=(secret,)))
    assert b"pass-word-1" not in to_json(call)
    assert from_json(to_json(call)).instance.servers == (Server("sip:a"),)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"version": 2}', b'{"version": 1, "picture": 3}', b"\xff"])
def test_what_is_no_call_of_ours_is_a_value_error(data):
    with pytest.raises(ValueError, match="no call that was kept"):
        from_json(data)


def test_a_restart_finds_what_waits_oldest_first_and_nothing_half_written(tmp_path):
    kept = Kept(tmp_path)
    for number in (3, 1, 2):
        kept.put(a_call(number))
    work = kept.spool.work(a_call(9))
    (work / PACKETS).write_bytes(b"half")
    (tmp_path / "other").mkdir()
    again = Kept(tmp_path)
    assert [entry.call.picture.index for entry in again.spool.entries] == [1, 2, 3]
    assert [entry.call for entry in again.spool.entries] == [entry.call for entry in kept.spool.entries]
    assert list((tmp_path / PARTIAL).iterdir()) == []
    assert all(entry.packets.read_bytes() == bytes(1000) for entry in again.spool.entries)


def test_no_name_from_outside_is_a_file_name(tmp_path):
    entry = Kept(tmp_path).put(a_call())
    assert re.fullmatch(r"\d{20}-[0-9a-f]{32}-[0-9a-f]{8}", entry.directory.name)


def test_a_call_that_is_kept_again_replaces_itself(tmp_path):
    kept = Kept(tmp_path)
    call = a_call()
    kept.put(call, 10)
    kept.put(call, 20)
    assert [entry.packets.stat().st_size for entry in kept.spool.entries] == [20]


def test_the_oldest_go_where_there_is_no_room_and_that_is_told(tmp_path):
    kept = Kept(tmp_path, most_octets=15_000)
    for number in range(1, 6):
        kept.put(a_call(number), 5000)
    left = [entry.call.picture.index for entry in kept.spool.entries]
    assert left == list(range(6 - len(left), 6))
    assert kept.spool.octets <= 15_000
    assert kept.told().count(EventKind.FAILURE) == 5 - len(left)
    assert len(list(tmp_path.iterdir())) == 1 + len(left)


def test_what_waited_too_long_goes_and_what_is_being_delivered_stays(tmp_path):
    kept = Kept(tmp_path)
    entries = [kept.put(a_call(number)) for number in (1, 2)]
    kept.spool.hold(entries[0])
    kept.now += 8 * DAY
    kept.spool.trim()
    assert kept.spool.entries == [entries[0]]
    kept.spool.release(entries[0])
    kept.spool.trim()
    assert kept.spool.entries == []


def test_a_directory_that_cannot_be_used_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="cannot be kept there"):
        Kept(tmp_path / "file")
    kept = Kept(tmp_path / "spool")
    with pytest.raises(SpoolError, match="cannot be kept"):
        kept.spool.put(a_call(), tmp_path / "not there")
    assert kept.spool.entries == []


def test_deliveries_go_oldest_first_and_are_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(spool_module, "FIRST_WAIT", 0.01)
    kept = Kept(tmp_path)
    for number in (2, 1, 3):
        kept.put(a_call(number))
    outcomes = iter([Outcome.LATER, Outcome.LATER, Outcome.DELIVERED, Outcome.NEVER, Outcome.DELIVERED])
    tried = []

    async def deliver(entry):
        assert (entry.directory / FILE).exists()
        tried.append(entry.call.picture.index)
        await asyncio.sleep(0)
        return next(outcomes)

    async def run():
        delivery = Delivery(kept.spool, deliver, 1)
        task = asyncio.create_task(delivery.run())
        for _ in range(500):
            await asyncio.sleep(0.005)
            if not kept.spool.entries:
                break
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert tried == [1, 1, 1, 2, 3]
    assert kept.told()[3:] == [EventKind.DELIVERED, EventKind.FAILURE, EventKind.DELIVERED]
    assert [path.name for path in tmp_path.iterdir()] == [PARTIAL]


async def all_delivered(kept, task):
    """Wait until nothing is left, and end the delivery."""
    while kept.spool.entries:
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_several_are_delivered_at_once_each_of_them_once_and_never_more_than_that(tmp_path):
    kept, begun, most = Kept(tmp_path), [], []
    for number in (5, 3, 1, 2, 4, 6, 7):
        kept.put(a_call(number))

    async def run():
        go_on = asyncio.Semaphore(0)

        async def deliver(entry):
            begun.append(entry.call.picture.index)
            most.append(len(begun) - (7 - len(kept.spool.entries)))
            await go_on.acquire()
            return Outcome.DELIVERED

        task = asyncio.create_task(Delivery(kept.spool, deliver, 3).run())
        while len(begun) < 3:
            await asyncio.sleep(0.001)
        assert begun == [1, 2, 3]
        for _ in range(7):
            go_on.release()
        await all_delivered(kept, task)

    asyncio.run(asyncio.wait_for(run(), 10))
    assert begun == [1, 2, 3, 4, 5, 6, 7]
    assert max(most) <= 3


def test_what_a_delivery_leaves_behind_in_a_cycle_does_not_stay(tmp_path):
    kept, left = Kept(tmp_path), []
    kept.put(a_call(1))

    class Engine:
        def __init__(self):
            self.own = self.turn

        def turn(self):
            return None

    async def deliver(entry):
        left.append(weakref.ref(Engine()))
        return Outcome.DELIVERED

    async def run():
        task = asyncio.create_task(Delivery(kept.spool, deliver).run())
        while not left or left[0]() is not None:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    gc.disable()
    try:
        asyncio.run(asyncio.wait_for(run(), 10))
    finally:
        gc.enable()


def test_deliveries_in_progress_end_with_it_and_their_calls_wait_for_the_next(tmp_path):
    kept, begun, broken_off = Kept(tmp_path), [], []
    for number in (1, 2, 3):
        kept.put(a_call(number))

    async def run():
        async def deliver(entry):
            begun.append(entry.call.picture.index)
            try:
                await asyncio.Event().wait()
            finally:
                broken_off.append(entry.call.picture.index)

        delivery = Delivery(kept.spool, deliver, 2)
        task = asyncio.create_task(delivery.run())
        while len(begun) < 2:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(asyncio.wait_for(run(), 10))
    assert sorted(broken_off) == [1, 2]
    assert len(kept.spool.entries) == 3


def test_new_calls_for_servers_that_are_away_do_not_have_them_tried_at_once(tmp_path):
    kept, tried = Kept(tmp_path), []
    kept.put(a_call(1))

    async def deliver(entry):
        tried.append(entry.call.picture.index)
        return Outcome.LATER

    async def run():
        delivery = Delivery(kept.spool, deliver)
        task = asyncio.create_task(delivery.run())
        while not tried:
            await asyncio.sleep(0.001)
        for number in range(2, 10):
            await asyncio.to_thread(kept.put, a_call(number))
        other = replace(INSTANCE, servers=(Server("sip:there"),))
        await asyncio.to_thread(kept.put, a_call(10, instance=other))
        while 10 not in tried:
            await asyncio.sleep(0.001)
        assert tried == [1, 10]
        delivery.retry()
        while len(tried) < 3:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(asyncio.wait_for(run(), 10))
    assert tried[2] == 1


def test_calls_in_progress_that_wait_for_a_server_go_first(tmp_path, monkeypatch):
    monkeypatch.setattr(spool_module, "HELD_BACK", 0.01)
    kept, tried, looks = Kept(tmp_path), [], []
    waiting = {server.uri for server in INSTANCE.servers}
    kept.put(a_call(1))
    kept.put(a_call(2, instance=replace(INSTANCE, servers=(Server("sip:there"),))))

    async def deliver(entry):
        tried.append(entry.call.picture.index)
        return Outcome.DELIVERED

    def waited_for():
        looks.append(1)
        return frozenset(waiting)

    async def run():
        task = asyncio.create_task(Delivery(kept.spool, deliver, waited_for=waited_for).run())
        while len(looks) < 5:
            await asyncio.sleep(0.001)
        assert tried == [2]
        waiting.clear()
        await all_delivered(kept, task)

    asyncio.run(asyncio.wait_for(run(), 10))
    assert tried == [2, 1]


def test_nothing_is_delivered_while_there_is_more_traffic_than_can_be_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(spool_module, "HELD_BACK", 0.01)
    kept, tried, looks = Kept(tmp_path), [], []
    kept.put(a_call(1))

    async def deliver(entry):
        tried.append(len(looks))
        return Outcome.DELIVERED

    def overloaded():
        looks.append(1)
        return len(looks) < 5

    async def run():
        await all_delivered(kept, asyncio.create_task(Delivery(kept.spool, deliver, overloaded=overloaded).run()))

    asyncio.run(asyncio.wait_for(run(), 10))
    assert tried == [5]


def test_a_server_that_returns_and_a_new_call_wake_it(tmp_path):
    kept = Kept(tmp_path)
    up = False
    done = []

    async def deliver(entry):
        done.append(up)
        return Outcome.DELIVERED if up else Outcome.LATER

    async def run():
        nonlocal up
        delivery = Delivery(kept.spool, deliver)
        task = asyncio.create_task(delivery.run())
        await asyncio.sleep(0.01)
        await asyncio.to_thread(kept.put, a_call())
        while not done:
            await asyncio.sleep(0.005)
        up = True
        delivery.retry()
        while kept.spool.entries:
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(asyncio.wait_for(run(), 5))
    assert done == [False, True]


def test_what_cannot_be_read_is_given_up(tmp_path):
    kept = Kept(tmp_path)
    kept.put(a_call())

    async def deliver(entry):
        raise SpanrecError("no capture")

    async def run():
        task = asyncio.create_task(Delivery(kept.spool, deliver).run())
        while kept.spool.entries:
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(asyncio.wait_for(run(), 5))
    assert kept.told() == [EventKind.SPOOLED, EventKind.FAILURE]


def test_a_call_does_not_wait_for_the_servers_of_another_nor_behind_one_that_breaks(tmp_path):
    kept, tried = Kept(tmp_path), []
    other = replace(INSTANCE, servers=(Server("sip:there"),))
    kept.put(a_call(1))
    kept.put(a_call(2))
    kept.put(a_call(3, instance=other))
    kept.put(a_call(4, instance=other))

    async def deliver(entry):
        tried.append(entry.call.picture.index)
        if entry.call.picture.index == 3:
            raise RuntimeError("nobody foresaw this")
        return Outcome.DELIVERED if entry.call.instance.servers == other.servers else Outcome.LATER

    async def run():
        task = asyncio.create_task(Delivery(kept.spool, deliver, 1).run())
        while len(kept.spool.entries) > 3:
            await asyncio.sleep(0.005)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(asyncio.wait_for(run(), 5))
    assert tried == [1, 3, 4]
    assert [event.text for event in kept.events if event.kind is EventKind.FAILURE] == [
        "its delivery broke off: RuntimeError: nobody foresaw this"
    ]
