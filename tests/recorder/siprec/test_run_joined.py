"""`spanrec run` as client and server in one process, on the interface that both are reached by."""

import os
import subprocess
import time

import pytest

from bench.veth import is_possible, wire
from tests.live import recordings
from tests.src_lab import ROOT, running
from tests.wire_replay import send_capture

pytestmark = pytest.mark.skipif(not is_possible(), reason="needs root, iproute2 and veth")
SETTINGS = """
[capture]
interface = ["lo"]
workers = 1
ring_size = 16
listen = ""
socket = "status"
{more}
[src]
srs = "sip:rec@127.0.0.1:5098"
[srs]
listen = ["udp:127.0.0.1:5098", "tcp:127.0.0.1:5098"]
"""


@pytest.mark.skipif("SPANREC_SLOW" not in os.environ, reason="needs a machine of its own: set SPANREC_SLOW")
@pytest.mark.parametrize("more", ["", 'filter = "not port 5098"'], ids=["its signalling is seen", "it is not"])
def test_media_that_are_seen_on_the_way_to_our_own_ports_are_recorded_once_in_each_call(tmp_path, more):
    work = tmp_path / "run"
    work.mkdir()
    (work / "spanrec.toml").write_text(SETTINGS.format(more=more))
    with wire("joined") as net:
        subprocess.run(net.inside("ip", "link", "set", "lo", "up"), check=True)
        store = work / "store"
        with running(net.namespace, work, '"recording"', "run", "-o", str(store)):
            send_capture(net.namespace, "lo", ROOT / "pcaps" / "pcmu.pcap")
            until = time.monotonic() + 20
            while len(recordings(store)) < 2 and time.monotonic() < until:
                time.sleep(0.2)
    found = [document for document, _ in recordings(store)]
    assert [document.call_id for document in found] == ["pcmu-4f1c@lab.example"] * 2
    for document in found:
        assert sorted((each.participant, each.packets, each.lost) for each in document.streams) == [
            ("callee", 200, 0),
            ("caller", 200, 0),
        ]
        assert document.audio is not None
        assert document.warnings == ()
