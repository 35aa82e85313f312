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
        self.trouble = []
        self.spool = Spool(path / "spool", most_octets=10_000_000, most_age=1 << 60, clock=lambda: START)
        self.spooling = Spooling(self.spool, self.trouble.append, leave_packets=False)
        self.kept = Kept(over(picture()), Instance((Server("sip:a"),)), START)
        self.document = SimpleNamespace(id=str(self.kept.picture.id))
        self.directory = path / "recording"
        self.directory.mkdir()

    def run(self, *, kept_first):
        steps = [lambda: self.spooling.keep(self.kept), lambda: self.spooling.published(self.document, self.directory)]
        for step in steps if kept_first else reversed(steps):
            step()
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
    assert len(filling.trouble) == 1
    assert "ended before its packets could be kept" in filling.trouble[0]
