"""`spanrec src` is killed in the middle of a call, and started again: nothing stays open at the recording server."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scapy.utils import rdpcap, wrpcap

from bench.veth import is_possible, wire
from decoders.sip import parse_message
from tests.live import recordings
from tests.src_lab import ROOT, running
from tests.wire_replay import send_capture

pytestmark = [
    pytest.mark.skipif(not is_possible(), reason="needs root, iproute2 and veth"),
    pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not installed"),
]
CAPTURE = ROOT / "pcaps" / "hold.pcap"
KILL_AT = 3.0
"""s of the call, after its first frame; the rest of it comes when the client is there again."""
PORT = 5098


class Client:
    """`spanrec src` in a namespace."""

    def __init__(self, namespace: str, work: Path) -> None:
        self.out = work / "out"
        self.log = work / f"log-{time.monotonic_ns()}"
        command = [
            "ip", "netns", "exec", namespace, sys.executable, "-c", "from recorder.cli import main; main()", "src",
            "-i", "rx0", "--srs", f"sip:rec@127.0.0.1:{PORT}", "-o", str(self.out), "--listen", "",
            "--socket", str(work / "status"), "--ring-size", "16", "--workers", "1",
        ]  # fmt: skip
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=work, stdout=log, stderr=log, env=os.environ | {"PYTHONPATH": str(ROOT)}
            )

    def wait(self, seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while '"recording"' not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def end(self, how: signal.Signals) -> None:
        self.process.send_signal(how)
        self.process.wait(60)

    def events(self, name: str) -> list[dict]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]


def halves(directory: Path) -> tuple[Path, Path]:
    """The call until it comes to the kill, and the rest."""
    packets = rdpcap(str(CAPTURE))
    at = packets[0].time + KILL_AT
    before, after = directory / "before.pcap", directory / "after.pcap"
    wrpcap(str(before), [each for each in packets if each.time < at])
    wrpcap(str(after), [each for each in packets if each.time >= at])
    return before, after


def sent_to_server(capture: Path) -> list:
    shown = subprocess.run(
        ["tshark", "-r", str(capture), "-Y", f"udp.dstport == {PORT} or tcp.dstport == {PORT}", "-T", "fields", "-e",
         "udp.payload", "-e", "tcp.payload"], capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    found = [parse_message(bytes.fromhex(line.strip())) for line in shown.stdout.splitlines() if line.strip()]
    return [each for each in found if each is not None and each.method]


def session_id(message) -> str:
    return message.body.partition(b' session_id="')[2].partition(b'"')[0].decode()


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
@pytest.mark.skipif("SPANREC_SLOW" not in os.environ, reason="needs a machine of its own: set SPANREC_SLOW")
def test_a_killed_client_ends_its_session_at_the_next_start_and_records_on_in_a_new_one(tmp_path):
    seen = tmp_path / "seen.pcap"
    client, server = tmp_path / "src", tmp_path / "srs"
    client.mkdir()
    before, after = halves(tmp_path)
    listen = f"127.0.0.1:{PORT}"
    with wire("killed") as net:
        subprocess.run(net.inside("ip", "link", "set", "lo", "up"), check=True)
        capturing = subprocess.Popen(
            net.inside("tcpdump", "-i", "lo", "-U", "-Z", "root", "-w", str(seen), f"port {PORT}"),
            stderr=subprocess.DEVNULL,
        )
        try:
            with running(
                net.namespace, server, '"recording"', "srs", "--listen", f"udp:{listen}", "--listen", f"tcp:{listen}",
                "-o", str(server / "store"), "--status", "", "--socket", str(server / "status"), "--workers", "1",
            ):  # fmt: skip
                first = Client(net.namespace, client)
                first.wait()
                send_capture(net.namespace, net.sender, before)
                left = list((first.out / ".sessions").iterdir())
                first.end(signal.SIGKILL)
                second = Client(net.namespace, client)
                second.wait()
                time.sleep(1.0)
                send_capture(net.namespace, net.sender, after)
                time.sleep(2.0)
                second.end(signal.SIGTERM)
                kept = list((second.out / ".sessions").iterdir())
                time.sleep(6.0)
        finally:
            capturing.terminate()
            capturing.wait(10)
    assert len(left) == 1
    assert kept == []
    requests = sent_to_server(seen)
    invites = [each for each in requests if each.method == "INVITE" and b"rs-metadata" in each.body]
    dialogs = list(dict.fromkeys(each.call_id for each in invites))
    assert len(dialogs) == 2
    assert len({session_id(each) for each in invites}) == 1
    byes = [each for each in requests if each.method == "BYE"]
    assert {each.call_id for each in byes} == set(dialogs)
    old = next(each for each in byes if each.call_id == dialogs[0])
    assert old.cseq[0] > max(each.cseq[0] for each in requests if each.call_id == dialogs[0] and each is not old)
    [(document, directory)] = recordings(server / "store")
    assert document.state == "completed"
    assert (directory / "audio.wav").exists()
