"""Our lab's captures replayed: real programs' calls, with the audio and the facts that `pcaps/index.json` knows."""

import itertools
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import pytest
from scapy.utils import RawPcapNgReader, RawPcapReader

from pcaps.make.media import SOURCE_SECONDS
from pcaps.make.sources import speech_like
from pcaps.make.sources import through as heard_through
from recorder.replay_types import Dissector
from tests.capture_builder import Capture, Recording, both, later, record, talk

PCAPS = Path(__file__).parents[2] / "pcaps"
INDEX = json.loads((PCAPS / "index.json").read_text())
WITH_AUDIO = [name for name, entry in INDEX.items() if any(call["streams"] for call in entry["calls"])]


@dataclass(frozen=True)
class Packet:
    """An RTP packet as the capture has it, read by scapy."""

    time: float
    source: str
    destination: str
    sequence: int
    timestamp: int
    payload_type: int
    payload: bytes


@cache
def packets_of(name: str) -> dict[int, list[Packet]]:
    """SSRC -> its packets in order of capture, for all that may be RTP in Ethernet frames."""
    path = PCAPS / INDEX[name]["file"]
    ng = path.suffix == ".pcapng"
    found: dict[int, list[Packet]] = {}
    with (RawPcapNgReader if ng else RawPcapReader)(str(path)) as reader:
        for frame, meta in reader:
            if ng:
                time = (meta.tshigh << 32 | meta.tslow) / meta.tsresol
            else:
                time = meta.sec + meta.usec / (1e9 if reader.nano else 1e6)
            v6 = frame[12:14] == b"\x86\xdd"
            at = 54 if v6 else 14 + 4 * (frame[14] & 15)
            if frame[20 if v6 else 23] != 17 or len(frame) < at + 20 or frame[at + 8] >> 6 != 2:
                continue
            ends = (frame[22:38], frame[38:54]) if v6 else (frame[26:30], frame[30:34])
            here, there = (
                text_of(address, int.from_bytes(frame[k : k + 2], "big"))
                for address, k in zip(ends, (at, at + 2), strict=True)
            )
            rtp = frame[at + 8 : at + int.from_bytes(frame[at + 4 : at + 6], "big")]
            fields = (int.from_bytes(rtp[2:4], "big"), int.from_bytes(rtp[4:8], "big"), rtp[1] & 127, rtp[12:])
            found.setdefault(int.from_bytes(rtp[8:12], "big"), []).append(Packet(time, here, there, *fields))
    return found


def text_of(address: bytes, port: int) -> str:
    """An endpoint as documents write it."""
    host = str(ip_address(address))
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@pytest.fixture(scope="module")
def replayed(tmp_path_factory):
    """name -> the recordings of that capture, each replayed once."""
    done: dict[str, list[Recording]] = {}

    def find(name: str) -> list[Recording]:
        if name not in done:
            entry, options = INDEX[name], {}
            keylog = PCAPS / f"{name}.keys"
            if keylog.exists():
                options = {"dissector": Dissector.TSHARK, "keylog": keylog}
            done[name] = record([PCAPS / entry["file"]], tmp_path_factory.mktemp(name), **options)
        return done[name]

    return find


def recording_of(recordings: list[Recording], call: dict) -> Recording:
    """The recording of one call of the index."""
    return next(each for each in recordings if each.document["call_id"] == call["call_id"])


@pytest.mark.parametrize("name", INDEX)
def test_the_document_says_what_the_lab_knows(replayed, name):
    recordings = replayed(name)
    assert {r.document["call_id"] for r in recordings} == {c["call_id"] for c in INDEX[name]["calls"]}
    for call in INDEX[name]["calls"]:
        document = recording_of(recordings, call).document
        for key in ("state", "sip_status", "ended_by", "caller", "callee"):
            assert document[key] == call[key], key
        assert [d["by"] for d in document["holds"]] == [h["by"] for h in call["holds"]]
        pressed = [{key: d[key] for key in ("participant", "digit", "via")} for d in document["dtmf"]]
        assert pressed == [{key: d[key] for key in ("participant", "digit", "via")} for d in call["dtmf"]]
        for found, known in zip(document["dtmf"], call["dtmf"], strict=True):
            assert found["duration_ms"] == known["duration_ms"]
        streams = {(s["participant"], s["ssrc"]): s for s in document["streams"]}
        assert set(streams) == {(s["participant"], s["ssrc"]) for s in call["streams"]}
        for known in call["streams"]:
            found = streams[known["participant"], known["ssrc"]]
            for key in ("packets", "lost", "duplicates", "reordered", "copies"):
                assert found[key] == known[key], (known["participant"], key)
            codecs = known.get("codecs", [known["codec"]])
            assert found["codec"].split("/")[0] in codecs
            assert found["encrypted"] == known.get("encrypted", False)
            if "source" in known:
                assert (found["source"], found["destination"]) == (known["source"], known["destination"])


