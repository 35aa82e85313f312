"""A few seconds of fuzzing a running recording server at its sockets; `make fuzz` does it at length.

Beside it, the wrong client by itself: what it sends is the same for the same seed; and what is called a leak.
"""

import math
import re
import shutil
import subprocess
import sys
from random import Random

import pytest

from tests.fuzz.srs_peer import Peer, value
from tests.fuzz.srs_socket import LEAK_MB, Held, growth
from tests.sipp_client import available
from tests.srs_running import ROOT


@pytest.mark.skipif(not available, reason="sipp is not installed")
@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed")
def test_a_running_server_outlives_what_is_sent_to_it_and_so_do_its_calls():
    if subprocess.run(["unshare", "--net", "--map-root-user", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no network namespaces here")
    command = [sys.executable, "-m", "tests.fuzz.srs_socket", "--seconds", "3", "--short"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"^\| inputs \| (\d+) \|$", done.stdout, re.MULTILINE)[1]) > 0
    assert "| found | nothing |" in done.stdout


def accepted(invite: bytes) -> bytes:
    names = ("Via", "From", "Call-ID", "CSeq")
    echoed = b"".join(b"%s: %s\r\n" % (name.encode(), value(invite, name)) for name in names)
    return b"SIP/2.0 200 OK\r\n" + echoed + b"To: <sip:x@y>;tag=1\r\nContact: <sip:srs@127.0.0.1:9>\r\n\r\n"


def test_the_same_seed_sends_the_same_and_within_dialogs_too():
    def told(seed):
        peer = Peer(Random(seed), "UDP")
        found = []
        for _ in range(300):
            kind, message = peer.next()
            found.append((kind, message))
            if message.startswith(b"INVITE") and kind == "metadata":
                found += [("answer", each) for each in peer.take(accepted(message))]
        return found

    assert told("a") == told("a") != told("b")
    kinds = {kind for kind, _ in told("a")}
    assert {"SIP", "SDP", "multipart", "metadata", "SIP of others", "metadata within dialogs"} <= kinds
    assert any(message.startswith(b"ACK sip:srs@127.0.0.1:9 ") for kind, message in told("a") if kind == "answer")


def course(memory, *, looks=80, every=5.0, inputs=200):
    """What a process would hold, `memory` MB by s of the attack, at so many inputs a second."""
    times = [number * every for number in range(1, looks + 1)]
    return [(at, Held(round(at * inputs), memory(at), 400, 6, 100)) for at in times]


def noisy(at):
    return 3 * ((at * 7) % 5 - 2) / 2


def test_memory_that_levels_off_is_no_leak():
    assert growth(course(lambda at: 95 + 60 * (1 - math.exp(-at / 40)) + noisy(at))) < LEAK_MB / 2


@pytest.mark.parametrize("octets", [500, 2000])
def test_what_is_kept_of_each_input_is_a_leak_however_much_memory_was_needed_before(octets):
    kept = 200 * octets / 1e6
    found = growth(course(lambda at: 95 + 60 * (1 - math.exp(-at / 40)) + kept * at + noisy(at)))
    assert found > LEAK_MB
    assert found == pytest.approx(octets / 1000, rel=0.2)


def test_a_run_that_is_too_short_tells_nothing():
    assert growth(course(lambda at: at, looks=26)) is None
