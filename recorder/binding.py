"""Binding: a flow becomes a stream of a call.

In: a flow with packets in the window, the call, and why it is that call's. Out: the stream, known to the index, related
to what carries the same media, with a row of statistics of its own. It does not choose the call.
"""

from dataclasses import dataclass, field

from capture.batch import Int32
from decoders.rtp import Stager
from decoders.sdp import STATIC_FORMATS, PayloadFormat
from decoders.srtp import SrtpStream
from decoders.timeline import FormatTable, StreamTable
from recorder.encryption import looks_encrypted, protection
from recorder.endpoints import Claim, EndpointRegistry, Rule
from recorder.identity import MediaIdentity
from recorder.model import Side
from recorder.renewal import formats_of
from recorder.same_media import SameMedia
from recorder.stream_index import StreamIndex
from recorder.streams import CallMedia, Listening, MediaStream

_MOST_HOPS = 1024


@dataclass(frozen=True, slots=True)
class _Terms:
    """What a stream is bound on."""

    speaker: Side
    rule: Rule
    formats: dict[int, PayloadFormat]
    media: str
    since: int
    """Capture time of the announcement, ns."""
    hops: frozenset[int] = frozenset()
    claim: Claim | None = None
    encrypted: bool = False
    srtp: SrtpStream | None = None


@dataclass(frozen=True, slots=True)
class Binding:
    """Makes streams of flows."""

    registry: EndpointRegistry
    stager: Stager
    index: StreamIndex
    table: StreamTable
    formats: FormatTable
    identity: MediaIdentity
    same: SameMedia
    _hops: dict[frozenset[int], frozenset[int]] = field(default_factory=dict)
    """Sets of hops met lately, so that streams with equal ones share one."""

    def claimed(self, flow: int, media: CallMedia, claim: Claim, begin: int = 0) -> MediaStream:
        """A claimed flow becomes a stream from its packet `begin` of the window on."""
        encrypted, keys = protection(self.registry, claim)
        terms = _Terms(
            speaker=claim.speaker,
            rule=claim.rule,
            formats=dict(STATIC_FORMATS) | formats_of(claim),
            media=claim.by.media,
            since=claim.by.since,
            hops=self.registry.hops(claim.by),
            claim=claim,
            encrypted=encrypted,
            srtp=SrtpStream(keys) if encrypted and keys else None,
        )
        return self._open(flow, media, terms, begin)

    def reverse(self, flow: int) -> bool:
        """Bind a flow to the call of its other direction, on the terms of that; False where there is none."""
        source, destination = self.stager.flows.source(flow), self.stager.flows.destination(flow)
        media = self.index.by_pair.get((destination, source))
        if media is None:
            return False
        other = next(s for s in media.streams if (s.source, s.destination) == (destination, source))
        formats = dict(other.formats)
        if other.claim is not None:
            formats.update(other.claim.by.formats)
        speaker = other.speaker.other
        keys = [key for e in self.registry.of(media.call.index, speaker) for key in e.crypto]
        terms = _Terms(
            speaker=speaker,
            rule=other.rule if other.rule is Rule.MEDIA_ONLY else Rule.REVERSE,
            formats=formats,
            media=other.media,
            since=other.since,
            hops=other.hops,
            claim=other.claim,
            encrypted=other.encrypted,
            srtp=SrtpStream(keys) if other.encrypted and keys else None,
        )
        self._open(flow, media, terms)
        return True

    def unannounced(self, flow: int, media: CallMedia, since: int) -> None:
        """A flow that nobody announced is the first of a call of its own; `since`: its first packet, ns."""
        self._open(flow, media, _Terms(Side.CALLER, Rule.MEDIA_ONLY, dict(STATIC_FORMATS), "audio", since))

    def sighting(self, flow: int, media: CallMedia, other: MediaStream) -> None:
        """The media of a stream at a hop that nobody announced: counted, and heard only where the other is silent."""
        terms = _Terms(
            other.speaker, Rule.IDENTITY, dict(other.formats), other.media, other.since, encrypted=other.encrypted
        )
        stream = self._open(flow, media, terms)
        stream.alternate = stream.primary is None

    def _open(self, flow: int, media: CallMedia, terms: _Terms, begin: int = 0) -> MediaStream:
        """A stream of a call begins."""
        stager, window = self.stager, self.stager.window
        mine = stager.order[stager.starts[flow] + begin : stager.starts[flow + 1]]
        audio = terms.media == "audio"
        encrypted = terms.encrypted or (audio and looks_encrypted(window, mine, terms.formats))
        stream = self._stream(flow, media, terms, mine, encrypted=encrypted)
        row = self.formats.row(stream.formats, terms.media, slow=encrypted)
        stream.primary = self.same.primary_of(media, stream)
        stream.row = self.table.allocate(row, stream.primary.row if stream.primary else -1)
        if stream.primary is None:
            self.same.yield_to_nearer(media, stream)
        self.index.add(media, stream)
        if media.listening is Listening.PASSED_OVER:
            self.index.ignore_where_nobody_listens(flow, stager.flows)
        media.call.see(int(window.capture[mine[0]]), int(window.number[mine[0]]))
        self.same.relate(media, stream)
        if audio and not encrypted:
            self.identity.begin(flow)
        return stream

    def _stream(self, flow: int, media: CallMedia, terms: _Terms, mine: Int32, *, encrypted: bool) -> MediaStream:
        """The stream, which has no row yet. `mine`: positions of its packets in the window."""
        flows, window = self.stager.flows, self.stager.window
        first = int(mine[0])
        if len(self._hops) >= _MOST_HOPS:
            self._hops.clear()
        return MediaStream(
            row=-1,
            flow=flow,
            ssrc=int(flows.ssrcs[flow]),
            source=flows.source(flow),
            destination=flows.destination(flow),
            media=terms.media,
            speaker=terms.speaker,
            rule=terms.rule,
            hops=self._hops.setdefault(terms.hops, terms.hops),
            formats=self.formats.shared(terms.formats),
            first_time=int(window.time[first]),
            first_sequence=int(window.sequence[first]),
            first_stamp=int(window.stamp[first]),
            since=terms.since,
            claim=terms.claim,
            encrypted=encrypted,
            srtp=terms.srtp,
            fast_rate=_fast_rate(terms.formats) if terms.media == "audio" and not encrypted else 0,
            muted=media.recording_session or media.listening is not Listening.HEARD,
        )


def _fast_rate(formats: dict[int, PayloadFormat]) -> int:
    """Rate of the G.711 in a payload map, 0 where it has none."""
    rates = [f.clock_rate for f in formats.values() if f.encoding.upper() in ("PCMU", "PCMA") and f.channels == 1]
    return max(set(rates), key=rates.count) if rates else 0
