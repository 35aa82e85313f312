"""How long it takes until something happens: the first run, which compiles, the runs after it, and `--version`.

`python -m bench.start`. Kernels are compiled into an empty directory (NUMBA_CACHE_DIR), which is removed afterwards.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.measure import Measured, machine, run, scratch, spanrec, table

ONE_CALL = Path(__file__).resolve().parent.parent / "pcaps" / "pcmu.pcap"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the first run, the next ones, and --version.")
    parser.add_argument("--rounds", type=int, default=5, help="of what is compiled (5)")
    parser.add_argument("--dir", type=Path, help="for the kernels and the recordings (in memory)")
    return parser.parse_args()


def quickest(runs: list[Measured]) -> tuple[str, str]:
    """Least CPU and wall seconds."""
    return f"{min(each.cpu for each in runs):.2f}", f"{min(each.wall for each in runs):.2f}"


def main() -> None:
    options = arguments()
    print(f"On {machine()}.\n", flush=True)
    with scratch(options.dir, 1 << 28) as work:
        out = work / "out"
        kernels = {"NUMBA_CACHE_DIR": str(work / "kernels")}
        first = run([*spanrec(), "replay", ONE_CALL, "-o", out], environment=kernels)
        rows = [("first replay of one call, kernels compiled", *quickest([first]))]
        for workers in (1, 2):
            runs = [
                run([*spanrec(), "replay", ONE_CALL, "-o", work / f"out-{workers}-{k}", "--workers", str(workers)],
                    environment=kernels)
                for k in range(options.rounds)
            ]  # fmt: skip
            rows.append((f"replay of one call after that, --workers {workers}", *quickest(runs)))
        before = min(each.cpu for each in runs), min(each.wall for each in runs)
        rows.insert(1, ("of it compiling", f"{first.cpu - before[0]:.2f}", f"{first.wall - before[1]:.2f}"))
        rows.append(("--version", *quickest([run([*spanrec(), "--version"]) for _ in range(options.rounds)])))
        rows.append(("--help", *quickest([run([*spanrec(), "--help"]) for _ in range(options.rounds)])))
    print(table(("", "CPU s", "wall s"), rows))
    print("\nThe first run said:", next((line for line in first.output.splitlines() if "kernels" in line), "nothing"))


if __name__ == "__main__":
    main()
