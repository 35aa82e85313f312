"""What a killed recorder missed of a call is declared, whatever of its signalling fell into the time between."""

import asyncio
import os
import shutil
from datetime import datetime
from pathlib import Path

from scapy.layers.inet import UDP
from scapy.utils import rdpcap, wrpcap

from recorder.wav import FRAME, HEADER
from tests.live import recordings, service
from tests.srs_lab import ALICE, SrsLab, metadata
from tests.srs_lab import run as finish
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


OTHER = "b3RoZXJvdGhlcm90aGVyb3Q="
DELAY = 4.5
"""s between a call's BYE and the kill, less than for which a call that is over is kept open."""


def after_a_kill(tmp_path, *, talks_on, on_disk):
    """Warnings of a call that ended `DELAY` s before the recorder was killed, of which only so many s of 10 are on the
    disk: the worker that had the rest was killed first. Another call has all of its own there, up to `talks_on` s after
    the end of the first."""
    first = SrsLab(tmp_path / "out")

    async def before(lab):
        ended = lab.record(call_id="rs-1@src")
        other = metadata(session=OTHER).replace(ALICE, "ZXJpbmVyaW5lcmluZXJpbg==").replace("alice@a", "erin@e")
        goes_on = lab.record(said=other, call_id="rs-2@src")
        for place in (0, 1):
            lab.speak(ended, place, 10)
            lab.speak(goes_on, place, 10 + talks_on, ssrc=100 + place)
        lab.after(10)
        lab.bye(ended)
        lab.after(DELAY)
        (place,) = [lab.engine.directory_of(call) for call in lab.active if call.call_id == "rs-1@src"]
        lab.kill()
        os.truncate(place / "audio.wav", HEADER + round(on_disk * 8000) * FRAME)

    asyncio.run(before(first))

    async def after(lab):
        lab.after(70)

    found = finish(SrsLab(tmp_path / "out", now=first.now + 2 * SECOND), after)
    (codes,) = [each.codes for each in found if each.document.call_id == "rs-1@src"]
    return codes


def test_a_call_that_ended_within_the_last_window_and_lacks_audio_is_not_taken_to_be_whole(tmp_path):
    """What is written is written window by window, by several workers: others have theirs, and it has not."""
    assert "interrupted" in after_a_kill(tmp_path, talks_on=1.5, on_disk=8)


def test_a_call_that_ended_a_window_before_what_others_have_is_whole_however_silent_its_end(tmp_path):
    assert "interrupted" not in after_a_kill(tmp_path, talks_on=DELAY, on_disk=8)
