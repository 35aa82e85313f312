"""packets.pcapng: what it holds is what was captured, all of the call and nothing of another."""

import gzip
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capture.address import Endpoint
from capture.source import CaptureSource
from pcaps.make import observe
from recorder._packet_kernels import BLOCK, lay_out
from recorder.packet_index import CLAIM, UDP, Claims, flow_key, flow_keys
from recorder.packets import FILE
from recorder.replay_types import Selection
from tests.capture_builder import ALICE, BOB, SECOND, Capture, Recording, both, later, record, sdp
from tests.naive_packets import enhanced_packets, holding

PCAPS = Path(__file__).parents[2] / "pcaps"
needs_tshark = pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is the judge here")

Frame = tuple[int, int, int, bytes]
"""Time, link type, octets on the wire, octets."""


def frames_of(*paths: Path) -> list[Frame]:
    """All frames of captures in order."""
    found = []
    for batch in CaptureSource(paths, hash_files=False):
        for row in range(len(batch)):
            begin = int(batch.offset[row])
            octets = batch.buffer[begin : begin + int(batch.captured[row])].tobytes()
            found.append((int(batch.time[row]), int(batch.link_type[row]), int(batch.wire[row]), octets))
    return found


def again(recording: Recording, tmp_path: Path) -> Recording:
    """The recording that its own packets give."""
    found = record([recording.directory / FILE], tmp_path / f"again-{recording.directory.name}")
    assert [r.document["call_id"] for r in found] == [recording.document["call_id"]]
    return found[0]


def told(recording: Recording) -> dict:
    """What a document says of its call. Jitter is measured on a grid that begins with the capture, so it may differ."""
    left_out = ("id", "group_id", "captures", "metadata")
    document = {key: value for key, value in recording.document.items() if key not in left_out}
    document["streams"] = [{k: v for k, v in stream.items() if k != "jitter_ms"} for stream in document["streams"]]
    return document


@pytest.mark.parametrize(
    "name",
    ["pcmu.pcap", "tcp.pcapng", "ipv6.pcap", "relayed.pcap", "websocket.pcap", "srtp_sdes.pcap", "transfer_blind.pcap"],
)
def test_the_packets_of_a_call_give_the_same_call(name: str, tmp_path: Path) -> None:
    frames = frames_of(PCAPS / name)
    for recording in record([PCAPS / name], tmp_path / "out", keep_packets=True):
        kept = frames_of(recording.directory / FILE)
        assert set(kept) <= set(frames)
        assert kept == sorted(kept, key=lambda frame: frame[0])
        other = again(recording, tmp_path)
        np.testing.assert_array_equal(other.audio, recording.audio)
        assert told(other) == told(recording)


@needs_tshark
@pytest.mark.parametrize("name", ["dtmf.pcap", "relayed.pcap", "transfer_blind.pcap"])
def test_tshark_finds_that_call_and_its_streams(name: str, tmp_path: Path) -> None:
    everything = observe.packets_per_ssrc(PCAPS / name)
    for recording in record([PCAPS / name], tmp_path / "out", keep_packets=True):
        path = recording.directory / FILE
        assert [call_id for call_id, _, _ in observe.invitations(path)] == [recording.document["call_id"]]
        counted = observe.packets_per_ssrc(path)
        assert counted == {ssrc: everything[ssrc] for ssrc in counted}
        assert set(counted) == {stream["ssrc"] for stream in recording.document["streams"]}
        said = subprocess.run(["capinfos", "-k", path], capture_output=True, text=True, check=True).stdout
        assert f"Call-ID: {recording.document['call_id']}" in said


def test_calls_that_follow_each_other_on_one_pair_of_ports_keep_apart(tmp_path: Path) -> None:
    capture = Capture()
    for k in range(3):
        one, two = both(2, seed=k + 1, at=1.0)
        shift = 3.2 * k
        call = Capture()
        call.call(end=3.1, call_id=f"call-{k}")
        capture.frames += [(time + round(shift * SECOND), frame) for time, frame in call.frames]
        capture.rtp(later(one, shift), later(two, shift))
    recordings = record([capture.write(tmp_path / "a.pcap")], tmp_path / "out", keep_packets=True)
    kept = [frames_of(recording.directory / FILE) for recording in recordings]
    assert [len(each) for each in kept] == [206, 206, 206]
    assert sorted(frame for each in kept for frame in each) == sorted(frames_of(tmp_path / "a.pcap"))


def test_only_selected_calls_have_their_packets_kept(tmp_path: Path) -> None:
    capture = Capture().rtp(*both(1))
    capture.call(end=2.5)
    capture.call(end=2.5, call_id="other", caller_media=(ALICE, 4002), callee_media=(BOB, 6002))
    path = capture.write(tmp_path / "a.pcap")
    options = {"keep_packets": True, "selection": Selection(call_ids=("call-1",))}
    (recording,) = record([path], tmp_path / "out", **options)
    assert list((tmp_path / "out").rglob(FILE)) == [recording.directory / FILE]
    assert len(frames_of(recording.directory / FILE)) == 106


