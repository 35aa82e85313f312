"""Small SIP messages for tests of the user agent's parts."""

from capture.address import Endpoint, parse_endpoint
from decoders.sip import SipMessage, parse_message
from recorder.model import Transport
from recorder.sip_ua.api import Peer
from recorder.sip_ua.layer import Hop, Received
from recorder.sip_ua.message import Request
from recorder.sip_ua.wire import Flow, Target

VIA = "SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK1;rport"


def endpoint(host: str, port: int = 5060) -> Endpoint:
    parsed = parse_endpoint(host, port)
    assert parsed is not None
    return parsed


OURS, THEIRS = endpoint("10.0.0.1"), endpoint("10.0.0.2")


def hop(transport: Transport = Transport.UDP) -> Hop:
    return Hop(Target(transport, THEIRS), Flow(1, transport, OURS, None if transport is Transport.UDP else THEIRS))


def request(method: str = "INVITE", **changes: object) -> Request:
    return Request(method, "sip:b@10.0.0.2", "<sip:a@10.0.0.1>;tag=a", "<sip:b@10.0.0.2>", "call", 1, **changes)


def received(message: SipMessage, transport: Transport = Transport.UDP) -> Received:
    return Received(message, hop(transport).flow or Flow(1, transport, OURS), Peer(THEIRS, transport))


def parsed(data: bytes) -> SipMessage:
    message = parse_message(data)
    assert message is not None
    return message


def response(status: int, method: str = "INVITE", *headers: str, via: str = VIA, tag: str = "b") -> SipMessage:
    lines = [
        f"SIP/2.0 {status} X",
        f"Via: {via}",
        "From: <sip:a@10.0.0.1>;tag=a",
        f"To: <sip:b@10.0.0.2>{f';tag={tag}' if tag else ''}",
        "Call-ID: call",
        f"CSeq: 1 {method}",
        *headers,
        "Content-Length: 0",
    ]
    return parsed("\r\n".join(lines).encode() + b"\r\n\r\n")
