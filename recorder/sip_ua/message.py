"""Requests and responses as octets (RFC 3261, sections 7, 8.1.1 and 8.2.6).

In: values and, for a response, the request that it answers. Out: octets. A line break or NUL in a value is refused
with ValueError, so that nothing that came from a wire can add a header field. Header fields are written in full form,
in the order that proxies like: Via and Route first, Content-Length last.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from capture.address import Endpoint, parse_endpoint
from decoders.sip import SipMessage
from decoders.sip_address import parse_via
from recorder.sip_ua.api import Body, Header

MAGIC = "z9hG4bK"
"""Begins every branch of RFC 3261."""

ALLOW = "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, PRACK, INFO, NOTIFY, MESSAGE"
SUPPORTED = "siprec, timer, 100rel"

_UNSAFE = re.compile(r"[\r\n\0]")
_NAME = re.compile(r"[A-Za-z0-9\-.!%*_+`'~]+")
_TAG = re.compile(r";\s*tag\s*=[^;,]*", re.IGNORECASE)

REASONS = {
    100: "Trying",
    180: "Ringing",
    181: "Call Is Being Forwarded",
    182: "Queued",
    183: "Session Progress",
    200: "OK",
    202: "Accepted",
    301: "Moved Permanently",
    302: "Moved Temporarily",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    407: "Proxy Authentication Required",
    408: "Request Timeout",
    413: "Request Entity Too Large",
    415: "Unsupported Media Type",
    416: "Unsupported URI Scheme",
    420: "Bad Extension",
    421: "Extension Required",
    422: "Session Interval Too Small",
    423: "Interval Too Brief",
    480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist",
    482: "Loop Detected",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    489: "Bad Event",
    491: "Request Pending",
    493: "Undecipherable",
    500: "Server Internal Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "Version Not Supported",
    513: "Message Too Large",
    600: "Busy Everywhere",
    603: "Decline",
    606: "Not Acceptable",
}


@dataclass(frozen=True, slots=True)
class Request:
    """A request without its Via, which follows from where it is sent."""

    method: str
    uri: str
    from_: str
    """With its tag."""
    to: str
    call_id: str
    cseq: int
    routes: tuple[str, ...] = ()
    headers: tuple[Header, ...] = ()
    body: Body | None = None

    def encode(self, via: str) -> bytes:
        """The octets, with `via` on top."""
        headers = [
            ("Via", via),
            *(("Route", route) for route in self.routes),
            ("Max-Forwards", "70"),
            ("From", self.from_),
            ("To", self.to),
            ("Call-ID", self.call_id),
            ("CSeq", f"{self.cseq} {self.method}"),
            *self.headers,
        ]
        return _encode(f"{self.method} {_safe(self.uri)} SIP/2.0", headers, self.body)

    def ack(self, response: SipMessage) -> "Request":
        """The ACK for a final response other than 2xx, to go out with the same Via (section 17.1.1.3)."""
        credentials = tuple(header for header in self.headers if header[0].lower().endswith("authorization"))
        return replace(self, method="ACK", to=response.get("to") or self.to, headers=credentials, body=None)

    def cancel(self) -> "Request":
        """The CANCEL of this INVITE, to go out with the same Via (section 9.1)."""
        return replace(self, method="CANCEL", headers=(), body=None)


def via_value(transport: str, host: str, port: int, branch: str) -> str:
    """A Via of ours; `rport` asks for the answer to come back where the request came from (RFC 3581)."""
    return f"SIP/2.0/{transport.upper()} {host}{f':{port}' if port else ''};branch={branch};rport"


def with_tag(value: str, tag: str) -> str:
    """A From or To value with this tag in place of any other."""
    head, bracket, tail = value.rpartition(">")
    return f"{head}{bracket}{_TAG.sub('', tail)};tag={tag}"


def without_tag(value: str) -> str:
    """A From or To value without its tag."""
    head, bracket, tail = value.rpartition(">")
    return f"{head}{bracket}{_TAG.sub('', tail)}"


def encode_response(
    request: SipMessage,
    status: int,
    reason: str = "",
    *,
    tag: str = "",
    source: Endpoint | None = None,
    headers: Sequence[Header] = (),
    body: Body | None = None,
) -> bytes:
    """The response to `request`, which came from `source`; `tag` goes into a To that has none (section 8.2.6.2)."""
    to = request.get("to") or ""
    if tag and (request.to is None or request.to.tag is None):
        to = with_tag(to, tag)
    vias = request.getlist("via")
    if vias and source is not None:
        vias[0] = stamp_via(vias[0], source)
    copied = [("Via", via) for via in vias]
    if status > 100 and request.method in ("INVITE", "SUBSCRIBE", "NOTIFY", "REFER"):
        copied += [("Record-Route", route) for route in request.getlist("record-route")]
    copied += [("From", request.get("from") or ""), ("To", to), ("Call-ID", request.get("call-id") or "")]
    copied.append(("CSeq", request.get("cseq") or ""))
    timestamp = request.get("timestamp")
    if status == 100 and timestamp:
        copied.append(("Timestamp", timestamp))
    return _encode(f"SIP/2.0 {status} {_safe(reason or REASONS.get(status, 'Unknown'))}", [*copied, *headers], body)


def stamp_via(value: str, source: Endpoint) -> str:
    """The topmost Via with the address that its message came from (section 18.2.1; RFC 3581, section 4)."""
    via = parse_via(value)
    if via is None:
        return value
    wants_port = "rport" in via.params
    if wants_port:
        value = re.sub(r";\s*rport\s*(=[^;,]*)?(?=;|,|$)", f";rport={source.port}", value, count=1, flags=re.IGNORECASE)
    sent_by = parse_endpoint(via.host, 0)
    if wants_port or sent_by is None or sent_by[:2] != source[:2]:
        value = re.sub(r";\s*received\s*(=[^;,]*)?(?=;|,|$)", "", value, flags=re.IGNORECASE)
        value += f";received={source.host}"
    return value


def check(headers: Iterable[Header], body: Body | None = None) -> None:
    """Raise ValueError where something cannot stand in a message, before anything has been done with it."""
    _encode("", headers, body)


def _encode(start: str, headers: Iterable[Header], body: Body | None) -> bytes:
    lines = [start]
    for name, value in headers:
        if not _NAME.fullmatch(name):
            raise ValueError(f"no header name: {name!r}")
        lines.append(f"{name}: {_safe(value)}")
    data = body.data if body is not None else b""
    if body is not None:
        lines.append(f"Content-Type: {_safe(body.content_type)}")
        if body.disposition:
            lines.append(f"Content-Disposition: {_safe(body.disposition)}")
    lines.append(f"Content-Length: {len(data)}")
    # What came as Latin-1 goes out as UTF-8; lone surrogates cannot come from a decoder, but must not raise either.
    return "\r\n".join(lines).encode(errors="replace") + b"\r\n\r\n" + data


def _safe(value: str) -> str:
    if _UNSAFE.search(value):
        raise ValueError(f"line break in a header value: {value!r}")
    return value
