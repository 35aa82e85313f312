import gzip
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import zstandard

import capture.watch_files as watch_files
import capture.watched_source as watched_source
from capture.followed import first_time
from capture.live import LiveCaptureError
from capture.watched_source import WatchedSource
from tests import capture_files as made


class Watch:
    """A directory, and sources that watch it one after the other as the process is started anew."""

    def __init__(self, folder: Path) -> None:
        self.directory = folder / "rotated"
        self.directory.mkdir()
        self.state = folder / "watch.json"
        self.options: dict[str, object] = {}
        self.source = self.start()

    def start(self) -> WatchedSource:
        """Another process comes to life; what the one before it did not save is lost."""
        self.source = WatchedSource(self.directory, self.state, **{"interval": 0.005, **self.options})
        return self.source

    def write(self, name: str, octets: bytes) -> Path:
        path = self.directory / name
        path.write_bytes(octets)
        return path

    def append(self, name: str, octets: bytes) -> None:
        with (self.directory / name).open("ab") as out:
            out.write(octets)

    def packets(self, patience: float = 0.2) -> list[int]:
        """What the packets say that they are, until none has come for a while."""
        found: list[int] = []
        waits = 0.0
        while waits < patience:
            numbers = self.numbers()
            waits = 0.0 if numbers else waits + 0.02
            found += numbers
        return found

    def numbers(self) -> list[int]:
        """What the packets of the next batch say."""
        batch = self.source.poll(0.02)
        if batch is None:
            return []
        return [int(batch.buffer[at + 7 : at + 16].tobytes()) for at in batch.offset.tolist()]

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir())


@pytest.fixture(scope="module", autouse=True)
def _kernels_are_ready(tmp_path_factory):
    """Their first use takes seconds where no cache of them is there yet."""
    for octets in (pcap_of(0, 1), made.pcapng(some(0, 1))):
        path = tmp_path_factory.mktemp("kernels") / "it"
        path.write_bytes(octets)
        assert first_time(path) is not None


@pytest.fixture
def watch(tmp_path, monkeypatch):
    monkeypatch.setattr(watch_files, "SETTLED", 0.05)
    monkeypatch.setattr(watched_source, "MOST_INTERVAL", 0.02)
    opened = Watch(tmp_path)
    yield opened
    opened.source.close()


def pcap_of(first: int, count: int, start: int = made.START) -> bytes:
    """A capture of packets that say their number, 20 ms apart through all captures."""
    return made.pcap(some(first, count, start))


def records_of(first: int, count: int) -> bytes:
    return b"".join(made.pcap_record(packet) for packet in some(first, count))


def some(first: int, count: int, start: int = made.START) -> list[made.Packet]:
    return made.packets(count, start=start + first * 20_000_000, first=first)


def test_files_that_are_there_come_in_order_of_their_packets_not_of_their_names(watch):
    watch.write("a.pcap", pcap_of(20, 5))
    watch.write("b.pcapng", made.pcapng(some(0, 5)))
    watch.write("c.pcap.gz", gzip.compress(pcap_of(10, 5)))
    time.sleep(0.1)
    assert watch.packets() == [*range(5), *range(10, 15), *range(20, 25)]
    assert watch.source.counters().packets == 15


@pytest.mark.parametrize("form", ["pcap", "pcapng"])
def test_a_file_is_followed_as_it_grows(watch, form):
    octets = pcap_of(0, 6) if form == "pcap" else made.pcapng(some(0, 6))
    two = len(pcap_of(0, 2) if form == "pcap" else made.pcapng(some(0, 2)))
    watch.write("it.pcap", octets[:10])
    assert watch.packets(0.05) == []
    watch.append("it.pcap", octets[10 : two + 9])
    assert watch.packets() == [0, 1]
    watch.append("it.pcap", octets[two + 9 :])
    assert watch.packets() == [2, 3, 4, 5]


