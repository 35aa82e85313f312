"""Our recording sessions beside OpenSIPS': `python -m tests.siprec_beside_opensips [CAPTURE...]`.

In: captures of calls through an OpenSIPS that recorded them. Each is played, at its own pace, to our SRC, which sends
to a server that only listens. Out: a table of how what our SRC sent (metadata, SDP, header fields, order of requests)
differs from what OpenSIPS sent for the same call, and why. Ends with 1 where a difference has no explanation.
"""

import argparse
import os
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from lxml import etree

from bench.measure import table
from capture.paced_source import Pace, PacedSource
from capture.source import CaptureSource
from decoders.sip import SipMessage
from recorder.engine import prepare
from recorder.messages import MessageReader
from recorder.metadata import NAMESPACE
from recorder.policy import Policy, without_audio
from recorder.sip_ua.api import Body, Ended, Incoming, Reply
from recorder.sip_ua.listen import parse_listen
from recorder.siprec.loop import SessionLoop
from recorder.siprec.sip_settings import Ports
from recorder.siprec.sip_stack import SipStack, StackOptions, open_stack
from recorder.siprec.src_decision import Insecure, Instance, Server, SrcDecision
from recorder.siprec.src_service import SrcService, SrcTold
from recorder.siprec.src_settings import SrcSettings
from tests.live import service

SERVERS = (5090, 5091)
"""Ports of recording servers in the captures."""
HEADS = ("where", "element", "ours", "OpenSIPS", "why")
ABSENT = ""
_NS = f"{{{NAMESPACE}}}"
_CALL_ID = ".//{*}call-id"
Facts = dict[str, str]


@dataclass
class Exchange:
    """A recording session: what the client sent, in order."""

    requests: list[SipMessage] = field(default_factory=list)
    refused: int = 0
    """INVITEs before it that other servers refused."""

    def documents(self) -> "Iterator[etree._Element]":
        """Metadata, in order."""
        for request in self.requests:
            for part in request.parts():
                if part.content_type.startswith("application/rs-metadata"):
                    yield etree.fromstring(part.data)


# What was sent


def theirs(capture: Path) -> dict[str, Exchange]:
    """What OpenSIPS sent, by Call-ID of the call."""
    reader, sessions, found = MessageReader(), dict[str, Exchange](), dict[str, Exchange]()
    refused = 0
    for batch in CaptureSource([capture], hash_files=False):
        for each in reader.find(*prepare(batch)):
            parsed = reader.parse(each)
            if parsed is None or not {parsed.seen.source.port, parsed.seen.destination.port} & set(SERVERS):
                continue
            message = parsed.parsed
            exchange = sessions.setdefault(message.call_id or "", Exchange())
            if message.method in ("INVITE", "UPDATE", "BYE") and parsed.seen.destination.port in SERVERS:
                exchange.requests.append(message)
            elif (message.status or 0) >= 300 and message.cseq is not None and message.cseq[1] == "INVITE":
                refused += 1
                sessions.pop(message.call_id or "", None)
    for exchange in sessions.values():
        exchange.refused = refused
        document = next(exchange.documents(), None)
        if document is not None:
            found[document.findtext(f"{_NS}session/{_NS}sipSessionID") or ""] = exchange
    return found


