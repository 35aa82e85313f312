"""Every capture of the third-party collection replayed, and what was found against what its index says.

    python tests/captures_table.py [--captures DIRECTORY] [PART-OF-NAME...]

The index counts what tshark finds: Call-IDs with an INVITE, and RTP streams by address (by SDP / by heuristics). That
is not the truth: a call seen on two hops is one call, media seen at two hops is one stream with a copy, a recording
session is no call, and NAT hides streams from SDP. So a row agrees where the counts are equal, and every other row
needs an explanation in `captures_explained.tsv`, which holds the figures that it explains: other figures, whether
better or worse, need another explanation. Exit status 1 where a difference has none.
"""

import argparse
import csv
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXPLAINED = Path(__file__).with_name("captures_explained.tsv")
FIGURES = ("calls", "media_only", "recording_sessions", "streams", "copies", "unclaimed")


@dataclass(frozen=True, slots=True)
class Row:
    """What the index says of a capture."""

    file: str
    calls: int
    by_sdp: int
    by_heuristics: int

    @property
    def streams(self) -> int:
        """What tshark found in the better of its two ways."""
        return max(self.by_sdp, self.by_heuristics)


@dataclass(slots=True)
class Found:
    """What a replay found in a capture."""

    calls: int = 0
    media_only: int = 0
    recording_sessions: int = 0
    streams: int = 0
    copies: int = 0
    unclaimed: int = 0
    error: str = ""
    documents: list = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    damaged: bool = False

    def figures(self) -> str:
        """The counts as text: what an explanation explains."""
        if self.error:
            return "unreadable"
        return " ".join(f"{name}={getattr(self, name)}" for name in FIGURES)

    def agrees(self, row: Row) -> bool:
        """The index is right by its own way of counting: nothing to explain."""
        alone = not (self.media_only or self.recording_sessions or self.copies or self.unclaimed or self.error)
        return alone and (self.calls, self.streams) == (row.calls, row.streams)


class _Collector:
    """A reporter that keeps the documents."""

    def __init__(self) -> None:
        self.documents: list = []
        self.warnings: list[str] = []

    def progress(self, packets: int, calls: int, bytes_done: int, bytes_total: int | None) -> None:
        """Nobody watches."""

    def call_done(self, document: object, directory: str) -> None:
        self.documents.append(document)

    def warning(self, text: str) -> None:
        self.warnings.append(text)


def collection() -> Path | None:
    """Directory of the captures, None where it is not here."""
    path = Path(os.environ.get("SPANREC_CAPTURES", ROOT.parent / "shared" / "captures"))
    return path if (path / "INDEX.tsv").is_file() else None


def read_index(captures: Path) -> list[Row]:
    """Rows of the index, in its order."""
    with (captures / "INDEX.tsv").open(encoding="utf-8", newline="") as file:
        return [_row(values) for values in csv.DictReader(file, delimiter="\t")]


def _row(values: dict[str, str]) -> Row:
    by_sdp, by_heuristics = values["rtp_streams"].split("/")
    return Row(values["file"], int(values["sip_calls"]), int(by_sdp), int(by_heuristics))


def read_explained() -> dict[str, tuple[str, str]]:
    """File -> (figures, sentence)."""
    with EXPLAINED.open(encoding="utf-8", newline="") as file:
        return {each["file"]: (each["figures"], each["explanation"]) for each in csv.DictReader(file, delimiter="\t")}


def replay_capture(path: Path) -> Found:
    """Replay one capture into a directory that is thrown away."""
    from capture.errors import SpanrecError
    from recorder.replay import replay
    from recorder.replay_types import ReplayOptions

    reporter = _Collector()
    with tempfile.TemporaryDirectory() as out:
        try:
            summary = replay(ReplayOptions(captures=(str(path),), out=Path(out), workers=1), reporter)
        except SpanrecError as error:
            return Found(error=str(error), warnings=reporter.warnings, damaged=True)
    counts = summary.counts
    return Found(
        calls=counts.calls - counts.media_only,
        media_only=counts.media_only,
        recording_sessions=counts.recording_sessions,
        streams=counts.streams,
        copies=sum(stream.copies for document in reporter.documents for stream in document.streams),
        unclaimed=counts.rtp_unclaimed,
        documents=reporter.documents,
        warnings=reporter.warnings,
        damaged=summary.damaged,
    )


def verdict(row: Row, found: Found, explained: dict[str, tuple[str, str]]) -> tuple[bool, str]:
    """(whether the row is in order, what there is to say of it)."""
    figures, sentence = explained.get(row.file, ("", ""))
    if figures == found.figures():
        return True, sentence
    if figures:
        return False, f"the explanation is of other figures: {figures}"
    return (True, "") if found.agrees(row) else (False, "NOT EXPLAINED")


def implausible(found: Found) -> Iterator[str]:
    """What no call can be like, whatever was in the capture."""
    for document in found.documents:
        audio = document.audio
        heard = [s for s in document.streams if s.media == "audio" and s.packets]
        if audio is not None:
            length = audio.samples / audio.sample_rate
            first = min(_seconds(s.started) for s in heard)
            span = max(_seconds(s.ended) for s in heard) - first
            # Packets of a burst sound after the last of them arrived, each for as long as it carries.
            if length > 1.5 * span + 3:
                yield f"{document.call_id}: {length:.1f} s of audio from {span:.1f} s of media"
        for stream in document.streams:
            if stream.expected != stream.packets + stream.lost or min(stream.lost, stream.duplicates, stream.late) < 0:
                yield f"{document.call_id}: counts of {stream.ssrc} contradict each other"
            if stream.late > stream.packets or (stream.mos is not None and not 1 <= stream.mos <= 5):
                yield f"{document.call_id}: quality of {stream.ssrc} is out of range"
        if document.duration_s < 0 or (document.talk_s is not None and document.talk_s > document.duration_s):
            yield f"{document.call_id}: its times contradict each other"


def _seconds(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


def main() -> int:
    parser = argparse.ArgumentParser(description="Replay the collection and compare it with its index.")
    parser.add_argument("--captures", type=Path, default=collection(), help="directory with INDEX.tsv and real/")
    parser.add_argument("parts", nargs="*", help="only captures whose name has one of these in it")
    options = parser.parse_args()
    if options.captures is None:
        print("The captures are not here: set SPANREC_CAPTURES to their directory.", file=sys.stderr)
        return 2
    explained = read_explained()
    rows = [r for r in read_index(options.captures) if not options.parts or any(p in r.file for p in options.parts)]
    heading = ("file", "calls", "found", "media-only", "RS", "streams", "found", "copies", "unclaimed")
    print(_line(heading), " ", "difference", sep="")
    wrong = equal = 0
    for row in rows:
        found = replay_capture(options.captures / "real" / row.file)
        fine, sentence = verdict(row, found, explained)
        complaints = list(implausible(found))
        wrong += not fine or bool(complaints)
        equal += found.agrees(row)
        counts = (row.calls, found.calls, found.media_only, found.recording_sessions, row.streams, found.streams)
        told = "; ".join([sentence, *complaints] if sentence else complaints) or "none"
        print(_line((row.file, *counts, found.copies, found.unclaimed)), " ", told, sep="", flush=True)
    print(
        f"{len(rows)} captures: {equal} as tshark counts, {len(rows) - equal - wrong} explained, {wrong} not explained"
    )
    return 1 if wrong else 0


def _line(values: tuple[object, ...]) -> str:
    name = str(values[0])
    return f"{name if len(name) < 68 else '…' + name[-66:]:<68}" + "".join(f"{value!s:>11}" for value in values[1:])


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
