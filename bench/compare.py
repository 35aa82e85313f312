"""`make bench`: spanrec beside other programs on one capture in one run. Prints a table in Markdown.

Runs on a memory disk. Of what is repeated (`--rounds`) the least counts: other work on the machine only adds. The
start-up is measured on a capture of one call and told apart. pyshark is measured on the first packets only, and its
time for all of them extrapolated from that.
"""

import argparse
import shutil
import struct
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.measure import Measured, generate, machine, replay, run, scratch, table

PYSHARK = """
import sys
from collections import Counter
import pyshark
streams = Counter()
with pyshark.FileCapture(sys.argv[1], display_filter="rtp", keep_packets=False) as capture:
    for packet in capture:
        layers = packet.ip, packet.udp
        streams[layers[0].src, layers[1].srcport, layers[0].dst, layers[1].dstport, packet.rtp.ssrc] += 1
print(len(streams), sum(streams.values()))
"""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure spanrec, tshark, pyshark and plain reading and writing.")
    parser.add_argument("--calls", type=int, default=500, help="G.711 calls at once (500)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each call (60)")
    parser.add_argument("--rounds", type=int, default=3, help="of spanrec and of reading and writing (3)")
    parser.add_argument("--pyshark-packets", type=int, default=20_000, help="that pyshark reads (20000)")
    parser.add_argument("--without", action="append", default=[], choices=["tshark", "pyshark"])
    parser.add_argument("--dir", type=Path, help="for the capture and the recordings (in memory, if there is room)")
    return parser.parse_args()


def cut(capture: Path, packets: int, out: Path) -> int:
    """The first packets of a classic little-endian pcap; gives how many there are."""
    with capture.open("rb") as source, out.open("wb") as target:
        target.write(source.read(24))
        for number in range(packets):
            head = source.read(16)
            if len(head) < 16:
                return number
            target.write(head + source.read(struct.unpack_from("<I", head, 8)[0]))
    return packets


def least(runs: Sequence[Measured]) -> Measured:
    """The run that took the least CPU, with the least wall time of all."""
    best = min(runs, key=lambda each: each.cpu)
    return Measured(best.cpu, min(each.wall for each in runs), max(each.peak_mb for each in runs), 0, best.output)


def read_and_write(capture: Path, octets: int, out: Path) -> Measured:
    """The floor: the capture read, as many octets written as the recordings have."""
    blocks = max(round(octets / (1 << 20)), 1)
    reading = run(["dd", f"if={capture}", "of=/dev/null", "bs=1M", "status=none"])
    writing = run(["dd", "if=/dev/zero", f"of={out}", "bs=1M", f"count={blocks}", "status=none"])
    out.unlink()
    return Measured(reading.cpu + writing.cpu, reading.wall + writing.wall, writing.peak_mb, 0, "")


def main() -> None:
    options = arguments()
    media = int(options.calls * options.seconds)
    print(f"On {machine()}.\n", flush=True)
    with scratch(options.dir, media * (23_100 + 2 * 32_000)) as work:
        capture, one, out = work / "calls.pcap", work / "one.pcap", work / "out"
        packets = generate(capture, "--calls", options.calls, "--seconds", options.seconds)
        few = generate(one, "--calls", 1, "--seconds", 1)
        print(
            f"{options.calls} calls of {options.seconds:g} s: {packets} packets, {capture.stat().st_size >> 20} MiB.\n"
        )
        replay(one, out)  # kernels are compiled, files are in memory
        rows, ours = measure_spanrec(capture, one, out, packets - few, options.rounds)
        written = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        shutil.rmtree(out)
        floor = least([read_and_write(capture, written, work / "zeros") for _ in range(options.rounds)])
        rows.append(row("reading and writing alone (dd)", floor, 0, packets, ours))
        if shutil.which("tshark") and "tshark" not in options.without:
            rows.append(measure_tshark(capture, one, packets, ours))
        if "pyshark" not in options.without:
            rows.append(measure_pyshark(capture, one, packets, options.pyshark_packets, work, ours))
        heads = ("", "CPU s", "of it start-up", "wall s", "packets per CPU-second", "CPU, spanrec = 1", "peak MB")
        print(table(heads, rows))
        print("\nPackets per CPU-second are counted without the start-up, ratios with it.")


def row(name: str, taken: Measured, start: float, packets: int, ours: float) -> list[str]:
    """A line of the table."""
    rate = packets / max(taken.cpu - start, 1e-9) / 1e6
    return [
        name, f"{taken.cpu:.2f}", f"{start:.2f}" if start else "", f"{taken.wall:.2f}", f"{rate:.3g} million",
        f"{taken.cpu / ours:.2f}", f"{taken.peak_mb:.0f}",
    ]  # fmt: skip


def measure_spanrec(capture: Path, one: Path, out: Path, packets: int, rounds: int) -> tuple[list[list[str]], float]:
    """Rows for one and two workers, taken in turns; and the CPU seconds of one worker."""
    starts, runs = {}, {}
    for workers in (1, 2):
        starts[workers] = least([replay(one, out, "--workers", str(workers)) for _ in range(2 * rounds)]).cpu
        runs[workers] = []
    for _ in range(rounds):
        for workers in (1, 2):
            runs[workers].append(replay(capture, out, "--workers", str(workers)))
    best = {workers: least(found) for workers, found in runs.items()}
    ours = best[1].cpu
    rows = [
        row(f"spanrec, {workers} worker{'s'[: workers > 1]}", best[workers], starts[workers], packets, ours)
        for workers in (1, 2)
    ]
    print(f"Two workers are {best[1].wall / best[2].wall:.2f} times as fast by the clock as one.\n", flush=True)
    return rows, ours


def measure_tshark(capture: Path, one: Path, packets: int, ours: float) -> list[str]:
    """`tshark -q -z rtp,streams`: no audio, no correlation."""
    command = ["tshark", "-q", "-z", "rtp,streams", "-r"]
    start = least([run([*command, one]) for _ in range(2)]).cpu
    taken = run([*command, capture])
    streams = sum(" RTP " not in line and "0x" in line for line in taken.output.splitlines())
    return row(f"tshark -q -z rtp,streams ({streams} streams)", taken, start, packets, ours)


def measure_pyshark(capture: Path, one: Path, packets: int, few: int, work: Path, ours: float) -> list[str]:
    """pyshark counting streams on the first packets, and what that makes for all."""
    with tempfile.NamedTemporaryFile("w", suffix=".py", dir=work) as script:
        script.write(PYSHARK)
        script.flush()
        part = work / "part.pcap"
        few = cut(capture, few, part)
        start = run([sys.executable, script.name, one])
        taken = run([sys.executable, script.name, part])
    scale = packets / few
    whole = Measured(
        start.cpu + (taken.cpu - start.cpu) * scale,
        start.wall + (taken.wall - start.wall) * scale,
        taken.peak_mb,
        0,
        "",
    )
    return row(f"pyshark, extrapolated from {few} packets", whole, start.cpu, packets, ours)


if __name__ == "__main__":
    main()
