"""Calls that were kept, played to a server: what is said to have come of it, and how it is broken off."""

import asyncio
import shutil
import threading
import time
from dataclasses import replace

import pytest

from capture.paced_source import Pace
from recorder.siprec import late_delivery
from recorder.siprec.control import EventKind
from recorder.siprec.forward import MediaForwarder
from recorder.siprec.late_delivery import LateDelivery, _outcome
from recorder.siprec.sip_settings import Ports
from recorder.siprec.spool import PACKETS, Entry, Outcome
from recorder.siprec.spool_entry import SpooledCall
from recorder.siprec.src_decision import Instance, Server
from tests.siprec_fakes import START, FakeAgent, FakeServer, over, picture

URI = "sip:one.example"


@pytest.mark.parametrize(
    ("begun", "kept", "told", "outcome"),
    [
        (True, False, {EventKind.START, EventKind.STOP}, Outcome.DELIVERED),
        (True, True, {EventKind.START, EventKind.SPOOLED}, Outcome.LATER),
        (True, False, {EventKind.FAILURE}, Outcome.NEVER),
        (True, False, {EventKind.START, EventKind.FAILURE, EventKind.STOP}, Outcome.NEVER),
        (True, False, set(), Outcome.LATER),
        (False, False, set(), Outcome.NEVER),
    ],
)
def test_delivered_is_only_what_began_at_a_server_and_did_not_fail(begun, kept, told, outcome):
    assert _outcome(begun, kept, told) is outcome


def test_a_delivery_that_is_cancelled_leaves_no_thread_playing(tmp_path, monkeypatch):
    monkeypatch.setattr(late_delivery, "Pace", lambda: Pace(0.4))
    MediaForwarder().prepare()
    shutil.copy("pcaps/pcmu.pcap", tmp_path / PACKETS)
    call = over(picture(call_id="pcmu-4f1c@lab.example"))
    entry = Entry(tmp_path, SpooledCall(call, Instance((Server(URI),)), START, START), 1)
    began = []

    async def local_host(server, agent):
        began.append(time.monotonic())
        return "127.0.0.1"

    async def run():
        agent = FakeAgent(FakeServer(URI))
        delivery = LateDelivery({"": agent}, local_host, replace, Ports(42000, 42999))
        task = asyncio.create_task(delivery(entry))
        while not began:
            await asyncio.sleep(0.01)
        task.cancel()
        assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)

    asyncio.run(asyncio.wait_for(run(), 60))  # waits for the threads of the loop
    while any(thread.name.startswith("spanrec-late") for thread in threading.enumerate()):
        assert time.monotonic() - began[0] < 9, "it plays on: the call takes ten seconds more"
        time.sleep(0.05)
