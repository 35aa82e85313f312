"""A few seconds of fuzzing a running recording server at its sockets; `make fuzz` does it at length.

Beside it, the wrong client by itself: what it sends is the same for the same seed.
"""

import re
import shutil
import subprocess
import sys
from random import Random

import pytest

from tests.fuzz.srs_peer import Peer, value
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
