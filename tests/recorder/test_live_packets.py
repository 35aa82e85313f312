"""Packets of calls are kept while they go on, where the policy says so, and only of those calls."""

import subprocess
from pathlib import Path
from shutil import which

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capture.address import Endpoint
from capture.batch import KIND_UDP
from recorder._live_packet_kernels import enter_places, find_places
from recorder.live_claims import place_of
from tests.capture_builder import record
from tests.live import FileSource, comparable, policy_of, record_live, recordings, service

PCAPS = Path(__file__).parents[2] / "pcaps"

KEEP = '[[rule]]\ncallee = "bob"\naction = "record"\nkeep_packets = true\n'


@pytest.mark.parametrize("name", ["pcmu.pcap", "hold.pcap", "tcp.pcapng", "relayed.pcap", "ipv6.pcap", "impaired.pcap"])
def test_what_is_kept_replays_as_the_same_call(tmp_path, name):
    ((document, place),) = record_live(
        tmp_path / "live", [FileSource(PCAPS / name)], policy=policy_of(tmp_path, KEEP), workers=1
    )
    kept = place / "packets.pcapng"
    assert sorted(path.name for path in place.iterdir()) == ["audio.wav", "call.json", "metadata.xml", "packets.pcapng"]
    record([kept], tmp_path / "again")
    ((again, other),) = recordings(tmp_path / "again")
    assert (place / "audio.wav").read_bytes() == (other / "audio.wav").read_bytes()
    assert comparable(again)["streams"] == comparable(document)["streams"]
    assert (again.started, again.ended, again.state) == (document.started, document.ended, document.state)


class KeepsLate:
    """Follows calls, and has the packets of all kept once so many turns are over."""

    def __init__(self, turns: int) -> None:
        self.turns, self.calls = turns, []

    def attach(self, engine, keep_packets):
        self.keep = keep_packets

    def begun(self, call):
        self.calls.append(call)

    def turn(self, now):
        self.turns -= 1
        if self.turns == 0:
            self.keep(self.calls)

    def dropped(self, call): ...
    def heard(self, message): ...
    def finished(self, call, flows): ...


@pytest.mark.parametrize("name", ["pcmu.pcap", "tcp.pcapng", "ipv6.pcap"])
def test_a_call_that_is_kept_from_its_middle_on_replays_as_that_call_with_the_rest_of_its_media(tmp_path, name):
    late = KeepsLate(turns=4)
    running = service(tmp_path / "live", workers=1, followers=[late])
    running.run([FileSource(PCAPS / name)], lambda: None, lambda _: None)
    ((document, place),) = recordings(tmp_path / "live")
    record([place / "packets.pcapng"], tmp_path / "again")
    ((again, _),) = recordings(tmp_path / "again")
    assert (again.started, again.answered, again.ended) == (document.started, document.answered, document.ended)
    assert (again.call_id, again.state, len(again.streams)) == (document.call_id, document.state, len(document.streams))
    ordered = [sorted(each.streams, key=lambda stream: stream.ssrc) for each in (again, document)]
    for less, more in zip(*ordered, strict=True):
        assert (less.ssrc, less.participant, less.lost) == (more.ssrc, more.participant, 0)
        assert 0 < less.packets < more.packets


@pytest.mark.parametrize("name", ["pcmu.pcap", "tcp.pcapng", "ipv6.pcap"])
def test_with_the_media_of_the_last_seconds_in_memory_nothing_is_missing_that_was_said_before(tmp_path, name):
    late = KeepsLate(turns=4)
    running = service(tmp_path / "live", workers=1, followers=[late], recent_media=True)
    running.run([FileSource(PCAPS / name)], lambda: None, lambda _: None)
    ((document, place),) = recordings(tmp_path / "live")
    record([place / "packets.pcapng"], tmp_path / "again")
    ((again, other),) = recordings(tmp_path / "again")
    # Jitter is counted in units of the media's clock since the first packet of all, which is a segment of TCP in one.
    ours, theirs = ([each | {"jitter_ms": 0} for each in comparable(one)["streams"]] for one in (again, document))
    assert ours == theirs
    assert (place / "audio.wav").read_bytes() == (other / "audio.wav").read_bytes()


@pytest.mark.skipif(which("tshark") is None, reason="tshark is not here")
def test_tshark_reads_what_is_kept_and_counts_what_replay_keeps(tmp_path):
    ((_, place),) = record_live(
        tmp_path / "live", [FileSource(PCAPS / "pcmu.pcap")], policy=policy_of(tmp_path, KEEP), workers=1
    )
    record([PCAPS / "pcmu.pcap"], tmp_path / "replay", keep_packets=True)
    (reference,) = (tmp_path / "replay").glob("2*/*/*/*/packets.pcapng")

    def frames(path: Path) -> list[str]:
        command = ["tshark", "-r", str(path), "-T", "fields", "-e", "frame.time_epoch", "-e", "frame.len"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()

    assert frames(place / "packets.pcapng") == frames(reference)


def test_a_call_that_is_not_to_be_kept_leaves_no_packets(tmp_path):
    live = record_live(
        tmp_path, [FileSource(PCAPS / "transfer_attended.pcap")], policy=policy_of(tmp_path, KEEP), workers=1
    )
    kept = {document.callee.uri.partition("@")[0]: (place / "packets.pcapng").exists() for document, place in live}
    assert kept == {"sip:bob": True, "sip:carol": False}


@given(st.integers(0, 10**6))
def test_rows_are_those_of_kept_places_and_no_signalling(seed):
    draw = np.random.default_rng(seed)
    n = 200
    high = draw.integers(0, 2, (2, n)).astype(np.uint64) << np.uint64(60)
    low = draw.integers(0, 4, (2, n)).astype(np.uint64)
    port = draw.integers(5000, 5004, (2, n)).astype(np.uint16)
    kind, kinds = draw.integers(0, 3, n).astype(np.uint8), draw.integers(0, 5, n).astype(np.uint8)
    kept = {Endpoint(int(h), int(w), int(p)) for h, w, p in zip(high[0, :5], low[0, :5], port[0, :5], strict=True)}
    table = np.zeros(16, np.uint64)
    enter_places(np.array([place_of(endpoint) for endpoint in kept], np.uint64), table)
    out = np.empty(n, np.int64)
    count = find_places(kind, kinds, high[0], low[0], port[0], high[1], low[1], port[1], table, out)
    ends = [[Endpoint(int(high[s, r]), int(low[s, r]), int(port[s, r])) for s in (0, 1)] for r in range(n)]
    expected = [r for r in range(n) if kind[r] == KIND_UDP and kinds[r] not in (1, 2) and not kept.isdisjoint(ends[r])]
    assert out[:count].tolist() == expected
