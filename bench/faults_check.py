"""What a store of recordings looks like after a fault, compared with what was sent.

In: the directory of a store, alive or as a kill left it; the calls that `bench.wire` sent, known from their numbers.
Out: sentences about everything that is not as it must be, and what of each call was recorded. It changes nothing.
"""

import json
import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from recorder import checkpoint, journal
from recorder.wav import HEADER

Spans = list[tuple[int, int]]
"""From and until when, ns since the epoch."""
Samples = NDArray[np.int16]

NAMES = {"audio.wav", "call.json", "metadata.xml"}
MS = 1_000_000
EDGE = 80 * MS
"""At both ends of an interruption: packets of 20 ms that were cut, and jitter."""
ASTRAY = 9600
"""Samples by which the audio behind an interruption may stand aside from where the clock says."""
_TIMES = re.compile(r"from (\S+Z) to (\S+Z)")


class Flushed(NamedTuple):
    """The audio of a call in progress as a kill left it."""

    octets: int
    digest: str


@dataclass(frozen=True, slots=True)
class Recording:
    """A published recording."""

    place: Path
    document: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.document["id"])

    def samples(self) -> Samples:
        """Shape (frames, 2)."""
        return np.asarray(soundfile.read(self.place / "audio.wav", dtype="int16", always_2d=True)[0], np.int16)

    def interruptions(self) -> Spans:
        """Those that its warnings name."""
        found: Spans = []
        for warning in self.document["warnings"]:
            if warning["code"] == "interrupted":
                found += [(nanoseconds(a), nanoseconds(b)) for a, b in _TIMES.findall(warning["text"])]
        return found


@dataclass(slots=True)
class Watch:
    """What was published, each recording looked at once and again at the end."""

    out: Path
    recordings: dict[Path, Recording] = field(default_factory=dict)

    def look(self, *, again: bool = False) -> list[str]:
        """Look at recordings that are new, or at all of them; what is wrong."""
        wrong: list[str] = []
        for place in published(self.out):
            if again or place not in self.recordings:
                found, troubles = examine(place)
                wrong += troubles
                if found is not None:
                    self.recordings[place] = found
        return wrong


def nanoseconds(text: str) -> int:
    """RFC 3339 with microseconds to ns since the epoch."""
    whole = datetime.fromisoformat(text)
    return int(whole.timestamp()) * 10**9 + whole.microsecond * 1000


def published(out: Path) -> list[Path]:
    """Directories under final names."""
    return sorted(path for path in out.glob("[12]*/*/*/*") if path.is_dir())


def examine(place: Path) -> tuple[Recording | None, list[str]]:
    """Whether a published recording is whole."""
    names = {path.name for path in place.iterdir()}
    try:
        document = json.loads((place / "call.json").read_bytes())
        audio = document["audio"]
        wanted = NAMES if audio is not None else NAMES - {"audio.wav"}
        wrong = [] if names == wanted else [f"{place}: holds {sorted(names)}"]
        files = [told for told in (audio, document["metadata"]) if told is not None]
        changed = [told["file"] for told in files if digest(place / told["file"]) != told["sha256"]]
        wrong += [f"{place}: {name} is not what call.json says" for name in changed]
        if audio is not None and soundfile.info(place / "audio.wav").frames != audio["samples"]:
            wrong.append(f"{place}: audio.wav has other samples than call.json says")
    except (OSError, ValueError, KeyError, soundfile.LibsndfileError) as error:
        return None, [f"{place}: {error!r}; it holds {sorted(names)}"]
    return Recording(place, document), wrong


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    return sha256(path.read_bytes()).hexdigest()


def unreadable(working: Path) -> list[str]:
    """What in the working directories cannot be read or played."""
    wrong = []
    for directory in sorted(path for path in working.iterdir() if path.is_dir()):
        audio = directory / "audio.wav"
        if audio.exists() and audio.stat().st_size:
            try:
                soundfile.read(audio)
            except soundfile.LibsndfileError as error:
                wrong.append(f"{audio}: {error}")
        if (directory / checkpoint.FILE).exists() and checkpoint.load(directory) is None:
            wrong.append(f"{directory}: its checkpoint cannot be read")
        size = (directory / journal.FILE).stat().st_size if (directory / journal.FILE).exists() else 0
        read = sum(journal.RECORD_OCTETS + len(data) for _, data in journal.read(directory))
        if read != size:
            wrong.append(f"{directory}: of {size} octets of the journal {read} can be read")
    return wrong