def test_the_end_of_a_file_comes_before_the_file_that_follows_it(watch):
    watch.write("it-1.pcap", pcap_of(0, 3))
    assert watch.packets(0.05) == [0, 1, 2]
    watch.append("it-1.pcap", records_of(3, 2))
    watch.write("it-2.pcap", pcap_of(5, 3))
    assert watch.packets() == [3, 4, 5, 6, 7]


def test_frames_are_numbered_through_all_files(watch):
    watch.write("it-1.pcap", pcap_of(0, 3))
    watch.write("it-2.pcap", pcap_of(3, 3))
    numbers: list[int] = []
    while len(numbers) < 6:
        batch = watch.source.poll(0.1)
        numbers += [] if batch is None else batch.number.tolist()
    assert numbers == [1, 2, 3, 4, 5, 6]


def test_two_series_side_by_side_both_come(watch):
    for k in range(3):
        for name in ("east", "west"):
            octets = pcap_of(10 * k, 2) if k == 0 else records_of(10 * k, 2)
            watch.append(f"{name}.pcap", octets)
        assert sorted(watch.packets(0.1)) == sorted([10 * k, 10 * k + 1] * 2)


def test_a_busy_file_leaves_the_others_their_turn(watch, monkeypatch):
    monkeypatch.setattr(watched_source, "AHEAD", 0)
    watch.write("east.pcap", pcap_of(0, 5))
    watch.write("west.pcap", pcap_of(100, 5))
    seen: set[int] = set()
    for k in range(1, 40):
        watch.append("east.pcap", records_of(5 * k, 5))
        batch = watch.source.poll(0.1)
        if batch is not None:
            seen |= {int(batch.buffer[at + 7 : at + 16].tobytes()) for at in batch.offset.tolist()}
        if {100, 104} <= seen:
            return
    pytest.fail(f"only these came: {sorted(seen)}")


def test_a_restart_neither_repeats_nor_skips(watch):
    random = Random(7)
    written = taken = 0
    found: list[int] = []
    name = ""
    for k in range(40):
        if k % 5 == 0:
            name = f"it-{k:03d}.pcap"
            watch.write(name, pcap_of(written, 0))
        count = random.randrange(1, 30)
        watch.append(name, records_of(written, count))
        written += count
        if random.random() < 0.7:
            found += watch.packets(0.03)
        if random.random() < 0.4:
            watch.source.close()
            watch.start()
            taken += 1
    found += watch.packets()
    assert found == list(range(written))
    assert taken > 5


def test_what_was_not_ingested_when_the_process_died_comes_again(watch):
    watch.write("it.pcap", pcap_of(0, 4))
    assert len(watch.source.poll(1)) == 4
    watch.source.save()
    watch.start()
    assert watch.packets() == [0, 1, 2, 3]
    watch.source.save()
    watch.start()
    assert watch.packets() == []


def test_dying_at_any_moment_skips_nothing(watch):
    watch.options = {"save_every": 0.0}
    watch.start()
    random = Random(11)
    written = 0
    found: list[int] = []
    for k in range(30):
        if k % 4 == 0:
            watch.write(f"it-{k:03d}.pcap", pcap_of(written, 0))
        count = random.randrange(1, 30)
        watch.append(f"it-{k - k % 4:03d}.pcap", records_of(written, count))
        written += count
        for _ in range(random.randrange(6)):
            found += watch.numbers()
        if random.random() < 0.3:
            watch.start()
    found += watch.packets()
    assert sorted(set(found)) == list(range(written))
    assert len(found) > written, "none died between packets and their confirmation: this shows nothing"


def test_only_its_owner_says_what_is_safe_where_that_is_asked_for(watch):
    watch.options = {"save_every": None}
    watch.start()
    watch.write("it.pcap", pcap_of(0, 4))
    assert watch.packets() == [0, 1, 2, 3]
    watch.start()
    assert watch.packets() == [0, 1, 2, 3]
    watch.source.save()
    watch.start()
    assert watch.packets() == []


