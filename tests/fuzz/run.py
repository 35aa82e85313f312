"""One target in this process: `python -m tests.fuzz.run NAME ENGINE SECONDS SEED`, started by `python -m tests.fuzz`.

Prints `inputs`, `peak` and `grown` (MB of resident memory, and how much of it came after the first tenth of the time)
and leaves an input that breaks a promise in build/fuzz/found. Exit status 1 where one was found.
"""

import faulthandler
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from random import Random
from types import FrameType

from tests.fuzz.__main__ import BUILD, LIMIT_MB, ROOT

PATIENCE = 60
"""Seconds that one input may take: machines are slow and shared, but a hang is longer."""
GROWTH_MB = 250
"""Resident memory may grow by so much after the first tenth of the run."""
LONGEST_FILE = 64 << 30


def resident_mb() -> int:
    """Resident memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20


class Watch:
    """Counts inputs and watches memory."""

    def __init__(self, run: Callable[[bytes], None], seconds: int) -> None:
        self._run = run
        self._settled = time.monotonic() + seconds / 10
        self._told = 0.0
        self.inputs = 0
        self.base = 0
        self.peak = 0

    def __call__(self, data: bytes) -> None:
        self._run(data)
        self.inputs += 1
        if self.inputs % 16 == 0 or not self.base:
            now = resident_mb()
            self.peak = max(self.peak, now)
            if not self.base or time.monotonic() < self._settled:
                self.base = max(self.base, now)
            assert now - self.base < GROWTH_MB, f"grew from {self.base} to {now} MB"
        if time.monotonic() > self._told + 1:
            self.tell()

    def tell(self) -> None:
        """Print the figures so far; libFuzzer ends the process without asking us."""
        self._told = time.monotonic()
        print(f"inputs: {self.inputs}\npeak: {self.peak}\ngrown: {max(self.peak - self.base, 0)}", flush=True)


def give_up(number: int, frame: FrameType | None) -> None:
    """An input takes too long."""
    raise TimeoutError(f"an input took more than {PATIENCE} s")


def run_plain(name: str, seconds: int, seed: int) -> int:
    """Seeded random mutation until the time is over."""
    from tests.fuzz.plain import inputs
    from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    watch = Watch(target.run, seconds)
    signal.signal(signal.SIGALRM, give_up)
    end = 0.0
    for data in inputs(target, Random(f"{name} {seed}")):
        end = end or time.monotonic() + seconds
        now = BUILD / "found" / f"{name}-now"
        # A kernel that goes astray takes the process with it: the input has to be on disk before.
        now.write_bytes(data)
        signal.alarm(PATIENCE)
        try:
            watch(data)
        except Exception:
            traceback.print_exc()
            now.rename(now.with_name(f"{name}-{sha256(data).hexdigest()[:16]}"))
            watch.tell()
            return 1
        signal.alarm(0)
        now.unlink()
        if time.monotonic() > end:
            break
    watch.tell()
    return 0


def kernel_modules() -> list[str]:
    """Modules with compiled functions: their code must reach numba as it is written."""
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for package in ("capture", "decoders", "recorder")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"^@(numba\.)?(njit|kernel_part)", path.read_text(), re.MULTILINE)
    ]


def run_atheris(name: str, seconds: int, seed: int) -> int:
    """libFuzzer with coverage of the Python code, and our mutators beside its own."""
    import atheris

    with atheris.instrument_imports(include=["capture", "decoders", "recorder"], exclude=kernel_modules()):
        from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    watch = Watch(target.run, seconds)
    seeds = [seed_[: target.limit] for seed_ in target.seeds()]
    corpus = BUILD / "corpus" / name
    for data in seeds:
        (corpus / sha256(data).hexdigest()[:40]).write_bytes(data)

    def mutate(data: bytes, limit: int, number: int) -> bytes:
        random = Random(number)
        if random.random() < 0.3:
            return bytes(atheris.Mutate(data, limit))
        return target.mutate(data, random, seeds, limit)

    atheris.Setup(
        [
            "fuzz", f"-max_total_time={seconds}", f"-max_len={target.limit}", f"-timeout={PATIENCE}", f"-seed={seed}",
            f"-rss_limit_mb={LIMIT_MB}", f"-artifact_prefix={BUILD}/found/{name}-", str(corpus),
        ],
        watch,
        custom_mutator=mutate,
    )  # fmt: skip
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    faulthandler.enable()
    # Audio with gaps of days is long but takes no room; beyond this a file would only fill the memory disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (LONGEST_FILE, LONGEST_FILE))
    NAME, ENGINE, SECONDS, SEED = sys.argv[1:]
    sys.exit({"atheris": run_atheris, "plain": run_plain}[ENGINE](NAME, int(SECONDS), int(SEED)))
