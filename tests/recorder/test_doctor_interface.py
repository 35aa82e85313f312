"""`spanrec doctor -i` on virtual cables whose traffic and settings are known."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from recorder import doctor_interface
from recorder.cli_app import app
from tests.child import ROOT

NAMESPACE = f"spanrec-doctor-{os.getpid()}"
TOOLS = ("ip", "ethtool", "sysctl")
needs_cable = pytest.mark.skipif(
    os.geteuid() != 0 or any(shutil.which(tool) is None for tool in TOOLS),
    reason="needs root, ip, ethtool and sysctl for a virtual cable",
)
SEND = """
import socket, sys, time
copies, two_way, gap = int(sys.argv[1]), sys.argv[2] == "both", 0.01
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind(("far", 0))
link = bytes.fromhex("020000000002020000000001") + b"\\x08\\x00"
ends = bytes((192, 0, 2, 1)), bytes((198, 51, 100, 2))
def frame(back, port, payload, number):
    source, destination = reversed(ends) if back else ends
    udp = port.to_bytes(2, "big") * 2 + (8 + len(payload)).to_bytes(2, "big") + bytes(2)
    head = b"\\x45\\0" + (28 + len(payload)).to_bytes(2, "big") + number.to_bytes(2, "big") + b"\\0\\0\\x40\\x11\\0\\0"
    return link + head + source + destination + udp + payload
sip = "\\r\\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK{0}\\r\\nCall-ID: {0}\\r\\nCSeq: 1 OPTIONS\\r\\n\\r\\n"
ends_at = time.monotonic() + 30
for number in range(1, 65000):
    for back in (False, True) if two_way else (False,):
        for port in range(4000, 4008, 2):
            rtp = b"\\x80\\0" + number.to_bytes(2, "big") + (160 * number).to_bytes(4, "big")
            rtp += bytes((back, 0, 0, port & 255))
            for _ in range(copies):
                out.send(frame(back, port, rtp + bytes(160), number))
        line = "SIP/2.0 200 OK" if back else "OPTIONS sip:x SIP/2.0"
        out.send(frame(back, 5060, (line + sip.format(number)).encode(), number))
    time.sleep(gap)
    if time.monotonic() > ends_at:
        break
"""


@pytest.fixture(scope="module")
def cable():
    """A namespace with a virtual cable from `far` to `near`, whose settings spoil nothing."""
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        inside("ip", "link", "add", "near", "type", "veth", "peer", "name", "far")
        for end in ("near", "far"):
            inside("sysctl", "-qw", f"net.ipv6.conf.{end}.disable_ipv6=1")
            inside("ethtool", "-K", end, "gro", "off", "rxvlan", "off", "rx-vlan-stag-hw-parse", "off")
            inside("ip", "link", "set", end, "up")
        yield
    finally:
        subprocess.run(["ip", "netns", "delete", NAMESPACE], check=True)


def inside(*command: str) -> str:
    line = ["ip", "netns", "exec", NAMESPACE, *command]
    return subprocess.run(line, check=True, capture_output=True, text=True, timeout=60).stdout


@contextmanager
def traffic(copies: int = 1, directions: str = "both"):
    line = ["ip", "netns", "exec", NAMESPACE, sys.executable, "-c", SEND, str(copies), directions]
    sending = subprocess.Popen(line)
    try:
        yield
    finally:
        sending.kill()
        sending.wait()


def doctor(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-c", "from recorder.cli import main; main()", "doctor", "-i", "near", *arguments]
    line = ["ip", "netns", "exec", NAMESPACE, *command]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)
    assert not done.stderr
    return done.returncode, done.stdout


def checks(told: str) -> list[str]:
    return [finding["check"] for finding in json.loads(told)["findings"]]


@needs_cable
def test_a_clean_cable_has_no_findings(cable):
    with traffic():
        status, told = doctor("--seconds", "1", "--json")
    document = json.loads(told)
    assert (status, document["findings"]) == (0, [])
    watched = document["watched"]
    assert watched["conversations"] == 4
    assert watched["packets"] > 100
    assert min(watched["sip_requests"], watched["sip_responses"]) > 20


@needs_cable
def test_doubled_packets_are_found_with_their_share(cable):
    with traffic(copies=2):
        status, told = doctor("--seconds", "1", "--json")
    assert (status, checks(told)) == (3, ["copies"])
    watched = json.loads(told)["watched"]
    assert watched["copies"] / watched["datagrams"] == pytest.approx(8 / 18, abs=0.02)


@needs_cable
def test_a_missing_direction_is_found_in_media_and_in_sip(cable):
    with traffic(directions="one"):
        status, told = doctor("--seconds", "1")
    assert status == 3
    assert (
        "one-way: of 4 RTP conversations, 4 are seen in one direction only: 192.0.2.1:4000 to 198.51.100.2:4000" in told
    )
    assert "SIP requests, but no response" in told
    assert "tcpdump -ni near -c 10 src host 198.51.100.2 and dst host 192.0.2.1" in told


@needs_cable
def test_settings_are_found_and_what_is_told_to_type_mends_them(cable):
    inside("ethtool", "-K", "near", "gro", "on", "rxvlan", "on")
    inside("ip", "addr", "add", "192.0.2.9/24", "dev", "near")
    status, told = doctor("--seconds", "0", "--json")
    assert (status, checks(told)) == (3, ["merging", "vlan", "address"])
    for finding in json.loads(told)["findings"]:
        for command in finding["commands"]:
            inside(*command.split())
    assert doctor("--seconds", "0")[0] == 0


@needs_cable
def test_silence_and_a_port_that_is_switched_off_are_found(cable):
    assert checks(doctor("--seconds", "0.3", "--json")[1]) == ["silence"]
    inside("ip", "link", "set", "near", "down")
    try:
        status, told = doctor("--seconds", "5")
        assert status == 3
        assert "ip link set near up" in told
        assert "not watched: it is switched off" in told
    finally:
        inside("ip", "link", "set", "near", "up")


@needs_cable
def test_an_ordinary_port_is_no_mirror(cable):
    address = json.loads(inside("ip", "-json", "link", "show", "near"))[0]["address"]
    send = f"""
import socket, time
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind(("far", 0))
for _ in range(2000):
    out.send(bytes.fromhex("{address.replace(":", "")}020000000001") + b"\\x08\\x06" + bytes(46))
    time.sleep(0.01)
"""
    sending = subprocess.Popen(["ip", "netns", "exec", NAMESPACE, sys.executable, "-c", send])
    try:
        time.sleep(0.2)
        assert checks(doctor("--seconds", "1", "--json")[1]) == ["no-mirror"]
    finally:
        sending.kill()
        sending.wait()


def test_an_interface_that_is_not_there_is_an_error_that_names_those_that_are(capsys):
    from capture.live import LiveCaptureError

    with pytest.raises(LiveCaptureError, match=r"no interface 'nope'.* lo"):
        doctor_interface.examine_interface("nope", 0, False)


def test_without_permission_settings_are_told_and_why_it_was_not_watched(monkeypatch, capsys):
    from capture import ring
    from capture.live import LiveCaptureError

    def refuse(*_: object) -> None:
        raise LiveCaptureError("lo: capturing needs the capability CAP_NET_RAW")

    monkeypatch.setattr(ring, "RingSource", refuse)
    with pytest.raises(SystemExit):
        app(["doctor", "-i", "lo", "--seconds", "1"])
    told = capsys.readouterr().out
    assert "not watched: lo: capturing needs the capability CAP_NET_RAW" in told
