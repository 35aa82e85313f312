"""Scenarios for sipp, one side of one call at a time.

In: who speaks with whom, and steps in order. Out: the XML that sipp runs. Tags, branches and Call-IDs are fixed, so
that a scenario can name another call's dialog (Replaces) and a capture made again differs in little.
"""

from dataclasses import dataclass, field
from pathlib import Path

FORMATS = {
    "PCMU": (0, "PCMU/8000"),
    "PCMA": (8, "PCMA/8000"),
    "G722": (9, "G722/8000"),
    "events": (101, "telephone-event/8000"),
}


@dataclass(frozen=True, slots=True)
class Person:
    """One end of a call as its SIP shows it."""

    user: str
    name: str
    tag: str
    host: str
    """Where its signalling is, as in a URI (brackets around IPv6)."""
    port: int = 5060
    transport: str = ""

    @property
    def uri(self) -> str:
        return f"sip:{self.user}@lab.example"

    @property
    def contact(self) -> str:
        # sipp would take an address in brackets for a keyword.
        host = self.host.replace("[", "\\x5b").replace("]", "\\x5d")
        return f"sip:{self.user}@{host}:{self.port}{self.transport}"

    @property
    def address(self) -> str:
        return f'"{self.name}" <{self.uri}>'


def sdp(
    user: str, *codecs: str, direction: str = "sendrecv", version: int = 1, port: str = "[media_port]", extra: str = ""
) -> str:
    """A session description with one audio media description."""
    chosen = [FORMATS[codec] for codec in codecs]
    lines = [
        "v=0", f"o={user} 33 {version} IN IP[local_ip_type] [local_ip]", "s=-", "c=IN IP[media_ip_type] [media_ip]",
        "t=0 0", f"m=audio {port} RTP/AVP {' '.join(str(number) for number, _ in chosen)}",
        *(f"a=rtpmap:{number} {name}" for number, name in chosen),
    ]  # fmt: skip
    if "events" in codecs:
        lines.append("a=fmtp:101 0-15")
    return "\n".join([*lines, "a=ptime:20", f"a={direction}", *([extra] if extra else []), ""])


@dataclass
class Script:
    """One side's steps; each method adds one and returns the script."""

    me: Person
    peer: Person
    transport: str = "[transport]"
    """As in Via."""
    via_host: str = "[local_ip]:[local_port]"
    steps: list[str] = field(default_factory=list)
    cseq: int = 0
    branch: int = 0

    def _send(self, text: str, retransmit: bool = False) -> "Script":
        attributes = ' retrans="500"' if retransmit else ""
        self.steps.append(f"<send{attributes}><![CDATA[\n{text}\n]]></send>")
        return self

    def _message(self, lines: list[str], extra: str, body: str, kind: str) -> str:
        lines += [line for line in extra.split("\n") if line]
        if body:
            lines.append(f"Content-Type: {kind}")
        return "\n".join([*lines, "Content-Length: [len]", "", body])

    def _request(self, method: str, uri: str, cseq: int, to_tag: str, extra: str, body: str, kind: str) -> str:
        lines = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/{self.transport} {self.via_host};branch=z9hG4bK-{self.me.tag}-{self.branch};rport",
            "[routes]", f"From: {self.me.address};tag={self.me.tag}", f"To: {self.peer.address}{to_tag}",
            "Call-ID: [call_id]", f"CSeq: {cseq} {method}", f"Contact: <{self.me.contact}>", "Max-Forwards: 70",
            "User-Agent: spanrec lab",
        ]  # fmt: skip
        return self._message(lines, extra, body, kind)

    def invite(self, body: str = "", extra: str = "") -> "Script":
        """The INVITE that begins a dialog."""
        self.cseq += 1
        self.branch += 1
        uri = f"sip:{self.peer.user}@[remote_ip]:[remote_port]"
        return self._send(self._request("INVITE", uri, self.cseq, "", extra, body, "application/sdp"), True)

    def request(self, method: str, body: str = "", extra: str = "", kind: str = "application/sdp") -> "Script":
        """A request within the dialog; ACK takes the number of the INVITE before it."""
        if method != "ACK":
            self.cseq += 1
        self.branch += 1
        text = self._request(method, self.peer.contact, self.cseq, f";tag={self.peer.tag}", extra, body, kind)
        return self._send(text, method != "ACK")

    def cancel(self) -> "Script":
        """CANCEL, or (after a refusal) ACK: same branch, same Request-URI as the INVITE."""
        return self._hop("CANCEL", "")

    def ack_refusal(self) -> "Script":
        return self._hop("ACK", f";tag={self.peer.tag}")

    def _hop(self, method: str, to_tag: str) -> "Script":
        uri = f"sip:{self.peer.user}@[remote_ip]:[remote_port]"
        return self._send(self._request(method, uri, self.cseq, to_tag, "", "", ""), method == "CANCEL")

    def reply(self, status: str, body: str = "", extra: str = "", tag: bool = True) -> "Script":
        """An answer to the last request received; `status` is code and reason. In a dialog To has its `tag` already."""
        lines = [
            f"SIP/2.0 {status}", "[last_Via:]", "[last_Record-Route:]", "[last_From:]",
            f"[last_To:]{';tag=' + self.me.tag if tag else ''}", "[last_Call-ID:]", "[last_CSeq:]",
            f"Contact: <{self.me.contact}>", "User-Agent: spanrec lab",
        ]  # fmt: skip
        retransmit = (status.startswith("200") and bool(body)) or status[0] in "3456"
        return self._send(self._message(lines, extra, body, "application/sdp"), retransmit)

    def reply_cancelled(self) -> "Script":
        """The 487 that answers an INVITE after its CANCEL, whose CSeq the last request no longer has."""
        lines = [
            "SIP/2.0 487 Request Terminated", "[last_Via:]", "[last_From:]", f"[last_To:];tag={self.me.tag}",
            "[last_Call-ID:]", "CSeq: 1 INVITE", "Content-Length: 0", "",
        ]  # fmt: skip
        return self._send("\n".join(lines), True)

    def expect(self, what: str, optional: bool = False) -> "Script":
        """Wait for a response (a number) or a request (a method)."""
        kind = "response" if what.isdigit() else "request"
        self.steps.append(
            f'<recv {kind}="{what}" rrs="true"{" optional=" + chr(34) + "true" + chr(34) if optional else ""}/>'
        )
        return self

    def answered(self, *provisional: str) -> "Script":
        """Wait for 200, past whatever provisional answers come, and acknowledge it."""
        for code in provisional or ("100", "180", "183"):
            self.expect(code, optional=True)
        return self.expect("200").request("ACK")

    def play(self, media: str) -> "Script":
        self.steps.append(f'<nop><action><exec play_pcap_audio="{media}"/></action></nop>')
        return self

    def wait(self, milliseconds: int) -> "Script":
        self.steps.append(f'<pause milliseconds="{milliseconds}"/>')
        return self

    def write(self, path: Path) -> Path:
        head = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE scenario SYSTEM "sipp.dtd">\n'
        steps = "\n".join(self.steps)
        path.write_text(f'{head}<scenario name="{self.me.user}">\n{steps}\n</scenario>\n')
        return path
