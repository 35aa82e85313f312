"""Real programs send HEP to the listener: Kamailio's siptrace and sngrep."""

import contextlib
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from capture.batch import PacketBatch
from capture.hep_source import HepSource
from tests.capture_builder import record

PCAPS = Path(__file__).resolve().parents[2] / "pcaps"
KAMAILIO = """
debug=1
log_stderror=yes
children=1
tcp_children=1
auto_aliases=no
disable_core_dump=yes
listen=udp:127.0.0.1:{proxy}
listen=tcp:127.0.0.1:{proxy}
{more}
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "siptrace.so"
modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:{hep}")
modparam("siptrace", "hep_mode_on", 1)
modparam("siptrace", "hep_version", {version})
modparam("siptrace", "hep_capture_id", 42)
modparam("siptrace", "auth_key", "{key}")
modparam("siptrace", "trace_to_database", 0)
modparam("siptrace", "trace_on", 1)
modparam("siptrace", "trace_mode", 1)
request_route {{
    $du = "sip:127.0.0.1:{callee};transport={transport}";
    t_relay();
}}
"""


class Listener:
    """A source that is polled in a thread while programs send to it."""

    def __init__(self, **options: object) -> None:
        self.source = HepSource("127.0.0.1:0", **options)
        self.port = int(self.source.place.rpartition(":")[2])
        self.frames: list[tuple[int, bytes]] = []
        self._going = True
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while self._going:
            batch = self.source.poll(0.05)
            if batch is not None:
                self.frames += frames_of(batch)

    def wait_for(self, frames: int, patience: float = 20.0) -> None:
        """Until so many frames came."""
        until = time.monotonic() + patience
        while len(self.frames) < frames:
            assert time.monotonic() < until, f"no more than this came: {self.source.counters()}"
            time.sleep(0.02)

    def write(self, path: Path) -> Path:
        """What came, as a pcap of raw IP."""
        with path.open("wb") as out:
            out.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 101))
            for moment, frame in self.frames:
                out.write(struct.pack("<IIII", *divmod(moment, 10**9), len(frame), len(frame)) + frame)
        return path

    def close(self) -> None:
        self._going = False
        self._thread.join()
        self.source.close()


def frames_of(batch: PacketBatch) -> list[tuple[int, bytes]]:
    places = zip(batch.time.tolist(), batch.offset.tolist(), batch.captured.tolist(), strict=True)
    return [(moment, batch.buffer[at : at + size].tobytes()) for moment, at, size in places]


