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
