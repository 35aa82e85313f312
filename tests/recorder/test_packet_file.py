"""The file of a call's packets: whole at any moment, over crashes, full disks and its own end."""

import os

import numpy as np
import pytest

from recorder import packet_file
from recorder.live_packets import LivePackets
from recorder.packet_file import PacketFile
from recorder.policy import Decision, Policy
from recorder.tracks import StoreError
from tests.capture_builder import record
from tests.live import FileSource, record_live, recordings
from tests.naive_packets import enhanced_packets
from tests.recorder.test_packets import PCAPS, frames_of
from tests.recorder.test_service import Running, records_of, wait_until

FRAME = bytes(range(61))
BLOCK = enhanced_packets([(FRAME, 1_700_000_000_123_456_789, 99, 0)])
ETHERNET = [1]
KEEP = Policy(otherwise=Decision(keep_packets=True))


def begun(path, largest=1 << 20):
    return PacketFile.begin(path, "Call-ID: x", largest)


def test_it_is_a_capture_from_the_beginning_and_after_every_write(tmp_path):
    file = begun(tmp_path / "a.pcapng")
    assert frames_of(file.path) == []
    for count in range(1, 4):
        file.add(BLOCK, ETHERNET)
        file.flush()
        assert frames_of(file.path) == count * [(1_700_000_000_123_456_789, 1, 99, FRAME)]


@pytest.mark.parametrize("cut", [1, 4, 31, len(BLOCK) - 1])
def test_what_a_crash_cut_off_is_dropped_and_a_new_section_goes_on(tmp_path, cut):
    path = tmp_path / "a.pcapng"
    file = begun(path)
    for _ in range(2):
        file.add(BLOCK, ETHERNET)
    file.flush()
    os.truncate(path, file.size - cut)
    again = begun(path)
    again.add(BLOCK, ETHERNET)
    again.flush()
    assert len(frames_of(path)) == 2
    assert path.read_bytes().count((0x0A0D0D0A).to_bytes(4, "little")) == 2


def test_going_on_without_a_packet_changes_nothing(tmp_path):
    path = tmp_path / "a.pcapng"
    file = begun(path)
    file.add(BLOCK, ETHERNET)
    file.flush()
    before = path.read_bytes()
    begun(path).flush()
    assert path.read_bytes() == before


def test_beyond_its_largest_size_it_ends_with_a_whole_block(tmp_path):
    file = begun(tmp_path / "a.pcapng", largest=1000)
    while not file.full:
        file.add(BLOCK, ETHERNET)
    file.flush()
    assert file.path.stat().st_size <= 1000
    assert len(frames_of(file.path)) > 3
    assert begun(file.path, largest=file.size).full


def test_a_disk_that_takes_half_of_it_leaves_whole_blocks(tmp_path, monkeypatch):
    file = begun(tmp_path / "a.pcapng")
    file.add(BLOCK, ETHERNET)
    file.flush()
    real = os.write
    takes = [20, 0]

    def half(descriptor, data):
        room = takes.pop(0)
        if not room:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[:room])

    monkeypatch.setattr(packet_file.os, "write", half)
    file.add(BLOCK, ETHERNET)
    with pytest.raises(StoreError, match="cannot be kept: No space left on device"):
        file.flush()
    monkeypatch.undo()
    assert len(frames_of(file.path)) == 1


def test_a_disk_that_refuses_costs_the_call_its_packets_and_nothing_else(tmp_path, monkeypatch):
    def refuse(self):
        if self.size:
            raise StoreError("packets.pcapng: packets cannot be kept: No space left on device")
        return real(self)

    real = PacketFile.flush
    monkeypatch.setattr(PacketFile, "flush", refuse)
    ((document, place),) = record_live(tmp_path, [FileSource(PCAPS / "hold.pcap")], policy=KEEP)
    assert [warning.code for warning in document.warnings] == ["packets-missing"]
    assert document.audio is not None
    assert frames_of(place / "packets.pcapng") == []


def test_a_call_whose_packets_are_too_many_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(LivePackets.__init__, "__kwdefaults__", {"largest": 20_000})
    ((document, place),) = record_live(tmp_path, [FileSource(PCAPS / "pcmu.pcap")], policy=KEEP)
    assert [warning.code for warning in document.warnings] == ["packets-full"]
    kept = frames_of(place / "packets.pcapng")
    assert 0 < len(kept) < 100
    assert kept == frames_of(PCAPS / "pcmu.pcap")[: len(kept)]


def test_killed_and_started_again_the_file_goes_on(tmp_path):
    (tmp_path / "spanrec.toml").write_text('[policy]\ndefault = "record"\nkeep_packets = true\n')
    header, records = records_of(PCAPS / "hold.pcap")
    everything = frames_of(PCAPS / "hold.pcap")
    out, half = tmp_path / "out", len(records) // 2
    first = Running(out, tmp_path, "first")
    first.feed(header + b"".join(records[:half]))
    wait_until(lambda: any(out.glob(".live/*/packets.pcapng")))
    (left,) = out.glob(".live/*/packets.pcapng")
    wait_until(lambda: left.stat().st_size > 20_000)
    first.kill()
    flushed = left.read_bytes()
    second = Running(out, tmp_path, "second")
    second.feed(header + b"".join(records[half:]))
    second.end()
    ((document, place),) = recordings(out)
    assert "interrupted" in [warning.code for warning in document.warnings]
    path = place / "packets.pcapng"
    assert path.read_bytes().startswith(flushed), "what was flushed stays"
    kept = frames_of(path)
    assert kept[-(len(everything) - half) :] == everything[half:]
    assert set(kept) <= set(everything)
    assert [each.document["state"] for each in record([path], tmp_path / "again")] == ["completed"]


def test_blocks_carry_the_stamps_and_not_the_corrected_times():
    from capture.source import CaptureSource

    (batch, *_) = CaptureSource([PCAPS / "pcmu.pcap"], hash_files=False)
    rows = np.array([3, 5], np.int64)
    octets, begins = packet_file.blocks_of(batch, rows, np.zeros(2, np.int32), batch.time - 7)
    told = enhanced_packets(
        [(frame, time - 7, wire, 0) for time, _, wire, frame in (frames_of(PCAPS / "pcmu.pcap")[row] for row in rows)]
    )
    assert octets.tobytes() == told
    assert (begins[0], begins[-1]) == (0, len(told))
