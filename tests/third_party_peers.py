"""Recording servers and phones that are not ours, as programs at loopback, and what they recorded.

In: a directory, a port. Out: a program that answers, until its block ends; the tracks that it wrote. Some are no Debian
packages: environment variables say where they are (docs/siprec.md tells how to have them).
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from decoders.codecs.g711 import ULAW
from pcaps.make import observe

Samples = NDArray[np.int16]
PJSUA = os.environ.get("PJSUA_PYTHON", "")
"""A Python with the package pjsua2-python."""
DRACHTIO = os.environ.get("DRACHTIO", "")
"""The program drachtio."""
DRACHTIO_RECORDER = os.environ.get("DRACHTIO_RECORDER", "")
"""The directory of drachtio-siprec-recording-server, with its packages installed."""
READY = 20.0
"""s that a program may take to be there."""
_PHONE = Path(__file__).with_name("pjsua_recorder.py")
_ADMIN = 9022
_ENGINE = 22222

_PROXY = """
debug=0
log_stderror=yes
fork=yes
children=1
tcp_children=1
auto_aliases=no
listen=udp:127.0.0.1:PORT
listen=tcp:127.0.0.1:PORT
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "textops.so"
loadmodule "siputils.so"
request_route {
    if (is_method("CANCEL")) { if (t_check_trans()) t_relay(); exit; }
    remove_hf("Require");
    remove_hf("Accept");
    remove_hf("Allow");
    remove_hf("Date");
    remove_hf("User-Agent");
    if (has_totag()) { if (loose_route() || is_method("ACK")) t_relay(); exit; }
    record_route();
    $du = "sip:127.0.0.1:BEHIND;transport=tcp";
    t_relay();
}
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """One of them."""

    name: str
    absent: Callable[[], str]
    """What is missing to run it; empty: nothing."""
    version: Callable[[], str]
    start: Callable[[Path, int], AbstractContextManager[None]]
    tracks: Callable[[Path], list[Samples]]
    """At 8 kHz."""
    phone: bool = False
    """It knows nothing of SIPREC, and must refuse what requires it (420)."""


@contextmanager
def running(work: Path, name: str, command: Sequence[str], ready: Callable[[], bool], **more: str) -> Iterator[None]:
    """A program, from when it is ready to the end of the block. `more`: of its environment."""
    log = work / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=work, stdout=out, stderr=out, env=os.environ | more)
    try:
        until = time.monotonic() + READY
        while not ready():
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{name} did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def taken(port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> Callable[[], bool]:
    """Whether somebody listens at a port of loopback."""

    def look() -> bool:
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return True
        return False

    return look


@contextmanager
def proxy_without_require(work: Path, port: int, behind: int) -> Iterator[None]:
    """Kamailio that takes Require away, so that a phone answers, and what can be done without: PJSIP reads no message
    of more than 4000 octets."""
    config = work / "kamailio.cfg"
    config.write_text(_PROXY.replace("PORT", str(port)).replace("BEHIND", str(behind)))
    command = ["kamailio", "-f", str(config), "-DD", "-E", "-m", "32", "-M", "8", "-Y", str(work)]
    with running(work, "kamailio", command, taken(port)):
        yield


def _said_by(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    found = re.search(r"\d+\.\d+[\w.+-]*", done.stdout + done.stderr)
    return found[0] if found else "unknown"


# PJSIP


@contextmanager
def _pjsua(work: Path, port: int) -> Iterator[None]:
    with running(work, "pjsua", [PJSUA, str(_PHONE), str(work), str(port)], taken(port)):
        yield


def _wavs(work: Path) -> list[Samples]:
    return [soundfile.read(path, dtype="int16")[0] for path in sorted(work.glob("line*.wav"))]


# drachtio-siprec-recording-server with rtpengine


@contextmanager
def _drachtio(work: Path, port: int) -> Iterator[None]:
    spool = work / "recordings"
    (spool / "pcaps").mkdir(parents=True)
    (spool / "metadata").mkdir()
    (work / "config").mkdir()
    engine = [
        "rtpengine", "--foreground", "--log-stderr", "--table=-1", "--interface=127.0.0.1",
        f"--listen-ng=127.0.0.1:{_ENGINE}", f"--recording-dir={spool}", "--recording-method=pcap",
        "--recording-format=eth", "--port-min=23000", "--port-max=23999",
    ]  # fmt: skip
    config = work / "drachtio.conf.xml"
    config.write_text(
        f'<drachtio><admin port="{_ADMIN}" secret="cymru">127.0.0.1</admin><sip><contacts>'
        f"<contact>sip:127.0.0.1:{port};transport=udp,tcp</contact></contacts></sip>"
        "<logging><console/><loglevel>info</loglevel></logging></drachtio>"
    )
    drachtio = [DRACHTIO, "-f", str(config), "--stdout"]
    settings = {
        "drachtio": {"host": "127.0.0.1", "port": _ADMIN, "secret": "cymru"},
        "rtpengine": {"remote": {"host": "127.0.0.1", "port": _ENGINE}, "localPort": _ENGINE + 1},
    }
    (work / "config" / "default.json").write_text(json.dumps(settings))
    log = work / "recorder.log"
    with ExitStack() as stack:
        stack.enter_context(running(work, "rtpengine", engine, taken(_ENGINE, socket.SOCK_DGRAM)))
        stack.enter_context(running(work, "drachtio", drachtio, taken(port)))
        node = ["node", f"{DRACHTIO_RECORDER}/app.js"]
        connected = lambda: log.exists() and b"inbound connection to drachtio listening" in log.read_bytes()  # noqa: E731
        stack.enter_context(running(work, "recorder", node, connected, NODE_CONFIG_DIR=str(work / "config")))
        yield


def _from_packets(work: Path) -> list[Samples]:
    """Of each sender that rtpengine kept."""
    found: dict[str, list[bytes]] = {}
    for path in sorted((work / "recordings").rglob("*.pcap")):
        for packet in observe.rtp_packets(path):
            found.setdefault(packet.ssrc, []).append(packet.payload)
    return [ULAW[np.frombuffer(b"".join(payloads), np.uint8)] for payloads in found.values()]


def _lacks(*needed: tuple[str, bool]) -> Callable[[], str]:
    return lambda: ", ".join(name for name, there in needed if not there)


PEERS = (
    Peer(
        "PJSIP (pjsua2)",
        _lacks(("PJSUA_PYTHON", bool(PJSUA)), ("kamailio", shutil.which("kamailio") is not None)),
        lambda: _said_by(PJSUA, "-c", "import importlib.metadata as m; print(m.version('pjsua2-python'))"),
        _pjsua,
        _wavs,
        phone=True,
    ),
    Peer(
        "drachtio-siprec-recording-server, rtpengine",
        _lacks(
            ("DRACHTIO", bool(DRACHTIO)),
            ("DRACHTIO_RECORDER", bool(DRACHTIO_RECORDER)),
            ("rtpengine", shutil.which("rtpengine") is not None),
            ("node", shutil.which("node") is not None),
        ),
        lambda: _said_by("cat", f"{DRACHTIO_RECORDER}/package.json"),
        _drachtio,
        _from_packets,
    ),
)