def flushed(working: Path) -> dict[str, Flushed]:
    """Call id -> its audio on the disk, of calls in progress."""
    found = {}
    for path in working.glob("*/audio.wav"):
        content = path.read_bytes()[HEADER:]
        content = content[: len(content) // 4 * 4]
        if content:
            found[path.parent.name] = Flushed(len(content), sha256(content).hexdigest())
    return found


def lost_octets(left: Sequence[dict[str, Flushed]], recordings: Sequence[Recording]) -> list[str]:
    """Recordings that do not begin with what was on the disk when the service was killed."""
    by_id = {recording.id.replace("-", ""): recording for recording in recordings}
    wrong = []
    for number, files in enumerate(left, 1):
        for name, before in files.items():
            recording = by_id.get(name)
            if recording is None:
                wrong.append(f"kill {number}: {name}: {before.octets} octets of audio are in no recording")
                continue
            audio = recording.place / "audio.wav"
            content = audio.read_bytes()[HEADER : HEADER + before.octets] if audio.exists() else b""
            if sha256(content).hexdigest() != before.digest:
                wrong.append(f"kill {number}: {recording.place}: its first {before.octets} octets have changed")
    return wrong


def catalogued(catalogue: Path) -> tuple[dict[str, str], list[str]]:
    """(call id -> directory of the recordings it knows, what is wrong with it)."""
    connection = sqlite3.connect(catalogue)
    try:
        ((said, *_),) = connection.execute("PRAGMA integrity_check").fetchall()
        rows = dict(connection.execute("SELECT id, directory FROM recordings").fetchall())
    finally:
        connection.close()
    return rows, [] if said == "ok" else [f"{catalogue}: {said}"]


def disagreement(rows: dict[str, str], recordings: Sequence[Recording], out: Path, marked: set[str]) -> list[str]:
    """Recordings that are missing in the catalogue or in the store. `marked` ones are about to be entered."""
    there = {each.id: each.place.relative_to(out).as_posix() for each in recordings}
    wrong = [f"{rows[id_]}: in the catalogue, not in the store" for id_ in rows.keys() - there.keys()]
    absent = (id_ for id_ in there.keys() - rows.keys() if id_.replace("-", "") not in marked)
    wrong += [f"{there[id_]}: in the store, not in the catalogue" for id_ in absent]
    wrong += [f"{rows[i]}: the catalogue has another place" for i in rows.keys() & there.keys() if rows[i] != there[i]]
    return wrong


def pieces(begin: int, end: int, without: Spans, edge: int = EDGE) -> Iterator[tuple[int, int]]:
    """What of [begin, end) lies outside of some spans, `edge` away from them."""
    for first, last in sorted(without):
        if first - edge > begin:
            yield begin, min(first - edge, end)
        begin = max(begin, last + edge)
        if begin >= end:
            return
    if begin < end:
        yield begin, end


def astray(heard: Samples, sent: Samples, at: int, first: int, count: int) -> int | None:
    """By how many samples sent[first : first + count] stands away from heard[at]; None where it does not stand there.

    The earliest and latest place that is looked at is ASTRAY samples away. Where all was silence, 0.
    """
    told = sent[first : first + count]
    loud = np.flatnonzero(np.abs(told) > 1000)
    if not len(loud):
        return 0
    probe = int(loud[len(loud) // 2])
    length = min(64, count - probe)
    begin = max(at + probe - ASTRAY, 0)
    region = heard[begin : at + probe + ASTRAY + length]
    for place in np.flatnonzero(region[: max(len(region) - length + 1, 0)] == told[probe]).tolist():
        if (region[place : place + length] == told[probe : probe + length]).all():
            shift = begin + place - at - probe
            low = at + shift
            if low >= 0 and low + count <= len(heard) and (heard[low : low + count] == told).all():
                return shift
    return None
