"""Attribute values of a media description: rtpmap and fmtp, rtcp, crypto, candidate, ssrc.

In: the text after an attribute's colon. Out: the values of `decoders.sdp_values`, or nothing where the text is
unsound, with a note where that loses something. Never raises.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from functools import lru_cache

from decoders.sdp_values import STATIC_FORMATS, Candidate, CryptoKey, PayloadFormat

MAX_CLOCK_RATE = 1_000_000
MAX_CHANNELS = 32
MAX_SSRCS = 64
MAX_KEY_OCTETS = 256

_KEY_OCTETS = {
    "AES_CM_128_HMAC_SHA1_80": 30,
    "AES_CM_128_HMAC_SHA1_32": 30,
    "F8_128_HMAC_SHA1_80": 30,
    "AES_192_CM_HMAC_SHA1_80": 38,
    "AES_192_CM_HMAC_SHA1_32": 38,
    "AES_256_CM_HMAC_SHA1_80": 46,
    "AES_256_CM_HMAC_SHA1_32": 46,
    "AEAD_AES_128_GCM": 28,
    "AEAD_AES_256_GCM": 44,
}
"""Master key and salt of each suite (RFC 4568, section 6.2; RFC 6188; RFC 7714, section 14.2)."""


@lru_cache(maxsize=256)
def parse_format_list(
    listed: tuple[str, ...], rtpmaps: tuple[str, ...], fmtps: tuple[str, ...]
) -> tuple[Mapping[int, PayloadFormat], tuple[str, ...]]:
    """RTP payload formats of the m= line's list, in its order, and notes: types that nothing explains are left out.

    A device writes the same formats in every description: those of late are remembered.
    """
    maps, parameters_of = _by_payload_type(rtpmaps), _by_payload_type(fmtps)
    notes: list[str] = []
    formats: dict[int, PayloadFormat] = {}
    for text in listed:
        payload_type = _bounded(text, 127)
        if payload_type is None:
            notes.append(f"{text[:16]!r} is no payload type")
            continue
        parameters = parameters_of.get(payload_type, "")
        written = maps.get(payload_type)
        static = STATIC_FORMATS.get(payload_type)
        usual = static is not None and not parameters and written == static.rtpmap
        chosen = _rtpmap(payload_type, written, parameters) if written and not usual else None
        if chosen is None:
            if static is None:
                notes.append(f"payload type {payload_type} has no rtpmap")
                continue
            chosen = static
            if parameters:
                chosen = PayloadFormat(payload_type, static.encoding, static.clock_rate, static.channels, parameters)
        formats.setdefault(payload_type, chosen)
    return formats, tuple(notes)


def _by_payload_type(values: Sequence[str]) -> dict[int, str]:
    found: dict[int, str] = {}
    for value in values:
        number, _, rest = value.partition(" ")
        payload_type = _bounded(number, 127)
        if payload_type is not None:
            found.setdefault(payload_type, rest.strip())
    return found


def _rtpmap(payload_type: int, value: str, parameters: str) -> PayloadFormat | None:
    fields = value.split("/")
    encoding = fields[0].strip()
    clock_rate = _bounded(fields[1].strip(), MAX_CLOCK_RATE) if len(fields) > 1 else None
    if not encoding or not clock_rate:
        return None
    channels = _bounded(fields[2].strip(), MAX_CHANNELS) if len(fields) > 2 else 1
    return PayloadFormat(payload_type, encoding, clock_rate, channels or 1, parameters)


def parse_rtcp(value: str | None) -> tuple[int | None, str | None]:
    """Port and, where given, address of an a=rtcp line (RFC 3605)."""
    fields = (value or "").split()
    port = _bounded(fields[0], 0xFFFF) if fields else None
    if not port:
        return None, None
    return port, fields[3].partition("/")[0] if len(fields) > 3 else None


def parse_candidate(value: str) -> Candidate | None:
    """An ICE candidate (RFC 8839, section 5.1), None where it is cut short."""
    fields = value.split()
    if len(fields) < 8 or fields[6].lower() != "typ":
        return None
    component, port = _bounded(fields[1], 256), _bounded(fields[5], 0xFFFF)
    if component is None or port is None:
        return None
    return Candidate(component, fields[2].lower(), fields[4], port, fields[7].lower())


def parse_ssrcs(values: Sequence[str]) -> tuple[int, ...]:
    """Distinct sources of a=ssrc lines, in order (RFC 5576)."""
    sources: dict[int, None] = {}
    for value in values:
        ssrc = _bounded(value.partition(" ")[0], 0xFFFFFFFF)
        if ssrc is not None and len(sources) < MAX_SSRCS:
            sources[ssrc] = None
    return tuple(sources)


def parse_crypto(value: str, notes: list[str]) -> list[CryptoKey]:
    """Keys of an a=crypto line: `tag suite inline:key|lifetime|MKI:length;... params` (RFC 4568, section 9.1)."""
    fields = value.split()
    tag = _bounded(fields[0], 999_999_999) if fields else None
    if tag is None or len(fields) < 3:
        notes.append("crypto line is unsound")
        return []
    keys = []
    for parameter in fields[2].split(";")[:16]:
        method, _, info = parameter.partition(":")
        if method.lower() != "inline":
            continue
        key = _inline_key(tag, fields[1], info, tuple(fields[3:19]))
        if key is None:
            notes.append(f"crypto line {tag} has no usable key")
        else:
            keys.append(key)
    return keys


def _inline_key(tag: int, suite: str, info: str, session_params: tuple[str, ...]) -> CryptoKey | None:
    encoded, *rest = info.split("|")
    key = _base64(encoded)
    if key is None or len(key) != _KEY_OCTETS.get(suite.upper(), len(key)):
        return None
    lifetime, mki, mki_length = None, None, 0
    for part in rest:
        identifier, colon, length = part.partition(":")
        if colon:
            mki, mki_length = _bounded(identifier, 2**64), _bounded(length, 128) or 0
        else:
            lifetime = _lifetime(part)
    return CryptoKey(tag, suite, key, mki if mki_length else None, mki_length, lifetime, session_params)


def _base64(text: str) -> bytes | None:
    """Base64 with or without its padding, None where it is unsound, empty or beyond MAX_KEY_OCTETS."""
    text = text.rstrip("=")
    if not text or len(text) > MAX_KEY_OCTETS * 4 // 3:
        return None
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _lifetime(text: str) -> int | None:
    base, caret, power = text.partition("^")
    if caret:
        exponent = _bounded(power, 64)
        return 2**exponent if base == "2" and exponent is not None else None
    return _bounded(base, 2**64)


def _bounded(text: str, limit: int) -> int | None:
    """A decimal number up to `limit`, None for anything else."""
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        return None
    value = int(text)
    return value if value <= limit else None
