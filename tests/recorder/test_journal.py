"""The journal of a call is read back as far as it is whole, and goes on behind that."""

import os

import pytest

from capture.address import Endpoint
from decoders.sip import parse_message
from recorder import journal
from recorder.messages import Message
from recorder.model import Sighting, Transport

INVITE = b"INVITE sip:b@x SIP/2.0\r\nCall-ID: one\r\nCSeq: 1 INVITE\r\n\r\n"


def message(number):
    seen = Sighting(number, number, 0, Endpoint(0, 1, 5060), Endpoint(0, 2, 5060), Transport.UDP, 0)
    return Message(parse_message(INVITE), seen, INVITE)


@pytest.fixture
def journals(tmp_path):
    opened = journal.Journals()
    yield opened
    opened.close(tmp_path)


def test_messages_are_read_back_in_order(journals, tmp_path):
    for number in (1, 2, 3):
        journals.append(tmp_path, message(number))
    assert [(seen.time, data) for seen, data in journal.read(tmp_path)] == [(n, INVITE) for n in (1, 2, 3)]


def test_what_a_kill_cut_off_is_taken_off_and_does_not_hide_what_follows(journals, tmp_path):
    journals.append(tmp_path, message(1))
    journals.append(tmp_path, message(2))
    path = tmp_path / journal.FILE
    os.truncate(path, path.stat().st_size - 5)
    journal.mend(tmp_path)
    journals.append(tmp_path, message(3))
    assert [seen.time for seen, _ in journal.read(tmp_path)] == [1, 3]


def test_a_disk_that_takes_half_a_record_leaves_the_journal_as_it_was(journals, tmp_path, monkeypatch):
    journals.append(tmp_path, message(1))
    whole = (tmp_path / journal.FILE).read_bytes()
    real = os.write
    monkeypatch.setattr(journal.os, "write", lambda fd, data: real(fd, data[:10]))
    with pytest.raises(journal.JournalError, match="disk is full"):
        journals.append(tmp_path, message(2))
    assert (tmp_path / journal.FILE).read_bytes() == whole


def test_of_many_journals_a_few_stay_open_and_all_are_written(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    calls = [tmp_path / str(number) for number in range(10)]
    opened = journal.Journals(most_open=3)
    for each in calls:
        each.mkdir()
    for turn in (1, 2):
        for each in calls:
            opened.append(each, message(turn))
            assert len(os.listdir("/proc/self/fd")) <= before + 3
    assert all([seen.time for seen, _ in journal.read(each)] == [1, 2] for each in calls)
    for each in calls:
        opened.close(each)
    assert len(os.listdir("/proc/self/fd")) == before
