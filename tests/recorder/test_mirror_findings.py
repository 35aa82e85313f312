"""The rules of `spanrec doctor -i`, each with a port that is in order but for one thing."""

from dataclasses import replace

import pytest

from capture.adapter import Adapter, ReceiveCounters
from capture.address import parse_endpoint
from capture.interface import Interface
from recorder.mirror_findings import MirrorFinding, examine
from recorder.mirror_sample import MirrorFigures

PORT = Interface("eth1", 3, 1, up=True, running=True, promiscuity=0, mtu=1500)
ADAPTER = Adapter(
    interface=PORT,
    driver="ixgbe",
    hardware_address=bytes(6),
    speed=1000,
    full_duplex=True,
    features={"rx-gro": False, "rx-lro": False, "rx-vlan-hw-parse": False, "rx-checksum": True},
    ring=4096,
    ring_limit=8192,
    queues=4,
    addresses=(),
    in_bridge=False,
    counters=ReceiveCounters(packets=10**9, missed=12, damaged=3),
)
FIGURES = MirrorFigures(
    seconds=5.0,
    packets=50_000,
    octets=10_000_000,
    dropped=0,
    datagrams=48_000,
    copies=9,
    copies_elsewhere=0,
    for_others=49_000,
    ethernet=50_000,
    fragments=20,
    cut=9,
    oversized=0,
    longest=1518,
    sip_requests=30,
    sip_responses=40,
    conversations=100,
    one_way=(),
    vlans=(100,),
    tunnels={},
)
ENDS = tuple((parse_endpoint("192.0.2.1", port), parse_endpoint("198.51.100.2", port)) for port in range(4000, 4100))


def only(found: list[MirrorFinding]) -> MirrorFinding:
    (finding,) = found
    assert finding.seen
    assert finding.spoils
    assert finding.commands
    return finding


def test_a_port_in_order_has_no_findings():
    assert examine(ADAPTER, FIGURES, ReceiveCounters(packets=50_000)) == []


@pytest.mark.parametrize(
    ("changes", "check", "command"),
    [
        ({"interface": replace(PORT, up=False, running=False)}, "link", "ip link set eth1 up"),
        ({"interface": replace(PORT, running=False)}, "link", "ethtool eth1"),
        ({"full_duplex": False}, "duplex", "ethtool -s eth1 autoneg on"),
        (
            {"features": {"rx-gro": True, "rx-lro": True, "rx-gro-hw": False}},
            "merging",
            "ethtool -K eth1 gro off lro off",
        ),
        ({"features": {"rx-vlan-hw-parse": True}}, "vlan", "ethtool -K eth1 rxvlan off"),
        ({"ring": 512}, "ring", "ethtool -G eth1 rx 4096"),
        ({"ring": 512, "ring_limit": 2048}, "ring", "ethtool -G eth1 rx 2048"),
        ({"addresses": ("192.0.2.7",)}, "address", "ip addr flush dev eth1"),
        ({"in_bridge": True}, "bridge", "ip link set eth1 nomaster"),
    ],
)
def test_each_setting_that_spoils_mirrors_is_found(changes, check, command):
    finding = only(examine(replace(ADAPTER, **changes)))
    assert (finding.check, finding.commands[0]) == (check, command)


def test_an_ipv6_address_is_kept_from_coming_back():
    finding = only(examine(replace(ADAPTER, addresses=("fe80::1",))))
    assert finding.commands == ("ip addr flush dev eth1", "sysctl -w net.ipv6.conf.eth1.disable_ipv6=1")


@pytest.mark.parametrize("unknown", [{"ring": None, "ring_limit": None}, {"features": {}}, {"full_duplex": None}])
def test_what_a_driver_does_not_tell_is_no_finding(unknown):
    assert examine(replace(ADAPTER, **unknown), FIGURES) == []


@pytest.mark.parametrize(
    ("changes", "check", "seen"),
    [
        ({"packets": 0, "datagrams": 0, "ethernet": 0}, "silence", "no packet in 5 s"),
        ({"for_others": 0}, "no-mirror", "all 50000 frames are broadcast, multicast or for this machine"),
        ({"dropped": 5}, "drops", "dropped 5 of 50005 packets"),
        ({"octets": 600_000_000}, "full", "960 of 1000 Mbit/s"),
        ({"oversized": 3, "longest": 9000}, "oversized", "longer than the MTU of 1500, up to 9000 octets"),
        ({"cut": 60}, "cut", "60 of 50000 packets are shorter"),
        ({"copies": 24_000}, "copies", "24000 of 48000 datagrams (50%) come more than once"),
        ({"copies": 24_000, "copies_elsewhere": 7}, "copies", "7 of them in another VLAN"),
        (
            {"one_way": ENDS[:30]},
            "one-way",
            "of 100 RTP conversations, 30 are seen in one direction only: 192.0.2.1:4000",
        ),
        ({"sip_responses": 0}, "sip", "30 SIP requests, but no response"),
        ({"sip_requests": 0}, "sip", "40 SIP responses, but no request"),
    ],
)
def test_what_the_traffic_shows_is_found(changes, check, seen):
    finding = only(examine(ADAPTER, replace(FIGURES, **changes)))
    assert finding.check == check
    assert seen in finding.seen


def test_a_few_calls_on_hold_are_no_finding():
    assert examine(ADAPTER, replace(FIGURES, one_way=ENDS[:20])) == []


@pytest.mark.parametrize("counter", ["missed", "length", "damaged", "queue"])
def test_what_the_adapter_counts_while_watching_is_found(counter):
    finding = only(examine(ADAPTER, FIGURES, ReceiveCounters(packets=50_000, **{counter: 4})))
    assert "4" in finding.seen


def test_the_other_direction_is_asked_for_by_the_command():
    finding = only(examine(ADAPTER, replace(FIGURES, one_way=ENDS)))
    assert finding.commands[1] == "tcpdump -ni eth1 -c 10 src host 198.51.100.2 and dst host 192.0.2.1"
    assert finding.seen.endswith(", …")
