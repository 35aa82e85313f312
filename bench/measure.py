"""Running a program and measuring it: CPU seconds, wall seconds, resident memory, open descriptors.

In: a command. Out: a `Measured`. This module and its users import nothing large: a child's peak of memory begins with
that of the process that started it.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MEMORY_DISK = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run took."""

    cpu: float
    """User and system seconds, of its children too."""
    wall: float
    peak_mb: float
    """Largest resident set of any one process of it."""
    descriptors: int
    """Largest number open at once, where it was watched."""
    output: str

    @property
    def last_line(self) -> str:
        """The last line it printed."""
        return self.output.strip().rpartition("\n")[2]


def run(
    command: Sequence[str | Path], *, files: int | None = None, environment: dict[str, str] | None = None
) -> Measured:
    """Run a command to its end. `files`: watch the open descriptors, under this limit (`ulimit -n`)."""
    words = [str(word) for word in command]
    if files is not None:
        words = ["sh", "-c", 'ulimit -n "$0" && exec "$@"', str(files), *words]
    with tempfile.TemporaryFile() as out:
        began = time.perf_counter()
        child = subprocess.Popen(
            words,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
        )
        most = [0]
        watcher = threading.Thread(target=_watch, args=(child.pid, most), daemon=True)
        if files is not None:
            watcher.start()
        _, status, used = os.wait4(child.pid, 0)
        wall = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        said = out.read().decode(errors="replace")
    if child.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\nexit status {child.returncode}\n{said[-3000:]}")
    return Measured(used.ru_utime + used.ru_stime, wall, used.ru_maxrss / 1024, most[0], said)


def _watch(process: int, most: list[int]) -> None:
    """Count a process's descriptors until it is gone."""
    folder = f"/proc/{process}/fd"
    while True:
        try:
            most[0] = max(most[0], len(os.listdir(folder)))
        except OSError:
            return
        time.sleep(0.02)


def spanrec() -> list[str]:
    """The command line of this checkout."""
    installed = Path(sys.executable).with_name("spanrec")
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "recorder.cli"]


def replay(capture: Path, out: Path, *options: str, **settings: int) -> Measured:
    """Replay a capture into `out`, which is emptied before and left with the recordings."""
    shutil.rmtree(out, ignore_errors=True)
    return run([*spanrec(), "replay", capture, "-o", out, "--quiet", *options], **settings)  # type: ignore[arg-type]


def generate(out: Path, *options: str | int) -> int:
    """Make a capture with `bench/generate.py`; gives the number of its packets."""
    made = run([sys.executable, ROOT / "bench" / "generate.py", out, *map(str, options)])
    return int(made.last_line.split(" packets")[0].rpartition(" ")[2])


@contextmanager
def scratch(given: Path | None, needed: int) -> Iterator[Path]:
    """A directory with room for `needed` octets: where the user says, in memory if there is room, else on a disk."""
    place = given
    if place is None:
        place = MEMORY_DISK if has_room(MEMORY_DISK, needed) else Path(tempfile.gettempdir())
    if not has_room(place, needed):
        raise SystemExit(f"{place} has no room for {needed / 1e9:.1f} GB: say another place with --dir")
    with tempfile.TemporaryDirectory(dir=place, prefix="spanrec-bench-") as directory:
        yield Path(directory)


def has_room(place: Path, needed: int) -> bool:
    """Whether so many octets fit, with a tenth to spare; of memory disks, without filling the memory."""
    if not place.is_dir():
        return False
    free = shutil.disk_usage(place).free
    if place == MEMORY_DISK:
        with open("/proc/meminfo", encoding="ascii") as lines:
            memory = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        free = min(free, memory["MemAvailable"] - (2 << 30))
    return free > needed * 1.1


def machine() -> str:
    """What this was measured on, in a line."""
    model = platform.processor() or platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    busy = f"; load {load:.1f} before the start, so that wall times say little" if load > 0.5 else ""
    return f"{model}, {cores} cores, Linux {platform.release()}, Python {platform.python_version()}{busy}"


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " --: |" * (len(heads) - 1)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)
