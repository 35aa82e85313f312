"""Fuzz target: the whole program. Mutated captures are replayed, and what comes out is judged.

Every document is valid against its schema, audio is what its document says, nothing is left behind, and the size of
the output is bounded by the media and the time that the capture holds. Some captures are replayed twice, with other
batches and workers: the trees are the same.
"""

import gc
import os
import shutil
import tempfile
from functools import cache
from hashlib import file_digest, sha256
from pathlib import Path

import soundfile
from lxml import etree

from recorder.document import parse
from recorder.replay import replay
from recorder.replay_types import ReplayOptions
from tests.capture_builder import Quiet
from tests.fuzz import seeds
from tests.fuzz.frames import pack, unpack, write_pcap
from tests.fuzz.mutate import mutate_frames
from tests.fuzz.packets import SCRATCH
from tests.fuzz.target import Target

SCHEMA = Path(__file__).resolve().parents[1] / "schema" / "metadata.xsd"
MOST_OCTETS = 16 << 20
"""Disk blocks that the recordings of an input of LIMIT octets may take, silence apart."""
LIMIT = 200_000


@cache
def metadata_schema() -> etree.XMLSchema:
    """RFC 7865's schema with our own extension."""
    return etree.XMLSchema(etree.parse(SCHEMA))


def run_replay(data: bytes) -> None:
    """Frames, as a capture, to recordings."""
    frames = unpack(data)
    work = Path(tempfile.mkdtemp(dir=SCRATCH, prefix="spanrec-fuzz-"))
    try:
        capture = work / "fuzzed.pcap"
        write_pcap(frames, capture, frames[0].link_type if frames else 1)
        trees = []
        runs = [(1, 8192), (2, 5)] if sha256(data).digest()[0] < 40 else [(1, 8192 if len(data) % 2 else 31)]
        for workers, batch_size in runs:
            out = work / f"out-{workers}"
            options = ReplayOptions(
                (str(capture),), out, workers=workers, batch_size=batch_size, keep_packets=len(data) % 3 == 0
            )
            summary = replay(options, Quiet())
            assert summary.counts.packets == len(frames) or (summary.damaged and summary.counts.packets < len(frames))
            assert summary.counts.calls == check(out)
            trees.append(digest(out))
        assert trees.count(trees[0]) == len(trees), "batches or workers show in the output"
    finally:
        shutil.rmtree(work)
        # An engine's windows are large and few: the collector, which counts objects, would let dozens of them wait.
        gc.collect()


def check(out: Path) -> int:
    """Judge a tree of recordings; gives their number."""
    assert not [path for path in out.iterdir() if path.name.startswith(".") and any(path.iterdir())], "left behind"
    recordings = sorted(out.rglob("call.json"))
    for path in recordings:
        document = parse(path.read_bytes())
        root = etree.fromstring((path.parent / "metadata.xml").read_bytes())
        metadata_schema().assertValid(root)
        expected = {"call.json", "metadata.xml"}
        if document.audio is not None:
            expected.add(document.audio.file)
            audio = soundfile.info(path.parent / document.audio.file)
            assert (audio.frames, audio.channels) == (document.audio.samples, document.audio.channels)
        found = {each.name for each in path.parent.iterdir()} - {"packets.pcapng"}
        assert found == expected, f"{found} is not {expected}"
    taken = sum(path.stat().st_blocks * 512 for path in out.rglob("*") if path.is_file())
    assert taken <= MOST_OCTETS, f"{taken} octets of output"
    return len(recordings)


def digest(out: Path) -> list[tuple[str, str]]:
    """Every file with the hash of what it holds."""
    files = sorted(path for path in out.rglob("*") if path.is_file())
    found = []
    for path in files:
        with path.open("rb") as file:
            found.append((os.path.relpath(path, out), file_digest(file, "sha256").hexdigest()))
    return found


def calls() -> list[bytes]:
    """Every capture of pcaps/, its media thinned out."""
    return [pack(seeds.shortened(frames, 30))[:LIMIT] for frames in seeds.captured().values()]


TARGETS = {"replay": Target(run_replay, calls, mutate_frames, LIMIT, short=25)}