def test_rtcp_of_a_call_belongs_to_it(tmp_path: Path) -> None:
    report = struct.pack("!BBHI", 0x80, 201, 1, 0xA11CE)
    capture = Capture().rtp(*both(2))
    capture.call(end=4.0)
    capture.datagram(1.5, (ALICE, 4001), (BOB, 6001), report)
    capture.datagram(1.6, (ALICE, 4003), (BOB, 6003), report)
    (recording,) = record([capture.write(tmp_path / "a.pcap")], tmp_path / "out", keep_packets=True)
    assert sum(report in frame for *_, frame in frames_of(recording.directory / FILE)) == 1


def fragments(frame: bytes, identification: int, size: int = 400) -> list[bytes]:
    """An Ethernet frame with IPv4 as fragments of `size` octets."""
    link, ip, body = frame[:14], bytearray(frame[14:34]), frame[34:]
    cut = []
    for begin in range(0, len(body), size):
        part = body[begin : begin + size]
        more = 0x2000 if begin + size < len(body) else 0
        struct.pack_into("!HHH", ip, 2, 20 + len(part), identification, more | begin // 8)
        cut.append(link + bytes(ip) + part)
    return cut


@pytest.mark.parametrize("backwards", [False, True])
def test_fragments_of_signalling_and_media_belong_to_the_call(tmp_path: Path, backwards: bool) -> None:
    capture = Capture().rtp(*both(1))
    capture.call(end=2.5)
    noise = Capture()
    noise.datagram(1.2, ("192.0.2.99", 9), ("192.0.2.98", 9), bytes(900))
    media = Capture()
    media.datagram(1.3, (ALICE, 4000), (BOB, 6000), bytes(900))
    cut: list[tuple[int, bytes]] = []
    invite = capture.frames.index(min(capture.frames))
    for number, (time, frame) in enumerate([capture.frames.pop(invite), *noise.frames, *media.frames]):
        parts = fragments(frame, 100 + number, 200)
        assert len(parts) > 1
        cut += [(time + 1000 * k, part) for k, part in enumerate(parts[::-1] if backwards else parts)]
    capture.frames += cut
    (recording,) = record([capture.write(tmp_path / "a.pcap")], tmp_path / "out", keep_packets=True)
    assert recording.document["call_id"] == "call-1"
    noise_parts = fragments(noise.frames[0][1], 101, 200)
    kept, everything = frames_of(recording.directory / FILE), frames_of(tmp_path / "a.pcap")
    assert kept == [frame for frame in everything if frame[3] not in noise_parts]
    assert told(again(recording, tmp_path)) == told(recording)


def over_tcp(calls: list[Capture], ports: tuple[int, int] = (5060, 5060)) -> Capture:
    """The signalling of calls on one TCP connection, cut into segments of 300 octets without regard to messages."""
    sequence = {ALICE: 1000, BOB: 5000}
    out = Capture()
    messages = sorted((frame for call in calls for frame in call.frames), key=lambda each: each[0])
    for time, frame in messages:
        payload = frame[42:]
        source = ALICE if frame[26:30] == bytes([192, 0, 2, 10]) else BOB
        for begin in range(0, len(payload), 300):
            part = payload[begin : begin + 300]
            tcp = struct.pack("!HHIIHHHH", *ports, sequence[source], 0, 0x5018, 8192, 0, 0) + part
            ip = bytearray(frame[14:34])
            struct.pack_into("!H", ip, 2, 20 + len(tcp))
            ip[9] = 6
            out.frames.append((time + begin * 1000, frame[:14] + bytes(ip) + tcp))
            sequence[source] += len(part)
    return out


def test_calls_on_one_tcp_connection_get_their_own_segments(tmp_path: Path) -> None:
    calls = []
    for k in range(2):
        call = Capture()
        call.call(end=2.5 + 0.1 * k, answer=0.5 + 0.1 * k, call_id=f"call-{k}", caller_media=(ALICE, 4000 + 2 * k))
        call.frames = [(time + 20_000_000 * k, frame) for time, frame in call.frames]
        calls.append(call)
    capture = over_tcp(calls)
    recordings = record([capture.write(tmp_path / "a.pcap")], tmp_path / "out", keep_packets=True)
    assert [r.document["call_id"] for r in recordings] == ["call-0", "call-1"]
    kept = [frames_of(recording.directory / FILE) for recording in recordings]
    assert not set(kept[0]) & set(kept[1])
    assert sorted(kept[0] + kept[1]) == sorted(frames_of(tmp_path / "a.pcap"))
    for recording in recordings:
        assert told(again(recording, tmp_path)) == told(recording)


def test_batches_and_workers_do_not_show_in_the_packets(tmp_path: Path) -> None:
    files = []
    for k, options in enumerate([{}, {"batch_size": 13}, {"workers": 2, "batch_size": 100}]):
        out = tmp_path / str(k)
        record([PCAPS / "transfer_blind.pcap", PCAPS / "tcp.pcapng"], out, keep_packets=True, **options)
        files.append({path.relative_to(out): path.read_bytes() for path in out.rglob(FILE)})
    assert len(files[0]) == 3
    assert files[0] == files[1] == files[2]


def test_several_captures_are_told_apart_by_their_interfaces(tmp_path: Path) -> None:
    capture = Capture().rtp(*both(1))
    capture.call(end=2.5)
    halves = [Capture(capture.frames[::2]), Capture(capture.frames[1::2])]
    paths = [half.write(tmp_path / f"half-{k}.pcap") for k, half in enumerate(halves)]
    (recording,) = record(paths, tmp_path / "out", keep_packets=True)
    octets = (recording.directory / FILE).read_bytes()
    assert b"from half-0.pcap" in octets
    assert b"from half-1.pcap" in octets
    assert str(tmp_path).encode() not in octets
    assert frames_of(recording.directory / FILE) == frames_of(*paths)


def test_standard_input_can_be_kept_too(tmp_path: Path) -> None:
    expected = record([PCAPS / "pcmu.pcap"], tmp_path / "file", keep_packets=True)
    packed = gzip.compress((PCAPS / "pcmu.pcap").read_bytes())
    command = [sys.executable, "-m", "recorder", "replay", "-", "-o", str(tmp_path / "pipe"), "--keep-packets", "-q"]
    command[-1] = "--quiet"
    entry = "from recorder.cli import main; main()"
    command[1:3] = ["-c", entry]
    subprocess.run(command, input=packed, check=True, capture_output=True)
    (piped,) = (tmp_path / "pipe").rglob(FILE)
    assert frames_of(piped) == frames_of(expected[0].directory / FILE)


columns = st.lists(
    st.tuples(
        st.binary(max_size=40), st.integers(0, 2**63 - 1), st.integers(0, 300), st.integers(0, 3), st.booleans()
    ),
    max_size=20,
)  # fmt: skip


@given(columns)
@settings(max_examples=60, deadline=None)
def test_kernel_lays_blocks_out_as_its_plain_twin(packets: list[tuple[bytes, int, int, int, bool]]) -> None:
    sizes = np.array([len(octets) for octets, *_ in packets], np.int32)
    offset = np.cumsum(sizes, dtype=np.int64) - sizes
    buffer = np.frombuffer(b"".join(octets for octets, *_ in packets), np.uint8)
    time = np.array([each[1] for each in packets], np.int64)
    wire = np.array([each[2] for each in packets], np.int32)
    rows = np.array([row for row, each in enumerate(packets) if each[4]], np.int64)
    interfaces = np.array([each[3] for each in packets if each[4]], np.int32)
    lengths = BLOCK + (sizes[rows].astype(np.int64) + 3 & ~3)
    out = np.zeros(int(lengths.sum()), np.uint8)
    lay_out(buffer, offset, sizes, wire, time, rows, interfaces, np.cumsum(lengths) - lengths, out)
    assert out.tobytes() == enhanced_packets([(*each[:3], each[3]) for each in packets if each[4]])


spans = st.tuples(st.integers(0, 30), st.integers(0, 15)).map(lambda each: (each[0], each[0] + each[1]))
claims = st.lists(st.tuples(st.integers(1, 4), spans, st.integers(0, 5)), max_size=12)


@given(claims, st.lists(st.tuples(st.integers(1, 5), st.integers(0, 50)), max_size=20))
@settings(max_examples=150, deadline=None)
def test_claims_hold_as_their_plain_twin_says(
    held: list[tuple[int, tuple[int, int], int]], asked: list[tuple[int, int]]
) -> None:
    rows = np.array([(key, begin, end, begin, end, slot) for key, (begin, end), slot in held], CLAIM)
    keys = np.array([key for key, _ in asked], np.uint64)
    times = np.array([time for _, time in asked], np.int64)
    row, slot = Claims.of(rows).find(keys, times)
    found = list(zip(row.tolist(), slot.tolist(), strict=True))
    assert found == holding([(key, begin, end, slot) for key, (begin, end), slot in held], asked)


def test_keys_of_one_flow_and_of_many_agree_and_differ() -> None:
    ends = [Endpoint(0, 0xFFFF << 32 | k, 4000 + k) for k in range(50)]
    columns = tuple(
        np.array([end[k] for end in ends], kind) for k, kind in enumerate((np.uint64, np.uint64, np.uint16))
    )
    keys = flow_keys(UDP, columns, tuple(column[::-1] for column in columns), np.arange(50, dtype=np.uint32))
    assert keys.tolist() == [flow_key(UDP, end, ends[49 - k], k) for k, end in enumerate(ends)]
    assert len(set(keys.tolist())) == 50


def test_a_call_without_media_has_its_signalling_kept(tmp_path: Path) -> None:
    capture = Capture()
    call = capture.call(end=None)
    call.request(3.0, "UPDATE", sdp((ALICE, 4000)))
    (recording,) = record([capture.write(tmp_path / "a.pcap")], tmp_path / "out", keep_packets=True)
    assert frames_of(recording.directory / FILE) == frames_of(tmp_path / "a.pcap")
