"""The sandbox: tried with real system calls, in children."""

import errno
import platform

import pytest

from recorder.seccomp_filter import ARCHITECTURES, REFUSED
from tests.child import ROOT, run

pytestmark = pytest.mark.skipif(platform.machine() not in ARCHITECTURES, reason="no sandbox for this machine")
COLUMN = ARCHITECTURES[platform.machine()].column if platform.machine() in ARCHITECTURES else 0
ENTER = "from recorder import capabilities, sandbox\nentered = sandbox.enter()\n"
TRY = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def attempt(number, *arguments):
    result = libc.syscall(*(ctypes.c_long(value) for value in (number, *arguments, *[0] * (6 - len(arguments)))))
    return ctypes.get_errno() if result == -1 else 0
"""


def test_every_refused_call_fails_in_the_process_and_in_threads_that_ran_before():
    numbers = [row[COLUMN] for row in REFUSED.values() if row[COLUMN] is not None]
    told = run(
        TRY
        + f"""
numbers, entering, found = {numbers}, threading.Event(), []
def attempt_all():
    entering.wait()
    found.append([attempt(number) for number in numbers])
thread = threading.Thread(target=attempt_all)
thread.start()
{ENTER}
entering.set()
thread.join()
attempt_all()
tell([found, entered.threads, list(entered.refused)])
"""
    )
    refused = [errno.EPERM] * len(numbers)
    assert told == [[refused, refused], 2, [name for name, row in REFUSED.items() if row[COLUMN] is not None]]


def test_no_program_is_started_and_no_namespace_made():
    told = run(
        ENTER
        + f"""{TRY}
import subprocess
try:
    subprocess.run(["true"])
    started = True
except PermissionError:
    started = False
tell([started, attempt({ARCHITECTURES[platform.machine()].clone}, 0x10000000 | 17)])
"""
    )
    assert told == [False, errno.EPERM]


def test_threads_files_network_and_the_compiler_work_inside(tmp_path):
    told = run(
        ENTER
        + f"""
import numba, pathlib, sqlite3
compiled = numba.njit(lambda value: value + 1)(41)
threads = []
thread = threading.Thread(target=lambda: threads.append(1))
thread.start(); thread.join()
pathlib.Path({str(tmp_path / "written")!r}).write_text("x")
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
addresses = socket.getaddrinfo("localhost", 80)
database = sqlite3.connect({str(tmp_path / "catalogue")!r})
database.execute("pragma journal_mode=wal"); database.execute("create table calls (id)"); database.commit()
tell([compiled, threads, len(addresses) > 0])
"""
    )
    assert told == [42, [1], True]
    assert (tmp_path / "written").read_text() == "x"


def test_calls_are_recorded_inside(tmp_path):
    told = run(
        ENTER
        + f"""
import pathlib, sys
from recorder.cli import main
out = pathlib.Path({str(tmp_path / "out")!r})
sys.argv = ["spanrec", "replay", {str(ROOT / "pcaps" / "pcmu.pcap")!r}, "-o", str(out), "--quiet"]
try:
    main()
except SystemExit as ended:
    status = ended.code
tell([status, [json.loads(path.read_text())["audio"]["samples"] for path in out.rglob("call.json")]])
""",
        seconds=280,
    )
    assert told[0] == 0
    assert told[1][0] > 8000


def test_a_machine_that_the_filter_does_not_know_is_an_error_that_says_so():
    told = run(
        """
from recorder import sandbox
sandbox.ARCHITECTURES = {}
try:
    sandbox.enter()
except sandbox.SandboxError as error:
    tell(str(error))
"""
    )
    assert told.startswith("there is no sandbox for a")
    assert "--no-sandbox" in told
