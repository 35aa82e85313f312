import gzip
import hashlib
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from capture import streams
from capture.source import CaptureFile, CaptureSource, Damage, link_type_name
from tests.capture.test_pcap import mutate, mutations
from tests.capture_files import START, Packet, interface, packets, pcap, pcapng, section
from tests.naive_records import merged

ROOT = Path(__file__).resolve().parents[2]


def write(path, data):
    path.write_bytes(data)
    return path


def read(paths, **options):
    """Packets as (capture, number, time, octets), read so that each batch is looked at only two batches later."""
    source = CaptureSource(paths if isinstance(paths, list) else [paths], **options)
    kept, found = [], []
    for batch in source:
        kept.append(batch)
        if len(kept) > 2:
            found += rows(kept.pop(0))
    for batch in kept:
        found += rows(batch)
    return found, source


def rows(batch):
    assert not batch.buffer.flags.writeable
    columns = (batch.capture, batch.number, batch.time, batch.offset, batch.captured)
    return [
        (index, number, time, batch.buffer[offset : offset + size].tobytes())
        for index, number, time, offset, size in zip(*(column.tolist() for column in columns), strict=True)
    ]


def expected(*captures):
    order = merged([[packet.time for packet in capture] for capture in captures])
    return [(rank, row + 1, captures[rank][row].time, captures[rank][row].data) for rank, row in order]


def zstd(data):
    return zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd])
@pytest.mark.parametrize("form", [pcap, pcapng])
def test_one_capture_plain_or_packed(tmp_path, form, pack):
    items = packets(500)
    given = pack(form(items))
    found, source = read(write(tmp_path / "a.dump", given), batch_size=64)
    assert found == expected(items)
    assert source.files == [
        CaptureFile(
            index=0,
            name="a.dump",
            bytes=len(given),
            sha256=hashlib.sha256(given).hexdigest(),
            packets=500,
            link_types=[1],
            started=items[0].time,
            ended=items[-1].time,
            damage=[],
            readable=True,
        )
    ]
    assert source.progress == (len(given), len(given))


def test_batches_have_the_size_asked_for(tmp_path):
    path = write(tmp_path / "a.pcap", pcap(packets(1000)))
    assert [len(batch) for batch in CaptureSource([path], batch_size=300)] == [300, 300, 300, 100]


def test_large_packets_make_smaller_batches(tmp_path):
    path = write(tmp_path / "a.pcap", pcap([Packet(START + i, bytes(200_000)) for i in range(200)]))
    sizes = [len(batch) for batch in CaptureSource([path])]
    assert sum(sizes) == 200
    assert max(sizes) < 100


def test_several_members_and_frames_are_one_stream(tmp_path):
    items = packets(300)
    data = pcap(items)
    thirds = [data[:5000], data[5000:5001], data[5001:]]
    skippable = b"\x53\x2a\x4d\x18\x05\0\0\0hello"
    in_gzip = write(tmp_path / "g", b"".join(map(gzip.compress, thirds)) + bytes(1000))
    in_zstd = write(tmp_path / "z", skippable + b"".join(map(zstd, thirds)) + skippable)
    for path in (in_gzip, in_zstd):
        found, source = read(path)
        assert found == expected(items)
        assert source.files[0].damage == []