class Listener:
    """A recording server that takes everything, refuses the first `refuse` INVITEs, and remembers."""

    def __init__(self, refuse: int) -> None:
        self.exchanges: list[Exchange] = []
        self._refuse = refuse
        self._media = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for each in self._media:
            each.bind(("127.0.0.1", 0))
        self._loop = SessionLoop(lambda error: None)
        self._stack: SipStack | None = None

    def open(self) -> list[str]:
        """Gives the URIs of two servers."""
        self._loop.start()
        listen = tuple(parse_listen(f"{way}:127.0.0.1:0") for way in ("udp", "tcp", "udp", "tcp"))
        stack = self._stack = self._loop.run(open_stack(StackOptions(listen))).result(10)
        stack.agent.on_invite = self._invited
        ends = [str(each) for each in stack.listening if str(each).startswith("tcp:")]
        return [f"sip:recorder@{end.removeprefix('tcp:')};transport=tcp" for end in ends]

    def close(self) -> None:
        if self._stack is not None:
            self._loop.run(self._stack.agent.close(0.5)).result(10)
        self._loop.close()
        for each in self._media:
            each.close()

    def _invited(self, incoming: Incoming) -> None:
        if self._refuse > 0:
            self._refuse -= 1
            incoming.refuse(503)
            return
        exchange = Exchange([incoming.message])
        self.exchanges.append(exchange)

        async def asked(message: SipMessage) -> Reply:
            exchange.requests.append(message)
            return Reply(200, body=self._answer(message))

        def ended(why: Ended) -> None:
            if why.message is not None:
                exchange.requests.append(why.message)

        body = self._answer(incoming.message)
        assert body is not None
        session = incoming.accept(body, (("Supported", "siprec"),), ("+sip.srs",))
        session.on_request, session.on_end = asked, ended

    def _answer(self, message: SipMessage) -> Body | None:
        text = sdp_text(message)
        if not text:
            return None
        ports = iter(each.getsockname()[1] for each in self._media * 4)
        text = re.sub(r"(?m)^m=audio \d+", lambda _: f"m=audio {next(ports)}", text.replace("sendonly", "recvonly"))
        return Body("application/sdp", re.sub(r"(?m)^a=(ssrc|rtcp):.*\r?\n", "", text).encode())


@contextmanager
def listening(refuse: int) -> Iterator[tuple[Listener, list[str]]]:
    """A `Listener`, until the block ends."""
    listener = Listener(refuse)
    try:
        yield listener, listener.open()
    finally:
        listener.close()


def ours(capture: Path, work: Path, refuse: int, ports: Ports) -> dict[str, Exchange]:
    """What our SRC sends for the calls of a capture, by Call-ID of the call."""
    failures: list[BaseException] = []
    with listening(refuse) as (listener, uris):
        usual = Instance(tuple(map(Server, uris)), insecure=Insecure.WARN)
        pace = Pace()
        decision = SrcDecision(True, (usual,), reason="every call")
        settings = SrcSettings(usual=usual, ports=ports)
        src = SrcService(
            settings, lambda _: decision, SrcTold(failed=failures.append), lambda: pace.now() or time.time_ns()
        )
        running = service(work, without_audio(Policy()), workers=1, followers=[src.follower])
        src.start(PacedSource([capture], pace, lead=0.5))
        try:
            running.run([PacedSource([capture], pace, lead=0.5)], lambda: None, lambda _: None)
            src.wait(10.0)
        finally:
            src.close()
    if failures:
        raise failures[0]
    found = {}
    for exchange in listener.exchanges:
        exchange.refused = refuse
        first = next(exchange.documents(), None)
        found[(first.findtext(_CALL_ID) if first is not None else None) or ""] = exchange
    return found


# As facts


def sdp_text(message: SipMessage) -> str:
    """The session description of a message, as sent."""
    for part in message.parts():
        if part.content_type.startswith("application/sdp"):
            return part.data.decode()
    return ""


def metadata_facts(document: "etree._Element") -> Facts:
    """What a document says, under names that do not depend on its identifiers."""
    names: dict[str, str] = {}
    for participant in document.iterfind(f"{_NS}participant"):
        name = participant.find(f"{_NS}nameID")
        names[participant.get("participant_id") or ""] = (name.get("aor") if name is not None else None) or "?"
    for tie in document.iterfind(f"{_NS}participantstreamassoc"):
        for sent in tie.iterfind(f"{_NS}send"):
            names[sent.text or ""] = f"stream of {names.get(tie.get('participant_id') or '', '?')}"
    facts: Facts = {"datamode": document.findtext(f"{_NS}datamode") or ""}
    for element in document.iterchildren(f"{_NS}*"):
        tag = etree.QName(element).localname
        key = element.get("participant_id") or element.get("stream_id") or ""
        head = f"{tag} {names.get(key, '')}".strip()
        if tag != "datamode":
            facts[head] = "there"
        for child in element:
            _child_facts(facts, head, child, names)
    return facts