@pytest.mark.parametrize("name", WITH_AUDIO)
def test_every_sample_of_g711_stands_where_the_capture_had_it(replayed, name):
    for call in INDEX[name]["calls"]:
        recording = recording_of(replayed(name), call)
        for participant, heard in (("caller", recording.caller), ("callee", recording.callee)):
            streams = [s for s in call["streams"] if s["participant"] == participant]
            if not streams or not all(s["exact"] for s in streams):
                continue
            np.testing.assert_array_equal(heard, expected_channel(name, recording, streams, heard))


PAUSED = ("hold", "codec_change")
"""Captures in which SIPp began again after a pause, its timestamps some ms off the pause's real length."""


def moved(heard: np.ndarray, spoken: np.ndarray, at: int) -> int:
    """By how many samples, at most 20 ms, a spurt as a whole was moved to where its packets arrived."""
    for by in sorted(range(-160, 161), key=abs):
        if np.array_equal(heard[at + by : at + by + len(spoken)], spoken):
            return by
    return 0


def expected_channel(name: str, recording: Recording, streams: list[dict], heard: np.ndarray) -> np.ndarray:
    """A channel made of the index's sources, placed by the capture times that scapy read."""
    channel = np.zeros(len(recording.audio), np.int16)
    started = np.datetime64(recording.document["audio"]["started"].removesuffix("Z"), "us").astype(int) / 1e6
    for stream in streams:
        found = next(s for s in recording.document["streams"] if s["ssrc"] == stream["ssrc"])
        packets = packets_of(name)[int(stream["ssrc"], 16)]
        mine = [p for p in packets if (p.source, p.destination) == (found["source"], found["destination"])]
        first = next(p for p in mine if p.payload_type != 101)
        anchor = round((first.time - started) * 8000)
        seen = {p.timestamp for p in packets if p.payload_type != 101}
        for part in stream["audio"]:
            source = heard_through(part.get("codec", stream["codec"]), speech_like(part["seed"], SOURCE_SECONDS))
            at = anchor + (part["timestamp"] - first.timestamp + 2**31) % 2**32 - 2**31
            spoken = np.zeros(part["samples"], np.int16)
            for k in range(0, part["samples"], 160):
                if (part["timestamp"] + k) % 2**32 in seen:
                    spoken[k : k + 160] = source[part["first_sample"] + k : part["first_sample"] + k + 160]
            if name in PAUSED:
                arrival = next(p.time for p in mine if p.timestamp == part["timestamp"])
                at = round((arrival - started) * 8000)
                at += moved(heard, spoken, at)
            channel[at : at + len(spoken)] = spoken
    return channel


@pytest.mark.parametrize("name", [n for n in WITH_AUDIO if "g722" in n])
def test_g722_is_what_ffmpeg_decodes(replayed, name):
    (call,) = INDEX[name]["calls"]
    recording = recording_of(replayed(name), call)
    assert recording.rate == 16000
    started = np.datetime64(recording.document["audio"]["started"].removesuffix("Z"), "us").astype(int) / 1e6
    for stream, heard in zip(call["streams"], (recording.caller, recording.callee), strict=True):
        packets = packets_of(name)[int(stream["ssrc"], 16)]
        command = ["ffmpeg", "-loglevel", "error", "-f", "g722", "-i", "-", "-f", "s16le", "-"]
        octets = b"".join(p.payload for p in packets)
        wanted = np.frombuffer(subprocess.run(command, input=octets, capture_output=True, check=True).stdout, np.int16)
        at = round((packets[0].time - started) * 16000)
        assert not heard[:at].any()
        assert not heard[at + len(wanted) :].any()
        noise = heard[at : at + len(wanted)].astype(float) - wanted
        assert 10 * np.log10(np.sum(wanted.astype(float) ** 2) / max(np.sum(noise**2), 1e-9)) > 40


@pytest.mark.parametrize("name", [n for n, entry in INDEX.items() if "groups" in entry])
def test_calls_of_one_conversation_share_a_group(replayed, name):
    by_call_id = {r.document["call_id"]: r.document["group_id"] for r in replayed(name)}
    for group in INDEX[name]["groups"]:
        assert len({by_call_id[call_id] for call_id in group}) == 1


# The same bytes, whatever the workers, batches, hash seed, time zone or directory


def tree(out: Path) -> dict[str, str]:
    """Relative path -> digest of every file, and directories as they are."""
    return {
        str(path.relative_to(out)): sha256(path.read_bytes()).hexdigest() if path.is_file() else "directory"
        for path in sorted(out.rglob("*"))
    }


def busy_capture(path: Path) -> Path:
    """Calls that overlap, follow each other on the same ports, come late, and media without signalling."""
    capture = Capture()
    for k in range(5):
        alice, bob = both(6, seed=3 * k + 1, at=1 + 0.7 * k, ssrc=100 + k)
        shifted = [[_moved(p, k) for p in side] for side in (alice, bob)]
        capture.rtp(*shifted)
        capture.call(
            end=8 + 0.7 * k,
            call_id=f"call-{k}",
            caller_media=("192.0.2.10", 4000 + 2 * k),
            callee_media=("192.0.2.20", 6000 + 2 * k),
        )
    again = [later(side, 9) for side in both(5, seed=40)]
    capture.rtp(*again)
    call = capture.call(end=None, answer=9.5, call_id="again")
    call.hang_up(15.5)
    lonely = talk(speech_like(60, 7), ("198.51.100.1", 9000), ("198.51.100.2", 9000), at=3, ssrc=77)
    capture.rtp(lonely, lonely[::5])
    return capture.write(path)


