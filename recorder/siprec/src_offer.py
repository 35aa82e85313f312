"""The media descriptions of one recording session of ours: one for each stream of a call that is recorded.

In: streams as calls have them, and our ends of their legs. Out: the session description as it is now, an offer or the
answer to one; its version goes up where it says something new, and the same version is the same text (RFC 3264, section
8). Descriptions never move or vanish; that of a stream that is over is used again. A payload type never changes its
meaning within a description (section 8.3.2).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from decoders.sdp import (
    STATIC_FORMATS,
    CryptoKey,
    Direction,
    MediaDescription,
    Origin,
    PayloadFormat,
    SessionDescription,
)
from recorder.siprec.forward_formats import parameters, same_encoding
from recorder.siprec.legs import LegId, LocalMedia, RemoteMedia
from recorder.siprec.picture import StreamPicture
from recorder.siprec.sdp_write import origin_line, write_sdp

KEYS = (("AES_256_CM_HMAC_SHA1_80", 46), ("AES_CM_128_HMAC_SHA1_80", 30))
"""Suites that are offered, in order of preference, and the octets of their master key and salt (RFC 4568, section 6.2;
RFC 6188)."""
NAME = "spanrec"
_DYNAMIC = range(96, 128)
_FREE = (*_DYNAMIC, *range(35, 64))
"""Payload types that have no meaning of their own and cannot be taken for RTCP (RFC 5761, section 4)."""


@dataclass(slots=True, eq=False)
class Line:
    """A media description of ours, in its place for the whole session."""

    index: int
    media: str = "audio"
    leg: LegId | None = None
    """What it sends; None: nothing, its stream is over."""
    local: LocalMedia | None = None
    formats: Mapping[int, PayloadFormat] = field(default_factory=dict)
    """As offered: payload type here -> format as the call has it."""
    wanted: Mapping[int, PayloadFormat] = field(default_factory=dict)
    """Of these, those that the call has now."""
    ptime: float | None = None
    keys: tuple[CryptoKey, ...] = ()
    """Ours that are offered, one a suite; empty: media go in the clear."""
    sending: bool = True
    """We want to send: not paused."""
    asked: bool = True
    """We wanted to when we last made an offer."""
    announced: Mapping[int, PayloadFormat] | None = None
    """Formats of our last offer, which is what an answer is about; None: it was in none yet."""
    refused: str = ""
    """Why the server takes no media here; empty where it does."""
    remote: RemoteMedia | None = None
    """What the server answered last."""
    muted: bool = False
    """The forwarder was told to send nothing."""
    numbers: dict[int, PayloadFormat] = field(default_factory=dict)
    """Payload types that have a meaning here, for good."""

    @property
    def label(self) -> str:
        """From 1: there are servers that take 0 for none."""
        return str(self.index + 1)

    @property
    def offered(self) -> bool:
        """It has a port in our offers."""
        return self.leg is not None and not self.refused

    def take(self, formats: Mapping[int, PayloadFormat], *, only: bool = False) -> bool:
        """Offer other formats, and after them, unless `only`, the last ones: packets of these may be on their way.
        Says whether that is something new."""
        wanted = {self._number(each): each for each in formats.values()}
        if list(wanted.items()) == list(self.wanted.items()) and not only:
            return False
        offered = wanted if only else {**wanted, **{n: each for n, each in self.wanted.items() if n not in wanted}}
        self.wanted = wanted
        if list(offered.items()) == list(self.formats.items()):
            return False
        self.formats = offered
        self.refused = ""
        return True

    def _number(self, wanted: PayloadFormat) -> int:
        """Payload type of a format: the call's own wherever that is free."""
        for number, known in self.numbers.items():
            if same_encoding(known, wanted) and parameters(known) == parameters(wanted):
                return number
        static = STATIC_FORMATS.get(wanted.payload_type)
        own = wanted.payload_type in _FREE or (static is not None and same_encoding(static, wanted))
        candidates = [wanted.payload_type] if own else []
        number = next((each for each in (*candidates, *_FREE) if each not in self.numbers), _DYNAMIC[-1])
        self.numbers[number] = wanted
        return number


