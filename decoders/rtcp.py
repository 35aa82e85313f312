"""RTCP compound packets (RFC 3550, sections 6 and A.2; RFC 3611; RFC 4585) and what a tap learns from them.

In: the payload of one datagram, untrusted. Out: `RtcpCompound`: every report that could be read whole, and notes on
what was unsound. Never raises, never guesses, never decrypts: give it SRTCP only after decryption.

Bounds: at most `MAX_PACKETS` packets of a compound, `MAX_ITEMS` items of a source description, `MAX_XR_BLOCKS`
report blocks of an XR packet and `rtcp_values.MAX_NOTES` notes are kept; counts of five bits bound the rest.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from decoders.rtcp_values import (
    App,
    Bye,
    ExtendedReport,
    Feedback,
    PacketType,
    ReceiverReport,
    ReportBlock,
    RtcpCompound,
    SdesItem,
    SenderReport,
    SourceDescription,
    VoipMetrics,
)

__all__ = [
    "App",
    "Bye",
    "ExtendedReport",
    "Feedback",
    "PacketType",
    "ReceiverReport",
    "ReportBlock",
    "RoundTrip",
    "RtcpCompound",
    "RttEstimator",
    "SdesItem",
    "SenderReport",
    "SourceDescription",
    "VoipMetrics",
    "parse_rtcp",
]

MAX_PACKETS = 64
MAX_ITEMS = 32
MAX_XR_BLOCKS = 32

RTCP_TYPES = range(192, 224)
"""Packet types that can be RTCP (RFC 5761, section 4); anything else is foreign or encrypted."""
MAX_ROUND_TRIP = 60_000_000_000
"""ns; what is longer comes of a broken DLSR field, not of a network."""
REMEMBERED_REPORTS = 256
"""Sender reports that `RttEstimator` remembers: far more than any receiver answers late."""


def parse_rtcp(data: bytes) -> RtcpCompound:
    """Read a compound packet of any shape.

    The validity checks of RFC 3550, A.2 are noted, not enforced: a first packet other than SR or RR (legal with
    RFC 5506), padding before the last packet, lengths that do not add up.
    """
    compound = RtcpCompound()
    offset = 0
    while offset < len(data):
        if len(data) - offset < 4:
            compound.note(f"{len(data) - offset} octets after the last packet")
            break
        first, kind, words = struct.unpack_from("!BBH", data, offset)
        if first >> 6 != 2:
            compound.note(f"version {first >> 6} at octet {offset}")
            break
        if kind not in RTCP_TYPES:
            compound.note(f"no RTCP from octet {offset} on: packet type {kind}")
            break
        if len(compound.packet_types) == MAX_PACKETS:
            compound.note(f"more than {MAX_PACKETS} packets")
            break
        if not compound.packet_types and kind not in (PacketType.SR, PacketType.RR):
            compound.note(f"begins with packet type {kind}, neither SR nor RR")
        end = offset + 4 * (words + 1)
        if end > len(data):
            compound.note(f"packet type {kind} is cut: {end - len(data)} octets are missing")
        body = data[offset + 4 : end]
        if first & 0x20:
            body = _unpad(compound, body, last=end >= len(data), whole=end <= len(data))
        compound.packet_types.append(kind)
        _PARSERS.get(kind, _parse_unknown)(compound, first & 0x1F, body, kind)
        offset = end
    if not data:
        compound.note("empty")
    return compound


def _unpad(compound: RtcpCompound, body: bytes, *, last: bool, whole: bool) -> bytes:
    """`body` without its padding (RFC 3550, section 6.4.1): its last octet says how much."""
    if not last:
        compound.note("padding before the last packet")
    if not whole or not body:
        return body
    count = body[-1]
    if count == 0 or count % 4 or count > len(body):
        compound.note(f"padding of {count} octets")
        return body
    return body[:-count]


def _parse_blocks(compound: RtcpCompound, count: int, body: bytes) -> tuple[ReportBlock, ...]:
    present = min(count, len(body) // 24)
    if present < count:
        compound.note(f"{count} report blocks promised, {present} present")
    blocks = []
    for ssrc, loss, highest, jitter, lsr, dlsr in struct.iter_unpack("!6I", body[: 24 * present]):
        cumulative = loss & 0xFFFFFF
        signed = cumulative - 0x1000000 if cumulative & 0x800000 else cumulative
        blocks.append(ReportBlock(ssrc, loss >> 24, signed, highest, jitter, lsr, dlsr))
    return tuple(blocks)


def _parse_sender_report(compound: RtcpCompound, count: int, body: bytes, kind: int) -> None:
    if len(body) < 24:
        compound.note("SR is too short")
        return
    ssrc, ntp, timestamp, packets, octets = struct.unpack_from("!IQIII", body)
    blocks = _parse_blocks(compound, count, body[24:])
    compound.sender_reports.append(SenderReport(ssrc, ntp, timestamp, packets, octets, blocks))


def _parse_receiver_report(compound: RtcpCompound, count: int, body: bytes, kind: int) -> None:
    if len(body) < 4:
        compound.note("RR is too short")
        return
    (ssrc,) = struct.unpack_from("!I", body)
    compound.receiver_reports.append(ReceiverReport(ssrc, _parse_blocks(compound, count, body[4:])))


def _parse_source_description(compound: RtcpCompound, count: int, body: bytes, kind: int) -> None:
    offset = 0
    for index in range(count):
        if len(body) - offset < 4:
            compound.note(f"{count} SDES chunks promised, {index} present")
            return
        (ssrc,) = struct.unpack_from("!I", body, offset)
        items, offset = _parse_items(compound, body, offset + 4)
        compound.descriptions.append(SourceDescription(ssrc, items))


def _parse_items(compound: RtcpCompound, body: bytes, offset: int) -> tuple[tuple[tuple[int, str], ...], int]:
    """Items of one chunk up to its null octet, and the offset of the next chunk (a multiple of four)."""
    items: list[tuple[int, str]] = []
    while offset < len(body) and body[offset]:
        end = offset + 2 + (body[offset + 1] if offset + 1 < len(body) else 0)
        if offset + 1 >= len(body) or end > len(body):
            compound.note("an SDES item runs past its packet")
            return tuple(items), len(body)
        if len(items) < MAX_ITEMS:
            # Some senders count a terminating null as text.
            items.append((body[offset], body[offset + 2 : end].decode("utf-8", "replace").rstrip("\0")))
        offset = end
    if offset >= len(body):
        compound.note("an SDES chunk without its end")
    return tuple(items), (offset + 4) & ~3


def _parse_bye(compound: RtcpCompound, count: int, body: bytes, kind: int) -> None:
    present = min(count, len(body) // 4)
    if present < count:
        compound.note(f"{count} sources in BYE promised, {present} present")
    rest = body[4 * present :] if present == count else b""
    reason = None
    if rest and rest[0]:
        if 1 + rest[0] > len(rest):
            compound.note("the reason of a BYE runs past its packet")
        else:
            reason = rest[1 : 1 + rest[0]].decode("utf-8", "replace")
    compound.byes.append(Bye(struct.unpack_from(f"!{present}I", body), reason))


def _parse_app(compound: RtcpCompound, count: int, body: bytes, kind: int) -> None:
    if len(body) < 8:
        compound.note("APP is too short")
        return
    (ssrc,) = struct.unpack_from("!I", body)
    compound.apps.append(App(count, ssrc, body[4:8].decode("ascii", "replace"), body[8:]))


def _parse_feedback(compound: RtcpCompound, count: int, body: bytes, kind: int) -> None:
    if len(body) < 8:
        compound.note("feedback is too short")
        return
    sender, media = struct.unpack_from("!II", body)
    compound.feedback.append(Feedback(kind == PacketType.PSFB, count, sender, media, body[8:]))


def _parse_extended_report(compound: RtcpCompound, count: int, body: bytes, kind: int) -> None:
    if len(body) < 4:
        compound.note("XR is too short")
        return
    (ssrc,) = struct.unpack_from("!I", body)
    voip: list[VoipMetrics] = []
    types: list[int] = []
    offset = 4
    while len(body) - offset >= 4 and len(types) < MAX_XR_BLOCKS:
        block, _, words = struct.unpack_from("!BBH", body, offset)
        end = offset + 4 * (words + 1)
        if end > len(body):
            compound.note(f"XR block type {block} runs past its packet")
            break
        types.append(block)
        if block == 7 and words == 8:
            voip.append(_parse_voip_metrics(body[offset + 4 : end]))
        elif block == 7:
            compound.note(f"VoIP metrics of {words} words instead of 8")
        offset = end
    compound.extended.append(ExtendedReport(ssrc, tuple(voip), tuple(types)))


def _parse_voip_metrics(body: bytes) -> VoipMetrics:
    """The 32 octets after the block header (RFC 3611, section 4.7); 127 means unavailable."""
    fields = struct.unpack("!I4B4H2b8B3H", body)

    def known(value: int) -> int | None:
        return None if value == 127 else value

    def mos(value: int) -> float | None:
        return value / 10 if 10 <= value <= 50 else None

    return VoipMetrics(
        ssrc=fields[0],
        loss_rate=fields[1],
        discard_rate=fields[2],
        burst_density=fields[3],
        gap_density=fields[4],
        burst_duration_ms=fields[5],
        gap_duration_ms=fields[6],
        round_trip_ms=fields[7],
        end_system_delay_ms=fields[8],
        signal_level_dbm=known(fields[9]),
        noise_level_dbm=known(fields[10]),
        echo_return_loss_db=known(fields[11]),
        gmin=fields[12],
        r_factor=known(fields[13]),
        external_r_factor=known(fields[14]),
        mos_lq=mos(fields[15]),
        mos_cq=mos(fields[16]),
        receiver_config=fields[17],
        jitter_buffer_nominal_ms=fields[19],
        jitter_buffer_maximum_ms=fields[20],
        jitter_buffer_absolute_maximum_ms=fields[21],
    )


def _parse_unknown(compound: RtcpCompound, count: int, body: bytes, kind: int) -> None:
    compound.note(f"packet type {kind} is not known")


_PARSERS: dict[int, Callable[[RtcpCompound, int, bytes, int], None]] = {
    PacketType.SR: _parse_sender_report,
    PacketType.RR: _parse_receiver_report,
    PacketType.SDES: _parse_source_description,
    PacketType.BYE: _parse_bye,
    PacketType.APP: _parse_app,
    PacketType.RTPFB: _parse_feedback,
    PacketType.PSFB: _parse_feedback,
    PacketType.XR: _parse_extended_report,
}


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """A round-trip time between the tap and the receiver that reported."""

    source: int
    """SSRC whose sender report was answered."""
    reporter: int
    """SSRC of the receiver that answered."""
    rtt_ns: int


class RttEstimator:
    """Round-trip times at a passive tap (RFC 3550, section 6.4.1, seen from the middle of the path).

    A sender report that passes the tap towards B comes back as LSR in B's next report: what lies between, less
    B's DLSR, is the way from the tap to B and back. The way to A comes from B's sender reports likewise; the two
    added are the round trip of the whole path. Remembers `REMEMBERED_REPORTS` sender reports.
    """

    def __init__(self) -> None:
        self._passed: dict[tuple[int, int], int] = {}

    def feed(self, time: int, compound: RtcpCompound) -> list[RoundTrip]:
        """Take a compound packet seen at capture time `time` (ns), give the round trips that it completes."""
        trips = []
        for reporter, block in compound.blocks():
            passed = self._passed.get((block.ssrc, block.lsr)) if block.lsr else None
            if passed is None:
                continue
            rtt = time - passed - (block.dlsr * 1_000_000_000 >> 16)
            if 0 <= rtt <= MAX_ROUND_TRIP:
                trips.append(RoundTrip(block.ssrc, reporter, rtt))
        for report in compound.sender_reports:
            if report.ntp_middle:
                # The first sighting stands: a mirrored copy of the same report must not shorten the way.
                self._passed.setdefault((report.ssrc, report.ntp_middle), time)
        while len(self._passed) > REMEMBERED_REPORTS:
            del self._passed[next(iter(self._passed))]
        return trips
