"""What a session description says, as values (RFC 8866, RFC 3264, RFC 4568, RFC 8839).

Nothing here reads bytes: `decoders.sdp` fills these. A field that the description leaves out is None, empty or the
standard's own default, never a guess.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Direction(StrEnum):
    """Direction attribute of a media description, as its sender sees it (RFC 3264, section 5.1)."""

    SENDRECV = "sendrecv"
    SENDONLY = "sendonly"
    RECVONLY = "recvonly"
    INACTIVE = "inactive"


@dataclass(frozen=True, slots=True)
class PayloadFormat:
    """One RTP payload type of a media description."""

    payload_type: int
    encoding: str
    """Encoding name as written in the rtpmap, or that of RFC 3551 for a static type without one."""
    clock_rate: int
    """Of the RTP timestamp, Hz; always > 0."""
    channels: int = 1
    fmtp: str = ""
    """Format parameters, everything after the payload type."""

    @property
    def rtpmap(self) -> str:
        """Encoding as an rtpmap names it: PCMU/8000, opus/48000/2."""
        channels = f"/{self.channels}" if self.channels > 1 else ""
        return f"{self.encoding}/{self.clock_rate}{channels}"


def _static(*rows: tuple[int, str, int, int]) -> dict[int, PayloadFormat]:
    return {number: PayloadFormat(number, name, rate, channels) for number, name, rate, channels in rows}


STATIC_FORMATS: Mapping[int, PayloadFormat] = _static(
    (0, "PCMU", 8000, 1),
    (2, "G726-32", 8000, 1),  # G721 in RFC 1890, reserved since RFC 3551; old gateways still send it
    (3, "GSM", 8000, 1),
    (4, "G723", 8000, 1),
    (5, "DVI4", 8000, 1),
    (6, "DVI4", 16000, 1),
    (7, "LPC", 8000, 1),
    (8, "PCMA", 8000, 1),
    (9, "G722", 8000, 1),  # 16 kHz audio on an 8 kHz clock, RFC 3551, section 4.5.2
    (10, "L16", 44100, 2),
    (11, "L16", 44100, 1),
    (12, "QCELP", 8000, 1),
    (13, "CN", 8000, 1),
    (14, "MPA", 90000, 1),
    (15, "G728", 8000, 1),
    (16, "DVI4", 11025, 1),
    (17, "DVI4", 22050, 1),
    (18, "G729", 8000, 1),
    (19, "CN", 8000, 1),  # comfort noise before RFC 3389 took 13; reserved now
    (25, "CelB", 90000, 1),
    (26, "JPEG", 90000, 1),
    (28, "nv", 90000, 1),
    (31, "H261", 90000, 1),
    (32, "MPV", 90000, 1),
    (33, "MP2T", 90000, 1),
    (34, "H263", 90000, 1),
)
"""Payload types that need no rtpmap (RFC 3551, section 6)."""


@dataclass(frozen=True, slots=True)
class CryptoKey:
    """One SDES key with which the sender of the description protects what it sends (RFC 4568, section 5.1)."""

    tag: int
    suite: str
    """As written, e.g. AES_CM_128_HMAC_SHA1_80."""
    key: bytes
    """Master key followed by master salt."""
    mki: int | None = None
    """Master key identifier, None where packets carry none."""
    mki_length: int = 0
    """Octets of the identifier in each packet."""
    lifetime: int | None = None
    """Packets the key may protect."""
    session_params: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """One ICE candidate (RFC 8839, section 5.1)."""

    component: int
    """1 RTP, 2 RTCP."""
    transport: str
    """Lower case: udp, tcp."""
    address: str
    port: int
    kind: str
    """host, srflx, prflx or relay."""


class MediaDescription(NamedTuple):
    """One m= section, with what it takes from the session level.

    A tuple, for every message has some: it is made in a fifth of the time that a frozen dataclass takes.
    """

    index: int  # type: ignore[assignment]  # tuples have a method of that name, which nobody asks for here
    """Position of the section, from 0."""
    media: str
    """Lower case: audio, video, image..."""
    port: int
    protocol: str
    """As written, e.g. RTP/AVP."""
    address: str
    """Of the connection line in force, without TTL; an IP address or a name; empty where there is none."""
    formats: Mapping[int, PayloadFormat]
    """RTP payload types in the order of the m= line; empty for other protocols."""
    port_count: int = 1
    direction: Direction = Direction.SENDRECV
    rtcp_port: int | None = None
    rtcp_address: str | None = None
    rtcp_mux: bool = False
    ptime: float | None = None
    """Packet time, ms."""
    crypto: tuple[CryptoKey, ...] = ()
    dtls: bool = False
    """A certificate fingerprint is given: the keys come from DTLS (RFC 5763)."""
    label: str | None = None
    mid: str | None = None
    candidates: tuple[Candidate, ...] = ()
    record: str | None = None
    """on, off or paused (RFC 7866, section 7.1.2)."""
    bundle_only: bool = False
    ssrcs: tuple[int, ...] = ()
    """Announced by the sender (RFC 5576)."""

    @property
    def rejected(self) -> bool:
        """Port 0 refuses or ends the media (RFC 3264, section 6), unless it is bundle-only (RFC 8843)."""
        return self.port == 0 and not self.bundle_only

    @property
    def held_by_address(self) -> bool:
        """The old way to hold: the unspecified address (RFC 3264, section 8.4; RFC 6337, section 5.1)."""
        return self.address in ("0.0.0.0", "::", "0:0:0:0:0:0:0:0")

    @property
    def encrypted(self) -> bool:
        """The profile is a secure one (SAVP, SAVPF, UDP/TLS/RTP/SAVPF)."""
        return "SAVP" in self.protocol.upper()

    @property
    def rtp(self) -> bool:
        """The media are RTP, whatever is below it."""
        return "RTP/" in self.protocol.upper()


@dataclass(frozen=True, slots=True)
class Origin:
    """The o= line (RFC 8866, section 5.2)."""

    user: str
    session_id: str
    version: int | None
    """None where it is no number."""
    address: str


@dataclass(frozen=True, slots=True)
class SessionDescription:
    """A whole description."""

    origin: Origin | None
    name: str
    media: tuple[MediaDescription, ...]
    address: str = ""
    """Of the session's own connection line, empty where there is none."""
    ice_lite: bool = False
    groups: tuple[tuple[str, ...], ...] = ()
    """Each a=group: semantics (upper case), then the mids (RFC 5888)."""
    notes: tuple[str, ...] = ()
    """What was unsound, a few words each."""

    @property
    def bundle(self) -> tuple[str, ...]:
        """The mids that share the transport of the first of them (RFC 8843), empty where none do."""
        return next((group[1:] for group in self.groups if group[0] == "BUNDLE"), ())
