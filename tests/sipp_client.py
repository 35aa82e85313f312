"""sipp as a recording client: it says what it is given, octet by octet, and a sender of ours has the RTP go with it.

In: requests (a head in sipp's words, a body that goes as it is), pauses, RTP packets with the media description that
they belong to. Out: what sipp was answered, what RTCP came. The RTP goes to the ports that the answers name, at its own
pace from the first answer on.
"""

import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from decoders.sdp import SessionDescription
from decoders.sip import SipMessage, parse_message
from tests.sip_wire import free_port

PATIENCE = 20.0
"""s that an answer may take: machines are busy."""
_HEARD = re.compile(rb"^(?:UDP|TCP|TLS) message received \[(\d+)\] bytes ?:\r?\n\r?\n", re.MULTILINE)

_STARTING = threading.Lock()

available = shutil.which("sipp") is not None


@dataclass(frozen=True, slots=True)
class Say:
    """A request. `head` has no Content-Length; the body goes out as it is."""

    head: str
    body: bytes = b""
    expect: int | None = 200
    """Final response that is waited for; None: none is (ACK)."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is said for some ms."""

    milliseconds: int


@dataclass(frozen=True, slots=True)
class Packet:
    """Something that is sent to a media description."""

    at: float
    """s after the first answer."""
    line: int
    flow: str
    """Packets of one flow leave from one port."""
    data: bytes


Step = Say | Pause


def scenario(directory: Path, steps: Sequence[Step]) -> Path:
    """Write it for sipp."""
    parts = ['<?xml version="1.0" encoding="ISO-8859-1"?>', '<scenario name="client">']
    for number, step in enumerate(steps):
        if isinstance(step, Pause):
            parts.append(f'<pause milliseconds="{max(step.milliseconds, 1)}"/>')
            continue
        body = ""
        if step.body:
            # sipp runs there, and would take a minus in a name for arithmetic.
            name = f"body_{number}"
            (directory / name).write_bytes(step.body)
            body = f'[file name="{name}"]'
        again = "" if step.expect is None else ' retrans="500"'
        head = step.head.strip().replace("\r\n", "\n")
        parts.append(f"<send{again}><![CDATA[\n{head}\nContent-Length: [len]\n\n{body}]]></send>")
        if step.expect is not None:
            if step.head.startswith("INVITE"):
                parts += [f'<recv response="{early}" optional="true"/>' for early in (100, 180, 183)]
            parts.append(f'<recv response="{step.expect}" rrs="true"/>')
    written = directory / "scenario.xml"
    written.write_text("\n".join([*parts, "</scenario>", ""]), encoding="latin-1")
    return written


@dataclass
class Client:
    """One session. Its ports are there before it begins, so that an offer may name them."""

    directory: Path
    transport: str
    """u1 or t1."""
    server: int
    """Port of the server."""
    call_id: str = ""
    """Empty: sipp's own."""
    rtcp: list[bytes] = field(default_factory=list)
    """What came back."""
    sent: int = 0
    unsent: int = 0
    """Packets for which no answer named a port."""
    _sockets: dict[str, socket.socket] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._answers: tuple[int, list[SessionDescription]] = 0, []

    def port_of(self, flow: str) -> int:
        """The port that a flow leaves from."""
        if flow not in self._sockets:
            opened = self._stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            opened.bind(("127.0.0.1", 0))
            opened.setblocking(False)
            self._sockets[flow] = opened
        return int(self._sockets[flow].getsockname()[1])

    def run(self, steps: Sequence[Step], packets: Sequence[Packet]) -> None:
        """Say all of it, and send all of the RTP. Raises RuntimeError where sipp is answered otherwise."""
        for each in packets:
            self.port_of(each.flow)
        written = scenario(self.directory, steps)
        with self._stack:
            process = self._start(written)
            sender = threading.Thread(target=self._send, args=(process, sorted(packets, key=lambda each: each.at)))
            sender.start()
            try:
                status = process.wait(120)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
                sender.join()
            self._take_rtcp()
        if status:
            told = self._errors.read_text(errors="replace")[-3000:] if self._errors.exists() else ""
            raise RuntimeError(f"sipp ended with {status} in {self.directory}: {told}")

    def _start(self, written: Path) -> "subprocess.Popen[bytes]":
        named = ["-cid_str", self.call_id] if self.call_id else []
        # One at a time, until it has its port: nobody else is given that meanwhile.
        with _STARTING, (self.directory / "sipp.log").open("wb") as log:
            port = free_port()
            command = [
                "sipp", f"127.0.0.1:{self.server}", "-sf", str(written), "-i", "127.0.0.1", "-p", str(port),
                "-t", self.transport, "-m", "1", "-nostdin", "-timeout", "100", "-timeout_error", *named,
                "-trace_msg", "-message_file", str(self._messages), "-trace_err", "-error_file", str(self._errors),
            ]  # fmt: skip
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.directory)
            deadline = time.monotonic() + PATIENCE
            while process.poll() is None and time.monotonic() < deadline and not self._messages.exists():
                time.sleep(0.01)
            return process

    def heard(self) -> list[bytes]:
        """What the server said to it, message by message."""
        octets = self._messages.read_bytes() if self._messages.exists() else b""
        return [octets[found.end() : found.end() + int(found[1])] for found in _HEARD.finditer(octets)]

    def responses(self) -> list[SipMessage]:
        """Final responses, retransmissions too."""
        parsed = [parse_message(each) for each in self.heard()]
        return [each for each in parsed if each is not None and (each.status or 0) >= 200]

    def answers(self) -> list[SessionDescription]:
        """Descriptions that it was answered with, in order."""
        size = self._messages.stat().st_size if self._messages.exists() else 0
        if size > self._answers[0]:
            found = (each.sdp() for each in self.responses() if each.status == 200)
            self._answers = size, [each for each in found if each is not None]
        return self._answers[1]

    @property
    def _messages(self) -> Path:
        return self.directory / "messages.log"

    @property
    def _errors(self) -> Path:
        return self.directory / "errors.log"

    def _send(self, process: "subprocess.Popen[bytes]", packets: Sequence[Packet]) -> None:
        if not packets or not self._wait_for_answer(process):
            self.unsent += len(packets)
            return
        begun = time.monotonic()
        targets: Mapping[int, int] = {}
        looked = -1.0
        for packet in packets:
            time.sleep(max(begun + packet.at - time.monotonic(), 0.0))
            if time.monotonic() - looked > 0.2 or packet.line not in targets:
                targets, looked = self._targets(), time.monotonic()
            port = targets.get(packet.line)
            if port is None:
                self.unsent += 1
                continue
            try:
                self._sockets[packet.flow].sendto(packet.data, ("127.0.0.1", port))
                self.sent += 1
            except OSError:  # what came back for an earlier one: the port is closed
                self.unsent += 1

    def _wait_for_answer(self, process: "subprocess.Popen[bytes]") -> bool:
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def _targets(self) -> dict[int, int]:
        """Port of each media description by the last answer."""
        return {media.index: media.port for media in self.answers()[-1].media if media.port}

    def _take_rtcp(self) -> None:
        for opened in self._sockets.values():
            while True:
                try:
                    self.rtcp.append(opened.recv(2048))
                except OSError:
                    break