@pytest.mark.parametrize(("pack", "kind"), [(gzip.compress, "gzip"), (zstd, "zstd")])
def test_truncated_packed_captures_give_what_is_there(tmp_path, pack, kind):
    rng = np.random.default_rng(1)
    items = [Packet(START + i * 1000, rng.bytes(500)) for i in range(2000)]
    given = pack(pcap(items))
    found, source = read(write(tmp_path / "a", given[: len(given) // 2]))
    assert 700 < len(found) < 1300
    assert found == expected(items)[: len(found)]
    file = source.files[0]
    assert file.readable
    assert any(f"the {kind} data end early" in damage.text for damage in file.damage)
    assert file.sha256 == hashlib.sha256(given[: len(given) // 2]).hexdigest()


@pytest.mark.parametrize(("pack", "kind"), [(gzip.compress, "gzip"), (zstd, "zstd")])
def test_damaged_packed_captures_give_what_comes_before(tmp_path, pack, kind):
    rng = np.random.default_rng(1)
    items = [Packet(START + i * 1000, rng.bytes(500)) for i in range(2000)]
    given = bytearray(pack(pcap(items)))
    at = len(given) // 2
    given[at : at + 2000] = bytes(2000)
    found, source = read(write(tmp_path / "a", bytes(given) if kind == "gzip" else bytes(given[:at]) + b"\xff" * 5000))
    assert found[:700] == expected(items)[:700]
    assert source.files[0].damage
    assert source.files[0].bytes == (tmp_path / "a").stat().st_size


@settings(max_examples=60, deadline=None)
@given(mutations, st.sampled_from([gzip.compress, zstd, bytes]), st.sampled_from([pcap, pcapng]))
def test_files_of_any_content_never_raise(tmp_path_factory, changes, pack, form):
    given_octets = mutate(pack(form(packets(20))) * 2, changes)
    path = write(tmp_path_factory.getbasetemp() / "mutated", given_octets)
    found, source = read(path)
    assert source.files[0].packets == len(found)
    assert source.files[0].sha256 == hashlib.sha256(given_octets).hexdigest()


def test_garbage_behind_a_gzip_member_is_noted(tmp_path):
    _, source = read(write(tmp_path / "a", gzip.compress(pcap(packets(3))) + b"garbage"))
    assert source.files[0].packets == 3
    assert "gzip data are damaged" in source.files[0].damage[0].text


PEAK_MEMORY = """
import sys, resource
from capture.source import CaptureSource
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
list(CaptureSource(sys.argv[1:2]))
before = peak()
for path in sys.argv[2:]:
    source = CaptureSource([path])
    print(sum(map(len, source)), peak() - before, *(damage.skipped for damage in source.files[0].damage))
"""


def peak_memory(*paths):
    """For each but the first: packets, MiB that reading them added to the resident set, octets skipped."""
    command = [sys.executable, "-c", PEAK_MEMORY, *map(str, paths)]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [[int(word) for word in line.split()] for line in output.splitlines()]


def test_a_bomb_costs_no_memory(tmp_path):
    octets = pcap(packets(10)) + bytes(80 << 20)
    bombs = [
        write(tmp_path / "a.gz", gzip.compress(octets, 1)),
        write(tmp_path / "b.zst", zstd(octets)),
    ]
    small = write(tmp_path / "small", gzip.compress(pcap(packets(10)) + bytes(1000)))
    assert all(path.stat().st_size < 1 << 20 for path in bombs)
    for count, grown, skipped in peak_memory(small, *bombs):
        assert (count, skipped) == (10, 80 << 20)
        assert grown < 70


def test_resident_memory_does_not_grow_with_the_capture(tmp_path):
    path = tmp_path / "large.pcap"
    with path.open("wb") as file:
        file.write(pcap([]))
        records = pcap(packets(10_000, 1400))[24:]
        for _ in range(15):
            file.write(records)
    assert path.stat().st_size > 200 << 20
    small = write(tmp_path / "small", pcap(packets(10)))
    [[count, grown]] = peak_memory(small, path)
    assert count == 150_000
    assert grown < 70
    path.unlink()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it is empty"),
        (b"RIFF....WAVE", "neither pcap nor pcapng"),
        (b"\xd4\xc3", "neither pcap nor pcapng"),
        (gzip.compress(b"", mtime=0), "it is empty"),
        (zstd(b"a text\n"), "neither pcap nor pcapng"),
        (pcap([])[:10], "inside the pcap header"),
        (section()[:12], "section header"),
    ],
)
def test_what_is_no_capture_is_said_to_be_none(tmp_path, data, why):
    found, source = read(write(tmp_path / "x", data))
    assert found == []
    file = source.files[0]
    assert (file.readable, file.packets, file.started) == (False, 0, None)
    assert file.sha256 == hashlib.sha256(data).hexdigest()
    assert why in file.damage[0].text


def test_a_missing_file_is_named_and_the_others_are_read(tmp_path):
    here = write(tmp_path / "here.pcap", pcap(packets(3)))
    found, source = read([tmp_path / "gone.pcap", here])
    assert len(found) == 3
    gone = source.files[0]
    assert (gone.name, gone.readable, gone.sha256, gone.bytes) == ("gone.pcap", False, None, 0)
    assert "No such file" in gone.damage[0].text


def test_a_capture_without_packets_is_in_order(tmp_path):
    for form in (pcap([]), section() + interface(113)):
        found, source = read(write(tmp_path / "x", form))
        assert found == []
        assert (source.files[0].readable, source.files[0].damage) == (True, [])


def test_damage_is_told_with_place_and_octets(tmp_path):
    data = bytearray(pcap(packets(10)))
    data[24 + 76 : 24 + 76 + 16] = b"\xff" * 16
    _, source = read(write(tmp_path / "x", bytes(data)))
    assert source.files[0].damage == [
        Damage(100, 76, "at byte 100, 76 bytes skipped: no plausible packet record stands there")
    ]


def test_a_file_damaged_all_over_names_no_more_than_a_thousand_places(tmp_path):
    data = bytearray(pcap(packets(5000)))
    for i in range(1, 5000, 2):
        data[24 + i * 76 : 24 + i * 76 + 16] = b"\xff" * 16
    found, source = read(write(tmp_path / "x", bytes(data)))
    damage = source.files[0].damage
    assert len(found) == 2500
    assert len(damage) == 1000
    assert sum(place.skipped for place in damage) == 2500 * 76
    assert "1501 more places" in damage[-1].text


def test_rotated_files_in_any_order_are_one_capture(tmp_path):
    parts = [packets(100, start=START + i * 10**10, step=10**8, first=100 * i) for i in range(5)]
    paths = [write(tmp_path / f"{i}.pcap", pcap(part)) for i, part in enumerate(parts)]
    shuffled = [3, 0, 4, 2, 1]
    found, source = read([paths[i] for i in shuffled])
    assert [row[3] for row in found] == [packet.data for part in parts for packet in part]
    assert [file.name for file in source.files] == [f"{i}.pcap" for i in shuffled]


@pytest.mark.parametrize("batch_size", [1, 7, 8192])
def test_overlapping_files_of_all_kinds_interleave_exactly(tmp_path, batch_size):
    parts = [packets(200, start=START + i * 10**9, step=30_000_000 + i * 10_000_000, first=1000 * i) for i in range(4)]
    paths = [
        write(tmp_path / "a", pcap(parts[0])),
        write(tmp_path / "b", gzip.compress(pcapng(parts[1]))),
        write(tmp_path / "c", zstd(pcap(parts[2], ">"))),
        write(tmp_path / "d", pcapng(parts[3], ">")),
    ]
    found, source = read(paths, batch_size=batch_size)
    assert found == expected(*parts)
    assert [file.packets for file in source.files] == [200] * 4
    assert [file.sha256 for file in source.files] == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def test_a_directory_gives_its_captures_sorted_and_nothing_else(tmp_path):
    (tmp_path / "below").mkdir()
    write(tmp_path / "b.bin", pcap(packets(1)))
    write(tmp_path / "a.gz", gzip.compress(pcapng(packets(1))))
    write(tmp_path / "below" / "c", zstd(pcap(packets(1))))
    write(tmp_path / "notes.txt", b"not a capture")
    write(tmp_path / "empty", b"")
    write(tmp_path / "broken.pcap.gz", b"broken")
    os.mkfifo(tmp_path / "pipe.pcap")
    _, source = read(tmp_path)
    assert [(file.name, file.readable) for file in source.files] == [
        ("a.gz", True),
        ("b.bin", True),
        ("c", True),
        ("broken.pcap.gz", False),
    ]


def test_a_file_named_twice_is_read_once(tmp_path):
    path = write(tmp_path / "a.pcap", pcap(packets(3)))
    (tmp_path / "link.pcap").symlink_to(path)
    found, source = read([path, str(path), tmp_path, tmp_path / "link.pcap"])
    assert len(found) == 3
    assert [file.name for file in source.files] == ["a.pcap"]


def test_more_files_than_descriptors(tmp_path):
    count = 300
    parts = [packets(20, start=START + 1000 * i, step=7000) for i in range(count)]
    paths = [write(tmp_path / f"{i}", pcap(part)) for i, part in enumerate(parts)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 80, hard))
    try:
        found, _ = read(paths)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found == expected(*parts)


def test_many_packed_files_at_once(tmp_path):
    parts = [packets(50, start=START + 1000 * i, step=7000) for i in range(100)]
    packs = [gzip.compress, zstd, bytes]
    paths = [write(tmp_path / f"{i}", packs[i % 3](pcap(part))) for i, part in enumerate(parts)]
    found, source = read(paths)
    assert found == expected(*parts)
    assert [file.sha256 for file in source.files] == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def test_hashing_may_be_left_out(tmp_path):
    _, source = read(write(tmp_path / "a", pcap(packets(3))), hash_files=False)
    assert source.files[0].sha256 is None


READ_STDIN = """
import sys, time
from capture.source import CaptureSource
source = CaptureSource(["-"])
for batch in source:
    print(len(batch), batch.number[0], flush=True)
print(source.files[0].sha256, source.files[0].bytes, source.progress, len(source.files[0].damage))
"""


def test_standard_input_is_read_while_it_is_written():
    data = pcap(packets(30))
    reader = subprocess.Popen(
        [sys.executable, "-c", READ_STDIN], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        # Whole records come out at once though the writer goes on; a record in two pieces comes with its second.
        for piece, answer in ((data[: 24 + 76], b"1 1\n"), (data[100:276], b"2 2\n"), (data[276:], b"27 4\n")):
            reader.stdin.write(piece)
            reader.stdin.flush()
            assert reader.stdout.readline() == answer
        reader.stdin.close()
        digest = hashlib.sha256(data).hexdigest()
        assert reader.stdout.read().decode() == f"{digest} {len(data)} ({len(data)}, None) 0\n"
        assert reader.wait(20) == 0
    finally:
        reader.kill()
        reader.stdout.close()


def test_packed_standard_input(tmp_path):
    data = gzip.compress(pcapng(packets(5)))
    output = subprocess.run([sys.executable, "-c", READ_STDIN], cwd=ROOT, input=data, capture_output=True, check=True)
    assert output.stdout.startswith(b"5 1\n")
    with write(tmp_path / "a", data).open("rb") as file:
        output = subprocess.run(
            [sys.executable, "-c", READ_STDIN], cwd=ROOT, stdin=file, capture_output=True, check=True
        )
    assert output.stdout.startswith(b"5 1\n")


def test_named_pipes_are_merged_with_files(tmp_path):
    mine, theirs = packets(50), packets(50, start=START + 5_000_000, first=100)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(pcap(theirs)))
    writer.start()
    found, source = read([write(tmp_path / "a", pcap(mine)), pipe])
    writer.join()
    assert found == expected(mine, theirs)
    assert source.progress[1] is None


def test_a_fast_pipe_gives_large_batches(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    data = pcap(packets(100_000))
    writer = threading.Thread(target=lambda: pipe.write_bytes(data))
    writer.start()
    sizes = [len(batch) for batch in CaptureSource([pipe])]
    writer.join()
    assert sum(sizes) == 100_000
    assert len(sizes) < 200


def test_progress_grows_to_the_whole(tmp_path):
    paths = [write(tmp_path / str(i), pcap(packets(1000, start=START + i * 10**12))) for i in range(3)]
    source = CaptureSource(paths, batch_size=100)
    total = sum(path.stat().st_size for path in paths)
    seen = [source.progress]
    seen += [source.progress for _ in source]
    assert seen[0] == (0, total)
    assert source.progress == (total, total)
    assert seen == sorted(seen)


def test_link_types_have_names():
    assert [link_type_name(link) for link in (1, 113, 276, 101, 9999)] == [
        "ETHERNET",
        "LINUX_SLL",
        "LINUX_SLL2",
        "RAW",
        "9999",
    ]


def test_a_file_that_cannot_be_mapped_is_read_as_a_stream(tmp_path, monkeypatch):
    def refuse(*_arguments, **_options):
        raise OSError("no such device")

    monkeypatch.setattr(streams.mmap, "mmap", refuse)
    items = packets(100)
    assert read(write(tmp_path / "a", pcap(items)))[0] == expected(items)


def frames_by_tshark(path):
    """(number, ns, wire length, captured length) of each frame."""
    fields = [part for name in ("number", "time_epoch", "len", "cap_len") for part in ("-e", f"frame.{name}")]
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", *fields]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return [
        (int(number), nanoseconds(stamp), int(wire), int(captured))
        for number, stamp, wire, captured in (line.split("\t") for line in lines)
    ]


def nanoseconds(stamp):
    seconds, _, fraction = stamp.partition(".")
    return int(seconds) * 10**9 + int(fraction.ljust(9, "0")[:9])


def test_real_captures_are_read_as_tshark_reads_them(captures):
    paths = sorted(path for path in captures.rglob("*") if path.suffix in (".pcap", ".pcapng", ".cap"))
    # tshark takes half a second a file, so each run looks at a few; SPANREC_ALL_CAPTURES=1 compares
    # all of them.
    chosen = paths if os.environ.get("SPANREC_ALL_CAPTURES") else paths[:: len(paths) // 7]
    for path in chosen:
        source = CaptureSource([path], batch_size=1000)
        columns = [(b.number, b.time, b.wire, b.captured) for b in source]
        found = [tuple(row) for batch in columns for row in zip(*(c.tolist() for c in batch), strict=True)]
        assert found == frames_by_tshark(path), path.name
        assert source.files[0].readable == (path.name != "cool.pcap")


def test_all_real_captures_have_as_many_packets_as_their_index_says(captures):
    index = (captures / "INDEX.tsv").read_text().splitlines()
    names = index[0].split("\t")
    for line in index[1:]:
        row = dict(zip(names, line.split("\t"), strict=False))
        path = captures / "real" / row["file"]
        source = CaptureSource([path])
        assert sum(map(len, source)) == int(row["packets"]), row["file"]
        file = source.files[0]
        assert file.sha256 == row["sha256"]
        assert (file.readable, file.damage != []) == ((False, True) if path.name == "cool.pcap" else (True, False))


def test_a_capture_split_and_packed_is_the_capture(captures, tmp_path):
    path = next(iter(sorted((captures / "lab").glob("*3calls.pcap"))))
    whole = [row[2:] for row in read(path)[0]]
    subprocess.run(["editcap", "-c", "200", str(path), str(tmp_path / "part.pcapng")], check=True)
    parts = sorted(tmp_path.glob("part*"))
    assert len(parts) > 3
    parts[1].write_bytes(gzip.compress(parts[1].read_bytes()))
    parts[2].write_bytes(zstd(parts[2].read_bytes()))
    assert [row[2:] for row in read(parts[::-1])[0]] == whole
    assert [row[2:] for row in read(tmp_path)[0]] == whole


def test_merging_agrees_with_mergecap(captures, tmp_path):
    paths = sorted((captures / "lab").glob("*.pcap"))[:4]
    moved = [tmp_path / f"{i}.pcapng" for i in range(len(paths))]
    for path, target in zip(paths, moved, strict=True):
        begins = next(iter(CaptureSource([path]))).time[0]
        shift = f"{(START - int(begins)) / 1e9:.6f}"
        subprocess.run(["editcap", "-t", shift, str(path), str(target)], check=True)
    subprocess.run(["mergecap", "-w", str(tmp_path / "merged"), *map(str, moved)], check=True)
    ours, theirs = read(moved)[0], read(tmp_path / "merged")[0]
    assert [row[2] for row in ours] == [row[2] for row in theirs]
    assert sorted(row[2:] for row in ours) == sorted(row[2:] for row in theirs)


@pytest.mark.parametrize("writer", ["PcapWriter", "PcapNgWriter"])
def test_what_scapy_writes_is_read(tmp_path, writer):
    utils = pytest.importorskip("scapy.utils")
    raw = pytest.importorskip("scapy.packet").Raw
    items = packets(20)
    with getattr(utils, writer)(str(tmp_path / "a")) as file:
        file.write_header(None) if writer == "PcapNgWriter" else None
        for item in items:
            packet = raw(item.data)
            packet.time = item.time / 1e9
            file.write(packet)
    found, source = read(tmp_path / "a")
    assert [row[3] for row in found] == [item.data for item in items]
    assert all(abs(row[2] - item.time) < 2000 for row, item in zip(found, items, strict=True))
    assert source.files[0].damage == []


def test_reading_is_fast(tmp_path):
    path = write(tmp_path / "a.pcap", pcap(packets(200_000, 214)))
    for _ in CaptureSource([path], hash_files=False):
        pass
    before = time.process_time()
    assert sum(map(len, CaptureSource([path], hash_files=False))) == 200_000
    # Ten times what it takes: this is to notice a walk in Python, not a busy machine.
    assert time.process_time() - before < 0.2
