"""Kernels are kept apart for every state of their sources."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recorder import warmup

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield tmp_path / "spanrec"
    os.environ.pop("NUMBA_CACHE_DIR", None)


def test_a_directory_is_chosen_and_marked_once_a_run_is_complete(home):
    warmup.choose_kernel_cache()
    assert os.environ["NUMBA_CACHE_DIR"].startswith(str(home))
    assert not warmup.kernels_are_cached()
    warmup.note_kernels_cached()
    assert warmup.kernels_are_cached()


def test_what_the_user_has_chosen_stands(home, monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "mine"))
    warmup.choose_kernel_cache()
    assert os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / "mine")


def test_old_caches_are_removed_but_for_a_few(home):
    for age in range(6):
        old = home / f"kernels-old{age}"
        old.mkdir(parents=True)
        os.utime(old, (1000 + age, 1000 + age))
    warmup.choose_kernel_cache()
    assert sorted(path.name for path in home.iterdir() if "old" in path.name) == [
        "kernels-old3",
        "kernels-old4",
        "kernels-old5",
    ]


def test_other_sources_make_another_cache(home, monkeypatch):
    first = warmup._fingerprint()
    monkeypatch.setattr(warmup, "version", lambda _: "0.0")
    assert warmup._fingerprint() != first


@pytest.mark.parametrize("kernel", ["capture/_a.py", "decoders/_b.py", "recorder/_c.py", "recorder/part/_d.py"])
def test_a_kernel_that_changes_anywhere_makes_another_cache(tmp_path, kernel):
    assert (ROOT / "recorder" / "_live_packet_kernels.py").exists(), "the packages with kernels are these"
    path = tmp_path / kernel
    path.parent.mkdir(parents=True)
    path.write_text("STEP = 1\n")
    first = warmup._fingerprint(tmp_path)
    path.write_text("STEP = 2\n")
    assert warmup._fingerprint(tmp_path) != first


def test_a_home_that_cannot_be_written_is_no_error(home, monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    warmup.choose_kernel_cache()
    assert "NUMBA_CACHE_DIR" not in os.environ
    assert not warmup.kernels_are_cached()


def test_a_kernel_is_compiled_where_it_is_not_cached_and_loaded_where_it_is(tmp_path):
    (tmp_path / "_twice_kernels.py").write_text(
        "from numba import njit\n\n\n@njit(cache=True)\ndef twice(numbers):\n    return numbers[1:].sum() * 2\n"
    )
    program = (
        "import sys, numpy as np\n"
        "from recorder.warmup import load_kernels_directly\n"
        "load_kernels_directly()\n"
        "from _twice_kernels import twice\n"
        "print(twice(np.arange(4)), sum(twice.stats.cache_hits.values()), 'numba.misc.gdb_hook' in sys.modules)\n"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    told = [
        subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=120
        ).stdout.split()
        for _ in range(2)
    ]
    assert told == [["12", "0", "True"], ["12", "1", "False"]], "the second run needs no compiler"


OPERATORS = """
import sys
import numpy as np
from numba import njit
from recorder.warmup import type_operators_once

if sys.argv[1] == "once":
    type_operators_once()


@njit
def mixed(a, b, c, d, e):
    total = a + b * 3 - (c << 2) // 7 + (d & 0xFF) + e * 0.5
    if not (a < b or c == d) and -b <= abs(a):
        total += (a % 5) ** 2 + (a > 1) + max(a, 3) + min(b, c)
    return total, a + a, b / c, a * np.uint64(3), d >> 1, ~a, a == b, np.int64(d) ^ a


kinds = (np.int64, np.int32, np.uint64, np.uint8, np.float64)
for some in ((9, 2, 3, 200, 1.5), (-70, 1 << 30, 5, 255, -2.25), (3, -4, 1 << 40, 0, 0.0)):
    print(mixed(*(kind(value) for kind, value in zip(kinds, some))))
print(mixed(np.int64(1), 2, np.int64(3), np.int64(4), 5), mixed.nopython_signatures)
"""


def test_kernels_are_the_same_where_operators_are_typed_once():
    told = [
        subprocess.run(
            [sys.executable, "-c", OPERATORS, how], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
        )
        for how in ("once", "again and again")
    ]
    assert told[0].stdout == told[1].stdout
    assert told[0].stdout.count("\n") == 4
