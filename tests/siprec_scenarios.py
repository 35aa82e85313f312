"""sipp as a recording server: the steps of its scenarios, as text.

In: where it wants media, what it says of itself. Out: steps, and a scenario of them that answers OPTIONS besides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

ALLOW = "Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, PRACK\n"
EMPTY = "Content-Length: 0\n\n"
TAG = ";tag=srs[call_number]"
HERE = "sip:srs@[local_ip]:[local_port];transport=[transport]"
SNAPSHOT = """Content-Type: application/rs-metadata
Content-Disposition: recording-session
Content-Length: [len]

<?xml version="1.0" encoding="UTF-8"?>
<requestsnapshot xmlns='urn:ietf:params:xml:ns:recording:1'/>
"""
_VARIABLES = "x,f,t,v,n,from,to,target"
_END, _PING = 98, 99


@dataclass(frozen=True, slots=True)
class SippServer:
    """What a recording server of sipp says."""

    ports: Sequence[int] = (31000, 31002)
    """Where it wants media, one for each line."""
    contact: str = HERE
    """URI under which it is reached within dialogs."""

    def description(self, way: str = "recvonly") -> str:
        """Content of a message: a session description."""
        lines = "".join(f"m=audio {port} RTP/AVP 0\na=rtpmap:0 PCMU/8000\na={way}\n" for port in self.ports)
        return (
            "Content-Type: application/sdp\nContent-Length: [len]\n\n"
            f"v=0\no=srs 1 [cseq] IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\n{lines}"
        )

    def answer(self, status: str, body: str = EMPTY, *, tag: str = "", more: str = "", once: bool = True) -> str:
        """A response. `more`: header fields, each with its line break; `once`: it is not sent again."""
        return _sent(
            f"SIP/2.0 {status}\n[last_Via:]\n[last_Record-Route:]\n[last_From:]\n[last_To:]{tag}\n[last_Call-ID:]\n"
            f"[last_CSeq:]\nContact: <{self.contact}>;+sip.srs\n{ALLOW}{more}{body}",
            once=once,
        )

    def late(self, status: str, body: str = EMPTY) -> str:
        """The response to the INVITE that was remembered, when other requests have come since."""
        return _sent(
            f"SIP/2.0 {status}\nVia:[$v]\nFrom:[$f]\nTo:[$t]{TAG}\n[last_Call-ID:]\nCSeq:[$n]\n"
            f"Contact: <{self.contact}>;+sip.srs\n{ALLOW}{body}",
            once=True,
        )

    def refuse(self, status: str, more: str = "") -> list[str]:
        """Take an INVITE, and refuse it."""
        return [receive("INVITE"), self.answer(status, tag=TAG, more=more), receive("ACK")]

    def accept(self, more: str = "") -> list[str]:
        """Take an INVITE, and accept it."""
        return [REMEMBER, self.answer("200 OK", self.description(), tag=TAG, more=more), receive("ACK")]

    def updated(self, more: str = "") -> list[str]:
        """Take an UPDATE."""
        return [receive("UPDATE"), self.answer("200 OK", more=more)]

    def renewed(self) -> list[str]:
        """Take a re-INVITE."""
        return [receive("INVITE"), self.answer("200 OK", self.description()), receive("ACK")]

    def end(self) -> list[str]:
        """The client says BYE."""
        return [receive("BYE"), self.answer("200 OK")]

    def ask(self, method: str, number: int, body: str = EMPTY, more: str = "") -> str:
        """A request of the server in the dialog."""
        return _sent(
            f"{method} [$target] SIP/2.0\nVia: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]\n"
            f"Max-Forwards: 70\n[$to]{TAG}\n[$from]\n[last_Call-ID:]\nCSeq: {number} {method}\n"
            f"Require: siprec\nContact: <{self.contact}>;+sip.srs\n{ALLOW}{more}{body}",
            once=method == "ACK",
        )


REMEMBER = """<recv request="INVITE" rrs="true"><action>
<ereg regexp="&lt;(sips?:[^&gt;]*)&gt;" search_in="hdr" header="Contact:" assign_to="x,target"/>
<ereg regexp=".*" search_in="hdr" header="From:" assign_to="f"/>
<ereg regexp=".*" search_in="hdr" header="To:" assign_to="t"/>
<ereg regexp=".*" search_in="hdr" header="Via:" assign_to="v"/>
<ereg regexp=".*" search_in="hdr" header="CSeq:" assign_to="n"/>
<assignstr assign_to="from" value="To:[$f]"/><assignstr assign_to="to" value="From:[$t]"/>
</action></recv>"""
"""Take an INVITE, and keep what requests of the server and late answers need."""


def receive(method: str) -> str:
    """Take a request."""
    return f'<recv request="{method}" rrs="true"/>'


def wait(milliseconds: int) -> str:
    """Do nothing for a while."""
    return f'<pause milliseconds="{milliseconds}"/>'


def succeed(status: int = 200) -> str:
    """Take a response."""
    return f'<recv response="{status}"/>'


TRYING = '<recv response="100" optional="true"/>'


def scenario(steps: Sequence[str], server: SippServer | None = None) -> str:
    """A scenario of these steps. With a `server` it answers OPTIONS too, each of which is a call of its own."""
    body = list(steps)
    if server is not None:
        pong = server.answer("200 OK", tag=TAG).replace("<send>", f'<label id="{_PING}"/>\n<send>')
        ping = f'<recv request="OPTIONS" optional="true" next="{_PING}"/>'
        body = [ping, *body, f'<nop next="{_END}"/>', pong, f'<label id="{_END}"/>\n<nop/>']
    used = f'\n<Reference variables="{_VARIABLES}"/>' if REMEMBER in body else ""
    lines = "\n".join(body)
    return f'<?xml version="1.0" encoding="ISO-8859-1"?>\n<scenario name="srs">\n{lines}{used}\n</scenario>\n'


def _sent(text: str, *, once: bool) -> str:
    again = "" if once else ' retrans="500"'
    return f"<send{again}><![CDATA[\n{text}]]></send>"
