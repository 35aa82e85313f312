"""Bodies of SIP messages with several parts (RFC 2046, section 5.1; RFC 7866, section 9.1).

In: bodies. Out: one body. The boundary is random and in none of the parts. Nothing is encoded: parts are written as
they are.
"""

from collections.abc import Callable, Sequence

from capture.randomness import BufferedRandom
from recorder.sip_ua.api import Body

SDP = "application/sdp"
METADATA = "application/rs-metadata+xml"
"""RFC 7865, section 5; RFC 9806 puts it in place of what RFC 7866 prints."""
_random = BufferedRandom()


def sdp_body(data: bytes) -> Body:
    """A session description as a body."""
    return Body(SDP, data, "session")


def metadata_body(data: bytes) -> Body:
    """A metadata document, or a request for one, as a body (RFC 7866, section 11.3)."""
    return Body(METADATA, data, "recording-session")


def write_body(parts: Sequence[Body], random: Callable[[], str] = lambda: _random.randbytes(12).hex()) -> Body:
    """One body of one or more parts; a single one is its own body.

    `random` gives the boundary: characters of an RFC 2045 token, at most 66.
    """
    if len(parts) == 1:
        return parts[0]
    boundary = random()
    while any(boundary.encode() in part.data for part in parts):
        boundary = random()
    written = [_written(part, boundary) for part in parts]
    data = b"".join([*written, f"--{boundary}--\r\n".encode()])
    return Body(f"multipart/mixed;boundary={boundary}", data, parts=tuple(parts))


def _written(part: Body, boundary: str) -> bytes:
    lines = [f"--{boundary}", f"Content-Type: {part.content_type}"]
    if part.disposition:
        lines.append(f"Content-Disposition: {part.disposition}")
    lines += [f"Content-Length: {len(part.data)}", "", ""]
    return "\r\n".join(lines).encode() + part.data + b"\r\n"