@contextlib.contextmanager
def running(*command: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A program until the block is over; what it prints is not looked at."""
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | options
    process = subprocess.Popen(command, **quiet)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for_port(port: int, patience: float = 15.0) -> None:
    """Until somebody accepts connections there."""
    until = time.monotonic() + patience
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < until, f"nobody listens on {port}"
            time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    """Ports that are free for UDP and TCP at present."""
    held = []
    while len(held) < count:
        udp, tcp = socket.socket(type=socket.SOCK_DGRAM), socket.socket()
        udp.bind(("127.0.0.1", 0))
        try:
            tcp.bind(udp.getsockname())
            held.append((udp, tcp))
        except OSError:
            udp.close()
            tcp.close()
    ports = [udp.getsockname()[1] for udp, _ in held]
    for pair in held:
        for each in pair:
            each.close()
    return ports


def needs(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.fixture
def listener():
    opened: list[Listener] = []

    def build(**options: object) -> Listener:
        opened.append(Listener(**options))
        return opened[-1]

    yield build
    for each in opened:
        each.close()


@dataclass
class Proxied:
    """Ports of a call through Kamailio, on the loopback."""

    proxy: int
    caller: int
    callee: int


@contextlib.contextmanager
def kamailio(folder: Path, hep: int, *, version: int, to_callee: str, more: str = "") -> Iterator[Proxied]:
    """Kamailio, which traces to port `hep`, and a callee behind it."""
    needs("kamailio", "sipp")
    ports = Proxied(*free_ports(3))
    config = folder / "kamailio.cfg"
    values = {"proxy": ports.proxy, "callee": ports.callee, "hep": hep, "version": version, "key": "s3cret"}
    config.write_text(KAMAILIO.format(**values, transport=to_callee, more=more))
    with (
        running("kamailio", "-f", str(config), "-DD", "-E", "-Y", str(folder), "-m", "32", "-M", "8"),
        running(*sipp(to_callee), "-sn", "uas", "-p", str(ports.callee), cwd=folder),
    ):
        wait_for_port(ports.proxy)
        if to_callee == "tcp":
            wait_for_port(ports.callee)
        yield ports


def sipp(transport: str) -> list[str]:
    """sipp for one call."""
    return ["sipp", "-t", "t1" if transport == "tcp" else "u1", "-i", "127.0.0.1", "-nostdin", "-m", "1"]


def call(folder: Path, transport: str, caller: int, proxy: int) -> None:
    """Call through a proxy, and hang up."""
    command = [*sipp(transport), "-sn", "uac", "-p", str(caller), "-d", "300", "-timeout", "15", "-timeout_error"]
    done = subprocess.run([*command, f"127.0.0.1:{proxy}"], capture_output=True, check=False, cwd=folder, timeout=30)
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]


@pytest.mark.parametrize(("version", "transport"), [(3, "udp"), (3, "tcp"), (2, "udp")])
def test_a_call_that_kamailio_traces_is_a_call(listener, tmp_path, version, transport):
    heard = listener(key="s3cret" if version == 3 else None)
    with kamailio(tmp_path, heard.port, version=version, to_callee=transport) as ports:
        call(tmp_path, transport, ports.caller, ports.proxy)
        heard.wait_for(13)
    assert abs(heard.frames[0][0] - time.time_ns()) < 60 * 10**9
    recordings = record([heard.write(tmp_path / "heard.pcap")], tmp_path / "out")
    assert [each.document["state"] for each in recordings] == ["completed"]
    document = recordings[0].document
    assert document["caller"]["address"] == f"127.0.0.1:{ports.caller}"
    assert document["callee"]["address"] == f"127.0.0.1:{ports.callee}"


def test_a_call_that_came_to_kamailio_over_tls_is_a_call(listener, tmp_path):
    needs("openssl")
    if not any(Path("/usr/lib").glob("*/kamailio/modules/tls.so")):
        pytest.skip("not installed: kamailio-tls-modules")
    heard = listener(key="s3cret")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*make, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    (secure,) = free_ports(1)
    more = f"""
enable_tls=yes
listen=tls:127.0.0.1:{secure}
loadmodule "tls.so"
modparam("tls", "private_key", "{key}")
modparam("tls", "certificate", "{certificate}")
modparam("tls", "tls_method", "TLSv1.2+")
"""
    with (
        kamailio(tmp_path, heard.port, version=3, to_callee="udp", more=more) as ports,
        socket.create_server(("127.0.0.1", 0)) as entry,
    ):
        wait_for_port(secure)
        relay = threading.Thread(target=carry_over_tls, args=(entry, secure), daemon=True)
        relay.start()
        entry_port = entry.getsockname()[1]
        call(tmp_path, "tcp", ports.caller, entry_port)
        heard.wait_for(13)
    (recording,) = record([heard.write(tmp_path / "heard.pcap")], tmp_path / "out")
    assert recording.document["state"] == "completed"
    # Beside other tests, another port than the callee's was seen here once; why is not known.
    ends = {f"127.0.0.1:{port}" for port in (ports.caller, entry_port)}
    assert recording.document["callee"]["address"] not in ends


def carry_over_tls(entry: socket.socket, port: int) -> None:
    """Carry what one TCP client of `entry` says over TLS to `port`, and back: sipp itself speaks no TLS here."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client, _ = entry.accept()
    with client, context.wrap_socket(socket.create_connection(("127.0.0.1", port), 5)) as server:
        client.settimeout(0.02)
        server.settimeout(0.02)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            for source, target in ((client, server), (server, client)):
                try:
                    octets = source.recv(65_536)
                except TimeoutError:
                    continue
                except OSError:
                    return
                if not octets:
                    return
                target.sendall(octets)


@pytest.mark.parametrize("name", ["pcmu.pcap", "tcp.pcapng", "ipv6.pcap"])
def test_a_capture_that_sngrep_sends_on_gives_the_same_call(listener, tmp_path, name):
    needs("sngrep")
    heard = listener(clock_distance=1e9)
    replayed = record([PCAPS / name], tmp_path / "replayed")[0].document
    with running("sngrep", "-F", "-N", "-q", "-I", str(PCAPS / name), "-H", f"udp:127.0.0.1:{heard.port}"):
        heard.wait_for(7)
    document = record([heard.write(tmp_path / "heard.pcap")], tmp_path / "out")[0].document
    same = ("call_id", "state", "caller", "callee", "started", "ringing", "answered", "ended_by", "sip_status")
    assert {key: document[key] for key in same} == {key: replayed[key] for key in same}
