"""What a call said is on the disk, message by message, whatever the moment of a kill."""

import pytest

from capture.address import Endpoint
from decoders.sip import parse_message
from recorder import journal
from recorder.journal import JournalError
from recorder.messages import Message
from recorder.model import Sighting, Transport

CALLER, CALLEE = Endpoint(0, 0xFFFF_0A00_0001, 5060), Endpoint(0xFD33 << 48, 0x12, 5061)


def message(number: int, size: int = 0) -> Message:
    data = f"BYE sip:a@b SIP/2.0\r\nCall-ID: {number}\r\nCSeq: {number} BYE\r\n\r\n".encode() + bytes(size)
    parsed = parse_message(data)
    assert parsed is not None
    return Message(parsed, Sighting(number, number + 1, 2, CALLER, CALLEE, Transport.TLS, 0xFFFF_FFFF), data)


def test_messages_come_back_as_they_were_seen(tmp_path):
    for number in range(5):
        journal.append(tmp_path, message(number))
    assert list(journal.read(tmp_path)) == [(message(n).seen, message(n).data) for n in range(5)]


def test_where_there_is_none_nothing_comes_back(tmp_path):
    assert list(journal.read(tmp_path)) == []


def test_cut_anywhere_the_whole_records_before_it_come_back(tmp_path):
    sizes = []
    for number in range(3):
        journal.append(tmp_path, message(number))
        sizes.append((tmp_path / journal.FILE).stat().st_size)
    content = (tmp_path / journal.FILE).read_bytes()
    for cut in range(len(content) + 1):
        (tmp_path / journal.FILE).write_bytes(content[:cut])
        assert len(list(journal.read(tmp_path))) == sum(size <= cut for size in sizes)


def test_a_damaged_record_ends_what_is_read(tmp_path):
    for number in range(3):
        journal.append(tmp_path, message(number))
    content = bytearray((tmp_path / journal.FILE).read_bytes())
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0x55
        (tmp_path / journal.FILE).write_bytes(damaged)
        found = list(journal.read(tmp_path))
        assert found == [(message(n).seen, message(n).data) for n in range(len(found))]
        assert len(found) < 3


def test_a_call_that_never_stops_talking_fills_no_disk(tmp_path):
    for number in range(100):
        journal.append(tmp_path, message(number, size=60_000))
    assert (tmp_path / journal.FILE).stat().st_size < journal.LARGEST + 65_536
    assert len(list(journal.read(tmp_path))) > 60


def test_a_disk_that_refuses_is_named(tmp_path):
    with pytest.raises(JournalError, match="cannot be written"):
        journal.append(tmp_path / "gone", message(1))
