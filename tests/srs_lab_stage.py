"""A recording session that sipp plays: what is said in which order, who talks meanwhile, what must come of it.

In: a habit's script, which calls a `Stage`. Out: steps for `sipp_client`, RTP of known speakers, and what is wrong with
the recordings that a server made of them. Identifiers are the habit's own: nothing joins two of them.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from lxml import etree

from decoders.sdp import SessionDescription
from pcaps.make.media import Talker
from recorder.document import CallDocument
from tests.known_audio import judge, said_by_script, unheard
from tests.sipp_client import Client, Packet, Pause, Say, Step
from tests.srs_lab import ALICE, BOB, CALL, CAROL, GROUP, S1, S2, S3, line, metadata, multipart, sdp, stamp

CONTACT = "<sip:src@[local_ip]:[local_port];transport=[transport]>;+sip.src"
PARTIES = ("sip:alice@a.example", "sip:bob@b.example")
DAVID, S4, OTHER = "ZGF2aWRkYXZpZGRhdmlkZA==", "c3RyZWFtNHN0cmVhbTRzdA==", "b3RoZXJvdGhlcm90aGVyb3Q="
IDENTIFIERS = (ALICE, BOB, CAROL, DAVID, CALL, OTHER, GROUP, S1, S2, S3, S4)
ENOUGH_DB = 40.0
"""G.722 is no table: a decoder that comes as near as this to ffmpeg's is right."""
Found = Sequence[tuple[CallDocument, Path]]


@dataclass(frozen=True, slots=True)
class Expected:
    """What a recording must have."""

    parties: tuple[str | None, str | None] = PARTIES
    streams: tuple[str, ...] = ("caller", "callee")
    """Participants of the streams, in the order of the lines."""
    warnings: frozenset[str] = frozenset()
    holds: int = 0
    digits: str = ""
    names: frozenset[str] = frozenset()
    """Addresses that the metadata must have too."""


@dataclass(frozen=True, slots=True)
class Habit:
    """Something that recording clients do."""

    name: str
    about: str
    script: Callable[["Stage"], None]
    expected: tuple[Expected, ...] = (Expected(),)
    """Of each recording, in the order of their callers."""
    answered: Callable[[Sequence[SessionDescription]], str] = lambda answers: ""
    """What is wrong with the answers."""
    transport: str = "u1"


@dataclass
class Stage:
    """The script of one session."""

    name: str
    client: Client
    steps: list[Step] = field(default_factory=list)
    packets: list[Packet] = field(default_factory=list)
    talkers: list[Talker] = field(default_factory=list)
    contact: str = CONTACT
    require: str = "Require: siprec"
    parties: tuple[str, str] = ("<sip:src@127.0.0.1>;tag=a", "<sip:srs@127.0.0.1>")
    _cseq: int = 0
    _talked: int = 0

    # Descriptions and metadata

    def offer(self, *directions: str, formats: str = "0 101", more: str = "", host: str = "127.0.0.1") -> bytes:
        """A description with a line for each direction, labelled from 1; `more` are lines after them."""
        lines = [self.line(place, direction, formats=formats) for place, direction in enumerate(directions)]
        return sdp(*lines, more, host=host)

    def line(self, place: int, direction: str = "sendonly", label: str | None = "", formats: str = "0 101") -> str:
        """The media description at a place, with the ports that its RTP leaves from."""
        rtcp = f"rtcp:{self.client.port_of(f'{place} rtcp')}"
        named = str(place + 1) if label == "" else label
        return line(self.client.port_of(str(place)), named, direction, rtcp, formats=formats)

    def said(self, text: str | None = None, **how: Any) -> str:
        """Metadata that begin now, with identifiers of this session alone."""
        text = metadata(start=0.0, **how) if text is None else text
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        for seconds in range(20):
            text = text.replace(stamp(seconds, ""), now)
        return self.own(text)

    def own(self, text: str) -> str:
        """Text with the identifiers of this session."""
        for known in IDENTIFIERS:
            name = sha256(f"{self.name} {known}".encode()).hexdigest()[:22]
            text = text.replace(known, f"{name}==")
        return text

    # What is said

    def invite(self, body: bytes, kind: str, *, headers: Sequence[str] = (), ack: str = "ACK") -> None:
        """The first INVITE and its ACK, whose CSeq names `ack`."""
        self._request("INVITE", body, kind, headers)
        self._acknowledge(ack)

    def record(self, *directions: str, **how: Any) -> None:
        """The usual INVITE: two lines, Alice on the first and Bob on the second."""
        description = self.offer(*(directions or ("sendonly", "sendonly")))
        self.invite(*multipart(description, self.said(**how)))

    def again(self, description: bytes, said: str | None) -> None:
        """A re-INVITE."""
        body, kind = (description, "application/sdp") if said is None else multipart(description, said)
        self._request("INVITE", body, kind)
        self._acknowledge("ACK")

    def update(self, said: str) -> None:
        """Metadata alone."""
        headers = ["Content-Disposition: recording-session"]
        self._request("UPDATE", said.encode(), "application/rs-metadata+xml", headers)

    def wait(self, seconds: float) -> None:
        self.steps.append(Pause(round(seconds * 1000)))

    def bye(self, body: bytes = b"", kind: str = "", headers: Sequence[str] = (), named: str = "BYE") -> None:
        """The end; its CSeq names `named`."""
        self._request("BYE", body, kind, headers, named)

    def _request(self, method: str, body: bytes, kind: str, headers: Sequence[str] = (), named: str = "") -> None:
        self._cseq += 1
        more = [*([f"Content-Type: {kind}"] if kind else []), *headers]
        self.steps.append(Say(self._head(method, named or method, more), body))

    def _acknowledge(self, named: str) -> None:
        self.steps.append(Say(self._head("ACK", named, ()), expect=None))

    def _head(self, method: str, named: str, more: Sequence[str]) -> str:
        begins = not self.steps
        uri = "sip:srs@[remote_ip]:[remote_port]" if begins else "[next_url]"
        marks = [each for each in (self.require,) if each and method in ("INVITE", "UPDATE")]
        return "\n".join([
            f"{method} {uri} SIP/2.0",
            "Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]",
            "Max-Forwards: 70",
            f"From: {self.parties[0]}",
            f"To: {self.parties[1]}{'' if begins else '[peer_tag_param]'}",
            "Call-ID: [call_id]",
            f"CSeq: {self._cseq} {named}",
            f"Contact: {self.contact}",
            "Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE",
            *marks,
            *more,
        ])  # fmt: skip

    # What is heard

    def talk(self, place: int, talker: Talker, begin: float = 0.1) -> None:
        """All that a talker has said, on a line, `begin` s after the answer."""
        self.talkers.append(talker)
        self.packets += [Packet(begin + each.at / 1000, place, str(place), each.packet) for each in talker.part]

    def talker(self, codec: str = "PCMU", payload_type: int = -1) -> Talker:
        """Somebody who has said nothing yet."""
        self._talked += 1
        own = int(sha256(f"{self.name} {self._talked}".encode()).hexdigest()[:8], 16)
        return Talker(
            seed=own % 10_007, codec=codec, ssrc=own, sequence=own & 0x7FFF, timestamp=own >> 3,
            payload_type=payload_type,
        )  # fmt: skip

    def both_talk(self, seconds: float, codec: str = "PCMU", payload_type: int = -1) -> None:
        for place in (0, 1):
            self.talk(place, self.talker(codec, payload_type).speak(seconds))


