"""Recording sessions in a capture: what the client said, and the RTP that it sent to the server.

In: a capture of OpenSIPS with its own SIPREC. Out: its messages and RTP in order, and from them each session with what
belongs to it. Nothing of a capture is written anywhere.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from capture.address import Endpoint
from capture.batch import KIND_UDP
from capture.source import CaptureSource
from decoders.demux import RTP
from decoders.sip import SipMessage
from recorder.engine import prepare
from recorder.messages import MessageReader
from recorder.model import Transport
from tests.sipp_client import Packet, Pause, Say, Step

SERVERS = (5090, 5091)
"""Ports of recording servers in the captures."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A message of a recording session."""

    time: int
    """ns."""
    message: SipMessage
    source: Endpoint
    destination: Endpoint
    octets: bytes
    transport: Transport


@dataclass
class Traffic:
    """What a capture shows of recording sessions."""

    messages: list[Heard] = field(default_factory=list)
    media: list[tuple[int, Endpoint, Endpoint, bytes]] = field(default_factory=list)
    """All RTP: (ns, source, destination, octets)."""


def traffic(path: Path) -> Traffic:
    """Read a capture."""
    found, reader = Traffic(), MessageReader()
    for batch in CaptureSource([path], hash_files=False):
        datagrams, kinds, signalling = prepare(batch)
        for each in reader.find(datagrams, kinds, signalling):
            parsed = reader.parse(each)
            if parsed is not None and {parsed.seen.source.port, parsed.seen.destination.port} & set(SERVERS):
                seen = parsed.seen
                told = (seen.time, parsed.parsed, seen.source, seen.destination, each.data, seen.transport)
                found.messages.append(Heard(*told))
        for row in np.flatnonzero((kinds == RTP) & (datagrams.kind == KIND_UDP)).tolist():
            at, size = int(datagrams.payload[row]), int(datagrams.length[row])
            source, destination = (
                Endpoint(int(high[row]), int(low[row]), int(port[row]))
                for high, low, port in (
                    (datagrams.source_high, datagrams.source_low, datagrams.source_port),
                    (datagrams.destination_high, datagrams.destination_low, datagrams.destination_port),
                )
            )
            found.media.append((int(batch.time[row]), source, destination, batch.buffer[at : at + size].tobytes()))
    return found


@dataclass
class Recorded:
    """A recording session that a server took."""

    call_id: str
    transport: Transport
    answered: int = 0
    """When the first answer came, ns."""
    said: list[Heard] = field(default_factory=list)
    """Its requests."""
    finals: dict[str, int] = field(default_factory=dict)
    """CSeq -> when its final response came, ns."""
    packets: list[Packet] = field(default_factory=list)

    def steps(self) -> Iterator[Step]:
        """What sipp is to say, and when: as it was said, but for what must be another's."""
        now = self.said[0].time
        for number, each in enumerate(self.said):
            if each.time > now:
                yield Pause(round((each.time - now) / 1e6))
            head, _, body = each.octets.partition(b"\r\n\r\n")
            acknowledges = each.message.method == "ACK"
            yield Say(_readdressed(head.decode("latin-1"), first=number == 0), body, None if acknowledges else 200)
            now = each.time if acknowledges else self.finals.get(each.message.get("cseq") or "", each.time)


def _readdressed(head: str, *, first: bool) -> str:
    """A head in sipp's words: other addresses, branch, tag of the server; all else as it was."""
    lines = head.split("\r\n")
    method, _, rest = lines[0].partition(" ")
    uri = rest.rpartition(" ")[0]
    wanted = re.sub(r"@[^;>]*", "@[remote_ip]:[remote_port]", uri) if first else "[next_url]"
    found = [f"{method} {wanted} SIP/2.0"]
    for line in lines[1:]:
        name = line.partition(":")[0].strip().lower()
        match name:
            case "via" | "v":
                found.append("Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]")
            case "to" | "t":
                found.append(re.sub(r";tag=[^;]*", "[peer_tag_param]", line))
            case "call-id" | "i":
                found.append("Call-ID: [call_id]")
            case "contact" | "m":
                found.append(re.sub(r"sip:[^;>]*", "sip:[local_ip]:[local_port]", line))
            case "content-length" | "l":
                continue
            case _:
                found.append(line)
    return "\n".join(found)


def sessions(found: Traffic) -> list[Recorded]:
    """Sessions that were accepted, with their RTP."""
    by_id: dict[str, Recorded] = {}
    ports: dict[Endpoint, tuple[Recorded, int]] = {}
    flows: dict[tuple[Endpoint, Endpoint], tuple[Recorded, int]] = {}
    steps: list[tuple[int, int, object]] = [(each.time, 0, each) for each in found.messages]
    steps += [(each[0], 1, each) for each in found.media]
    for _, _, step in sorted(steps, key=lambda each: each[:2]):
        if isinstance(step, Heard):
            _take(step, by_id, ports)
            continue
        assert isinstance(step, tuple)
        time, source, destination, octets = step
        # The server in the capture takes all calls at the same two ports: a flow is the last session's.
        if destination in ports:
            session, line = flows.setdefault((source, destination), ports[destination])
            session.packets.append(Packet((time - session.answered) / 1e9, line, str(source), octets))
    return [each for each in by_id.values() if each.answered]


def _take(heard: Heard, by_id: dict[str, Recorded], ports: dict[Endpoint, tuple[Recorded, int]]) -> None:
    message = heard.message
    session = by_id.setdefault(message.call_id or "", Recorded(message.call_id or "", heard.transport))
    if message.method is not None:
        cseq = message.get("cseq")
        if message.method == "ACK" or all(each.message.get("cseq") != cseq for each in session.said):
            session.said.append(heard)
    elif (message.status or 0) >= 200:
        session.finals.setdefault(message.get("cseq") or "", heard.time)
        description = message.sdp()
        if message.status == 200 and description is not None:
            session.answered = session.answered or heard.time
            for media in description.media:
                end = Endpoint(heard.source.high, heard.source.low, media.port)
                ports[end] = (session, media.index)