class Offer:
    """What we say of our media in one recording session."""

    def __init__(self, host: str, *, session_id: int, octets: Callable[[int], bytes]) -> None:
        """`host` stands in descriptions; `octets` gives so many random ones, for keys."""
        self.host = host
        self.lines: list[Line] = []
        self._octets = octets
        self._origin = Origin(NAME, str(session_id), 0, host)
        self._text = b""
        self._last: list[MediaDescription] | None = None

    def add(self, leg: LegId, local: LocalMedia, stream: StreamPicture, *, secure: bool, most: int) -> Line:
        """A media description for a stream, in the place of one that is over where there is such.

        Raises ValueError where all `most` places are taken.
        """
        line = next((each for each in self.lines if each.leg is None and each.media == stream.media), None)
        if line is None:
            if len(self.lines) >= most:
                raise ValueError("no place is left in the session description")
            line = Line(len(self.lines), stream.media)
            self.lines.append(line)
        line.leg, line.local, line.ptime = leg, local, stream.ptime
        line.keys = self.keys() if secure else ()
        line.sending, line.refused, line.remote, line.muted, line.formats = True, "", None, False, {}
        line.announced, line.wanted = None, {}
        line.take(stream.formats)
        return line

    def keys(self) -> tuple[CryptoKey, ...]:
        """Fresh keys, one for each suite: unique to a description and a direction (RFC 4568, section 6.1)."""
        return tuple(CryptoKey(tag, suite, self._octets(size)) for tag, (suite, size) in enumerate(KEYS, 1))

    def drop(self, line: Line) -> None:
        """A stream is over: its description stays, with port 0 (RFC 3264, section 8.2)."""
        line.leg = line.local = line.remote = None
        line.refused = ""

    def line_of(self, leg: LegId) -> Line | None:
        """The description of a leg."""
        return next((line for line in self.lines if line.leg == leg), None)

    @property
    def pending(self) -> bool:
        """Whether an offer would say something else than the last one; what was refused since is known to both."""
        last = self._last
        if last is None or len(last) != len(self.lines):
            return bool(self.lines)
        return any(self._own(line) != last[line.index] for line in self.lines if not line.refused)

    def offer(self) -> bytes:
        """All that we have, as an offer."""
        self._last = [self._own(line) for line in self.lines]
        for line in self.lines:
            line.asked, line.announced = line.sending, line.formats
        return self._write(self._last)

    def failed(self) -> None:
        """The last offer was refused: it has to be made again."""
        self._last = None

    def answer(self, offered: Sequence[MediaDescription], chosen: Mapping[int, Mapping[int, PayloadFormat]]) -> bytes:
        """The answer to an offer of the server: it adds nothing (RFC 7866, section 7.2), so that what is more than we
        have is refused. `chosen` gives the formats that are agreed of each description, by their numbers there."""
        media = []
        for each in offered:
            line = self.lines[each.index] if each.index < len(self.lines) else None
            if line is None or not chosen.get(each.index):
                media.append(_refused(each.index, each.media, each.protocol, each.formats))
                continue
            willing = line.sending and line.remote is not None and line.remote.sending
            key = line.remote.encrypt if line.remote is not None else None
            own = self._own(line)
            media.append(
                own._replace(
                    protocol=each.protocol,
                    formats=chosen[each.index],
                    direction=Direction.SENDONLY if willing else Direction.INACTIVE,
                    crypto=() if key is None else (key,),
                    mid=each.mid,
                )
            )
        return self._write(media)

    def _own(self, line: Line) -> MediaDescription:
        local = line.local
        if not line.offered or local is None:
            label = line.label if line.leg is not None else None
            return _refused(line.index, line.media, "RTP/SAVP" if line.keys else "RTP/AVP", line.formats, label)
        return MediaDescription(
            index=line.index,
            media=line.media,
            port=local.rtp.port,
            protocol="RTP/SAVP" if line.keys else "RTP/AVP",
            address=self.host,
            formats=line.formats,
            direction=Direction.SENDONLY if line.sending else Direction.INACTIVE,
            rtcp_port=local.rtcp.port,
            ptime=line.ptime,
            crypto=line.keys,
            label=line.label,
            ssrcs=(local.ssrc,),
        )

    def _write(self, media: Sequence[MediaDescription]) -> bytes:
        """The text; versions only tell apart what differs."""
        cnames = {line.local.ssrc: line.local.cname for line in self.lines if line.local is not None}
        same = write_sdp(SessionDescription(self._origin, "-", tuple(media), self.host), cnames)
        if same != self._text:
            before, self._origin = self._origin, replace(self._origin, version=(self._origin.version or 0) + 1)
            self._text = same.replace(origin_line(before), origin_line(self._origin), 1)
        return self._text


def _refused(
    index: int, media: str, protocol: str, formats: Mapping[int, PayloadFormat], label: str | None = None
) -> MediaDescription:
    return MediaDescription(index, media, 0, protocol, "", formats, label=label)