def _child_facts(facts: Facts, head: str, child: "etree._Element", names: dict[str, str]) -> None:
    qualified = etree.QName(child)
    if qualified.namespace != NAMESPACE:
        facts[f"{head}/elements of our namespace"] = "there"
        return
    text = (child.text or "").strip()
    name = f"{head}/{qualified.localname}"
    if qualified.localname in ("send", "recv"):
        text = names.get(text, text)
    if qualified.localname == "group-ref":
        text = "there"
    if qualified.localname == "nameID":
        facts[f"{name}@aor"] = child.get("aor") or ""
        text = child.findtext(f"{_NS}name") or ""
        name += "/name"
    if qualified.localname == "param":
        name, text = f"{head}/param", "there"
    facts[name] = text


def identifiers_fact(document: "etree._Element") -> str:
    """How identifiers are written."""
    session = document.find(f"{_NS}session")
    return "base64, 16 octets" if re.fullmatch(r"[A-Za-z0-9+/]{22}==", session.get("session_id") or "") else "other"


def header_facts(message: SipMessage) -> Facts:
    """Header fields of an INVITE, and how its description is written."""
    facts = {f"header {name.title()}": ", ".join(values) for name, values in message.headers.items()}
    for name in ("Via", "Call-Id", "Content-Length", "Cseq", "Date", "Max-Forwards"):
        facts.pop(f"header {name}", None)
    for name in ("From", "To"):
        facts[f"header {name}"] = re.sub(r";tag=.*", "", facts[f"header {name}"])
    contact = facts["header Contact"]
    facts["header Contact"] = "with +sip.src" if "+sip.src" in contact else contact
    kind = facts["header Content-Type"].split(";")
    facts["header Content-Type"] = kind[0]
    return facts | sdp_facts(sdp_text(message))


def sdp_facts(text: str) -> Facts:
    """How a description is written, media description by media description."""
    facts: Facts = {}
    place = "SDP"
    for line in text.splitlines():
        kind, _, value = line.partition("=")
        if kind == "m":
            place = f"SDP m{sum(each.endswith('/m') for each in facts) + 1}"
            port, rest = value.split()[1], " ".join(value.split()[2:])
            facts[f"{place}/m"] = rest
            facts[f"{place}/port"] = "even" if int(port) % 2 == 0 else "odd or even"
        elif kind == "a":
            name, _, value = value.partition(":")
            key = f"{place}/a={name}" + (f" {value.split()[0]}" if name in ("rtpmap", "fmtp") else "")
            facts[key] = "there" if name in ("rtcp", "ssrc", "cname") else value or "there"
        elif kind == "o":
            user, _, rest = value.partition(" ")
            facts["SDP/o user"] = user
            facts["SDP/o version"] = rest.split()[1] if rest.split()[1] in ("0", "1") else "a number"
        elif kind in ("s", "t"):
            facts[f"{place}/{kind}"] = value
    return facts


def flow_facts(exchange: Exchange) -> Facts:
    """The requests of a session."""
    said = []
    for request in exchange.requests:
        modes = [part.data for part in request.parts() if part.content_type.startswith("application/rs-metadata")]
        mode = "" if not modes else " complete" if b">complete<" in modes[0] else " partial"
        directions = re.findall(r"(?m)^a=(sendonly|inactive|sendrecv|recvonly)", sdp_text(request))
        said.append(f"{request.method}{mode}{' ' if directions else ''}{','.join(directions)}")
    return {"requests": "; ".join(said)}


# Why they differ


@dataclass(frozen=True, slots=True)
class Why:
    """An explanation of differences of elements whose name fits, where the values are such."""

    element: str
    text: str
    holds: Callable[[str, str], bool] = lambda ours, theirs: True


def _only_ours(ours: str, theirs: str) -> bool:
    return bool(ours) and not theirs


def _same_second(ours: str, theirs: str) -> bool:
    return _apart(ours, theirs) is not None and 0 <= (_apart(ours, theirs) or 0.0) < 1.0


def _later(ours: str, theirs: str) -> bool:
    return _apart(ours, theirs) is not None and 0 <= (_apart(ours, theirs) or 0.0) < 5.0