@pytest.mark.parametrize("running", [True, False], ids=["while watching", "while nobody watches"])
def test_a_file_that_is_written_anew_is_another_capture(watch, running):
    watch.write("it0.pcap", pcap_of(0, 5))
    assert watch.packets() == [0, 1, 2, 3, 4]
    if not running:
        watch.source.close()
    inode = (watch.directory / "it0.pcap").stat().st_ino
    watch.write("it0.pcap", pcap_of(5, 9))
    assert (watch.directory / "it0.pcap").stat().st_ino == inode
    if not running:
        watch.start()
    assert watch.packets() == [*range(5, 14)]


@pytest.mark.parametrize("running", [True, False], ids=["while watching", "while nobody watches"])
def test_a_file_that_is_renamed_or_packed_is_not_taken_again(watch, running):
    watch.write("it.pcap", pcap_of(0, 5))
    watch.write("other.pcap", pcap_of(5, 5))
    assert watch.packets() == [*range(10)]
    if not running:
        watch.source.close()
    (watch.directory / "it.pcap").rename(watch.directory / "it.pcap.1")
    packed = watch.write("other.pcap.gz", gzip.compress((watch.directory / "other.pcap").read_bytes()))
    (watch.directory / "other.pcap").unlink()
    os.utime(packed, (1, 1))
    if not running:
        watch.start()
    assert watch.packets() == []


def test_the_rest_of_a_file_that_was_packed_meanwhile_comes_from_its_packed_form(watch):
    watch.write("it.pcap", pcap_of(0, 3))
    assert watch.packets() == [0, 1, 2]
    watch.source.close()
    (watch.directory / "it.pcap").unlink()
    watch.write("it.pcap.zst", zstandard.ZstdCompressor().compress(pcap_of(0, 6)))
    watch.start()
    time.sleep(0.1)
    assert watch.packets() == [3, 4, 5]


def test_a_packed_file_of_the_same_name_with_other_packets_is_another(watch):
    watch.write("it.pcap", pcap_of(0, 3))
    assert watch.packets() == [0, 1, 2]
    watch.source.close()
    (watch.directory / "it.pcap").unlink()
    watch.write("it.pcap.gz", gzip.compress(pcap_of(10, 6)))
    watch.start()
    time.sleep(0.1)
    assert watch.packets() == [*range(10, 16)]


def test_a_file_that_is_deleted_while_it_is_read_is_read_to_its_end(watch, monkeypatch):
    monkeypatch.setattr(watched_source, "BATCH_PACKETS", 2)
    path = watch.write("it.pcap", pcap_of(0, 6))
    assert len(watch.source.poll(1)) == 2
    path.unlink()
    assert watch.packets() == [2, 3, 4, 5]
    assert "went away" not in watch.source.counters().note


def test_a_file_that_goes_away_unread_is_told(watch, monkeypatch):
    monkeypatch.setattr(watch_files.WatchedFile, "open", lambda *_: False)
    path = watch.write("it.pcap", pcap_of(0, 6))
    assert watch.packets(0.05) == []
    path.unlink()
    assert watch.packets(0.05) == []
    assert "files that went away before they were read: 1" in watch.source.counters().note


def test_read_files_are_deleted_where_asked_but_never_one_that_may_still_be_written(watch):
    watch.options = {"delete": True, "save_every": 0.0}
    watch.start()
    watch.write("it-1.pcap", pcap_of(0, 3))
    watch.write("it-2.pcap", pcap_of(3, 3))
    watch.write("else.pcap", pcap_of(6, 3))
    watch.write("notes.txt", b"not a capture")
    time.sleep(0.1)
    assert watch.packets() == [*range(9)]
    assert watch.names == ["else.pcap", "it-2.pcap", "notes.txt"]
    watch.append("it-2.pcap", records_of(9, 1))
    assert watch.packets() == [9]


