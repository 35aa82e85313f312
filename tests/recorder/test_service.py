"""The live service over our lab's captures: it records what a replay records, and loses nothing when it is killed."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from decoders import _stream_columns as cols
from recorder import checkpoint, kept_figures
from recorder.replay_types import Dissector
from recorder.status import LiveState
from recorder.wav import HEADER
from tests.capture_builder import ALICE_RTP, BOB_RTP, Capture, SipCall, both, record, sdp
from tests.live import FileSource, comparable, policy_of, quiet_log, record_live, recordings, service

PCAPS = Path(__file__).parents[2] / "pcaps"
ROOT = PCAPS.parent
CAPTURES = sorted(path for path in PCAPS.iterdir() if path.suffix in (".pcap", ".pcapng") and path.stem != "tls")


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.stem)
def test_live_and_replay_agree(tmp_path, capture):
    replayed = record([capture], tmp_path / "replay", dissector=Dissector.NATIVE)
    live = record_live(tmp_path / "live", [FileSource(capture)], workers=2)
    again = recordings(tmp_path / "replay")
    assert len(live) == len(replayed) == len(again)
    for (ours, place), (theirs, other) in zip(live, again, strict=True):
        assert comparable(ours) == comparable(theirs)
        if ours.audio is not None:
            assert (place / "audio.wav").read_bytes() == (other / "audio.wav").read_bytes()
        assert sorted(path.name for path in place.iterdir()) == sorted(path.name for path in other.iterdir())


def test_calls_of_one_conversation_share_a_group(tmp_path):
    live = record_live(tmp_path, [FileSource(PCAPS / "transfer_attended.pcap")])
    assert len(live) == 3
    assert len({document.group_id for document, _ in live}) == 1


def test_media_that_signalling_explains_late_is_one_recording_and_leaves_nothing_behind(tmp_path):
    alice, bob = both(16)
    capture = Capture().rtp(alice, bob)
    call = SipCall(capture)
    call.request(9.0, "INVITE", sdp(ALICE_RTP))
    call.response(9.1, 200, "OK", sdp(BOB_RTP))
    call.request(9.2, "ACK")
    call.hang_up(18)
    made = capture.write(tmp_path / "made.pcap", 65535)
    ((document, place),) = record_live(tmp_path / "live", [FileSource(made)])
    record([made], tmp_path / "replay")
    ((again, other),) = recordings(tmp_path / "replay")
    assert comparable(document) == comparable(again)
    assert (place / "audio.wav").read_bytes() == (other / "audio.wav").read_bytes()
    assert not list((tmp_path / "live" / ".live").iterdir())


def test_identifiers_are_random(tmp_path):
    first = record_live(tmp_path / "a", [FileSource(PCAPS / "pcmu.pcap")])
    second = record_live(tmp_path / "b", [FileSource(PCAPS / "pcmu.pcap")])
    assert first[0][0].id != second[0][0].id


def test_a_recording_in_progress_is_a_playable_file(tmp_path):
    lengths = []

    def look(given):
        for path in tmp_path.glob(".live/*/audio.wav"):
            samples, rate = soundfile.read(path)
            assert rate == 8000
            there = (path.stat().st_size - HEADER) // 4
            assert there - 6 * rate < len(samples) <= there, "its header tells all but the last seconds"
            lengths.append(len(samples))

    record_live(tmp_path, [FileSource(PCAPS / "hold.pcap", batch_size=16, before=look)])
    assert len(set(lengths)) >= 2, "it grows while it is recorded"


def test_a_call_that_is_to_be_skipped_leaves_nothing_but_its_trace(tmp_path):
    policy = policy_of(tmp_path, '[[rule]]\ncallee = "bob"\naction = "skip"\n')
    assert record_live(tmp_path / "out", [FileSource(PCAPS / "pcmu.pcap")], policy=policy) == []
    assert list((tmp_path / "out" / ".live").iterdir()) == []
    with sqlite3.connect(tmp_path / "out" / "catalogue.sqlite") as catalogue:
        ((recorded, trace),) = catalogue.execute("SELECT recorded, trace FROM traces").fetchall()
    assert not recorded
    assert "rule 1" in trace


def test_metadata_only_means_figures_without_audio(tmp_path):
    policy = policy_of(tmp_path, '[[rule]]\ncaller = "alice"\naction = "metadata"\ntags = ["sales"]\n')
    ((document, place),) = record_live(tmp_path / "out", [FileSource(PCAPS / "pcmu.pcap")], policy=policy)
    assert document.audio is None
    assert [stream.packets for stream in document.streams] == [200, 200]
    assert document.tags == ("sales",)
    assert sorted(path.name for path in place.iterdir()) == ["call.json", "metadata.xml"]


def test_a_low_disk_stops_audio_and_says_so(tmp_path):
    log, lines = quiet_log()
    ((document, _),) = record_live(
        tmp_path, [FileSource(PCAPS / "pcmu.pcap", before=lambda _: time.sleep(0.2))], disk_low=lambda *_: True, log=log
    )
    assert document.audio is None
    assert "disk-full" in [warning.code for warning in document.warnings]
    assert '"code": "disk-full"' in lines.getvalue()


def test_a_disk_that_refuses_costs_the_call_and_not_the_service(tmp_path):
    from recorder.tracks import FilePool

    real = FilePool.descriptor
    count = 0

    def failing(pool, track):
        nonlocal count
        count += 1
        descriptor = real(pool, track)
        if count > 2:
            full = os.open("/dev/full", os.O_RDWR)
            os.dup2(full, descriptor)
            os.close(full)
        return descriptor

    monkey = pytest.MonkeyPatch()
    monkey.setattr(FilePool, "descriptor", failing)
    try:
        ((document, _),) = record_live(tmp_path, [FileSource(PCAPS / "hold.pcap", before=lambda _: time.sleep(0.05))])
    finally:
        monkey.undo()
    assert count > 2
    assert document.state == "completed"
    assert "disk-failing" in [warning.code for warning in document.warnings]


def test_what_is_in_progress_is_shown(tmp_path):
    shown = []
    one = service(tmp_path)

    def look(given):
        if given > 100:
            one.board._asked = time.monotonic()
            one._each_second((), time.monotonic())
            shown.append((one.board.snapshot(), one.board.calls()))
            (call,) = shown[-1][1] or (None,)
            if call is not None:
                shown.append((one.board.snapshot(), [step.line for step in one._live.ladder(call.id)]))

    one.run([FileSource(PCAPS / "pcmu.pcap", before=look)], lambda: None, lambda _: None)
    snapshot, calls = shown[0]
    assert snapshot.calls == {LiveState.ACTIVE: 1}
    assert calls[0].call_id == "pcmu-4f1c@lab.example"
    assert shown[1][1][:4] == ["INVITE", "100 Trying", "180 Ringing", "200 OK"] or shown[1][1][0] == "INVITE"


class Running:
    """`spanrec capture --stdin` in a process of its own, fed record by record."""

    def __init__(self, out, tmp_path, name):
        self.log = (tmp_path / f"{name}.log").open("wb")
        environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path / name), "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from recorder.cli import main; main()", "capture", "--stdin", "-o", str(out),
             "--listen", "", "--workers", "1"],
            stdin=subprocess.PIPE, stderr=self.log, env=environment, cwd=tmp_path,
        )  # fmt: skip

    def feed(self, octets):
        self.process.stdin.write(octets)
        self.process.stdin.flush()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.log.close()

    def end(self):
        self.process.stdin.close()
        assert self.process.wait(60) == 0
        self.log.close()


def records_of(path):
    """The header of a pcap file and its records."""
    content = path.read_bytes()
    records, at = [], 24
    while at < len(content):
        size = 16 + int.from_bytes(content[at + 8 : at + 12], "little")
        records.append(content[at : at + size])
        at += size
    return content[:24], records


def wait_until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def counted(working):
    """Packets of all streams that a service has kept the counts of."""
    return int(kept_figures.read(working).state[:, cols.RECEIVED].sum())


def test_killed_in_the_middle_a_call_goes_on_in_the_same_recording(tmp_path):
    header, records = records_of(PCAPS / "hold.pcap")
    out = tmp_path / "out"
    half = len(records) // 2
    first = Running(out, tmp_path, "first")
    first.feed(header + b"".join(records[:half]))
    wait_until(lambda: any(out.glob(".live/*/audio.wav")) and any(out.glob(".live/*/checkpoint")))
    wait_until(lambda: b'"audio_started":1' in next(out.glob(".live/*/checkpoint")).read_bytes())
    wait_until(lambda: counted(out / ".live") > 200)
    first.kill()
    known, (state,) = counted(out / ".live"), [checkpoint.load(path.parent) for path in out.glob(".live/*/checkpoint")]
    assert sum(each.packets for each in state.streams) < known, "what was counted since the checkpoint is kept"
    (left,) = out.glob(".live/*/audio.wav")
    flushed = left.read_bytes()[HEADER:]
    identifier = left.parent.name
    gap = 20
    second = Running(out, tmp_path, "second")
    second.feed(header + b"".join(records[half + gap :]))
    second.end()
    ((document, place),) = recordings(out)
    whole = record_live(tmp_path / "whole", [FileSource(PCAPS / "hold.pcap")])[0][1]
    assert document.id.replace("-", "") == identifier, "the same recording"
    assert document.state == "completed"
    assert len(document.holds) == 2
    assert sum(each.packets for each in document.streams[: len(state.streams)]) == known
    assert [warning.code for warning in document.warnings] == ["interrupted"]
    ours, theirs = (soundfile.read(each / "audio.wav", dtype="int16")[0] for each in (place, whole))
    assert (place / "audio.wav").read_bytes()[HEADER:].startswith(flushed), "what was flushed stays"
    behind = len(flushed) // 4
    for channel in (0, 1):
        resumed = behind + int(np.flatnonzero(ours[behind:, channel])[0])
        assert resumed > behind + 160 * 9, "what is missing is silence"
        told = ours[resumed : resumed + 8000, channel]
        lags = [lag for lag in range(-160, 161) if (told == theirs[resumed + lag :, channel][:8000]).all()]
        assert lags, "what came after the gap stands where it belongs, to 20 ms"
    assert not list((out / ".live").iterdir())


@pytest.mark.parametrize("step", ["documents", "marked", "renamed"])
def test_killed_while_it_is_put_in_place_a_recording_is_completed(tmp_path, monkeypatch, step):
    from recorder import live_publish
    from recorder.store import RecordingStore

    class Killed(BaseException):
        pass

    def die(*_, **__):
        raise Killed

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        if step == "documents":
            patched.setattr(live_publish, "mark_whole", die)
        elif step == "marked":
            patched.setattr(RecordingStore, "publish", die)
        else:
            patched.setattr(live_publish.LiveCatalogue, "add_recording", die)
        patched.setattr(live_publish.threading, "excepthook", lambda _: None)
        record_live(out, [FileSource(PCAPS / "pcmu.pcap")])
    record_live(out, [FileSource(PCAPS / "pcma_wraps.pcap")])
    found = recordings(out)
    assert len(found) == 2
    with sqlite3.connect(out / "catalogue.sqlite") as catalogue:
        assert sorted(row[0] for row in catalogue.execute("SELECT id FROM recordings")) == sorted(
            document.id for document, _ in found
        )
    assert json.loads((found[0][1] / "call.json").read_text())["audio"]["samples"] > 30_000
    whole = record_live(tmp_path / "whole", [FileSource(PCAPS / "pcmu.pcap")])[0][0]
    assert [each.packets for each in found[0][0].streams] == [each.packets for each in whole.streams]
    assert not list((out / ".live").iterdir())
