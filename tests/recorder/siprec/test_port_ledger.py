"""Ports that a killed server had told of are left alone by the next one, and by no run for longer than that takes."""

import pytest

from capture.media_ports import MediaPortOptions, MediaPorts
from capture.port_pool import REST, PortsExhausted
from recorder.siprec.media_reception import MediaReception
from recorder.siprec.port_ledger import NOTICED, PortLedger, name_of

SECOND = 1_000_000_000
NOW = 1_790_000_000 * SECOND


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now

    def after(self, seconds):
        self.now += round(seconds * SECOND)


@pytest.fixture
def clock():
    return Clock()


def opened(out, clock):
    """The ledger of the next run, and what it has to leave alone."""
    ledger = PortLedger(out, clock=clock)
    return ledger, {left.port: left.seconds for left in ledger.open()}


def test_a_port_in_use_is_left_alone_after_a_kill_until_its_client_has_noticed(tmp_path, clock):
    first, known = opened(tmp_path, clock)
    assert known == {}
    first.take(40002)
    first.take(65534)
    first.close()  # as a kill does
    clock.after(5)
    second, known = opened(tmp_path, clock)
    assert known == {40002: NOTICED, 65534: NOTICED}
    second.close()
    clock.after(NOTICED - 1)
    third, known = opened(tmp_path, clock)
    assert known == pytest.approx({40002: 1.0, 65534: 1.0}), "counted from the first start after the kill"
    third.close()
    clock.after(1)
    fourth, known = opened(tmp_path, clock)
    assert known == {}
    fourth.close()


@pytest.mark.parametrize(("seconds", "left"), [(REST - 4, 4.0), (-86_400, NOTICED)], ids=["rests", "clock set back"])
def test_a_port_that_was_given_back_rests_across_a_start_and_no_clock_makes_it_longer(tmp_path, clock, seconds, left):
    first, _ = opened(tmp_path, clock)
    first.take(40000)
    first.release(40000)
    first.close()
    clock.after(seconds)
    second, known = opened(tmp_path, clock)
    assert known == pytest.approx({40000: left})
    second.close()


def test_a_disk_that_refuses_is_told_of_and_costs_no_session(tmp_path):
    told = []
    ledger = PortLedger(tmp_path / "absent", trouble=told.append)
    assert ledger.open() == []
    ledger.take(40000)
    ledger.release(40000)
    ledger.close()
    (text,) = told
    assert "absent/.ports" in text
    assert "No such file" in text


def test_what_is_left_of_a_file_that_was_cut_is_read(tmp_path, clock):
    first, _ = opened(tmp_path, clock)
    first.take(40000)
    first.take(40002)
    first.close()
    path = tmp_path / ".ports"
    path.write_bytes(path.read_bytes()[:-27])
    second, known = opened(tmp_path, clock)
    assert known == {40000: NOTICED}
    second.close()


def test_the_calls_of_ports_in_use_are_known_to_the_next_run_alone(tmp_path, clock):
    first = PortLedger(tmp_path, clock=clock)
    first.open()
    for port in (40000, 40002, 40004):
        first.take(port)
        first.name(port, "c2Vzc2lvbi1vbmUtb25lLW9uZQ==")
    first.release(40002)
    first.take(40004)  # another session's, whose metadata have not come
    first.close()
    second = PortLedger(tmp_path, clock=clock)
    found = {left.port: (left.since, left.name) for left in second.open()}
    assert found == {40000: (NOW, name_of("c2Vzc2lvbi1vbmUtb25lLW9uZQ==")), 40002: (0, b""), 40004: (0, b"")}
    second.close()
    third = PortLedger(tmp_path, clock=clock)
    assert {left.port: left.name for left in third.open()}[40000] == b""
    third.close()


def test_open_ports_are_noted_before_anybody_is_told_and_the_next_reception_opens_others(tmp_path):
    options = MediaPortOptions(low=46000, high=46003, steered=False)
    first = MediaReception(MediaPorts(options))
    first.remember(PortLedger(tmp_path))
    used = first.open("127.0.0.1").rtp.port
    first.close()
    second = MediaReception(MediaPorts(options))
    second.remember(PortLedger(tmp_path))
    try:
        (other,) = {46000, 46002} - {used}
        assert second.open("127.0.0.1").rtp.port == other
        with pytest.raises(PortsExhausted, match="others may still send"):
            second.open("127.0.0.1")
    finally:
        second.close()


def test_ports_of_a_call_that_comes_again_after_a_kill_are_free_once_they_have_rested(tmp_path):
    options = MediaPortOptions(low=46020, high=46025, rest=0.0, steered=False)
    first = MediaReception(MediaPorts(options))
    first.remember(PortLedger(tmp_path))
    for session in ("one", "other"):
        first.note_call(first.open("127.0.0.1"), session)
    first.close()
    second = MediaReception(MediaPorts(options))
    second.remember(PortLedger(tmp_path))
    try:
        again = second.open("127.0.0.1")
        with pytest.raises(PortsExhausted):
            second.open("127.0.0.1")
        second.note_call(again, "one")
        assert second.open("127.0.0.1").rtp.port != again.rtp.port
        with pytest.raises(PortsExhausted, match="but 1 to which others may still send"):
            second.open("127.0.0.1")
    finally:
        second.close()


def test_a_port_that_somebody_got_meanwhile_stays_noted_when_its_client_of_before_has_noticed(tmp_path, clock):
    first, _ = opened(tmp_path, clock)
    first.take(40000)
    first.take(40002)
    first.close()
    second, _ = opened(tmp_path, clock)
    second.take(40000)
    second.relent(40000)
    second.relent(40002)
    second.close()
    third, known = opened(tmp_path, clock)
    assert known == {40000: NOTICED, 40002: REST}
    third.close()
