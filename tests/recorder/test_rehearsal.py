"""The rehearsal before the service starts."""

import json

from recorder import rehearsal
from tests.child import ROOT, run

NEW_KERNELS = """
import sys
from recorder.rehearsal import rehearse
rehearse()
from numba.core.registry import CPUDispatcher
def compiled():
    return {
        (name, kernel, str(signature))
        for name, module in list(sys.modules.items()) if name.partition(".")[0] in ("capture", "decoders", "recorder")
        for kernel, value in vars(module).items() if isinstance(value, CPUDispatcher)
        for signature in value.signatures
    }
before, modules = compiled(), set(sys.modules)
"""


def test_the_made_up_calls_are_recorded_as_calls_in_order(tmp_path):
    rehearsal.record_rehearsal(tmp_path)
    calls = [json.loads(path.read_text()) for path in sorted(tmp_path.rglob("call.json"))]
    assert sorted(call["call_id"] for call in calls) == ["one@rehearsal.invalid", "two@rehearsal.invalid"]
    assert {call["state"] for call in calls} == {"completed"}
    assert (
        sorted(stream["codec"] for call in calls for stream in call["streams"]) == ["G722/8000"] * 2 + ["PCMU/8000"] * 2
    )
    assert [digit["digit"] for call in calls for digit in call["dtmf"]] == ["5"]
    assert all(call["audio"] for call in calls)


def test_the_first_call_afterwards_waits_for_no_kernel_and_no_library(tmp_path):
    told = run(
        NEW_KERNELS
        + f"""
from pathlib import Path
from recorder import rehearsal
from scapy.utils import RawPcapReader
frames = [frame for frame, _ in RawPcapReader({str(ROOT / "pcaps" / "pcmu.pcap")!r})]
rehearsal._frames = lambda: iter(frames)
rehearsal.record_rehearsal(Path({str(tmp_path)!r}))
packages = ("av", "soundfile", "lxml", "soxr", "sqlalchemy", "numba")
new = sorted(name for name in set(sys.modules) - modules if name.partition(".")[0] in packages)
tell([sorted(compiled() - before), new])
""",
        seconds=280,
    )
    assert told == [[], []]
    assert len(list(tmp_path.rglob("audio.wav"))) == 1


def test_what_is_compiled_is_not_rehearsed_again(tmp_path, monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rehearsals = []
    monkeypatch.setattr(rehearsal, "rehearse", lambda: rehearsals.append(1))
    for _ in range(3):
        rehearsal.main()
        monkeypatch.delenv("NUMBA_CACHE_DIR")
    assert len(rehearsals) == 1
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "own"))
    rehearsal.main()
    rehearsal.main()
    assert len(rehearsals) == 3
