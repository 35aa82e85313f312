"""What a recording server says of media, in its answers and in its own offers, of whatever make.

In: our media descriptions and a message with a session description, untrusted. Out: for each of ours, in its place,
where and how media go there, or why they do not. Only the place counts: labels come back changed or not at all, and a
version says nothing. Media never go out under a payload type that means something else there, and never unencrypted
where keys were offered. Never raises.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from capture.address import parse_endpoint
from decoders._srtp_keys import why_key_unusable
from decoders.sdp import CryptoKey, Direction, MediaDescription, PayloadFormat
from decoders.sip import SipMessage
from recorder.siprec.forward_formats import parameters, same_encoding, same_format
from recorder.siprec.legs import RemoteMedia
from recorder.siprec.src_offer import Line

AUXILIARY = frozenset({"TELEPHONE-EVENT", "CN", "RED"})
"""Formats that are of use beside speech."""
_RECEIVING = (Direction.RECVONLY, Direction.SENDRECV)
_LISTED = re.compile(rb"^m=[^\r\n]*", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a server says of one description."""

    remote: RemoteMedia | None
    """None: no media go there."""
    why: str = ""
    """Why they do not, a phrase."""
    chosen: Mapping[int, PayloadFormat] | None = None
    """Formats that are agreed, by the server's numbers, as it writes them."""


def read_answer(lines: Sequence[Line], message: SipMessage, resolved: Mapping[str, str] | None = None) -> list[Reading]:
    """What a message says of each of our descriptions. `resolved` gives addresses of host names in it."""
    description = message.sdp()
    if description is None:
        return [Reading(None, "no session description in the answer") for _ in lines]
    places = {media.index: media for media in description.media}
    listed = _listed(message)
    readings = []
    for line in lines:
        media = places.get(line.index)
        types = listed[line.index] if line.index < len(listed) else ()
        if media is None:
            readings.append(Reading(None, "left out of the answer, or unreadable there"))
        else:
            readings.append(_read(line, media, types, resolved or {}))
    return readings


def hosts_in(message: SipMessage) -> set[str]:
    """Host names in connection lines, which have to be looked up."""
    description = message.sdp()
    found = {media.address for media in description.media if media.port} if description is not None else set()
    return {host for host in found if host and parse_endpoint(host, 1) is None}


def _read(line: Line, media: MediaDescription, types: Sequence[int], resolved: Mapping[str, str]) -> Reading:
    if line.leg is None or line.announced is None:
        return Reading(None, "nothing is sent here")
    if media.port == 0:
        return Reading(None, "refused (port 0)")
    if not media.rtp or media.protocol.upper().startswith(("UDP/TLS", "TCP/")):
        return Reading(None, f"answered as {media.protocol[:40]}")
    if media.encrypted != bool(line.keys):
        return Reading(None, "answered without encryption" if line.keys else "answered with encryption")
    encrypt, decrypt = _keys(line, media)
    if line.keys and encrypt is None:
        return Reading(None, "answered without a usable key")
    chosen = _chosen(line, media, types)
    accepted = _accepted(line, chosen)
    if all(each.encoding.upper() in AUXILIARY for each in accepted):
        return Reading(None, "answered with codecs that the call does not have")
    held = media.held_by_address
    address = resolved.get(media.address, media.address)
    rtp = parse_endpoint(address, media.port)
    port = media.port if media.rtcp_mux else media.rtcp_port or min(media.port + 1, 0xFFFF)
    rtcp = parse_endpoint(address if media.rtcp_mux else media.rtcp_address or address, port)
    if rtp is None:
        return Reading(None, "answered with a host that cannot be found")
    sending = media.direction in _RECEIVING and not held
    remote = RemoteMedia(
        rtp=rtp,
        rtcp=rtcp or rtp._replace(port=port),
        payload_types=accepted,
        # What was offered inactive stays so, whatever the answer (RFC 3264, section 6.1).
        sending=sending and line.asked,
        encrypt=encrypt,
        decrypt=decrypt,
        offered=frozenset(line.announced.values()),
    )
    return Reading(remote, chosen=chosen)


def _chosen(line: Line, media: MediaDescription, types: Sequence[int]) -> dict[int, PayloadFormat]:
    """What it lists: what its rtpmaps say, else what the number means by RFC 3551, else what it means in our offer."""
    chosen: dict[int, PayloadFormat] = {}
    for number in types or tuple(media.formats):
        found = media.formats.get(number) or (line.announced or {}).get(number)
        if found is not None:
            chosen[number] = found
    return chosen


def _accepted(line: Line, chosen: Mapping[int, PayloadFormat]) -> dict[PayloadFormat, int]:
    """Our format -> the server's number for it; of several that fit, the nearest."""
    accepted: dict[PayloadFormat, int] = {}
    for own, offered in (line.announced or {}).items():
        if chosen.get(own) == offered:  # as it nearly always is
            accepted[offered] = own
            continue
        fitting = [number for number, each in chosen.items() if _fits(offered, own, each, number)]
        fitting.sort(key=lambda number: (parameters(chosen[number]) != parameters(offered), number != own))
        if fitting:
            accepted[offered] = fitting[0]
    return accepted


def _fits(offered: PayloadFormat, own: int, answered: PayloadFormat, number: int) -> bool:
    # An answer may leave parameters out, or give its own, of the format that we offered under this number.
    return same_format(offered, answered) or (number == own and same_encoding(offered, answered))


def _keys(line: Line, media: MediaDescription) -> tuple[CryptoKey | None, tuple[CryptoKey, ...]]:
    """(our key that is chosen, the server's) of an answer or offer (RFC 4568, sections 5.1.2 and 5.1.3)."""
    for theirs in media.crypto:
        if why_key_unusable(theirs):
            continue
        for ours in line.keys:
            if ours.suite.upper() == theirs.suite.upper():
                return replace(ours, tag=theirs.tag), (theirs,)
    return None, ()


def _listed(message: SipMessage) -> list[tuple[int, ...]]:
    """Payload types of each m= line as written: there are servers that leave rtpmaps out."""
    part = next((part.data for part in message.parts() if part.content_type == "application/sdp"), message.body)
    found = []
    for line in _LISTED.findall(part)[:64]:
        fields = line.split()[3:67]
        found.append(tuple(int(each) for each in fields if each.isdigit() and len(each) < 4 and int(each) < 128))
    return found