def faults(habit: Habit, stage: Stage, found: Found, *, audio: bool = True) -> list[str]:
    """What is wrong with the recordings of a session; `audio`: whether packets and samples are looked at too, which a
    busy machine sends when it can."""
    wrong = [each] if (each := habit.answered(stage.client.answers())) else []
    if stage.client.unsent and audio:
        wrong.append(f"{stage.client.unsent} packets could not be sent")
    if len(found) != len(habit.expected):
        return [*wrong, f"{len(found)} recordings for {len(habit.expected)}"]
    ordered = sorted(found, key=lambda each: each[0].caller.uri or "")
    for (document, directory), expected in zip(ordered, habit.expected, strict=True):
        wrong += _document(document, directory, expected)
    return wrong + (_audio(ordered, stage) if audio else [])


def _document(document: CallDocument, directory: Path, expected: Expected) -> list[str]:
    digits = "".join(each.digit for each in document.dtmf)
    told = etree.parse(str(directory / "metadata.xml"))
    names = {each.get("aor") for each in told.iterfind(".//{*}nameID")}
    pairs = [
        ("state", document.state, "completed"),
        ("parties", (document.caller.uri, document.callee.uri), expected.parties),
        ("streams", tuple(each.participant for each in document.streams), expected.streams),
        ("warnings", {each.code for each in document.warnings}, set(expected.warnings)),
        ("holds", len(document.holds), expected.holds),
        ("digits", digits, expected.digits),
        ("others in the metadata", expected.names - names, set()),
    ]
    return [f"{name}: {ours}, wanted {wanted}" for name, ours, wanted in pairs if ours != wanted]


def _audio(found: Found, stage: Stage) -> list[str]:
    """Every packet is counted, every sample is where a stream's channel has it, nothing sounds beside it."""
    wrong = []
    streams = {each.ssrc: (document, place, each) for document, place in found for each in document.streams}
    judged_of: dict[tuple[Path, int], list[Any]] = {}
    for talker in stage.talkers:
        facts = talker.facts("", "", "")
        packets = 0
        for ssrc in dict.fromkeys(each["ssrc"] for each in facts["audio"]):
            if ssrc not in streams:
                wrong.append(f"{ssrc} is in no recording")
                continue
            _, place, stream = streams[ssrc]
            packets += stream.packets
            if stream.lost or stream.channel is None:
                wrong.append(f"{ssrc}: {stream.lost} lost, channel {stream.channel}")
                continue
            pieces = {**facts, "ssrc": ssrc, "audio": [each for each in facts["audio"] if each["ssrc"] == ssrc]}
            judged = judge(_channel(place, stream.channel), said_by_script(pieces))
            judged_of.setdefault((place, stream.channel), []).extend(judged)
            wrong += [
                f"{ssrc}: {each.samples - each.equal} of {each.samples} samples differ"
                for each in judged
                if each.equal != each.samples and (talker.codec != "G722" or each.snr_db < ENOUGH_DB)
            ]
        if packets != talker.packets:
            wrong.append(f"{packets} packets of {talker.packets}")
    for (place, channel), judged in judged_of.items():
        beside = unheard(_channel(place, channel), judged)
        # G.722 rings on for a moment after its last sample.
        if beside > 64:
            wrong.append(f"channel {channel}: {beside} samples beside what was said")
    return wrong


def _channel(place: Path, channel: int) -> "np.ndarray[Any, np.dtype[np.int16]]":
    samples, _ = soundfile.read(place / "audio.wav", dtype="int16", always_2d=True)
    return np.ascontiguousarray(samples[:, channel])
