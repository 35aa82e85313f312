"""Calls that were kept, played to a server: what a kill would leave of them is written down."""

import asyncio
import shutil
from dataclasses import replace

from recorder.siprec.late_delivery import LateDelivery
from recorder.siprec.sip_settings import Ports
from recorder.siprec.spool import PACKETS, Entry
from recorder.siprec.spool_entry import SpooledCall
from recorder.siprec.src_decision import Instance, Server
from tests.siprec_fakes import START, FakeAgent, FakeServer, over, picture

URI = "sip:one.example"


def test_the_dialog_of_a_late_delivery_is_noted_until_it_has_ended(tmp_path):
    shutil.copy("pcaps/pcmu.pcap", tmp_path / PACKETS)
    call = over(picture(call_id="pcmu-4f1c@lab.example"))
    entry = Entry(tmp_path, SpooledCall(call, Instance((Server(URI),)), START, START), 1)
    said = []

    async def local_host(*_):
        return "127.0.0.1"

    def noted(session, server, agent):
        said.append(("begun", server, agent))
        return lambda: said.append(("ended", server, agent))

    async def run():
        agents = {"": FakeAgent(FakeServer(URI))}
        delivery = LateDelivery(agents, local_host, replace, Ports(43000, 43999), noted)
        task = asyncio.create_task(delivery(entry))
        while not said:
            await asyncio.sleep(0.01)
        assert said == [("begun", URI, "")]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(asyncio.wait_for(run(), 120))
    assert said == [("begun", URI, ""), ("ended", URI, "")]
