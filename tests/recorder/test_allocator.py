import subprocess
import sys
from pathlib import Path

_HELD = """
import threading, sys
from pathlib import Path
import numpy as np
from recorder.allocator import keep_little

def own():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20

if "keep_little" in sys.argv:
    keep_little()
np.ones(24 << 20, np.uint8)  # what glibc takes for large from now on

def work():
    kept.append([np.ones(60_000, np.uint8)])
    for _ in range(24):
        some.append(np.ones(1 << 20, np.uint8))
    kept.append([np.ones(60_000, np.uint8)])

kept, some, before = [], [], own()
for _ in range(8):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
some.clear()
print(own() - before)
"""
ROOT = Path(__file__).resolve().parents[2]


def held(*arguments: str) -> int:
    """MB that a program has more than before, after threads that freed 192 MB."""
    done = subprocess.run(
        [sys.executable, "-c", _HELD, *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return int(done.stdout)


def test_large_arrays_of_threads_go_back_to_the_system_when_they_are_freed() -> None:
    assert held("keep_little") < 24
