"""`spanrec src --user USER`: what only root can read is read before root becomes USER, and is enough from then on."""

import json
import os
import pwd
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from hashlib import md5
from pathlib import Path

import pytest

from bench.veth import entered, is_possible, wire
from decoders.sip import SipMessage, parse_message
from tests.certificates import address, authority
from tests.child import USER, interpreter, path_of_packages
from tests.siprec_fakes import FakeServer
from tests.wire_replay import send_capture

pytestmark = pytest.mark.skipif(not is_possible(), reason="needs root, iproute2 and veth")

ROOT = Path(__file__).resolve().parents[3]
CALL = ROOT / "pcaps" / "pcmu.pcap"
PASSWORD = "only root can read this"
PATIENCE = 280.0
"""s: kernels may have to be compiled."""
SETTINGS = """
[src]
srs = "rec"
tls_certificate = "{certificate}"
tls_key = "{key}"
tls_authorities = "{authorities}"

[[server]]
name = "rec"
uri = "sip:rec@127.0.0.1:{port};transport=tls"
user = "client"
password_file = "{password}"
media = "avp"
"""


def wait_until(condition, what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.05)


class Recorder:
    """A recording server by TLS, which asks for a certificate and, in each request but ACK, for a password."""

    def __init__(self, listening: socket.socket, context: ssl.SSLContext) -> None:
        self.got: list[SipMessage] = []
        """What came with the password."""
        self.certificates: list[dict] = []
        self._listening, self._context = listening, context
        self.port = listening.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._connections: list[ssl.SSLSocket] = []
        self._threads[0].start()

    def methods(self) -> list[str]:
        return [each.method for each in self.got]

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for each in self._connections:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for each in self._connections:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listening.accept()
                secured = self._context.wrap_socket(plain, server_side=True)
            except ssl.SSLError:
                continue
            except OSError:
                return
            self._connections.append(secured)
            self.certificates.append(secured.getpeercert())
            self._threads.append(threading.Thread(target=self._serve, args=(secured,)))
            self._threads[-1].start()

    def _serve(self, secured: ssl.SSLSocket) -> None:
        held = b""
        with suppress(OSError):
            while data := secured.recv(65536):
                held += data
                while (whole := self._whole(held)) is not None:
                    message = parse_message(held[:whole])
                    held = held[whole:]
                    if message is not None and message.method not in (None, "ACK"):
                        secured.sendall(self._answer(message))

    @staticmethod
    def _whole(held: bytes) -> int | None:
        """Octets of the first message, where all of it is there."""
        end = held.find(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", held[:end]) if end >= 0 else None
        whole = end + 4 + int(length[1]) if length is not None else -1
        return whole if 0 <= whole <= len(held) else None

    def _answer(self, message: SipMessage) -> bytes:
        if not self._knows_password(message):
            return self._response(message, "401 Unauthorized", 'WWW-Authenticate: Digest realm="rec", nonce="n1"')
        self.got.append(message)
        contact = f"Contact: <sip:rec@127.0.0.1:{self.port};transport=tls>;+sip.srs"
        if message.method != "INVITE":
            return self._response(message, "200 OK", contact)
        return self._response(message, "200 OK", contact, FakeServer("").answer(message).data)

    @staticmethod
    def _knows_password(message: SipMessage) -> bool:
        """RFC 2617, section 3.2.2, without `qop`."""
        said = dict(re.findall(r'(\w+)="([^"]*)"', message.get("authorization") or ""))

        def digest(*parts: str) -> str:
            return md5(":".join(parts).encode(), usedforsecurity=False).hexdigest()

        secret, request = digest("client", "rec", PASSWORD), digest(message.method or "", said.get("uri", ""))
        return said.get("response") == digest(secret, "n1", request)

    @staticmethod
    def _response(message: SipMessage, status: str, line: str, body: bytes = b"") -> bytes:
        to = message.get("to") or ""
        lines = [
            f"SIP/2.0 {status}",
            *(f"Via: {each}" for each in message.headers["via"]),
            f"From: {message.get('from')}",
            f"To: {to if 'tag=' in to else f'{to};tag=rec'}",
            f"Call-ID: {message.call_id}",
            f"CSeq: {message.get('cseq')}",
            line,
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that USER may enter, and in it one that is root's alone."""
    with tempfile.TemporaryDirectory() as made:
        path = Path(made)
        path.chmod(0o755)
        (path / "secrets").mkdir(mode=0o700)
        account = pwd.getpwnam(USER)
        cache = path / "cache"
        known = os.environ.get("NUMBA_CACHE_DIR", "")
        if known and Path(known).is_dir():
            shutil.copytree(known, cache, dirs_exist_ok=True)
        for name in ("out", "cache"):
            (path / name).mkdir(exist_ok=True)
            for each in ((path / name), *(path / name).rglob("*")):
                os.chown(each, account.pw_uid, account.pw_gid)
        yield path


def events(log: Path) -> list[str]:
    lines = log.read_text().splitlines()
    return [json.loads(line)["event"] for line in lines if line.startswith("{") and line.endswith("}")]


def identities(process: int) -> set[tuple[str, str]]:
    """(users, capabilities in force) of all threads."""
    found = set()
    for task in Path(f"/proc/{process}/task").iterdir():
        values = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
        found.add((values["Uid"], values["CapEff"]))
    return found


def test_files_of_root_serve_a_client_that_runs_as_another_user(place):
    signer = authority(place / "secrets")
    certificate, key = signer.sign("src", address("127.0.0.1"))
    theirs = signer.sign("rec", address("127.0.0.1"))
    password = place / "secrets" / "password"
    password.write_text(PASSWORD)
    for each in (password, key):
        each.chmod(0o600)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*theirs)
    context.load_verify_locations(signer.file)
    context.verify_mode = ssl.CERT_REQUIRED
    with wire("user") as net:
        subprocess.run(net.inside("ip", "link", "set", "lo", "up"), check=True)
        with entered(net.namespace):
            listening = socket.create_server(("127.0.0.1", 0))
        recorder = Recorder(listening, context)
        settings = SETTINGS.format(
            certificate=certificate, key=key, authorities=signer.file, port=recorder.port, password=password
        )
        (place / "spanrec.toml").write_text(settings)
        log = place / "log"
        command = net.inside(
            interpreter(), "-c", "from recorder.cli import main; main()", "src", "-i", net.receiver, "--user", USER,
            "-o", str(place / "out"), "--listen", "", "--socket", str(place / "out" / "status"), "--ring-size", "16",
            "--workers", "1",
        )  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": path_of_packages(), "NUMBA_CACHE_DIR": str(place / "cache")}
        with log.open("wb") as out:
            process = subprocess.Popen(command, cwd=place, stdout=out, stderr=out, env=environment)
        try:
            wait_until(lambda: process.poll() is not None or "recording" in events(log), "it does not start")
            assert process.poll() is None, log.read_text()
            wait_until(lambda: "OPTIONS" in recorder.methods(), "it does not come with its password")
            send_capture(net.namespace, net.sender, CALL)
            wait_until(lambda: "BYE" in recorder.methods(), "the call has no session")
            process.send_signal(signal.SIGHUP)
            wait_until(lambda: "settings-taken" in events(log), "settings are not taken again")
            who = identities(process.pid)
        finally:
            process.terminate()
            status = process.wait(60)
            recorder.close()
    user = pwd.getpwnam(USER).pw_uid
    assert who == {("\t".join([str(user)] * 4), "0" * 16)}
    assert status == 0, log.read_text()
    assert "settings-refused" not in events(log)
    assert b"rs-metadata" in next(each for each in recorder.got if each.method == "INVITE").body
    assert {each["subject"][0][0][1] for each in recorder.certificates} == {"src"}
    assert {each.owner() for each in (place / "out").rglob("*")} == {USER}
