"""Memory and descriptors of a replay: a large capture, very many calls, very many at once.

Each capture is made, replayed under the usual limit of 1024 descriptors, and removed. The first two are also taken at
a tenth of their size: memory must not grow with them. `python -m bench.memory [size] [calls] [descriptors]`.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.measure import generate, machine, replay, scratch, table

LIMIT = 1024
"""Descriptors that a process has unless somebody allows it more."""
CALL_OCTETS = 62_000
"""What a short call takes: its packets, its recording and their directory entries."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure resident memory and open descriptors.")
    parser.add_argument("what", nargs="*", help="size, calls, descriptors (all)")
    parser.add_argument(
        "--seconds", type=float, default=270.0, help="of the 500 calls of the large capture (270: 3 GB)"
    )
    parser.add_argument("--short", type=int, default=100_000, help="short calls, one after the other (100000)")
    parser.add_argument("--concurrent", type=int, default=10_000, help="calls at once (10000)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--whole-only", action="store_true", help="leave the tenths out")
    parser.add_argument("--dir", type=Path, help="for the captures and the recordings (in memory, if there is room)")
    return parser.parse_args()


def cases(options: argparse.Namespace) -> Iterator[tuple[str, list[str | int], int]]:
    """(name, arguments of the generator, octets that capture and recordings take)."""
    wanted = options.what or ["size", "calls", "descriptors"]
    parts = [1.0] if options.whole_only else [0.1, 1.0]
    if "size" in wanted:
        for part in parts:
            seconds = options.seconds * part
            name = f"500 calls of {seconds:g} s"
            yield name, ["--calls", 500, "--seconds", seconds], int(500 * seconds * (23_100 + 2 * 32_000))
    if "calls" in wanted:
        for part in parts:
            calls = int(options.short * part)
            yield f"{calls} short calls", ["--short", calls], calls * CALL_OCTETS
    if "descriptors" in wanted:
        calls = options.concurrent
        yield f"{calls} calls at once", ["--concurrent", calls], calls * 4 * (23_100 + 2 * 32_000)


def main() -> None:
    options = arguments()
    print(f"On {machine()}.\n", flush=True)
    rows = []
    for name, made, octets in cases(options):
        with scratch(options.dir, octets) as work:
            capture = work / "made.pcap"
            packets = generate(capture, *made)
            size = capture.stat().st_size
            taken = replay(capture, work / "out", "--workers", str(options.workers), files=LIMIT)
            recordings = sum(1 for _ in (work / "out").rglob("call.json"))
            figures = f"{taken.peak_mb:.0f}", taken.descriptors, f"{taken.cpu:.1f}", f"{taken.wall:.1f}"
            rows.append((name, packets, f"{size / 1e6:.0f}", recordings, *figures))
            print(f"{name}: {taken.peak_mb:.0f} MB", file=sys.stderr)
    heads = ("", "packets", "MB", "recordings", "peak resident MB", "most descriptors", "CPU s", "wall s")
    print(table(heads, rows))
    print(f"\nDescriptors are watched under `ulimit -n {LIMIT}`.")


if __name__ == "__main__":
    main()