@pytest.mark.parametrize(
    ("earlier", "later", "same"),
    [
        ("it.pcap", "it.pcap1", True),
        ("it.pcap9", "it.pcap10.gz", True),
        ("it_00001_20261125101010.pcapng", "it_00002_20261125101110.pcapng", True),
        ("eth1-20261125-101010.pcap", "eth1-20261125-101110.pcap", True),
        ("20261125T101010.pcap", "20261126T000010.pcap", True),
        ("eth1-20261125-101010.pcap", "eth2-20261125-101110.pcap", False),
        ("east.pcap", "west.pcap", False),
    ],
)
def test_names_tell_which_files_one_writer_rotates(watch, earlier, later, same):
    watch.options = {"delete": True, "save_every": 0.0}
    watch.start()
    for name, octets in ((earlier, pcap_of(0, 3)), (later, pcap_of(3, 3))):
        watch.write(name, gzip.compress(octets) if name.endswith(".gz") else octets)
    time.sleep(0.1)
    assert watch.packets() == [*range(6)]
    assert (earlier not in watch.names) is same


def test_nothing_is_deleted_before_it_is_safe(watch):
    watch.options = {"delete": True, "save_every": None}
    watch.start()
    watch.write("it-1.pcap", pcap_of(0, 3))
    watch.write("it-2.pcap", pcap_of(3, 3))
    time.sleep(0.1)
    assert watch.packets() == [*range(6)]
    assert watch.names == ["it-1.pcap", "it-2.pcap"]
    watch.source.save()
    assert watch.names == ["it-2.pcap"]


def test_what_is_no_capture_is_passed_over(watch):
    watch.write(".hidden.pcap", pcap_of(0, 3))
    watch.write("text.pcap", b"no capture at all")
    watch.write("empty.pcap", b"")
    watch.write("header.pcap", pcap_of(0, 0))
    (watch.directory / "folder.pcap").mkdir()
    os.mkfifo(watch.directory / "pipe.pcap")
    watch.write("it.pcap", pcap_of(5, 2))
    assert watch.packets() == [5, 6]


def test_a_file_that_ends_inside_a_packet_is_told_once_its_writer_has_moved_on(watch):
    watch.write("it-1.pcap", pcap_of(0, 3)[:-7])
    assert watch.packets(0.1) == [0, 1]
    assert "inside a packet" not in watch.source.counters().note
    watch.write("it-2.pcap", pcap_of(3, 3))
    assert watch.packets() == [3, 4, 5]
    assert "it-1.pcap: at byte 176, 69 bytes skipped: the capture ends inside a packet" in watch.source.counters().note


def test_few_files_are_held_open_however_many_there_are(watch, monkeypatch):
    monkeypatch.setattr(watched_source, "MOST_OPEN", 5)
    for k in range(30):
        watch.write(f"{chr(97 + k % 26)}{'x' * k}.pcap", pcap_of(k, 1))
    assert watch.packets() == [*range(30)]
    held = [path for path in Path("/proc/self/fd").iterdir() if os.path.realpath(path).startswith(str(watch.directory))]
    assert len(held) <= 5
    watch.append("a.pcap", records_of(40, 2))
    assert watch.packets() == [40, 41]


def test_a_directory_that_goes_away_is_waited_for(watch):
    watch.write("it.pcap", pcap_of(0, 3))
    assert watch.packets() == [0, 1, 2]
    away = watch.directory.with_name("away")
    watch.directory.rename(away)
    assert watch.packets(0.05) == []
    assert not watch.source.counters().up
    assert "cannot be read: No such file or directory" in watch.source.counters().note
    away.rename(watch.directory)
    watch.append("it.pcap", records_of(3, 2))
    assert watch.packets() == [3, 4]
    assert watch.source.counters().up


