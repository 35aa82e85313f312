"""Ladder diagrams as tests: lines of a ladder to SIP messages, through the call tracker, to calls.

A line is `time  left ARROW right  WHAT  options  | Header: value | ...`. The caller's side is always on the left, so
the arrow tells who sends: `>` the caller's side, `<` the callee's. WHAT is a method or a status. Nodes are names of
NODES. Options:

    sdp=alice:4000            audio at alice's address; `/sendonly` etc. after it; `,` for further media (image:4002)
    call=x  tag=b2  ftag=a2   another Call-ID, callee's tag, caller's tag
    cseq=7  to=BYE            where the defaults do not fit: a request at the hop of its like counts up, at another hop
                              it is the same request; a response is to the last request of the other side
    again                     the request at this hop is a retransmission
    early                     a request without To tag
    realm=3                   the VLAN it was seen in
    body=a~b%20c              any other body, `~` for a line end and `%20` for a blank
"""

from dataclasses import dataclass, field

from capture.address import Endpoint, parse_endpoint
from decoders.sip import parse_message
from decoders.sip_headers import canonical_name
from recorder.call_events import CallEvent, CallFinished, EndpointOffered, EndpointReleased
from recorder.calls import CallTracker
from recorder.model import Call, MediaEndpoint, Sighting

SECOND = 1_000_000_000
START = 1_000_000 * SECOND
NODES = {
    "alice": "10.0.0.1:5060",
    "bob": "10.0.0.2:5060",
    "carol": "10.0.0.3:5060",
    "dave": "10.0.0.4:5060",
    "proxy": "10.0.0.5:5060",
    "edge": "10.0.0.6:5060",
    "src": "10.0.0.7:5060",
    "srs": "10.0.0.8:5060",
    "nat": "192.0.2.1:33333",
    "hold": "0.0.0.0:0",
}


def at(seconds: float) -> int:
    """Capture time of a moment of the ladder."""
    return START + round(seconds * SECOND)


def node(name: str) -> Endpoint:
    """Signalling endpoint of a node."""
    host, _, port = NODES[name].rpartition(":")
    endpoint = parse_endpoint(host, int(port))
    assert endpoint is not None
    return endpoint


@dataclass
class _Dialog:
    """What the default options of one Call-ID's lines are taken from."""

    numbers: dict[str, int] = field(default_factory=lambda: {">": 0, "<": 0})
    hops: dict[tuple[str, str], set[frozenset[str]]] = field(default_factory=dict)
    last: dict[str, tuple[str, int]] = field(default_factory=dict)
    invite: dict[str, int] = field(default_factory=dict)
    tag: str = "bob-tag"
    ftag: str = "alice-tag"


@dataclass
class Played:
    """What a ladder came to."""

    tracker: CallTracker
    events: list[CallEvent] = field(default_factory=list)

    @property
    def calls(self) -> list[Call]:
        """Finished calls in order of first sighting."""
        return sorted((e.call for e in self.events if isinstance(e, CallFinished)), key=lambda call: call.index)

    @property
    def call(self) -> Call:
        """The only call."""
        (call,) = self.calls
        return call

    @property
    def endpoints(self) -> list[MediaEndpoint]:
        """Endpoints in order of announcement."""
        return [e.endpoint for e in self.events if isinstance(e, EndpointOffered)]

    def announced(self) -> list[str]:
        """Endpoints in short: `caller/0 10.0.0.1:4000 sendrecv`."""
        return [f"{e.side}/{e.hop} {e.endpoint} {e.direction}" for e in self.endpoints]

    def released(self) -> list[str]:
        """Released endpoints in short."""
        return [str(e.endpoint.endpoint) for e in self.events if isinstance(e, EndpointReleased)]

    def seconds(self, time: int | None) -> float | None:
        """A capture time as a moment of the ladder."""
        return None if time is None else round((time - START) / SECOND, 6)

    def codes(self, call: Call | None = None) -> list[str]:
        """Codes of the decision trace."""
        return [step.code for step in (call or self.call).trace]

    def times(self, call: Call | None = None) -> tuple[float | None, ...]:
        """started, ringing, answered, ended."""
        call = call or self.call
        return tuple(self.seconds(t) for t in (call.started, call.ringing, call.answered, call.ended))

    def holds(self, call: Call | None = None) -> list[tuple[float | None, float | None, str]]:
        """Holds as (from, to, by)."""
        return [(self.seconds(h.begin), self.seconds(h.end), str(h.by)) for h in (call or self.call).holds]

    def warnings(self, call: Call | None = None) -> list[str]:
        """Codes of the warnings."""
        return [warning.code for warning in (call or self.call).warnings]


