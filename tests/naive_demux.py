"""The obvious way to tell what a UDP payload is: the twin that `decoders._demux_kernels` must agree with."""

import re

OTHER, SIP, SIP_IGNORED, RTP, RTCP = range(5)
CALL_METHODS = (b"INVITE", b"ACK", b"BYE", b"CANCEL", b"PRACK", b"UPDATE", b"INFO", b"REFER")


def classify_payload(payload: bytes, missing: int = 0, ports: tuple[int, int] = (4000, 4002)) -> int:
    if len(payload) < 4:
        return OTHER
    if payload[0] >> 6 == 2:
        media = rtcp(payload, missing) if 192 <= payload[1] <= 223 else rtp(payload, missing)
        if media == RTP and {53, 137} & set(ports):
            media = OTHER
        if media != OTHER:
            return media
    return signalling(payload) if len(payload) >= 16 else OTHER


def rtp(payload: bytes, missing: int) -> int:
    if len(payload) < 12 or payload[1] in range(72, 77):
        return OTHER
    header = 12 + 4 * (payload[0] & 15)
    if payload[0] & 0x10:
        words = payload[header + 2 : header + 4]
        header += 4 + 4 * (int.from_bytes(words, "big") if len(words) == 2 else 0)
    if payload[0] & 0x20:
        header += 1
    return RTP if header <= len(payload) + missing else OTHER


def rtcp(payload: bytes, missing: int) -> int:
    total = len(payload) + missing
    at, packets = 0, 0
    while at + 4 <= len(payload) and payload[at] >> 6 == 2 and 192 <= payload[at + 1] <= 223:
        size = 4 * (1 + int.from_bytes(payload[at + 2 : at + 4], "big"))
        if at + size > total:
            break
        at += size
        packets += 1
    if not packets or total < 8:
        return OTHER
    return RTCP if payload[1] in range(200, 208) or at >= len(payload) else OTHER


def signalling(payload: bytes) -> int:
    begin = 0
    while begin < min(64, len(payload)) and (payload[begin] <= 13 or payload[begin] == 32):
        begin += 1
    for start in range(begin, min(len(payload) - 15, begin + 65)):
        if start == begin or 65 <= payload[start] <= 85:
            found = start_line(payload[start:])
            if found is not None:
                return by_method(found, payload[start:])
    return OTHER


def start_line(text: bytes) -> bytes | None:
    """The method, b"" for a response, None for no start line."""
    token = re.match(rb"[!-9;-~]{1,64}(?= )", text)
    if token is None:
        return None
    if len(token[0]) == 7 and token[0][3:4] == b"/":
        return b"" if re.match(rb"(?i:SIP)/\d\.\d +[1-6]\d\d(?![!-\xff])", text) else None
    line = re.split(rb"[\r\n]", text[:8192])[0].rstrip(b" ")
    return token[0] if re.search(rb" (?i:SIP)/\d\.\d\Z", line[token.end() :]) else None


def by_method(method: bytes, text: bytes) -> int:
    if method not in (b"", b"NOTIFY"):
        return SIP if method[-7:].endswith(CALL_METHODS) else SIP_IGNORED
    names = rb"event|o" if method else rb"cseq"
    value = header(text, names)
    if value is None:
        return SIP_IGNORED if method else SIP
    word = re.match(rb"[!-:<-\xff]*", value)[0]
    if method:
        return SIP if word.lower() == b"refer" else SIP_IGNORED
    return SIP if word in CALL_METHODS else SIP_IGNORED


def header(text: bytes, names: bytes) -> bytes | None:
    """What follows the name and colon, and of CSeq the number, of the first such line before the empty line."""
    for line in re.finditer(rb"\n", text[: max(0, len(text) - 8)]):
        rest = text[line.end() :]
        if rest[:1] in (b"\r", b"\n"):
            return None
        found = re.match(rb"(?i:" + names + rb")[\x00- ]*:", rest)
        if found:
            skipped = rb"[\x00- ]*" if b"event" in names else rb"[\x00- 0-9]*"
            value = rest[found.end() :][re.match(skipped, rest[found.end() :]).end() :]
            return value or None
    return None
