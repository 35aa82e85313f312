"""The second opinion: calls, streams, packets and losses as tshark counts them, against what the engine found.

In: what an observer of the engine saw, and the captures. Out: one sentence for each figure on which tshark differs.
Where the difference is one of definition and not of fact, the sentence says why it is as expected: tshark counts
packets as they come, so it takes a packet seen twice for two, a sighting at a second hop for another stream, and a
recording session for a call. tshark reads the files themselves; what it refuses of them is told too.
"""

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from capture.address import Endpoint, parse_endpoint
from capture.spool import is_packed_file, unpack
from capture.tshark import Tshark
from recorder.inputs import Inputs
from recorder.messages import Message
from recorder.model import Call
from recorder.sightings import FlowSighting
from recorder.unclaimed import MIN_PACKETS

MAX_DIFFERENCES = 1000
_HEURISTICS = ("--enable-heuristic", "rtp_udp", "--enable-heuristic", "rtp_stun")
_BETWEEN = "\x1f"
"""Between several values of a field: no Call-ID has it."""
_STREAM = re.compile(
    r"\s*[\d.]+\s+[\d.]+\s+(?P<source>\S+)\s+(?P<source_port>\d+)\s+(?P<destination>\S+)\s+(?P<destination_port>\d+)"
    r"\s+0x(?P<ssrc>[0-9A-Fa-f]+)\s+.*?\s+(?P<packets>\d+)\s+(?P<lost>-?\d+) \("
)
"""A line of `-z rtp,streams`."""

Key = tuple[int, Endpoint, Endpoint]
"""SSRC, source, destination."""


@dataclass(frozen=True, slots=True)
class Counted:
    """A stream as tshark counts it."""

    packets: int
    lost: int


@dataclass(frozen=True, slots=True)
class _Found:
    """A flow as the engine saw it."""

    flow: FlowSighting
    recording_session: bool


@dataclass(slots=True)
class Findings:
    """An observer of the engine that keeps what tshark's figures are compared with."""

    invited: dict[str, None] = field(default_factory=dict)
    """Call-IDs with an INVITE, in order."""
    recording_sessions: set[str] = field(default_factory=set)
    flows: dict[Key, list[_Found]] = field(default_factory=dict)

    def heard(self, message: Message) -> None:
        """Note the Call-IDs of INVITEs."""
        if message.parsed.method == "INVITE" and message.parsed.call_id is not None:
            self.invited.setdefault(message.parsed.call_id)

    def finished(self, call: Call, flows: Sequence[FlowSighting]) -> None:
        """Note the flows of a call that is over."""
        if call.recording_session is not None and call.call_id is not None:
            self.recording_sessions.add(call.call_id)
        for flow in flows:
            found = _Found(flow, call.recording_session is not None)
            self.flows.setdefault((flow.ssrc, flow.source, flow.destination), []).append(found)


def verify(findings: Findings, inputs: Inputs, scratch: Path) -> list[str]:
    """Differences, in a fixed order. Raises CaptureError where tshark is not installed."""
    tshark = Tshark(scratch, inputs.options.keylog)
    path, differences = _one_file(inputs, scratch)
    if path is None:
        return differences
    calls, trouble = _calls(tshark, path)
    if trouble:
        differences.append(f"tshark read {path.name} only in part: {trouble}")
    differences += _compare_calls(findings, calls)
    differences += _compare_streams(findings, _streams(tshark, path))
    if len(differences) > MAX_DIFFERENCES:
        left = len(differences) - MAX_DIFFERENCES
        differences[MAX_DIFFERENCES:] = [f"and {left} more differences"]
    return differences


