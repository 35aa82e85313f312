"""Live and replay agree: `python -m tests.live_agree [NAME...]`, as root.

In: captures of `pcaps/`, all where none is named. Each is sent over a veth pair of its own with its own timing,
recorded there by `spanrec capture -i`, and compared with its replay. Out: a table, capture by capture: calls, streams,
packets, by how many samples each channel is shifted, and a sentence for each difference. Ends with 1 for any of these.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.measure import table
from bench.veth import is_possible, wire
from recorder.replay_types import Dissector
from tests.capture_builder import record
from tests.live import recordings
from tests.live_recorder import LiveRecorder, recording
from tests.same_recording import Likeness, compare
from tests.wire_replay import go_first, send_capture

PCAPS = Path(__file__).resolve().parents[1] / "pcaps"
ENDING = 1.5
"""Seconds between the last frame and the end of the service."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What became of a capture."""

    name: str
    calls: int
    streams: int
    packets: int
    latest_ms: float
    """Lateness of the latest frame on the wire."""
    calls_compared: tuple[Likeness, ...]
    differences: tuple[str, ...]

    def row(self) -> tuple[str, ...]:
        shifts = "; ".join(
            ", ".join("/".join(map(str, channel)) or "silent" for channel in each.shifts)
            for each in self.calls_compared
            if each.shifts
        )
        unequal = sum(each.unequal for each in self.calls_compared)
        return (
            self.name, str(self.calls), str(self.streams), str(self.packets), f"{self.latest_ms:.2f}",
            "no audio" if not shifts else f"{unequal} samples differ" if unequal else "equal", shifts,
            f"{max((each.instants_ms for each in self.calls_compared), default=0):.2f}",
            f"{max((each.jitter_ms for each in self.calls_compared), default=0):.2f}",
            "; ".join(self.differences) or "none",
        )  # fmt: skip


HEADS = (
    "capture", "calls", "streams", "packets", "latest frame, ms", "audio", "shift of each channel, samples",
    "instants, ms", "jitter, ms", "differences",
)  # fmt: skip


def captures() -> list[Path]:
    return sorted(path for path in PCAPS.iterdir() if path.suffix in (".pcap", ".pcapng"))


def send_and_record(path: Path, work: Path) -> tuple[LiveRecorder, float]:
    """Send a capture over a wire of its own and record it; the lateness of the latest frame, ms."""
    with wire(f"agree-{path.stem}"[:24]) as over, recording(over.namespace, work, "-i", over.receiver) as live:
        with ThreadPoolExecutor(1, initializer=go_first) as sender:
            latest = sender.submit(send_capture, over.namespace, over.sender, path).result()
        time.sleep(ENDING)
    return live, latest


def agreement(path: Path, live: LiveRecorder, replayed: Path, latest: float) -> Agreement:
    """Compare what a recorder left with a replay's directory."""
    ours, theirs = live.recordings(), recordings(replayed)
    differences = [] if len(ours) == len(theirs) else [f"{len(ours)} calls, replay {len(theirs)}"]
    compared = tuple(compare(one, other) for one, other in zip(ours, theirs, strict=False))
    differences += [text for each in compared for text in each.differences]
    differences += [str(line.get("text")) for line in live.messages("alarm")]
    streams = [stream for document, _ in ours for stream in document.streams]
    packets = sum(stream.packets for stream in streams)
    return Agreement(path.stem, len(ours), len(streams), packets, latest, compared, tuple(differences))


def agree(chosen: Sequence[Path], work: Path, at_once: int) -> list[Agreement]:
    """Replay all, send all, compare all: nothing else keeps this process busy while it sends."""
    for path in chosen:
        record([path], work / path.stem / "replay", dissector=Dissector.NATIVE)
    with ThreadPoolExecutor(at_once) as several:
        sent = list(several.map(lambda path: send_and_record(path, work / path.stem), chosen))
    return [
        agreement(path, live, work / path.stem / "replay", latest)
        for path, (live, latest) in zip(chosen, sent, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare live recordings of the lab's captures with their replays.")
    parser.add_argument("names", nargs="*", help="captures of pcaps/, without their ending")
    parser.add_argument("--at-once", type=int, default=6, help="wires at the same time (6)")
    options = parser.parse_args()
    if not is_possible():
        raise SystemExit("needs root, iproute2 and network namespaces")
    chosen = [path for path in captures() if not options.names or path.stem in options.names]
    with tempfile.TemporaryDirectory(prefix="live-agree-") as directory:
        found = agree(chosen, Path(directory), options.at_once)
    print(table(HEADS, [each.row() for each in found]))
    if any(each.differences or any(one.unequal for one in each.calls_compared) for each in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
