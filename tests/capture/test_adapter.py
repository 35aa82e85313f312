"""Settings of adapters, against the programs that tell them too."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from capture.adapter import read_adapter, read_counters
from capture.live import LiveCaptureError

INTERFACES = sorted(path.name for path in Path("/sys/class/net").iterdir())


def test_loopback_has_its_addresses_and_nothing_of_an_adapter():
    adapter = read_adapter("lo")
    assert adapter.interface.is_loopback
    assert "127.0.0.1" in adapter.addresses
    assert (adapter.ring, adapter.speed, adapter.in_bridge) == (None, None, False)
    assert adapter.hardware_address == bytes(6)


def test_an_interface_that_is_not_there_is_an_error():
    with pytest.raises(LiveCaptureError, match="no interface 'nope'"):
        read_adapter("nope")
    assert read_counters("nope").packets == 0


@pytest.mark.skipif(shutil.which("ethtool") is None, reason="needs ethtool")
@pytest.mark.parametrize("name", INTERFACES)
def test_features_and_rings_are_those_that_ethtool_tells(name):
    adapter = read_adapter(name)
    told = ethtool("-k", name)
    for feature, label in (
        ("rx-gro", "generic-receive-offload"),
        ("rx-lro", "large-receive-offload"),
        ("rx-vlan-hw-parse", "rx-vlan-offload"),
        ("rx-gro-hw", "rx-gro-hw"),
        ("rx-vlan-filter", "rx-vlan-filter"),
    ):
        assert f"{label}: {'on' if adapter.features[feature] else 'off'}" in told
    sizes = [int(size) for size in re.findall(r"^RX:\s+(\d+)", ethtool("-g", name), re.MULTILINE)]
    assert [adapter.ring_limit, adapter.ring] == (sizes if sizes and sizes[0] else [None, None])
    driver = re.search("^driver: (.+)", ethtool("-i", name), re.MULTILINE)
    assert adapter.driver == (driver and driver[1])


def ethtool(*arguments: str) -> str:
    """What ethtool says; nothing where it cannot."""
    done = subprocess.run(["ethtool", *arguments], capture_output=True, text=True, timeout=10, check=False)
    return done.stdout
