"""A server that is told to stop ends in bounded time and well, whatever its peers do, with every recording finished."""

import time

from recorder.siprec.sip_settings import Ports
from tests.srs_by_hand import HandClient
from tests.srs_running import running

DRAIN, FAREWELL, REST = 1.0, 4.0, 20.0
"""s: what the settings give, what peers have to answer, and all else on a machine that is busy."""


def test_peers_that_never_answer_a_bye_cost_neither_recordings_nor_time(tmp_path):
    """One of them did not even acknowledge our 200, which a BYE waits for (RFC 3261, section 15)."""
    with running(tmp_path, Ports(46100, 46199), f"drain = {DRAIN:.0f}") as server:
        clients = [HandClient(server.ports["udp"], acknowledges=number != 2, number=number) for number in range(3)]
        for client in clients:
            client.speak(50)
        told = time.monotonic()
    took = time.monotonic() - told
    for client in clients:
        client.close()
    assert took < DRAIN + FAREWELL + REST
    assert server.messages("srs-failed") == []
    found = server.recordings()
    assert len(found) == 3
    for document, _ in found:
        assert document.state == "incomplete"
        assert "stopped" in {warning.code for warning in document.warnings}
        assert [stream.packets for stream in document.streams] == [50, 50]
    assert list((server.out / ".live").iterdir()) == []
