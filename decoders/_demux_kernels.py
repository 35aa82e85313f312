"""Kernels behind `decoders.demux`: what a UDP payload is, from its octets alone. One pass, no allocation.

Calls are at most two deep and each helper has one caller where it can: a compiler optimises a callee again in every
caller, and the first run waits for it.
"""

import numpy as np
from numba import njit

from capture._octets_at import be16
from capture._prefetch import prefetch
from capture.batch import KIND_UDP, Bytes, Int32, Int64, UInt8, UInt16

OTHER, SIP, SIP_IGNORED, RTP, RTCP = 0, 1, 2, 3, 4

MAX_JUNK = 64
MAX_LINE = 8192
AHEAD = 16
"""Rows for which the processor is asked to fetch ahead."""
DNS_PORT, NETBIOS_NAME_PORT = 53, 137
"""One identifier in four makes a message of these look like RTP."""


def _packed(word: str) -> int:
    """Up to eight ASCII characters as one integer, first character highest."""
    return int.from_bytes(word.encode(), "big")


INVITE, ACK, BYE, CANCEL = _packed("INVITE"), _packed("ACK"), _packed("BYE"), _packed("CANCEL")
PRACK, UPDATE, INFO, REFER = _packed("PRACK"), _packed("UPDATE"), _packed("INFO"), _packed("REFER")
NOTIFY = _packed("NOTIFY")
CSEQ, EVENT, COMPACT_EVENT, REFER_EVENT = _packed("cseq"), _packed("event"), _packed("o"), _packed("refer")

FOLD_REFER = _packed(" " * 5)
"""Makes letters of a packed word of five lower case."""
SEVEN = (1 << 56) - 1
DIGIT = 0
VERSION = tuple(b"SIP/\0.\0")
"""SIP-Version with DIGIT for any digit."""

NO_START = -1
RESPONSE = -2
"""What `_start_line` gives besides a packed method."""

LF, CR, SPACE, SLASH, COLON, SEMICOLON = 10, 13, 32, 47, 58, 59


@njit(cache=True, nogil=True)
def classify_rows(
    buffer: Bytes,
    kind: UInt8,
    payload: Int64,
    length: Int32,
    missing: Int32,
    source_port: UInt16,
    destination_port: UInt16,
    out: UInt8,
) -> None:
    """Class of each row into `out`; all columns have the same length, `buffer` is what `payload` points into."""
    for row in range(len(kind)):
        if row + AHEAD < len(kind):
            prefetch(buffer, payload[row + AHEAD])
        out[row] = OTHER
        size = np.int64(length[row])
        if kind[row] != KIND_UDP or size < 4:
            continue
        at = payload[row]
        head = be16(buffer, at)
        if head >> 14 == 2:
            total = size + missing[row]
            second = head & 0xFF
            if second < 192 or second > 223:
                media = _rtp(buffer, at, head, size, total)
                for port in (source_port[row], destination_port[row]):
                    if port in (DNS_PORT, NETBIOS_NAME_PORT):
                        media = OTHER
            else:
                media = _rtcp(buffer, at, size, total)
            if media != OTHER:
                out[row] = media
                continue
        if size >= 16:
            out[row] = _signalling(buffer, at, at + size)


@njit(nogil=True)
def _rtp(buffer: Bytes, at: int, head: int, size: int, total: int) -> int:
    """RTP by its header (RFC 5761, section 4; RFC 3550, appendix A.1), whose first two octets are `head`.

    `size` octets are present of `total` on the wire. The count of padding is not looked into: SRTP encrypts it.
    """
    if size < 12 or 72 <= head & 0xFF <= 76:
        return OTHER
    header = 12 + 4 * (head >> 8 & 15)
    if head & 0x1000:
        if header + 4 <= size:
            header += 4 * be16(buffer, at + header + 2)
        header += 4
    return RTP if header + (head >> 13 & 1) <= total else OTHER


@njit(nogil=True)
def _rtcp(buffer: Bytes, at: int, size: int, total: int) -> int:
    """RTCP by its header (RFC 3550, appendix A.2); what follows the first packet of an SRTCP datagram is encrypted."""
    second = buffer[at + 1]
    done = 0
    while done + 4 <= size:
        if buffer[at + done] >> 6 != 2 or buffer[at + done + 1] < 192 or buffer[at + done + 1] > 223:
            break
        one = 4 * (1 + be16(buffer, at + done + 2))
        if done + one > total:
            break
        done += one
    if done == 0 or total < 8:
        return OTHER
    return RTCP if 200 <= second <= 207 or done >= size else OTHER