def _apart(ours: str, theirs: str) -> float | None:
    """s by which ours is later; None where OpenSIPS' is no time of its form."""
    if not re.fullmatch(r"[-0-9T:]{19}\+0000", theirs):
        return None
    return (datetime.fromisoformat(ours) - datetime.fromisoformat(theirs)).total_seconds()


WHY = (
    Why(r"group", "RFC 7865, 6.2: a session belongs to a group; OpenSIPS writes one only if told", _only_ours),
    Why(r"group/.*|session/group-ref", "of that group", _only_ours),
    Why(
        r"session/sipSessionID",
        "RFC 7865, 6.3: a Session-ID of RFC 7989; these calls have none, and OpenSIPS writes their Call-ID there",
        lambda ours, theirs: not ours and bool(theirs),
    ),
    Why(r"session/start-time", "when the call's INVITE was seen", _only_ours),
    Why(r".*/elements of our namespace", "state, Call-ID, role and address, for servers that want them", _only_ours),
    Why(r"participantsessionassoc .*/param", "capabilities that the phone told (RFC 7865, 6.6)", _only_ours),
    Why(r"stream .*/label", "labels count from 1 here, from 0 there; each is the one of its m= line",
        lambda ours, theirs: int(ours) == int(theirs) + 1),
    Why(r"(sessionrecordingassoc|participantsessionassoc .*)/associate-time",
        "the same second; xs:dateTime has +00:00 or Z, +0000 is not valid", _same_second),
    Why(r"participantsessionassoc .*/associate-time",
        "who is called joins when they answer; OpenSIPS gives all the time at which its dialog began, as +0000, "
        "which is no xs:dateTime", _later),
    Why(r"participantstreamassoc .*/associate-time", "optional; from when on it sends", _only_ours),
    Why(r"sessionrecordingassoc/associate-time",
        "from when on this session records; OpenSIPS gives all the time at which its dialog began", _later),
    Why(r"SDP m\d+/a=ptime", "what one would like to receive (RFC 3264, 5.1): nothing to say on a line that only sends",
        lambda ours, theirs: not ours and theirs == "20"),
    Why(r"header From", "who records (`identity`, `from`); there the server's own URI"),
    Why(r"header To", "the server as it was named, transport too", lambda ours, theirs: "recorder@" in ours),
    Why(r"header Accept", "RFC 7866, 6.1.1: what the server may send, its requests for a snapshot too", _only_ours),
    Why(r"header (Allow|Supported|Session-Expires|Min-Se)", "in an INVITE SHOULD stand (RFC 3261, 13.2.1), with a "
        "session timer (RFC 4028) that ends sessions whose peer is gone", _only_ours),
    Why(r"header User-Agent", "another program"),
    Why(r"header (Require|Content-Type|Contact|Mime-Version|Content-Disposition)", "optional", _only_ours),
    Why(r"SDP/o user", "of no meaning"),
    Why(r"SDP/o version", "ours begins at 1 and grows with each offer (RFC 3264, 8); that of OpenSIPS stays 0"),
    Why(r"SDP/[st]", "of no meaning"),
    Why(r"SDP m\d+/port", "a pair of ports, RTCP on the odd one (RFC 3550, 11); rtpproxy takes any",
        lambda ours, theirs: ours == "even"),
    Why(r"SDP m\d+/a=(rtcp|ssrc|rtcp-mux|maxptime)", "told ahead, so that streams are told apart", _only_ours),
    Why(r"SDP m\d+/a=fmtp \d+", "as who hears the stream announced it: those are the numbers on the wire; OpenSIPS "
        "writes what the speaker announced, for the other direction"),
    Why(r"SDP m\d+/a=label", "see stream/label", lambda ours, theirs: int(ours) == int(theirs) + 1),
)  # fmt: skip


def differences(mine: Exchange, other: Exchange) -> Iterator[tuple[str, ...]]:
    """Rows about a call; the last column is empty where nothing explains a difference."""
    first, their_first = next(mine.documents()), next(other.documents())
    pairs = [
        (metadata_facts(first), metadata_facts(their_first)),
        ({"identifiers": identifiers_fact(first)}, {"identifiers": identifiers_fact(their_first)}),
        (header_facts(mine.requests[0]), header_facts(other.requests[0])),
    ]
    for one, two in pairs:
        for element in sorted({*one, *two}):
            values = one.get(element, ABSENT), two.get(element, ABSENT)
            if values[0] != values[1]:
                yield element, *values, explanation(element, *values)
    sent = flow_facts(mine)["requests"], flow_facts(other)["requests"]
    if sent[0] != sent[1]:
        yield "requests", *sent, flow_explanation(*sent)


