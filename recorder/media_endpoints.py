"""Media descriptions as endpoints: where a side of a call takes its media.

In: a session description, its author's side, and the sighting of its message. Out: one `MediaEndpoint` for each media
description whose address is a literal that can take media, then one for each ICE candidate (RFC 8839) for RTP over
UDP. Names are never resolved.
"""

from collections.abc import Iterable

from capture.address import Endpoint, parse_endpoint
from decoders.sdp import MediaDescription, SessionDescription
from recorder.model import MediaEndpoint, Side, Sighting

MAX_CANDIDATES = 16
"""ICE candidates of one media description."""

_UNSPECIFIED = ((0, 0), (0, 0xFFFF << 32))


def describe(sdp: SessionDescription, call: int, side: Side, hop: int, seen: Sighting) -> Iterable[MediaEndpoint]:
    """Endpoints at which `side` takes media by its description, ICE candidates after the default address."""
    for media in sdp.media:
        if media.port == 0:
            continue
        default = literal(media.address, media.port)
        if default is not None:
            rtcp = None if media.rtcp_mux else _rtcp(media, default)
            yield _endpoint(media, default, rtcp, call, side, hop, seen, ice=False)
        if not media.candidates:
            continue
        known = {default}
        for candidate in media.candidates[:MAX_CANDIDATES]:
            where = literal(candidate.address, candidate.port)
            if candidate.component != 1 or candidate.transport != "udp" or where is None or where in known:
                continue
            known.add(where)
            yield _endpoint(media, where, None, call, side, hop, seen, ice=True)


def _endpoint(
    media: MediaDescription,
    endpoint: Endpoint,
    rtcp: Endpoint | None,
    call: int,
    side: Side,
    hop: int,
    seen: Sighting,
    ice: bool,
) -> MediaEndpoint:
    return MediaEndpoint(
        call, side, hop, media.index, media.media, endpoint, rtcp, media.formats, media.direction, media.crypto,
        media.encrypted, media.dtls, media.label, seen.time, seen.packet, seen.realm, ice,
    )  # fmt: skip


def literal(address: str, port: int) -> Endpoint | None:
    """Endpoint of a literal address that can take media."""
    endpoint = parse_endpoint(address, port) if address and port else None
    return None if endpoint is None or endpoint[:2] in _UNSPECIFIED else endpoint


def _rtcp(media: MediaDescription, default: Endpoint) -> Endpoint | None:
    """Where RTCP goes: a=rtcp (RFC 3605), else the next port."""
    port = media.rtcp_port if media.rtcp_port else media.port + 1
    if media.rtcp_address:
        return literal(media.rtcp_address, port)
    return Endpoint(default.high, default.low, port) if port <= 0xFFFF else None
