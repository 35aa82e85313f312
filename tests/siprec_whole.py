"""Our whole client over loopback, with a capture as its wire, and sockets that stand for a recording server's media.

In: a settings file's text, a capture. Out: what the client told of, what came to the sockets held against what was said
in the capture, what tshark finds wrong in signalling and media. The servers that it is pointed to are the test's.
"""

import asyncio
import socket
import threading
import time
import tomllib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

from capture.paced_source import Pace, PacedSource
from pcaps.make import observe
from recorder.policy import Policy, without_audio
from recorder.sip_ua.agent import Admit
from recorder.siprec import src_service
from recorder.siprec.control import EventKind, SessionEvent
from recorder.siprec.sip_settings import Secrets
from recorder.siprec.sip_stack import SipStack, StackOptions, open_stack
from recorder.siprec.src_decision import SrcDecision
from recorder.siprec.src_service import SrcService, SrcTold
from recorder.siprec.src_settings import load_src
from tests.live import service
from tests.sip_wire import Wire

PCMU = Path(__file__).resolve().parents[1] / "pcaps" / "pcmu.pcap"
FOREVER = 30.0
"""s that sessions may take to end."""


class Row(NamedTuple):
    """An RTP packet, placed by the first of its stream."""

    sequence: int
    stamp: int
    payload: bytes


def said(capture: Path) -> list[list[Row]]:
    """What was said in a capture of one call: the caller's packets, and the callee's."""
    packets = observe.rtp_packets(capture)
    caller = observe.invitations(capture)[0][1]
    found = []
    for mine in (True, False):
        some = [each for each in packets if each.source.startswith(f"{caller}:") is mine]
        found.append([_row(p.sequence, p.timestamp, p.payload, some[0].sequence, some[0].timestamp) for p in some])
    return found


def _row(sequence: int, stamp: int, payload: bytes, first: int, start: int) -> Row:
    return Row((sequence - first) & 0xFFFF, (stamp - start) & 0xFFFFFFFF, payload)


class Sink:
    """Ports that a recording server takes media at, one RTP and one RTCP for each line, read in a thread."""

    def __init__(self, lines: int = 2) -> None:
        self._opened = ExitStack()
        self._pairs = [self._pair() for _ in range(lines)]
        self.ports = [int(rtp.getsockname()[1]) for rtp, _ in self._pairs]
        self._got: list[list[bytes]] = [[] for _ in self._pairs]
        self._frames: list[Packet] = []
        self._over = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Sink":
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join()
        self._opened.close()

    def heard(self, line: int, ssrc: int | None = None) -> list[Row]:
        """RTP of a line, as it came; of one sender, or of whoever sent first."""
        packets = [each for each in self._got[line] if ssrc is None or each[8:12] == ssrc.to_bytes(4, "big")]
        if not packets:
            return []
        numbers = [(int.from_bytes(p[2:4], "big"), int.from_bytes(p[4:8], "big"), p[12:]) for p in packets]
        return [_row(*each, *numbers[0][:2]) for each in numbers]

    def odd(self, directory: Path) -> str:
        """What tshark finds wrong in it."""
        if not self._frames:
            return ""
        capture = directory / f"media-{self.ports[0]}.pcap"
        wrpcap(str(capture), self._frames)
        decode = [part for port in self.ports for part in (f"-dudp.port=={port},rtp", f"-dudp.port=={port + 1},rtcp")]
        odd = "_ws.malformed || !(rtp || rtcp) || _ws.expert.severity == error"
        rows = observe.tshark_fields(capture, odd, "frame.number", "_ws.col.Info", options=("-n", *decode))
        return "\n".join(map(" ".join, rows))

    def _pair(self) -> tuple[socket.socket, socket.socket]:
        for _ in range(100):
            rtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            rtcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                rtp.bind(("127.0.0.1", 0))
                port = int(rtp.getsockname()[1])
                if port % 2 == 0 and port < 65535:
                    rtcp.bind(("127.0.0.1", port + 1))
                    for each in (rtp, rtcp):
                        each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
                        each.setblocking(False)
                        self._opened.enter_context(each)
                    return rtp, rtcp
            except OSError:
                pass
            rtp.close()
            rtcp.close()
        raise OSError("no pair of ports is free")

    def _read(self) -> None:
        while not self._over:
            time.sleep(0.005)
            for line, pair in enumerate(self._pairs):
                for number, each in enumerate(pair):
                    self._empty(line, number, each)

    def _empty(self, line: int, number: int, opened: socket.socket) -> None:
        while True:
            try:
                data, source = opened.recvfrom(4096)
            except BlockingIOError:
                return
            if number == 0:
                self._got[line].append(data)
            there = UDP(sport=source[1], dport=self.ports[line] + number)
            self._frames.append(Ether() / IP(src="127.0.0.1", dst="127.0.0.1") / there / Raw(data))


