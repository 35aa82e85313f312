"""RTCP packets of a sender, as octets (RFC 3550, section 6). `decoders.rtcp` reads them back.

In: numbers and texts. Out: packets that may be joined to a compound: a report first, then the source's description,
then perhaps its leaving. Never raises for texts: what is too long for an item is cut.
"""

import struct
from collections.abc import Sequence

from decoders.rtcp_values import NTP_UNIX_OFFSET, PacketType, ReportBlock, SdesItem

MAX_BLOCKS = 31
"""Report blocks of one packet: their count has five bits."""
_LONGEST_TEXT = 255


def ntp_of(unix_ns: int) -> int:
    """The 64-bit NTP timestamp of a time in ns since the Unix epoch."""
    seconds, rest = divmod(unix_ns, 1_000_000_000)
    return ((seconds + NTP_UNIX_OFFSET) & 0xFFFFFFFF) << 32 | (rest << 32) // 1_000_000_000


def sender_report(
    ssrc: int, unix_ns: int, rtp_timestamp: int, packets: int, octets: int, blocks: Sequence[ReportBlock] = ()
) -> bytes:
    """SR (section 6.4.1): `unix_ns` and `rtp_timestamp` tell the same instant by two clocks."""
    body = struct.pack(
        "!IQIII",
        ssrc,
        ntp_of(unix_ns),
        rtp_timestamp & 0xFFFFFFFF,
        packets & 0xFFFFFFFF,
        octets & 0xFFFFFFFF,
    )
    return _packet(PacketType.SR, min(len(blocks), MAX_BLOCKS), body + _blocks(blocks))


def receiver_report(ssrc: int, blocks: Sequence[ReportBlock] = ()) -> bytes:
    """RR (section 6.4.2); without blocks it only says that `ssrc` is there."""
    return _packet(PacketType.RR, min(len(blocks), MAX_BLOCKS), struct.pack("!I", ssrc) + _blocks(blocks))


def source_description(ssrc: int, cname: str) -> bytes:
    """SDES with the canonical name alone (section 6.5.1)."""
    text = cname.encode()[:_LONGEST_TEXT]
    chunk = struct.pack("!IBB", ssrc, SdesItem.CNAME, len(text)) + text + b"\0"
    return _packet(PacketType.SDES, 1, chunk)


def bye(ssrc: int, reason: str = "") -> bytes:
    """BYE (section 6.6)."""
    text = reason.encode()[:_LONGEST_TEXT]
    return _packet(PacketType.BYE, 1, struct.pack("!I", ssrc) + (bytes([len(text)]) + text if text else b""))


def _blocks(blocks: Sequence[ReportBlock]) -> bytes:
    return b"".join(
        struct.pack(
            "!IIIIII",
            each.ssrc,
            each.fraction_lost << 24 | max(min(each.cumulative_lost, 0x7FFFFF), -0x800000) & 0xFFFFFF,
            each.highest_sequence & 0xFFFFFFFF,
            each.jitter & 0xFFFFFFFF,
            each.lsr,
            each.dlsr & 0xFFFFFFFF,
        )
        for each in blocks[:MAX_BLOCKS]
    )


def _packet(kind: PacketType, count: int, body: bytes) -> bytes:
    """A packet with its header, filled up with zeros to whole words."""
    words = -(-len(body) // 4)
    return struct.pack("!BBH", 0x80 | count, kind, words) + body.ljust(4 * words, b"\0")
