"""From a call that no server had to an entry of the spool, whichever of its two halves comes first."""

import threading
from types import SimpleNamespace

import pytest

from recorder.siprec.spool import PACKETS, Spool
from recorder.siprec.spooling import Spooling
from recorder.siprec.src_decision import Instance, Server
from recorder.siprec.src_sessions import Kept
from tests.siprec_fakes import START, over, picture


class Filling:
    """A spool that is filled, and a recording."""

    def __init__(self, path):
        self.trouble, self.lost = [], []
        self.spool = Spool(path / "spool", most_octets=10_000_000, most_age=1 << 60, clock=lambda: START)
        self.spooling = Spooling(self.spool, self.trouble.append, self.lost.append, leave_packets=False)
        self.kept = Kept(over(picture()), Instance((Server("sip:a"),)), START)
        self.document = SimpleNamespace(id=str(self.kept.picture.id))
        self.directory = path / "recording"
        self.directory.mkdir()

    def publish(self):
        self.spooling.published(self.document, self.directory)

    def run(self, *, kept_first):
        steps = [lambda: self.spooling.keep(self.kept), self.publish]
        for step in steps if kept_first else reversed(steps):
            step()
        self.wait()

    def wait(self):
        for thread in threading.enumerate():
            if thread.name == "spanrec-spool":
                assert not thread.daemon, "the end of the process would not wait for it"
                thread.join()


@pytest.mark.parametrize("kept_first", [True, False])
def test_packets_of_a_call_go_into_the_spool(tmp_path, kept_first):
    filling = Filling(tmp_path)
    (filling.directory / PACKETS).write_bytes(b"packets")
    filling.run(kept_first=kept_first)
    assert [entry.packets.read_bytes() for entry in filling.spool.entries] == [b"packets"]
    assert not (filling.directory / PACKETS).exists()
    assert filling.trouble == []


@pytest.mark.parametrize("kept_first", [True, False])
def test_a_call_whose_packets_were_not_kept_in_time_is_told(tmp_path, kept_first):
    filling = Filling(tmp_path)
    filling.run(kept_first=kept_first)
    assert filling.spool.entries == []
    assert filling.lost == [filling.kept]
    assert filling.trouble == []


@pytest.mark.parametrize("spared_first", [True, False])
def test_packets_that_were_kept_in_doubt_are_removed_once_the_call_is_delivered(tmp_path, spared_first):
    filling = Filling(tmp_path)
    (filling.directory / PACKETS).write_bytes(b"packets")
    filling.spooling.doubted(filling.kept.picture)
    if spared_first:
        filling.spooling.spared(filling.kept.picture)
    filling.publish()
    assert (filling.directory / PACKETS).exists() is not spared_first
    if not spared_first:
        filling.spooling.spared(filling.kept.picture)
    assert not (filling.directory / PACKETS).exists()
    assert filling.spool.entries == []
    assert filling.lost == filling.trouble == []


def test_packets_stay_for_a_second_session_that_may_need_them(tmp_path):
    filling = Filling(tmp_path)
    (filling.directory / PACKETS).write_bytes(b"packets")
    for _ in range(2):
        filling.spooling.doubted(filling.kept.picture)
    filling.spooling.spared(filling.kept.picture)
    filling.publish()
    filling.spooling.keep(filling.kept)
    filling.wait()
    assert [entry.packets.read_bytes() for entry in filling.spool.entries] == [b"packets"]
    assert not (filling.directory / PACKETS).exists()


def test_packets_of_a_call_that_was_never_in_doubt_are_left_alone(tmp_path):
    filling = Filling(tmp_path)
    (filling.directory / PACKETS).write_bytes(b"packets")
    filling.publish()
    assert (filling.directory / PACKETS).exists()