def _one_file(inputs: Inputs, scratch: Path) -> tuple[Path | None, list[str]]:
    """The captures as one file that tshark can read; where there are several, Wireshark's mergecap joins them."""
    paths = [path for path in inputs.paths() if path.is_file()]
    plain = [unpack(p, scratch / f"verify-{i}-{p.stem}") if is_packed_file(p) else p for i, p in enumerate(paths)]
    if not plain:
        return None, ["tshark was given nothing to read"]
    if len(plain) == 1:
        return plain[0], []
    program = shutil.which("mergecap")
    if program is None:
        return None, ["tshark was not asked: several captures need mergecap, which comes with Wireshark's common files"]
    merged = scratch / "merged.pcapng"
    command = [program, "-w", str(merged), *(str(path.absolute()) for path in plain)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = " ".join(done.stderr.split())
    for path in plain:
        said = said.replace(str(path.absolute()), path.name)
    notes = [f"mergecap, which joins the captures for tshark, complains: {said[:300]}"] if done.returncode else []
    return (merged if merged.exists() else None), notes


def _calls(tshark: Tshark, path: Path) -> tuple[dict[str, None], str]:
    """Call-IDs with an INVITE as tshark sees them."""
    calls: dict[str, None] = {}
    options = ["-Y", 'sip.Method == "INVITE"', *_HEURISTICS]
    rows = tshark.fields(path, ["sip.Call-ID"], options, between=_BETWEEN)
    for row in rows:
        calls.update(dict.fromkeys(each for each in "\t".join(row).split(_BETWEEN) if each))
    return calls, rows.trouble


def _streams(tshark: Tshark, path: Path) -> dict[Key, Counted]:
    """RTP streams as tshark sees them."""
    streams: dict[Key, Counted] = {}
    for row in tshark.run(path, ["-q", *_HEURISTICS, "-z", "rtp,streams"]):
        line = _STREAM.match("\t".join(row))
        if line is None:
            continue
        source = parse_endpoint(line["source"], int(line["source_port"]))
        destination = parse_endpoint(line["destination"], int(line["destination_port"]))
        if source is not None and destination is not None:
            key = int(line["ssrc"], 16), source, destination
            known = streams.get(key, Counted(0, 0))
            streams[key] = Counted(known.packets + int(line["packets"]), known.lost + int(line["lost"]))
    return streams


def _compare_calls(findings: Findings, calls: Iterable[str]) -> Iterator[str]:
    theirs = dict.fromkeys(calls)
    for call_id in theirs:
        if call_id not in findings.invited:
            yield f"call {_short(call_id)}: tshark sees its INVITE, spanrec does not"
        elif call_id in findings.recording_sessions:
            yield f"call {_short(call_id)}: tshark takes it for a call; as expected, for it is a recording session"
    for call_id in findings.invited:
        if call_id not in theirs:
            yield f"call {_short(call_id)}: spanrec sees its INVITE, tshark does not"


def _compare_streams(findings: Findings, streams: dict[Key, Counted]) -> Iterator[str]:
    for key in sorted({*findings.flows, *streams}, key=lambda k: (k[0], str(k[1]), str(k[2]))):
        name = f"stream 0x{key[0]:08x} {key[1]} -> {key[2]}"
        found, counted = findings.flows.get(key), streams.get(key)
        if counted is None:
            assert found is not None
            yield f"{name}: spanrec counts {_packets(found)} packets, tshark does not take it for RTP"
        elif found is None:
            few = "; as expected, for so few without signalling are no call" if counted.packets < MIN_PACKETS else ""
            yield f"{name}: tshark counts {counted.packets} packets, spanrec binds it to no call{few}"
        else:
            yield from _compare_counts(name, found, counted)
            yield from _compare_role(name, found)


def _compare_role(name: str, found: Sequence[_Found]) -> Iterator[str]:
    """Streams that tshark lists and no recording does."""
    if all(each.recording_session for each in found):
        yield f"{name}: tshark lists it; as expected, for it is what a recording session carries, no call"
    elif all(each.flow.copy or each.recording_session for each in found):
        yield f"{name}: tshark lists it; as expected, for spanrec counts it as a copy of media heard nearer its speaker"


def _compare_counts(name: str, found: Sequence[_Found], counted: Counted) -> Iterator[str]:
    packets, repeated, lost = _packets(found), _repeated(found), _lost(found)
    if (packets, lost) == (counted.packets, counted.lost):
        return
    figures = f"{name}: tshark counts {counted.packets} packets and {counted.lost} lost, spanrec {packets} and {lost}"
    if counted.packets == packets + repeated and repeated:
        yield f"{figures}; as expected, for {repeated} packets repeat others or fit nowhere in the stream"
    elif counted.packets == packets and len(_places(found)) > 1:
        yield f"{figures}; as expected, for {len(_places(found))} streams in turn had this SSRC there"
    else:
        yield figures


def _places(found: Sequence[_Found]) -> list[FlowSighting]:
    """One sighting for each virtual network: calls that share a flow count the same packets."""
    best: dict[tuple[int, int], FlowSighting] = {}
    for each in found:
        flow = each.flow
        best.setdefault((flow.realm, flow.first), flow)
    return list(best.values())


def _packets(found: Sequence[_Found]) -> int:
    return sum(flow.packets for flow in _places(found))


def _repeated(found: Sequence[_Found]) -> int:
    """Packets that tshark counts and the engine does not: duplicates, strays, and those of a second virtual network."""
    return sum(flow.duplicates + flow.strays for flow in _places(found))


def _lost(found: Sequence[_Found]) -> int:
    return sum(max(flow.expected - flow.packets, 0) for flow in _places(found))


def _short(call_id: str) -> str:
    return call_id if len(call_id) <= 120 else f"{call_id[:117]}..."
