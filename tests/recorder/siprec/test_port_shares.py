"""No client has more media ports than its share."""

import pytest

from capture.port_pool import PortsExhausted
from recorder.siprec.port_shares import PortShares, SharedPorts, ShareSpent
from tests.srs_lab import PaperPorts


def test_a_client_has_its_share_and_others_theirs() -> None:
    now = 0.0
    shares = PortShares(2, rest=10.0, clock=lambda: now)
    shares.take("192.0.2.1")
    shares.take("192.0.2.1")
    with pytest.raises(ShareSpent, match=r"192\.0\.2\.1 may have 2 streams"):
        shares.take("192.0.2.1")
    shares.take("192.0.2.2")
    shares.rest("192.0.2.1")
    now = 9.9
    with pytest.raises(ShareSpent):
        shares.take("192.0.2.1")
    now = 10.0
    shares.take("192.0.2.1")
    assert (shares.used("192.0.2.1"), shares.used("192.0.2.2"), shares.used("192.0.2.3")) == (2, 1, 0)


def test_clients_that_have_nothing_are_forgotten() -> None:
    now = 0.0
    shares = PortShares(2, rest=10.0, clock=lambda: now)
    for number in range(1000):
        client = f"192.0.2.{number}"
        shares.take(client)
        shares.rest(client)
        now += 1.0
    shares.used("")
    assert len(shares._used) <= 11
    assert len(shares._resting) <= 11


def test_where_no_port_is_left_nothing_counts() -> None:
    shares = PortShares(5)
    ports = SharedPorts(PaperPorts(1), shares, "192.0.2.1")
    port = ports.open("192.0.2.10")
    with pytest.raises(PortsExhausted):
        ports.open("192.0.2.10")
    assert shares.used("192.0.2.1") == 1
    ports.release(port)
    assert shares.used("192.0.2.1") == 1, "it rests"
