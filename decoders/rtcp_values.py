"""The values of RTCP (RFC 3550, section 6; RFC 3611; RFC 4585), as `rtcp.parse_rtcp` reads them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

MAX_NOTES = 16
"""Notes kept of one compound packet."""
NTP_UNIX_OFFSET = 2_208_988_800
"""Seconds from the NTP era (1900) to the Unix epoch."""


class PacketType(IntEnum):
    """RTCP packet types."""

    SR = 200
    RR = 201
    SDES = 202
    BYE = 203
    APP = 204
    RTPFB = 205
    PSFB = 206
    XR = 207


class SdesItem(IntEnum):
    """Source description items (RFC 3550, section 6.5)."""

    CNAME = 1
    NAME = 2
    EMAIL = 3
    PHONE = 4
    LOC = 5
    TOOL = 6
    NOTE = 7
    PRIV = 8


@dataclass(frozen=True, slots=True)
class ReportBlock:
    """What a receiver says of one source (RFC 3550, section 6.4.1)."""

    ssrc: int
    """The source reported on."""
    fraction_lost: int
    """Since the previous report, in 1/256."""
    cumulative_lost: int
    """Since the beginning; signed, for duplicates count as received."""
    highest_sequence: int
    """Extended: cycles in the upper 16 bits."""
    jitter: int
    """In RTP timestamp units."""
    lsr: int
    """Middle 32 bits of the NTP timestamp of the last sender report, 0 where none came."""
    dlsr: int
    """From that report's arrival to this one's departure, in 1/65536 s."""


@dataclass(frozen=True, slots=True)
class SenderReport:
    """SR (RFC 3550, section 6.4.1)."""

    ssrc: int
    ntp: int
    """64-bit NTP timestamp of the sender's clock, 0 where it has none."""
    rtp_timestamp: int
    packets: int
    octets: int
    blocks: tuple[ReportBlock, ...]

    @property
    def ntp_middle(self) -> int:
        """The 32 bits that receivers give back as LSR."""
        return self.ntp >> 16 & 0xFFFFFFFF

    @property
    def unix_ns(self) -> int | None:
        """The sender's clock in ns since the Unix epoch, None where the report gives no time of this era."""
        seconds = (self.ntp >> 32) - NTP_UNIX_OFFSET
        return None if seconds < 0 else seconds * 1_000_000_000 + ((self.ntp & 0xFFFFFFFF) * 1_000_000_000 >> 32)


@dataclass(frozen=True, slots=True)
class ReceiverReport:
    """RR (RFC 3550, section 6.4.2)."""

    ssrc: int
    blocks: tuple[ReportBlock, ...]


@dataclass(frozen=True, slots=True)
class SourceDescription:
    """One chunk of an SDES packet (RFC 3550, section 6.5)."""

    ssrc: int
    items: tuple[tuple[int, str], ...]
    """(`SdesItem` value, text) in order."""

    @property
    def cname(self) -> str | None:
        """The canonical name, None where the chunk has none."""
        return next((text for kind, text in self.items if kind == SdesItem.CNAME), None)


@dataclass(frozen=True, slots=True)
class Bye:
    """BYE (RFC 3550, section 6.6)."""

    ssrcs: tuple[int, ...]
    reason: str | None


@dataclass(frozen=True, slots=True)
class App:
    """APP (RFC 3550, section 6.7)."""

    subtype: int
    ssrc: int
    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Feedback:
    """Transport layer or payload-specific feedback (RFC 4585, section 6.1)."""

    payload_specific: bool
    format: int
    sender: int
    media: int
    control: bytes


@dataclass(frozen=True, slots=True)
class VoipMetrics:
    """VoIP metrics report block (RFC 3611, section 4.7). None stands for the standard's "unavailable"."""

    ssrc: int
    loss_rate: int
    """In 1/256, as are the next three."""
    discard_rate: int
    burst_density: int
    gap_density: int
    burst_duration_ms: int
    gap_duration_ms: int
    round_trip_ms: int
    """0 where it is not known."""
    end_system_delay_ms: int
    signal_level_dbm: int | None
    noise_level_dbm: int | None
    echo_return_loss_db: int | None
    gmin: int
    r_factor: int | None
    """0..100."""
    external_r_factor: int | None
    mos_lq: float | None
    mos_cq: float | None
    receiver_config: int
    jitter_buffer_nominal_ms: int
    jitter_buffer_maximum_ms: int
    jitter_buffer_absolute_maximum_ms: int


@dataclass(frozen=True, slots=True)
class ExtendedReport:
    """XR (RFC 3611)."""

    ssrc: int
    voip: tuple[VoipMetrics, ...]
    block_types: tuple[int, ...]
    """Of every block, read or not, in order."""


@dataclass(slots=True)
class RtcpCompound:
    """What one datagram of RTCP says."""

    sender_reports: list[SenderReport] = field(default_factory=list)
    receiver_reports: list[ReceiverReport] = field(default_factory=list)
    descriptions: list[SourceDescription] = field(default_factory=list)
    byes: list[Bye] = field(default_factory=list)
    apps: list[App] = field(default_factory=list)
    feedback: list[Feedback] = field(default_factory=list)
    extended: list[ExtendedReport] = field(default_factory=list)
    packet_types: list[int] = field(default_factory=list)
    """Of every packet, read or not, in order."""
    notes: list[str] = field(default_factory=list)
    """What was unsound, a phrase each."""

    @property
    def cnames(self) -> dict[int, str]:
        """Canonical name of each SSRC described."""
        return {chunk.ssrc: chunk.cname for chunk in self.descriptions if chunk.cname}

    def blocks(self) -> Iterator[tuple[int, ReportBlock]]:
        """(SSRC of the reporter, report block) of every SR and RR."""
        for sender in self.sender_reports:
            yield from ((sender.ssrc, block) for block in sender.blocks)
        for receiver in self.receiver_reports:
            yield from ((receiver.ssrc, block) for block in receiver.blocks)

    def note(self, text: str) -> None:
        """Keep a note, up to `MAX_NOTES`."""
        if len(self.notes) < MAX_NOTES:
            self.notes.append(text)