@dataclass
class Client:
    """`spanrec src` with these settings, on a capture."""

    directory: Path
    settings: str
    capture: Path = PCMU
    speed: float = 1.0
    """s of the capture in a second."""
    events: list[SessionEvent] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    left: int = 0
    """Sessions that did not end."""

    async def run(self) -> None:
        """Play the capture to its end, and wait until all sessions have ended."""
        file = self.directory / "spanrec.toml"
        settings = load_src(tomllib.loads(self.settings), file, secrets=Secrets())
        decision = SrcDecision(record=True, instances=(settings.usual,), reason="every call")
        pace = Pace(self.speed)
        src = SrcService(
            settings,
            lambda _: decision,
            SrcTold(event=self.events.append, failed=self.failures.append),
            lambda: pace.now() or time.time_ns(),
        )
        with patch.object(src_service, "open_stack", self._open):
            await asyncio.to_thread(self._play, src, pace)

    def _play(self, src: SrcService, pace: Pace) -> None:
        calls, media = (PacedSource([self.capture], pace, lead=0.5) for _ in range(2))
        running = service(self.directory / "out", without_audio(Policy()), workers=1, followers=[src.follower])
        src.start(media)
        try:
            running.run([calls], lambda: None, lambda _: None)
            src.wait(FOREVER)
            self.left = int(src.busy())
        finally:
            src.close()

    async def _open(self, options: StackOptions, admit: Callable[[], Admit | None] = lambda: None) -> SipStack:
        stack = await open_stack(options, admit)
        self.wires.append(Wire(stack.transports))
        return stack

    def told(self, kind: EventKind) -> list[SessionEvent]:
        """Events of a kind."""
        return [event for event in self.events if event.kind is kind]

    def sent(self, method: str) -> list[bytes]:
        """Requests of a method that went out, each as often as it did."""
        return [data for wire in self.wires for _, data in wire.sent if data.startswith(method.encode() + b" ")]

    async def odd(self) -> str:
        """What tshark finds wrong in the signalling, ours and theirs."""
        return "".join([await wire.malformed(self.directory) for wire in self.wires if wire.frames])


async def check(client: Client, *sinks: Sink) -> None:
    """The call is where it should be, all of it and nothing else; nothing is malformed, nothing left over."""
    assert not client.failures
    assert client.left == 0
    assert [event.text for event in client.told(EventKind.FAILURE)] == []
    wanted = said(client.capture)
    for sink in sinks:
        for line, rows in enumerate(wanted):
            assert sink.heard(line) == rows, f"line {line}: {len(sink.heard(line))} packets of {len(rows)}"
        assert sink.odd(client.directory) == ""
    assert await client.odd() == ""


def server_table(name: str, uri: str, **more: str) -> str:
    """A `[[server]]`."""
    keys = "".join(f'{key} = "{value}"\n' for key, value in more.items())
    return f'[[server]]\nname = "{name}"\nuri = "{uri}"\n{keys}\n'


def settings_of(names: Sequence[str], tables: str, *lines: str) -> str:
    """A settings file: servers in order, further lines of `[src]`."""
    listed = ", ".join(names)
    return "\n".join(["[src]", f'srs = "{listed}"', 'media_address = "127.0.0.1"', *lines, "", tables])
