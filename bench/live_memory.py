"""Memory of the live service over many calls: `python -m bench.live_memory --calls 100000`.

An hour of capture time with that many short calls is given to the service as fast as it takes it, from a generated
capture instead of an interface. Said are the resident memory at every tenth of the way and the descriptors at the end:
both must be flat once the first tenth is over.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.measure import ROOT, machine, scratch, table


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the memory of the live service over many calls.")
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=1.0, help="of media of each call (1)")
    parser.add_argument("--over", type=float, default=3600.0, help="capture time in which the calls begin, s (3600)")
    parser.add_argument("--dir", type=Path, help="for capture and recordings (in memory, if there is room)")
    return parser.parse_args()


def resident_mb() -> float:
    """Resident memory of this process, pages of mapped files left out."""
    status = Path("/proc/self/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return (int(fields["RssAnon"].split()[0]) + int(fields["RssShmem"].split()[0])) / 1024


def main() -> None:
    options = arguments()
    print(f"On {machine()}. {options.calls:,} calls of {options.seconds:g} s in {options.over:g} s.\n", flush=True)
    with scratch(options.dir, int(options.calls * (20_000 + options.seconds * 57_000))) as directory:
        capture = directory / "short.pcap"
        command = [sys.executable, "bench/generate.py", str(capture), "--short", str(options.calls)]
        command += ["--seconds", str(options.seconds), "--over", str(options.over)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        rows = record(capture, directory / "out", options.calls)
    print(table(("calls over", "published", "resident MB", "descriptors", "CPU s"), rows))


def record(capture: Path, out: Path, calls: int) -> list[tuple[str, ...]]:
    from recorder.warmup import choose_kernel_cache, load_kernels_directly

    choose_kernel_cache()
    load_kernels_directly()
    from recorder.log import open_log
    from tests.live import FileSource, service

    log = (out.parent / "log").open("w")  # in memory it would be most of what grows
    one = service(out, log=open_log(log))
    rows: list[tuple[str, ...]] = []

    def look(_: int) -> None:
        # A source that never waits would outrun the publisher, which no wire does.
        while one._publisher.waiting > 2000:
            time.sleep(0.01)
        over = one._engine.calls
        if over >= (len(rows) + 1) * calls // 10:
            rows.append(
                (
                    f"{over:,}",
                    f"{one._publisher.recordings:,}",
                    f"{resident_mb():.0f}",
                    str(len(os.listdir("/proc/self/fd"))),
                    f"{time.process_time():.0f}",
                )
            )

    one.run([FileSource(capture, batch_size=4096, before=look)], lambda: None, lambda _: None)
    log.close()
    return rows


if __name__ == "__main__":
    main()