def explanation(element: str, ours: str, theirs: str) -> str:
    """Why; empty where nothing explains it."""
    for why in WHY:
        if re.fullmatch(why.element, element) and why.holds(ours, theirs):
            return why.text
    return ""


def flow_explanation(ours: str, theirs: str) -> str:
    """Why the requests of a session differ; empty where nothing explains it."""
    if not re.fullmatch(r"INVITE complete [a-z,]+(; UPDATE partial)*; BYE partial", ours):
        return ""
    updates, again = ours.count("UPDATE partial"), re.findall(r"INVITE complete ([a-z,]+)", theirs)[1:]
    ends = "stop-time and reason are told at the end and in the BYE (RFC 8068, 3.2.4); OpenSIPS never does"
    if not again:
        return ends if updates <= 1 else ""
    if "inactive,inactive" in again and updates <= 1:
        return f"there the routing script paused and resumed, here nobody did; {ends}"
    if updates == len(again) + 1:
        return (
            "hold and resume are a partial snapshot of who sends and receives, and the lines stay open for what the "
            f"held one still says; OpenSIPS sends a line as inactive, and the same metadata once more; {ends}"
        )
    return ""


def beside(captures: Sequence[Path], work: Path) -> list[tuple[str, ...]]:
    """Differences of all captures, those that are alike once."""
    found: dict[Path, list[tuple[str, ...]]] = {}

    def run(number: int, capture: Path) -> None:
        other = theirs(capture)
        refused = max((each.refused for each in other.values()), default=0)
        low = 37000 + 100 * number
        mine = ours(capture, work / str(number), refused, Ports(low, low + 99))
        rows: list[tuple[str, ...]] = []
        if mine.keys() != other.keys() or not other:
            rows.append(("calls", ", ".join(mine), ", ".join(other), ""))
        for call in mine.keys() & other.keys():
            rows += differences(mine[call], other[call])
        found[capture] = rows

    threads = [threading.Thread(target=run, args=each) for each in enumerate(captures)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alike: dict[tuple[str, ...], list[str]] = {}
    for capture in captures:
        for element, one, two, why in found.get(capture, [("calls", "", "", "")]):
            values = (element, ABSENT if _varies(one) else one, ABSENT if _varies(two) else two, why)
            names = alike.setdefault(values if why else (element, one, two, why), [])
            name = capture.stem.removeprefix("opensips_siprec_")
            names += [name] if name not in names else []
    every = len(captures)
    return [("all" if len(names) == every else ", ".join(names), *row) for row, names in sorted(alike.items())]


def _varies(value: str) -> bool:
    """Whether a value is one call's alone: times, Call-IDs, ports."""
    return bool(re.search(r"\d{4}-\d\d-\d\dT|@127\.0\.0\.11|127\.0\.0\.1:\d+", value))


def main() -> None:
    parser = argparse.ArgumentParser(description="Hold what our SRC sends beside what OpenSIPS sent.")
    parser.add_argument("captures", nargs="*", type=Path, help="(opensips_siprec_*.pcap of SPANREC_CAPTURES)")
    captures = parser.parse_args().captures
    if not captures:
        there = Path(os.environ.get("SPANREC_CAPTURES", Path(__file__).resolve().parents[2] / "shared" / "captures"))
        captures = sorted(there.glob("lab/opensips_siprec_*.pcap"))
    if not captures:
        raise SystemExit("captures of OpenSIPS are not here: set SPANREC_CAPTURES to their directory")
    with tempfile.TemporaryDirectory(prefix="beside-opensips-") as directory:
        rows = beside(captures, Path(directory))
    print(table(HEADS, rows))
    sys.exit(any(not row[-1] for row in rows))


if __name__ == "__main__":
    main()