@njit(nogil=True)
def _signalling(buffer: Bytes, at: int, end: int) -> int:
    """SIP, SIP_IGNORED or OTHER; blanks and up to MAX_JUNK octets of junk may come first."""
    begin = at
    stop = min(end, at + MAX_JUNK)
    while begin < stop and (buffer[begin] <= CR or buffer[begin] == SPACE):
        begin += 1
    method = NO_START
    for start in range(begin, min(end - 15, begin + MAX_JUNK + 1)):
        # Every method that matters begins with a letter from A to U, and so does SIP/2.0.
        if start == begin or 65 <= buffer[start] <= 85:
            method = _start_line(buffer, start, end)
            if method != NO_START:
                begin = start
                break
    if method == NO_START:
        return OTHER
    if method != RESPONSE and method != NOTIFY:
        for bits in range(24, 56, 8):
            # The whole method, or its last letters where junk stands before them: then the parser decides.
            if method & ((1 << bits) - 1) in (INVITE, ACK, BYE, CANCEL, PRACK, UPDATE, INFO, REFER):
                return SIP
        return SIP_IGNORED
    value = _header_value(buffer, begin, end, method == NOTIFY)
    if value < 0:
        # A response without a CSeq is left to the parser.
        return SIP_IGNORED if method == NOTIFY else SIP
    word = 0
    while value < end and buffer[value] > SPACE and buffer[value] != SEMICOLON and word >> 48 == 0:
        word = word << 8 | int(buffer[value])
        value += 1
    if method == NOTIFY:
        return SIP if word | FOLD_REFER == REFER_EVENT else SIP_IGNORED
    return SIP if word in (INVITE, ACK, BYE, CANCEL, PRACK, UPDATE, INFO, REFER) else SIP_IGNORED


@njit(nogil=True)
def _start_line(buffer: Bytes, at: int, end: int) -> int:
    """The last seven characters of the method of the request line at `at`, packed; RESPONSE for a status line;
    NO_START for anything else."""
    method = 0
    blank = at
    while blank < end and SPACE < buffer[blank] < 127 and buffer[blank] != COLON:
        method = (method << 8 | int(buffer[blank])) & SEVEN
        blank += 1
    if blank == at or blank - at > 64 or blank >= end or buffer[blank] != SPACE:
        return NO_START
    line_end = blank
    stop = min(end, at + MAX_LINE)
    while line_end < stop and buffer[line_end] != LF and buffer[line_end] != CR:
        line_end += 1
    while line_end > blank and buffer[line_end - 1] == SPACE:
        line_end -= 1
    response = blank - at == 7 and buffer[at + 3] == SLASH
    version = at if response else line_end - 7
    if version < at or version + 7 > end or (version != at and buffer[version - 1] != SPACE):
        return NO_START
    for index in range(7):
        expected = VERSION[index]
        found = buffer[version + index]
        if expected == DIGIT:
            if found < 48 or found > 57:
                return NO_START
        elif found != expected and (index > 2 or found != expected + 32):
            return NO_START
    if not response:
        return method
    while blank < end and buffer[blank] == SPACE:
        blank += 1
    if blank + 3 > end or buffer[blank] < 49 or buffer[blank] > 54:
        return NO_START
    for digit in range(blank + 1, blank + 3):
        if buffer[digit] < 48 or buffer[digit] > 57:
            return NO_START
    return RESPONSE if blank + 3 == end or buffer[blank + 3] <= SPACE else NO_START


@njit(nogil=True)
def _header_value(buffer: Bytes, at: int, end: int, event: bool) -> int:
    """Offset of the event package of the Event header field, or of the method of CSeq; -1 where there is none."""
    name, size = (EVENT, 5) if event else (CSEQ, 4)
    for position in range(at, end - 8):
        if buffer[position] != LF:
            continue
        start = position + 1
        if buffer[start] == LF or buffer[start] == CR:
            return -1
        packed = 0
        after = start
        while after < start + size and buffer[after] != COLON and buffer[after] > SPACE:
            packed = packed << 8 | int(buffer[after] | 32)
            after += 1
        if packed != name and not (event and packed == COMPACT_EVENT):
            continue
        while after < end and buffer[after] <= SPACE:
            after += 1
        if after >= end or buffer[after] != COLON:
            continue
        after += 1
        while after < end and (buffer[after] <= SPACE or (not event and 48 <= buffer[after] <= 57)):
            after += 1
        return after if after < end else -1
    return -1
