"""Ports to which media still come are given to nobody, and what comes there is heard by nobody."""

import socket
import struct
import time
from contextlib import closing

import pytest

from capture.address import Endpoint
from capture.media_ports import MediaPort, MediaPortOptions, MediaPorts
from recorder.siprec.media_reception import MediaReception
from recorder.siprec.quiet_ports import LOOK, MOST, SECOND, QuietPorts

PORT = MediaPort(Endpoint(0, 1, 40000), Endpoint(0, 1, 40001), 0, 7)


def course(last, seconds):
    """What becomes of a pair that is released at 0: when it is muted and closed, s."""
    ports, found = QuietPorts(2.0), {}
    assert ports.add(PORT, SECOND)
    assert not ports.add(PORT, SECOND), "once is enough"
    for step in range(int(seconds * SECOND / LOOK)):
        now = SECOND + step * LOOK
        came = last(now - SECOND) + SECOND
        change = ports.look(now, lambda port, came=came: came)
        for name, changed in zip(("mute", "close"), change, strict=True):
            if changed:
                found[name] = step * LOOK / SECOND
    return found


def test_a_pair_that_is_silent_is_closed_after_a_moment():
    assert course(lambda now: 0, 10) == {"mute": 0.25, "close": 2.0}


def test_a_pair_to_which_media_come_stays_open_and_unheard_until_they_cease():
    assert course(lambda now: min(now, 16 * SECOND), 30) == {"mute": 0.25, "close": 18.0}


def test_who_sends_for_ever_keeps_a_pair_for_a_bounded_time():
    assert course(lambda now: now, 200) == {"mute": 0.25, "close": MOST / SECOND}


def test_a_pair_is_muted_only_when_all_is_read_that_came_before():
    ports = QuietPorts(2.0)
    ports.add(PORT, SECOND)
    assert ports.look(2 * SECOND, lambda port: 2 * SECOND, behind=True) == ([], [])
    assert ports.look(3 * SECOND, lambda port: 3 * SECOND) == ([PORT], [])


def test_a_clock_that_is_set_back_keeps_no_pair():
    ports = QuietPorts(2.0)
    ports.add(PORT, 1000 * SECOND)
    assert ports.look(900 * SECOND, lambda port: 0).close == [PORT]


def test_what_came_before_the_end_is_heard_however_late_it_is_read():
    options = MediaPortOptions(low=46020, high=46021, linger=0.0, rest=0.0, pace=0.002, steered=False)
    reception = MediaReception(MediaPorts(options))
    with closing(reception), closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
        port = reception.open("127.0.0.1")
        for number in range(1000):
            head = struct.pack("!BBHII", 0x80, 0, number, 160 * number, 7)
            sender.sendto(head + bytes(20), ("127.0.0.1", port.rtp.port))
        reception.release(port)
        time.sleep(0.4)  # nobody reads meanwhile
        heard = 0
        while (batch := reception.poll(0.2)) is not None:
            heard += len(batch)
    assert heard == 1000


def test_the_next_call_hears_nothing_of_a_sender_that_goes_on_after_the_end():
    """One pair there is: it is free only when the sender of before has ceased."""
    options = MediaPortOptions(low=46010, high=46011, linger=0.0, rest=0.0, pace=0.002, steered=False)
    reception = MediaReception(MediaPorts(options), quiet=0.5)
    with closing(reception), closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
        old = reception.open("127.0.0.1")
        reception.release(old)
        begun, heard, number = time.monotonic(), 0, 0
        while time.monotonic() - begun < 1.5:
            sent = time.monotonic()
            head = struct.pack("!BBHII", 0x80, 0, number, 160 * number, 7)
            sender.sendto(head + bytes(160), ("127.0.0.1", old.rtp.port))
            number += 1
            batch = reception.poll(0.01)
            heard += len(batch) if batch is not None and time.monotonic() - begun > 0.9 else 0
            if time.monotonic() - sent > 0.2:
                pytest.skip("the machine stood still for so long that the sender did cease")
            assert old.place in reception._ports._open
        assert heard == 0
        until = time.monotonic() + 20
        while old.place in reception._ports._open:
            assert reception.poll(0.05) is None
            assert time.monotonic() < until
        assert reception.open("127.0.0.1").rtp == old.rtp
