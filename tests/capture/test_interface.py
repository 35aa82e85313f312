"""Facts about interfaces, beside what iproute2 says of them."""

import json
import sys

import pytest

from bench.veth import entered, is_possible, run, wire
from capture.interface import ARPHRD_LOOPBACK, Framing, Interface, InterfaceTable, framing
from capture.live import LiveCaptureError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="rtnetlink is Linux's")


@pytest.fixture
def table():
    made = InterfaceTable()
    yield made
    made.close()


def test_loopback_is_there_and_known_as_such(table):
    found = table.require("lo")
    assert (found.name, found.hardware_type, found.is_loopback) == ("lo", ARPHRD_LOOPBACK, True)
    assert "lo" in table.names()


@pytest.mark.parametrize("name", ["nowhere0", "", "a" * 16, "a\0b", "ü" * 8])
def test_what_is_not_there_is_none_and_an_error_names_what_is(table, name):
    assert table.find(name) is None
    with pytest.raises(LiveCaptureError, match=r"There are: .*lo"):
        table.require(name)
    assert table.find("lo") is not None


@pytest.mark.skipif(not is_possible(), reason="needs root, iproute2 and network namespaces")
def test_facts_are_those_of_iproute2_and_of_the_namespace_it_was_made_in():
    with wire("facts") as over:
        with entered(over.namespace):
            table = InterfaceTable()
        run("ip", "-n", over.namespace, "link", "set", "tx0", "promisc", "on")
        run("ip", "-n", over.namespace, "link", "set", "rx0", "down")
        told = json.loads(run("ip", "-n", over.namespace, "-j", "-d", "link", "show"))
        assert table.names() == [each["ifname"] for each in told]
        for each in told:
            found = table.require(each["ifname"])
            assert (found.index, found.mtu, found.promiscuity) == (each["ifindex"], each["mtu"], each["promiscuity"])
            assert found.up == ("UP" in each["flags"])
            assert found.running == ("LOWER_UP" in each["flags"])
        table.close()


def interface(hardware_type):
    return Interface("some0", 2, hardware_type, up=True, running=True, promiscuity=0, mtu=1500)


@pytest.mark.parametrize(
    ("hardware_type", "expected"),
    [
        (1, Framing(1, cooked=False)),
        (772, Framing(1, cooked=False)),
        (65534, Framing(101, cooked=False)),
        (519, Framing(101, cooked=False)),
        (512, Framing(276, cooked=True)),
        (778, Framing(276, cooked=True)),
    ],
)
def test_link_types_follow_the_hardware_type(hardware_type, expected):
    assert framing(interface(hardware_type)) == expected


def test_any_is_cooked():
    assert framing(None) == Framing(276, cooked=True)


@pytest.mark.parametrize("hardware_type", [280, 803, 804, 824])
def test_interfaces_without_ip_are_refused_by_name(hardware_type):
    with pytest.raises(LiveCaptureError, match=f"some0.*{hardware_type}"):
        framing(interface(hardware_type))
