"""The nouns of a recording, as values that the stages of the recorder hand on.

The call tracker (`calls`) fills `Call`; the media engine fills `StreamReport` and `AudioReport`; documents, metadata
and catalogue are written from the three and from nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import NamedTuple
from uuid import UUID

from capture.address import Endpoint
from decoders.sdp import CryptoKey, Direction, PayloadFormat


class Side(StrEnum):
    """A participant's part in a two-party call."""

    CALLER = "caller"
    CALLEE = "callee"

    @property
    def other(self) -> "Side":
        """The opposite participant."""
        return Side.CALLEE if self is Side.CALLER else Side.CALLER


class CallState(StrEnum):
    """How a call ended, or that it has not."""

    ACTIVE = "active"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    FAILED = "failed"
    INCOMPLETE = "incomplete"
    MEDIA_ONLY = "media-only"


class Transport(StrEnum):
    """What carried a SIP message."""

    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"
    WS = "ws"


class Sighting(NamedTuple):
    """Where and when a message was seen on the wire."""

    time: int
    """Capture time, ns."""
    packet: int
    """Frame number in its capture, from 1 (the last frame of a reassembled message)."""
    capture: int
    """Index of the capture."""
    source: Endpoint
    destination: Endpoint
    transport: Transport = Transport.UDP
    realm: int = 0


class IdentityOrigin(IntEnum):
    """Where an identity was heard, in order of trust."""

    ASSERTED = 0
    """P-Asserted-Identity (RFC 3325)."""
    REMOTE_PARTY = 1
    """Remote-Party-ID."""
    ADDRESS = 2
    """From or To."""
    REQUEST_URI = 3
    DIVERSION = 4
    """Diversion (RFC 5806); never a participant's own identity, kept for the metadata."""


class Identity(NamedTuple):
    """One address of record heard for a participant."""

    uri: str
    name: str | None
    origin: IdentityOrigin


@dataclass(slots=True)
class Party:
    """One participant of a call."""

    side: Side
    identities: list[Identity] = field(default_factory=list)
    """Distinct, in order of trust then of sighting."""
    address: Endpoint | None = None
    """Of its signalling, null if unseen."""
    contact_params: tuple[tuple[str, str], ...] = ()
    """Capabilities from its Contact (RFC 3840), e.g. ("isfocus", "")."""
    joined: int | None = None
    left: int | None = None

    @property
    def uri(self) -> str | None:
        """The most trusted URI, None where nothing was heard."""
        own = [i for i in self.identities if i.origin is not IdentityOrigin.DIVERSION]
        return own[0].uri if own else None

    @property
    def name(self) -> str | None:
        """The display name of the most trusted identity that has one."""
        return next((i.name for i in self.identities if i.name and i.origin is not IdentityOrigin.DIVERSION), None)


class MediaEndpoint(NamedTuple):
    """A media description as offered or answered at one hop: where `side` of `call` wants its media sent."""

    call: int
    """`Call.index`."""
    side: Side
    hop: int
    """Index of the hop (pair of signalling endpoints) within the call, in order of first sighting."""
    media_index: int
    """Position of the m= section in its SDP."""
    media: str
    """audio, video, image..."""
    endpoint: Endpoint
    rtcp: Endpoint | None
    """Where RTCP goes, None when multiplexed (RFC 5761)."""
    formats: Mapping[int, PayloadFormat]
    direction: Direction
    crypto: tuple[CryptoKey, ...]
    """SDES keys with which `side` protects what it SENDS (RFC 4568, section 5.1.1)."""
    encrypted: bool
    """The profile is SAVP, SAVPF or UDP/TLS/RTP/SAVPF."""
    dtls: bool
    label: str | None
    since: int
    """Capture time of the SDP, ns."""
    packet: int
    realm: int
    ice: bool = False
    """`endpoint` is an ICE candidate, not the default address."""


class Digit(NamedTuple):
    """A DTMF digit."""

    at: int
    side: Side
    digit: str
    duration_ms: int | None
    via: str
    """rfc4733 or info."""


class Hold(NamedTuple):
    """A period on hold, from the request that holds to the one that resumes or to the end."""

    begin: int
    end: int | None
    by: Side


class Warning_(NamedTuple):
    """Something a reader of the recording must know. `code` is stable and kebab-case, `text` a sentence."""

    code: str
    text: str


class TraceEvent(NamedTuple):
    """One step of the decision trace that answers why a call was recorded as it was."""

    time: int
    packet: int
    code: str
    text: str


class GroupReason(StrEnum):
    """Why two calls belong to one conversation."""

    MEDIA = "media identity"
    REPLACES = "Replaces"
    REFERRED_BY = "Referred-By"
    REFER = "REFER"
    """One side of the other call was asked by REFER to make this one."""
    REDIRECT = "redirection"
    """The other call was answered 3xx with this one's target."""
    SESSION_ID = "Session-ID"
    HEADER = "X-header"
    METADATA = "recording metadata"
    """An SRC says so: both are of one `group` (RFC 7865, section 6.2), or of one communication session."""