def test_an_empty_directory_for_a_while_makes_nothing_come_twice(watch):
    watch.write("it.pcap", pcap_of(0, 3))
    assert watch.packets() == [0, 1, 2]
    away, empty = watch.directory.with_name("away"), watch.directory.with_name("empty")
    watch.directory.rename(away)
    watch.directory.mkdir()
    assert watch.packets(0.05) == []
    watch.directory.rename(empty)
    away.rename(watch.directory)
    assert watch.packets() == []


def test_a_state_that_cannot_be_written_is_told_and_stops_nothing(watch, tmp_path):
    watch.state = tmp_path / "nowhere" / "watch.json"
    watch.options = {"save_every": 0.0}
    watch.start()
    watch.write("it.pcap", pcap_of(0, 3))
    assert watch.packets() == [0, 1, 2]
    assert "the state cannot be written" in watch.source.counters().note


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b'{"version": 2, "files": []}', b'{"version": 1, "files": [{}]}']
)
def test_a_state_that_is_none_is_refused(watch, content):
    watch.state.write_bytes(content)
    with pytest.raises(LiveCaptureError, match="this is not the state of a watched directory"):
        watch.start()


def test_a_directory_that_is_none_is_refused(tmp_path):
    with pytest.raises(LiveCaptureError, match="no such directory"):
        WatchedSource(tmp_path / "nowhere", tmp_path / "state")


def test_poll_waits_no_longer_than_told(watch):
    watch.options = {"interval": 10}
    watch.start()
    watch.source.poll(0)
    begun = time.monotonic()
    assert watch.source.poll(0.1) is None
    assert 0.09 < time.monotonic() - begun < 1


TCPDUMP = ["tcpdump", "-n", "-U", "--immediate-mode", "-s", "9000", "-B", "20000", "-Z", "root"]
ROTATIONS = {
    "tcpdump by size": [*TCPDUMP, "-C", "1"],
    "tcpdump by time": [*TCPDUMP, "-G", "1"],
    "tcpdump packed": [*TCPDUMP, "-C", "1", "-z", "gzip"],
    "dumpcap by size": ["dumpcap", "-q", "-b", "filesize:1000"],
    "dumpcap by time": ["dumpcap", "-q", "-P", "-b", "duration:1"],
    "dumpcap by packets": ["dumpcap", "-q", "-b", "packets:50", "-b", "files:8"],
}


@pytest.mark.skipif(os.geteuid() != 0, reason="capturing takes root")
@pytest.mark.parametrize("name", ROTATIONS)
def test_what_programs_rotate_comes_once_and_in_order(watch, name):
    command = ROTATIONS[name]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    with socket.socket(type=socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        place = peer.getsockname()
        target = watch.directory / ("it-%s.pcap" if name == "tcpdump by time" else "it.pcap")
        caught = f"udp dst port {place[1]}"
        options = ["-i", "lo", "-w", str(target), *([caught] if command[0] == "tcpdump" else ["-f", caught])]
        with subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as program:
            wait_for(lambda: watch.names)
            time.sleep(0.3)
            found: list[int] = []
            for k in range(400):
                peer.sendto(b"%09d" % k + bytes(8000), place)
                time.sleep(0.004)
                if k % 10 == 0:
                    found += numbers_of(watch.source, 0.02)
                if k == 200:
                    watch.source.close()
                    watch.start()
            time.sleep(0.5)
            program.terminate()
            program.wait(10)
        until = time.monotonic() + 5
        while len(found) < 400 and time.monotonic() < until:
            found += numbers_of(watch.source, 0.1)
    assert found == list(range(400))
    assert len(watch.names) > 1


def wait_for(happened: Callable[[], object]) -> None:
    until = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.02)


def numbers_of(source: WatchedSource, timeout: float) -> list[int]:
    """The numbers in the datagrams of a batch: behind Ethernet, IPv4 and UDP."""
    batch = source.poll(timeout)
    if batch is None:
        return []
    return [int(batch.buffer[at + 42 : at + 51].tobytes()) for at in batch.offset.tolist()]
