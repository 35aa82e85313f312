"""What two processes compile for the first run is all that a replay needs, and each half is the work of one alone."""

import os
import subprocess
import sys
from pathlib import Path
from shutil import copytree

ROOT = Path(__file__).parents[2]

COMPILED = """
import sys
from recorder.compiling import compile_media, compile_reading
{half}()
from numba.core.registry import CPUDispatcher
print(*sorted({{
    f"{{value.py_func.__module__}}.{{value.py_func.__name__}}"
    for name, module in list(sys.modules.items()) if name.partition(".")[0] in ("capture", "decoders", "recorder")
    for value in vars(module).values() if isinstance(value, CPUDispatcher) and sum(value.stats.cache_misses.values())
}}))
"""

REPLAY = """
import sys
from pathlib import Path
from recorder.cli_replay import replay_command
try:
    replay_command([sys.argv[1]], Path(sys.argv[2]), workers=1, quiet=True)
finally:
    from numba.core.registry import CPUDispatcher
    kernels = {
        value.py_func.__name__: value.stats
        for name, module in list(sys.modules.items()) if name.partition(".")[0] in ("capture", "decoders", "recorder")
        for value in vars(module).values() if isinstance(value, CPUDispatcher)
    }
    print(*sorted(name for name, stats in kernels.items() if sum(stats.cache_misses.values())))
    print(*sorted(name for name, stats in kernels.items() if sum(stats.cache_hits.values())))
"""


def start(program, cache, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=os.environ | {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def told(child):
    with child:
        lines = child.communicate(timeout=280)[0].splitlines()
    assert child.returncode == 0
    return [line.split() for line in lines]


def test_a_replay_needs_nothing_beyond_the_two_halves_which_have_no_kernel_in_common(tmp_path):
    halves = [start(COMPILED.format(half=half), tmp_path / half) for half in ("compile_reading", "compile_media")]
    (reading,), (media,) = map(told, halves)
    assert "capture._layer_kernels.decode" in reading
    assert "decoders._receiver_kernels.receive" in media
    assert not set(reading) & set(media)
    copytree(tmp_path / "compile_media", tmp_path / "compile_reading", dirs_exist_ok=True)
    replay = start(REPLAY, tmp_path / "compile_reading", ROOT / "pcaps" / "pcmu.pcap", tmp_path / "out")
    missed, loaded = told(replay)
    assert missed == []
    assert {"decode", "walk_pcap", "stage", "receive", "_record_compiled", "mark_payloads", "carry"} <= set(loaded)