@dataclass(slots=True, weakref_slot=True)
class Call:
    """All that one Call-ID did (or, with `call_id` None, media that no signalling explains)."""

    index: int
    """Running number in order of first sighting."""
    call_id: str | None
    started: int
    first_packet: int
    capture: int
    """Index of the capture of the first sighting."""
    last_seen: int = 0
    last_packet: int = 0
    caller: Party = field(default_factory=lambda: Party(Side.CALLER))
    callee: Party = field(default_factory=lambda: Party(Side.CALLEE))
    ringing: int | None = None
    answered: int | None = None
    ended: int | None = None
    state: CallState = CallState.ACTIVE
    sip_status: int | None = None
    sip_reason: str | None = None
    ended_by: Side | None = None
    reason_headers: tuple[tuple[str, int, str], ...] = ()
    """(protocol, cause, text) of Reason headers that ended the call (RFC 3326)."""
    session_ids: tuple[str, ...] = ()
    """Session-ID values heard (RFC 7989), `uuid;remote=uuid`."""
    digits: list[Digit] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    warnings: list[Warning_] = field(default_factory=list)
    tags: tuple[str, ...] = ()
    """Given by the recording policy, distinct and sorted."""
    trace: list[TraceEvent] = field(default_factory=list)
    captures: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Capture index -> first and last frame number of this call's signalling and media."""
    recording_session: "RecordingSession | None" = None
    """Set when this dialog is somebody else's SIPREC recording session (RFC 7866), not a call."""
    recorded_by: list["RecordingSession"] = field(default_factory=list)
    """Recording sessions that record this call."""
    received: bool = False
    """An SRC sent it to us: its signalling is recording sessions of ours, not SIP messages that were heard."""
    others: list[Party] = field(default_factory=list)
    """Further participants: of a conference, or after a transfer. `side` is whose place they took or share."""
    id: UUID | None = None
    """Set by the engine, see `identifiers`."""
    group: int | None = None
    """`Call.index` of the first call of the group it belongs to, None when alone."""
    group_reasons: list[tuple[int, GroupReason]] = field(default_factory=list)
    """(index of the other call, why)."""

    def see(self, capture: int, packet: int) -> None:
        """Widen the range of frames of `capture` that belong to this call."""
        known = self.captures.get(capture)
        if known is None:
            self.captures[capture] = (packet, packet)
        elif packet > known[1]:
            self.captures[capture] = (known[0], packet)
        elif packet < known[0]:
            self.captures[capture] = (packet, known[1])

    def party(self, side: Side) -> Party:
        """The participant on `side`."""
        return self.caller if side is Side.CALLER else self.callee


@dataclass(slots=True)
class RecordingSession:
    """A recording session of an SRC (RFC 7866), seen in the capture or with us."""

    call_id: str
    started: int
    ended: int | None
    src: Endpoint | None
    srs: Endpoint | None
    session_ids: tuple[str, ...]
    aors: tuple[str, ...]
    """AoRs of the participants in its metadata."""
    metadata: list[bytes] = field(default_factory=list)
    """The rs-metadata bodies, verbatim, in order of arrival."""
    packets: int = 0
    """RTP packets that it carried."""
    records: list[int] = field(default_factory=list)
    """`Call.index` of the calls that it records."""


@dataclass(frozen=True, slots=True)
class StreamReport:
    """What is told of one stream when its call is written. Times in ns, positions in packets."""

    media: str
    side: Side | None
    label: str
    channel: int | None
    codec: str
    """Encoding name and rate as in the rtpmap, e.g. PCMU/8000."""
    payload_type: int
    clock_rate: int
    ssrc: int
    source: Endpoint
    destination: Endpoint
    started: int
    ended: int
    packets: int
    lost: int
    duplicates: int
    late: int
    reordered: int
    jitter_mean_ms: float | None
    jitter_max_ms: float | None
    mos: float | None
    r_factor: float | None
    mos_scale: str | None
    """narrowband or wideband: the two scales are not comparable."""
    burst_ratio: float | None
    copies: int
    encrypted: bool
    decrypted: bool
    rule: str
    """Which correlation rule placed it: destination, source, reverse, media-only."""
    rtcp_cname: str | None = None
    rtt_ms: float | None = None
    """From RTCP, at the tap."""
    far_end_fraction_lost: float | None = None
    """Last fraction lost that the receiver reported, 0..1."""
    far_end_jitter_ms: float | None = None


@dataclass(frozen=True, slots=True)
class AudioReport:
    """The audio file of a recording."""

    file: str
    format: str
    sample_rate: int
    channels: int
    samples: int
    """Per channel."""
    started: int
    """Capture time of sample 0, ns."""
    sha256: str


@dataclass(frozen=True, slots=True)
class CaptureReport:
    """A capture file as read."""

    file: str
    """Base name."""
    sha256: str
    bytes: int
    packets: int
    link_types: tuple[str, ...]
    started: int | None
    ended: int | None
    damage: tuple[str, ...]
    """One sentence for each place that could not be read."""
