"""A user agent at loopback whose every message is copied; tshark, which reads the copies; sipp as its peer."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

from recorder.model import Transport
from recorder.sip_ua.agent import Admit, SipAgent
from recorder.sip_ua.api import Body, Peer
from recorder.sip_ua.config import AgentConfig
from recorder.sip_ua.listen import parse_listen
from recorder.sip_ua.tls import TlsFiles
from recorder.sip_ua.transport import SipTransports, TransportOptions, open_transports
from recorder.sip_ua.wire import Flow, Target
from tests.sip_network import locate

SDP = (
    b"v=0\r\no=x 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\na=recvonly\r\n"
)
BODY = Body("application/sdp", SDP)
LONG = Body("application/sdp", SDP + b"a=x-long:" + b"x" * 1500 + b"\r\n")
"""Too large for UDP."""


class Wire:
    """The agent's transports, with a copy of each message."""

    def __init__(self, transports: SipTransports) -> None:
        self.transports = transports
        self.frames: list[Packet] = []
        self.ports: set[int] = set()
        self.sent: list[tuple[Transport, bytes]] = []
        told = transports.on_message

        def tap(data: bytes, flow: Flow, peer: Peer) -> None:
            self._note(flow.transport, str(peer.address), str(flow.local), data)
            told(data, flow, peer)

        send = transports.send

        def tapped(
            data: bytes, target: Target, flow: Flow | None = None, failed: Callable[[str], None] | None = None
        ) -> None:
            self.sent.append((target.transport, data))
            self._note(target.transport, "127.0.0.1:5060", str(target.endpoint), data)
            send(data, target, flow, failed)

        transports.on_message = tap
        transports.send = tapped

    def sent_by(self, method: str) -> list[Transport]:
        """By which transports requests of a method were sent."""
        return [transport for transport, data in self.sent if data.startswith(method.encode() + b" ")]

    def _note(self, transport: Transport, source: str, target: str, data: bytes) -> None:
        ports = int(source.rpartition(":")[2]), int(target.rpartition(":")[2])
        self.ports.update(ports)
        # What came over TCP is whole messages here: a datagram each does for tshark.
        frame = Ether() / IP(src="127.0.0.1", dst="127.0.0.1") / UDP(sport=ports[0], dport=ports[1]) / Raw(data)
        self.frames.append(frame)

    async def malformed(self, directory: Path) -> str:
        """What tshark finds wrong in it: malformed packets, SIP it does not understand."""
        capture = directory / "wire.pcap"
        wrpcap(str(capture), self.frames)
        decode = [f"-dudp.port=={port},sip" for port in self.ports]
        odd = "_ws.malformed || !sip || _ws.expert.severity == error"
        tshark = await asyncio.create_subprocess_exec(
            "tshark", "-n", "-r", capture, *decode, "-Y", odd, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await tshark.communicate()
        assert tshark.returncode == 0
        return out.decode()


async def listening(
    listen: Sequence[str] = ("udp:127.0.0.1:0", "tcp:127.0.0.1:0"),
    tls: TlsFiles | None = None,
    admit: Admit | None = None,
    config: AgentConfig | None = None,
) -> tuple[SipAgent, Wire, dict[Transport, int]]:
    """An agent, what goes over its wire, and its ports."""
    transports = await open_transports(TransportOptions([parse_listen(each) for each in listen], tls or TlsFiles()))
    agent = SipAgent(transports, locate, config or AgentConfig(), admit=admit)
    wire = Wire(transports)
    return agent, wire, {each.transport: each.endpoint.port for each in transports.listening}


def free_port() -> int:
    """A port that is free for UDP and for TCP."""
    for _ in range(20):
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream,
        ):
            datagrams.bind(("127.0.0.1", 0))
            port = int(datagrams.getsockname()[1])
            try:
                stream.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port is free")


class Sipp:
    """A sipp that runs a scenario."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    async def finished(self) -> None:
        out, _ = await asyncio.wait_for(self.process.communicate(), 60)
        assert self.process.returncode == 0, out.decode(errors="replace")[-3000:]


async def sipp(directory: Path, *arguments: str | Path) -> Sipp:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        "sipp",
        *("-i", "127.0.0.1", "-p", str(port), "-nostdin", "-timeout", "50"),
        *("-timeout_error", "-trace_err", "-error_file", directory / "sipp-errors.log", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=directory,
    )
    while process.returncode is None and not _is_bound(port):
        await asyncio.sleep(0.02)
    return Sipp(process, port)


def _is_bound(port: int) -> bool:
    """Whether a socket has a port, of UDP or TCP: the system's tables have it in hex behind the address."""
    tables = (Path(f"/proc/net/{name}") for name in ("udp", "udp6", "tcp", "tcp6"))
    lines = (line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:])
    return any(local.endswith(f":{port:04X}") for _, local, *_ in lines)