def _moved(packet, k):
    ports = {4000: 4000 + 2 * k, 6000: 6000 + 2 * k}
    source, destination = packet.source, packet.destination
    return replace(packet, source=(source[0], ports[source[1]]), destination=(destination[0], ports[destination[1]]))


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Captures of all kinds."""
    made = busy_capture(tmp_path_factory.mktemp("made") / "busy.pcap")
    names = ("impaired", "codec_change", "g722", "relayed", "tcp", "srtp_sdes", "transfer_attended", "dtmf")
    return [made, *(PCAPS / INDEX[name]["file"] for name in names)]


def test_workers_and_batches_leave_no_trace(many, tmp_path):
    trees = []
    for workers, batch in ((1, 8192), (2, 7), (3, 100_000), (1, 1), (2, 8192)):
        out = tmp_path / f"out-{workers}-{batch}"
        record(many, out, workers=workers, batch_size=batch)
        trees.append(tree(out))
    assert any(name.endswith("catalogue.sqlite") for name in trees[0])
    for other in trees[1:]:
        assert other == trees[0]


SCRIPT = """
import sys
from pathlib import Path
from recorder.replay_types import Dissector
from tests.capture_builder import record
record([Path(each) for each in sys.argv[2:]], Path(sys.argv[1]), workers=2)
"""


def test_hash_seed_time_zone_and_directory_leave_no_trace(many, tmp_path):
    trees = []
    for seed, zone, name in (("1", "UTC", "a"), ("4711", "Asia/Kathmandu", "another name/deeper")):
        out = tmp_path / name
        environment = os.environ | {"PYTHONHASHSEED": seed, "TZ": zone, "PYTHONPATH": str(PCAPS.parent)}
        command = [sys.executable, "-c", SCRIPT, str(out), *map(str, many)]
        subprocess.run(command, env=environment, check=True, cwd=tmp_path)
        trees.append(tree(out))
    assert trees[0] == trees[1]


@pytest.mark.parametrize("cut", [False, True])
def test_what_json_says_is_the_same_whatever_the_run(many, tmp_path, cut):
    """Standard output of the command: each run with other workers, batches, hash seed, time zone and directories."""
    said = []
    for workers, batch, seed, zone, name in (
        ("1", "8192", "0", "UTC", "one"),
        ("2", "7", "1", "America/St_Johns", "the second/deeper"),
        ("3", "100000", "4711", "Asia/Kathmandu", "x"),
    ):
        here = tmp_path / name
        here.mkdir(parents=True)
        captures = [here / path.name for path in many]
        for capture, path in zip(captures, many, strict=True):
            # Base names are told, directories are not; a file that is cut short is told as well.
            capture.write_bytes(path.read_bytes()[: -5 if cut else None])
        environment = os.environ | {"PYTHONHASHSEED": seed, "TZ": zone, "PYTHONPATH": str(PCAPS.parent)}
        options = ("--json", "--workers", workers, "--batch-size", batch, "-o", str(here / "out"))
        command = [sys.executable, "-c", "from recorder.cli import main; main()", "replay", *options]
        command += map(str, captures)
        run = subprocess.run(command, env=environment, cwd=here, capture_output=True, check=False)
        assert run.returncode == (3 if cut else 0), run.stderr
        said.append(run.stdout)
    told = json.loads(said[0])
    assert len(told["calls"]) == told["summary"]["calls"] > len(many)
    assert any(capture["damage"] for capture in told["captures"]) is cut
    assert said[1] == said[0]
    assert said[2] == said[0]


def test_a_call_in_rotated_captures_names_its_frames_in_each(tmp_path):
    alice, bob = both(24)
    quiet = [p for p in alice if p.at < 8 or p.at > 17]
    capture = Capture().rtp(quiet, bob)
    capture.call(end=26)
    capture.frames.sort()
    whole = record([capture.write(tmp_path / "whole.pcap")], tmp_path / "whole")
    edges = [capture.frames[0][0] + round(second * 1e9) for second in (0, 6.3, 11.1, 15.55, 40)]
    paths = []
    for k, (begin, end) in enumerate(itertools.pairwise(edges)):
        part = Capture([frame for frame in capture.frames if begin <= frame[0] < end])
        paths.append(part.write(tmp_path / f"part-{k}.pcap"))
        count = len(part.frames)
        assert count > 200
    (recorded,) = record(paths[::-1], tmp_path / "out")
    np.testing.assert_array_equal(recorded.audio, whole[0].audio)
    sizes = [len([f for f in capture.frames if a <= f[0] < b]) for a, b in itertools.pairwise(edges)]
    assert {c["file"]: (c["first_packet"], c["last_packet"]) for c in recorded.document["captures"]} == {
        f"part-{k}.pcap": (1, size) for k, size in enumerate(sizes)
    }