def play(ladder: str, *, until: float | None = None, finish: bool = True, tracker: CallTracker | None = None) -> Played:
    """Feed the ladder, expire at `until`, and end the capture where not told otherwise."""
    played = Played(tracker or CallTracker())
    dialogs: dict[str, _Dialog] = {}
    now = START
    for number, line in enumerate((line for line in ladder.splitlines() if line.strip()), start=1):
        data, seen = _message(line, number, dialogs)
        now = max(now, seen.time)
        message = parse_message(data)
        assert message is not None, line
        played.events += played.tracker.feed(message, seen)
    if until is not None:
        now = at(until)
        played.events += played.tracker.expire(now)
    if finish:
        played.events += played.tracker.finish(now)
    return played


def _message(line: str, packet: int, dialogs: dict[str, _Dialog]) -> tuple[bytes, Sighting]:
    head, *extra = [part.strip() for part in line.split("|")]
    time, left, arrow, right, what, *words = head.split()
    options = dict(word.partition("=")[::2] for word in words)
    call = options.get("call", "call-1")
    dialog = dialogs.setdefault(call, _Dialog())
    dialog.tag, dialog.ftag = options.get("tag", dialog.tag), options.get("ftag", dialog.ftag)
    source, destination = (left, right) if arrow == ">" else (right, left)
    hop = frozenset((left, right))
    if what.isdigit():
        requester = "<" if arrow == ">" else ">"
        method, number = dialog.last.get(requester, ("INVITE", 1))
        method = options.get("to", method)
        number = int(options.get("cseq", dialog.invite.get(requester, number) if method == "INVITE" else number))
        first = f"SIP/2.0 {what} Because"
        to_tag: str | None = None if what == "100" else dialog.tag
    else:
        requester, method = arrow, what
        number = _number(dialog, arrow, what, hop, options)
        first = f"{what} sip:{right if arrow == '>' else left}@example.com SIP/2.0"
        initial = what in ("INVITE", "CANCEL") and arrow == ">" and number <= 1 and "in-dialog" not in options
        to_tag = None if initial or "early" in options else dialog.tag
    from_tag, to = (dialog.ftag, to_tag) if requester == ">" else (dialog.tag, to_tag and dialog.ftag)
    names = ("alice", "bob") if requester == ">" else ("bob", "alice")
    branch = options.get(
        "branch", f"z9hG4bK-{call}-{requester}-{number}-{'ACK' if method == 'ACK' else 'x'}-{'-'.join(sorted(hop))}"
    )
    lines = [
        first,
        f"Via: SIP/2.0/UDP {NODES[source if not what.isdigit() else destination]};branch={branch}",
        f'From: "{names[0].title()}" <sip:{names[0]}@example.com>;tag={from_tag}',
        f"To: <sip:{names[1]}@example.com>" + (f";tag={to}" if to else ""),
        f"Call-ID: {call}",
        f"CSeq: {number} {method}",
    ]
    replaced = {canonical_name(header.partition(":")[0]) for header in extra}
    lines = [lines[0], *(text for text in lines[1:] if text.partition(":")[0].lower() not in replaced), *extra]
    body = (
        _sdp(options["sdp"])
        if "sdp" in options
        else options.get("body", "").replace("~", "\r\n").replace("%20", " ").encode()
    )
    if "sdp" in options:
        lines.append("Content-Type: application/sdp")
    data = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body
    realm = int(options.get("realm", 0))
    return data, Sighting(at(float(time)), packet, 0, node(source), node(destination), realm=realm)


def _number(dialog: _Dialog, arrow: str, method: str, hop: frozenset[str], options: dict[str, str]) -> int:
    seen = dialog.hops.setdefault((arrow, method), set())
    if "cseq" in options:
        number = int(options["cseq"])
        dialog.numbers[arrow] = max(dialog.numbers[arrow], number)
        seen.clear()
    elif method in ("ACK", "CANCEL"):
        return dialog.invite.get(arrow, 1)
    elif (hop in seen and "again" not in options) or not seen:
        dialog.numbers[arrow] += 1
        number = dialog.numbers[arrow]
        seen.clear()
    else:
        number = dialog.last[arrow][1]
    seen.add(hop)
    dialog.last[arrow] = (method, number)
    if method == "INVITE":
        dialog.invite[arrow] = number
    return number


def _sdp(text: str) -> bytes:
    """A description of `alice:4000/sendonly,image:4002`."""
    lines = ["v=0", "o=- 1 1 IN IP4 10.0.0.1", "s=-", "t=0 0"]
    host = ""
    for position, item in enumerate(text.split(",")):
        where, _, direction = item.partition("/")
        name, _, port = where.partition(":")
        if position == 0:
            host = NODES[name].partition(":")[0] if name in NODES else name
            lines.insert(3, f"c=IN IP4 {host}")
        media = "audio" if position == 0 else name
        protocol = "udptl t38" if media == "image" else "RTP/AVP 8 0" if media == "audio" else "RTP/AVP 34"
        lines.append(f"m={media} {port} {protocol}")
        if direction:
            lines.append(f"a={direction}")
    return ("\r\n".join(lines) + "\r\n").encode()
