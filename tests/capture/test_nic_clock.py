"""Stamps of network cards: taken where the card's clock is right, and no longer once it strays."""

import os
from pathlib import Path

import pytest

from capture import ring_port
from capture.interface import InterfaceTable
from capture.nic_clock import FAR_NS, NicClock, open_nic_clock
from capture.ring_port import RingOptions, RingPort


def test_an_interface_without_a_card_has_none_and_says_why():
    clock, why = open_nic_clock("lo")
    assert clock is None
    assert why.startswith("the network card")


@pytest.mark.skipif(not Path("/dev/ptp0").exists(), reason="this machine has no clock of a network card")
def test_a_clock_tells_how_far_it_is_from_the_machines():
    clock = NicClock(0)
    first, second = clock.offset_ns(), clock.offset_ns()
    clock.close()
    assert abs(first - second) < 100_000_000


class Straying:
    offset = 0
    closed = False

    def offset_ns(self):
        return self.offset

    def close(self):
        self.closed = True


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_clock_that_strays_is_given_up_and_told(monkeypatch):
    clock = Straying()
    monkeypatch.setattr(ring_port, "open_nic_clock", lambda name: (clock, ""))
    table = InterfaceTable()
    port = RingPort("lo", RingOptions(ring_size=1 << 20, block_size=1 << 16), table)
    port.open()
    assert "network card's" in port.notes[0]
    clock.offset = FAR_NS
    port.look(table)
    assert "network card's" in port.notes[0]
    clock.offset = -FAR_NS - 1
    port.look(table)
    assert port.notes == [
        "lo: times are the kernel's.",
        "lo: the network card's clock went 0.100 s off and is no longer used.",
    ]
    assert clock.closed
    port.close()
    table.close()
