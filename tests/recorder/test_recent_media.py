"""What is held of the last seconds is what passed, within its bounds, and only of the calls that are asked for."""

import numpy as np
import pytest

from capture.source import CaptureSource
from recorder.engine import prepare
from recorder.packet_file import blocks_of
from recorder.recent_media import RecentMedia, media_rows
from tests.capture_builder import ALICE_RTP, BOB_RTP, Capture, both

SECOND = 1_000_000_000


class OwnedByPort:
    """Claims of calls that are numbered by the ports of one side."""

    def rows(self, datagrams, kinds, only):
        ports = np.minimum(datagrams.source_port, datagrams.destination_port).astype(np.int64)
        rows = np.flatnonzero(np.isin(ports, list(only)))
        return rows[::-1], ports[rows][::-1]


def batches(tmp_path, seconds, size):
    """Media both ways, and SIP between; in batches."""
    capture = Capture().rtp(*both(seconds))
    capture.call(end=seconds + 1.0)
    path = capture.write(tmp_path / "media.pcap")
    return [prepare(batch) for batch in CaptureSource([path], batch_size=size, hash_files=False)]


def held(recent, some):
    """Give batches; what blocks their packets make, each with its time."""
    expected = []
    for batch in some:
        rows, packets = media_rows(batch), batch.datagrams.packets
        interfaces = np.zeros(len(rows), np.int32)
        recent.add(batch, rows, interfaces, packets.time)
        octets, begins = blocks_of(packets, rows, interfaces, packets.time)
        expected += [
            (int(packets.time[row]), octets[begins[at] : begins[at + 1]].tobytes()) for at, row in enumerate(rows)
        ]
    return expected


def given(recent, calls):
    found = recent.of(OwnedByPort(), calls)
    return {call: [(time, bytes(block)) for time, block in blocks] for call, blocks in found.items()}


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_a_call_gets_its_packets_of_the_last_seconds_in_order_whatever_the_batches(tmp_path, size):
    recent = RecentMedia(max_age=3 * SECOND)
    expected = held(recent, batches(tmp_path, 8, size))
    call = min(ALICE_RTP[1], BOB_RTP[1])
    found = given(recent, {call, 1})
    assert found[1] == []
    assert found[call] == expected[-len(found[call]) :]
    assert found[call] == given(recent, {call})[call], "looking changes nothing"
    covered = (found[call][-1][0] - found[call][0][0]) / SECOND
    assert 3 <= covered < 5 if size < 10_000 else covered > 7, "what came in one batch goes as one"


def test_it_never_holds_more_than_it_may(tmp_path):
    recent = RecentMedia(max_octets=60_000)
    some = batches(tmp_path, 8, 16)
    call = min(ALICE_RTP[1], BOB_RTP[1])
    for batch in some:
        expected = held(recent, [batch])
        found = given(recent, {call})[call]
        assert sum(len(block) for _, block in found) < 60_000
        assert not found or found[-len(expected) :] == expected
    assert len(found) > 16
