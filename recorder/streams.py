"""A stream of a call and the media of a call, while they last.

`MediaStream` is one RTP source in one direction as a call sees it; `CallMedia` is all media of one call with the tracks
that it is written to. Both belong to the thread that works on the call's window.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from capture.address import Endpoint
from decoders.codecs.base import Decoder
from decoders.comfortnoise import ComfortNoise
from decoders.dtmf import TelephoneEvents
from decoders.sdp import PayloadFormat
from decoders.srtp import SrtpStream
from recorder.endpoints import Claim, Rule
from recorder.model import Call, Side
from recorder.tracks import Track


class Listening(IntEnum):
    """How much of a call's media is wanted."""

    PASSED_OVER = 0
    """Nothing: its packets are passed over as soon as their flow is known."""
    COUNTED = 1
    """Figures, no audio."""
    HEARD = 2


@dataclass(slots=True, eq=False)
class MediaStream:
    """One SSRC in one direction, as one call sees it."""

    row: int
    """In the stream table."""
    flow: int
    ssrc: int
    source: Endpoint
    destination: Endpoint
    media: str
    speaker: Side
    rule: Rule
    hops: frozenset[int]
    """Hops at which its endpoint was announced."""
    formats: dict[int, PayloadFormat]
    first_time: int
    first_sequence: int
    first_stamp: int
    since: int
    """Capture time of the announcement it was claimed by, ns."""
    claim: Claim | None
    primary: "MediaStream | None" = None
    """The stream that this is another sighting of."""
    alternate: bool = False
    """The same direction at a hop farther from the speaker: counted, not heard."""
    muted: bool = False
    """Counted, never recorded: carried by a recording session, or no audio of its call is wanted."""
    forks: frozenset[int] = frozenset()
    """Recording sessions (`Call.index`) that carry it too."""
    layer: int = 0
    fast_rate: int = 0
    """Rate of its G.711, which kernels decode from the window; 0 where it has none."""
    encrypted: bool = False
    srtp: SrtpStream | None = None
    undecrypted: int = 0
    decrypted: int = 0
    decoders: dict[int, Decoder | None] = field(default_factory=dict)
    undecodable: dict[str, str] = field(default_factory=dict)
    """rtpmap -> why, of what could not be decoded."""
    events: TelephoneEvents | None = None
    noise: tuple[bytes, int] | None = None
    """Comfort noise that sounds until the next packet: its payload and its position in ticks."""
    noise_source: ComfortNoise | None = None
    low: int = 0
    """Ticks of the earliest and behind the latest sample that it placed."""
    high: int = 0
    cname: str | None = None
    far_end_loss: float | None = None
    far_end_jitter_ms: float | None = None
    rtt_ms: float | None = None

    @property
    def channel(self) -> int:
        """0 left (caller), 1 right (callee), -1 where it is not heard."""
        if self.media != "audio" or self.alternate or self.muted:
            return -1
        return 0 if self.speaker is Side.CALLER else 1

    @property
    def nearness(self) -> int:
        """Smaller is nearer to the speaker: hops are counted from the caller on."""
        hop = min(self.hops, default=0)
        return hop if self.speaker is Side.CALLER else -max(self.hops, default=0)


@dataclass(slots=True, eq=False)
class CallMedia:
    """The media of one call."""

    call: Call
    directory: Path | None = None
    """Where its tracks are, None until there is one."""
    zero: int | None = None
    """Ticks of sample 0."""
    started: int | None = None
    """Capture time of sample 0, ns."""
    tracks: list[Track] = field(default_factory=list)
    streams: list[MediaStream] = field(default_factory=list)
    last_media: int = 0
    listening: Listening = Listening.HEARD

    @property
    def recording_session(self) -> bool:
        """The dialog is somebody else's recording session, not a call."""
        return self.call.recording_session is not None

    def track(self, rate: int, layer: int) -> Track | None:
        """The track of a rate and layer, if there is one."""
        return next((t for t in self.tracks if t.rate == rate and t.layer == layer), None)
