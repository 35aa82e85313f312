"""`python -m tests.fuzz`: every target in a process of its own, then a table of what was tried and found.

Kernels run with bounds checks here, from a cache of their own. Inputs that break a promise stay in build/fuzz/found.
With atheris the corpus stays in build/fuzz/corpus and the next run goes on from it; without, mutation is random but
the same for the same --seed.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "fuzz"
LIMIT_MB = 3000
"""Resident memory at which a target is stopped."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz the parsers, kernels and engine.")
    parser.add_argument("targets", nargs="*", help="all where none is named")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--engine", choices=["atheris", "plain"], help="atheris where it is installed")
    parser.add_argument("--seed", type=int, default=1, help="of random mutation (1)")
    parser.add_argument("--input", type=Path, help="run the targets on this file only")
    parser.add_argument("--list", action="store_true", help="say what targets there are")
    return parser.parse_args()


def checked_environment() -> dict[str, str]:
    """Kernels compiled with bounds checks are kept apart from the others."""
    cache = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(BUILD / "kernels")}
    return {**os.environ, **cache, "PYTHONPATH": str(ROOT), "SPANREC_FUZZ": "1"}


def main() -> int:
    options = arguments()
    if "SPANREC_FUZZ" not in os.environ:
        # numba reads its settings when it is imported, so they have to be there before anything else.
        command = [sys.executable, "-m", "tests.fuzz", *sys.argv[1:]]
        return subprocess.run(command, env=checked_environment(), cwd=ROOT, check=False).returncode
    from tests.fuzz.targets import TARGETS

    names = options.targets or list(TARGETS)
    if options.list or not set(names) <= set(TARGETS):
        print("\n".join(TARGETS))
        return 0 if options.list else 2
    if options.input:
        for name in names:
            TARGETS[name].run(options.input.read_bytes())
        return 0
    engine = options.engine or ("atheris" if find_spec("atheris") else "plain")
    print(f"{engine}, {options.seconds} s each\n")
    print("| target | inputs | s | peak MB | grown MB | found |\n| --- | --: | --: | --: | --: | --- |", flush=True)
    worst = 0
    for name in names:
        row, failed = fuzz(name, "plain" if TARGETS[name].compiled else engine, options)
        print(row, flush=True)
        worst |= failed
    return worst


def fuzz(name: str, engine: str, options: argparse.Namespace) -> tuple[str, bool]:
    """Fuzz one target; gives its row of the table."""
    for directory in ("logs", "found", f"corpus/{name}"):
        (BUILD / directory).mkdir(parents=True, exist_ok=True)
    log = BUILD / "logs" / f"{name}.txt"
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.fuzz.run", name, engine, str(options.seconds), str(options.seed)]
    with log.open("wb") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT, check=False)
    took = time.monotonic() - began
    said = log.read_text(errors="replace")
    figures = dict(re.findall(r"^(inputs|peak|grown): (\d+)$", said, re.MULTILINE))  # the last ones count
    figures.update(("inputs", runs) for runs in re.findall(r"^Done (\d+) runs", said, re.MULTILINE))
    found = "nothing" if done.returncode == 0 else f"exit status {done.returncode}, see {log.relative_to(ROOT)}"
    told = [figures.get(figure, "?") for figure in ("inputs", "peak", "grown")]
    return "| " + " | ".join((name, told[0], f"{took:.0f}", *told[1:], found)) + " |", done.returncode != 0


if __name__ == "__main__":
    sys.exit(main())
