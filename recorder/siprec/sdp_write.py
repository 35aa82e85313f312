"""Session descriptions of ours as bytes (RFC 8866): offers as SRC, answers as SRS.

In: a `SessionDescription` whose media stand in their places. Out: the text, the same for the same values. What comes
from a peer (labels, format parameters, protocols) is written without line breaks, so that it stays the line that it
was. It keeps no versions: whoever makes the values does.
"""

from base64 import b64encode
from collections.abc import Iterator, Mapping

from decoders.sdp import CryptoKey, MediaDescription, Origin, PayloadFormat, SessionDescription

LEAST_FORMAT = "0"
"""What stands as the format of a media description that is refused: there must be one, and it means nothing."""


def write_sdp(description: SessionDescription, cnames: Mapping[int, str] | None = None) -> bytes:
    """The text of a description. `cnames` gives the CNAME of each SSRC that is announced (RFC 5576, section 6.1)."""
    origin = description.origin
    if origin is None:
        raise ValueError("a description of ours has an origin")
    host = description.address or origin.address
    lines = [
        "v=0",
        origin_line(origin).decode(),
        f"s={description.name or '-'}",
        f"c=IN {_family(host)} {host}",
        "t=0 0",
    ]
    for media in description.media:
        lines += _media(media, host, cnames or {})
    return "".join(f"{_one_line(line)}\r\n" for line in lines).encode()


def origin_line(origin: Origin) -> bytes:
    """The line that has the version, without its end."""
    host = origin.address
    return f"o={origin.user} {origin.session_id} {origin.version or 0} IN {_family(host)} {host}".encode()


def _media(media: MediaDescription, host: str, cnames: Mapping[int, str]) -> Iterator[str]:
    formats = " ".join(str(number) for number in media.formats) or LEAST_FORMAT
    yield f"m={media.media} {media.port} {media.protocol} {formats}"
    if media.address and media.address != host:
        yield f"c=IN {_family(media.address)} {media.address}"
    if media.port and media.rtcp_port is not None:
        address = media.rtcp_address
        yield f"a=rtcp:{media.rtcp_port}" + (f" IN {_family(address)} {address}" if address else "")
    for number, each in media.formats.items():
        yield from format_lines(number, each)
    if media.label:
        yield f"a=label:{media.label}"
    if media.mid:
        yield f"a=mid:{media.mid}"
    if not media.port:
        return
    yield f"a={media.direction}"
    if media.ptime is not None:
        yield f"a=ptime:{media.ptime:g}"
    if media.rtcp_mux:
        yield "a=rtcp-mux"
    for key in media.crypto:
        yield crypto_line(key)
    for ssrc in media.ssrcs:
        if ssrc in cnames:
            yield f"a=ssrc:{ssrc} cname:{cnames[ssrc]}"


def format_lines(number: int, each: PayloadFormat) -> Iterator[str]:
    """rtpmap and fmtp of a payload type; static types have theirs too (RFC 3264, section 5.1)."""
    yield f"a=rtpmap:{number} {each.rtpmap}"
    if each.fmtp:
        yield f"a=fmtp:{number} {each.fmtp}"


def crypto_line(key: CryptoKey) -> str:
    """RFC 4568, section 9.1."""
    lifetime = "" if key.lifetime is None else f"|{_power(key.lifetime)}"
    mki = "" if key.mki is None else f"|{key.mki}:{key.mki_length}"
    params = "".join(f" {each}" for each in key.session_params)
    return f"a=crypto:{key.tag} {key.suite} inline:{b64encode(key.key).decode()}{lifetime}{mki}{params}"


def _power(count: int) -> str:
    return f"2^{count.bit_length() - 1}" if count > 0 and count & (count - 1) == 0 else str(count)


def _family(host: str) -> str:
    return "IP6" if ":" in host else "IP4"


def _one_line(line: str) -> str:
    return line if "\r" not in line and "\n" not in line else line.replace("\r", " ").replace("\n", " ")
