"""What a killed recorder missed of a call is declared, whatever of its signalling fell into the time between."""

import shutil
from datetime import datetime
from pathlib import Path

from scapy.layers.inet import UDP
from scapy.utils import rdpcap, wrpcap

from tests.live import recordings, service
from tests.stamped_source import WALL, Clocks, Killed, StampedHere

CAPTURE = Path(__file__).parents[2] / "pcaps" / "pcmu.pcap"
SECOND = 1_000_000_000


def without_answer(path):
    """The call of the capture, whose answer fell into the downtime; nanoseconds from its INVITE to its BYE."""
    packets = rdpcap(str(CAPTURE))
    said = [bytes(packet[UDP].payload) for packet in packets]
    answer = [(s.startswith(b"SIP/2.0 200") and b" INVITE" in s) or s.startswith(b"ACK") for s in said]
    wrpcap(str(path), [packet for packet, left_out in zip(packets, answer, strict=True) if not left_out])
    (bye,) = [packet for packet, s in zip(packets, said, strict=True) if s.startswith(b"BYE")]
    return round((float(bye.time) - float(packets[0].time)) * 1e9)


class Runs:
    """A recorder that is killed and started again on the same wire."""

    def __init__(self, tmp_path, capture):
        self.places = [tmp_path / "0"]
        self.clocks = Clocks({})
        self.capture = capture

    def run(self, since, killed=None):
        """One life of it, which listens from `since` on, ns after the first packet."""
        self.clocks.elapsed = since
        source = StampedHere(self.capture, self.clocks, since=since, killed=killed)
        options = {"wall_clock": self.clocks.wall, "steady_clock": self.clocks.steady}
        out = self.places[-1]
        try:
            service(out, **options).run([source], lambda: None, lambda _: None)
        except Killed:
            # What is left is copied, as this process still holds the store.
            self.places.append(out.with_name(str(len(self.places))))
            shutil.copytree(out, self.places[-1], ignore=lambda _, names: [n for n in names if "lock" in n])


def span_of(document):
    """From and until when nothing was recorded, ns after the first packet, as the document says."""
    (said,) = [warning.text for warning in document.warnings if warning.code == "interrupted"]
    words = said.split()
    begin, end = words[words.index("from") + 1], words[words.index("to") + 1].rstrip(":")
    return [round((datetime.fromisoformat(each).timestamp() - WALL / 1e9) * 1e9) for each in (begin, end)]


def test_media_that_came_just_before_another_kill_is_declared_missing_although_the_answer_was_missed(tmp_path):
    bye = without_answer(tmp_path / "wire.pcap")
    runs = Runs(tmp_path, tmp_path / "wire.pcap")
    runs.run(0, killed=SECOND // 10)  # the INVITE is heard
    runs.run(bye - SECOND, killed=bye + SECOND // 10)  # some media and the BYE, not yet on the disk
    runs.run(bye + SECOND)
    ((document, _),) = recordings(runs.places[-1])
    assert document.state == "completed"
    begin, end = span_of(document)
    assert begin <= SECOND // 10
    assert abs(end - bye) < SECOND // 100, "up to its end"


def test_media_that_came_after_a_restart_is_recorded_although_the_answer_was_missed(tmp_path):
    bye = without_answer(tmp_path / "wire.pcap")
    runs = Runs(tmp_path, tmp_path / "wire.pcap")
    runs.run(0, killed=SECOND // 10)
    runs.run(bye - SECOND)
    ((document, place),) = recordings(runs.places[-1])
    assert min(stream.packets for stream in document.streams) > 20
    assert len(document.streams) == 2
    assert (place / "audio.wav").exists()
    assert span_of(document)[1] <= bye - SECOND + SECOND // 100
