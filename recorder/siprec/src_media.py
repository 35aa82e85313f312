"""The media of one recording session of ours: legs, their descriptions, and what was agreed of them.

In: pictures of the calls that it records, what servers say of media. Out: legs opened, connected, paused, moved and
closed at the forwarder; the offer; what metadata say of the calls (`Told`). No message is sent here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from capture.port_pool import PortsExhausted
from decoders.sdp import PayloadFormat, SessionDescription
from recorder.model import Side
from recorder.siprec.legs import Forwarder, LegId, LegReport, Source
from recorder.siprec.picture import CallPicture, Phase, StreamPicture
from recorder.siprec.snapshot import Told, ToldStream
from recorder.siprec.src_answer import AUXILIARY, Reading
from recorder.siprec.src_decision import OnHold, Overrides
from recorder.siprec.src_offer import Line, Offer

MOST_LINES = 16
"""Media descriptions of one session: more than that, servers do not take."""


@dataclass(slots=True, eq=False)
class RecordedCall:
    """A call in a recording session."""

    picture: CallPicture
    since: int
    """From when on it is recorded, capture time in ns."""
    overrides: Overrides = field(default_factory=Overrides)
    by_rule: bool = False
    """A rule wants nothing recorded now."""
    by_operator: bool = False
    """So does an operator."""
    until: int | None = None
    """When its recording ceased."""
    late: bool = False
    doubted: bool = False
    """At some time it was in doubt whether a server could be had for it."""
    missed: bool = False
    """At some time none could."""
    associated: int = 0
    """When the session it is in now began to record it."""
    lines: dict[tuple[Side, int], Line] = field(default_factory=dict)
    """By speaker and position in the call's own descriptions."""

    @property
    def paused(self) -> bool:
        """Whether nothing is to be recorded now."""
        return self.by_rule or self.by_operator

    @property
    def encrypted(self) -> bool:
        """Whether the call itself is (RFC 7866, section 12)."""
        return any(stream.encrypted for stream in self.picture.streams)


@dataclass(frozen=True, slots=True)
class MediaOptions:
    """How a session treats media."""

    kinds: tuple[str, ...] = ("audio",)
    on_hold: OnHold = OnHold.SEND


class SrcMedia:
    """Media of one session. `octets` gives so many random ones."""

    def __init__(
        self, forwarder: Forwarder, options: MediaOptions, *, number: int, octets: Callable[[int], bytes]
    ) -> None:
        self._forwarder = forwarder
        self._options = options
        self._octets = octets
        self._number = number
        self._secure: Callable[[bool], bool] = lambda encrypted: False
        """Whether the media of a call go out as SRTP, by whether it is encrypted itself."""
        self._speech_only = False
        self._encodings: frozenset[str] | None = None
        self._calls: list[RecordedCall] = []
        self._past = [0, 0]
        self.offer = Offer("", session_id=0, octets=octets)

    def begin(self, host: str, *, secure: Callable[[bool], bool]) -> None:
        """A new dialog, at a server that is reached from `host`. Legs that are open go on to wait. Raises as `add`."""
        self._speech_only, self._encodings = False, None
        before, self._secure = self.offer, secure
        self.offer = Offer(host, session_id=int.from_bytes(self._octets(4), "big"), octets=self._octets)
        if host != before.host:
            for line in before.lines:
                if line.leg is not None:  # its ports are on another address
                    self._past_of(self._forwarder.close(line.leg))
        lines = {id(line): line for line in before.lines if line.leg is not None and host == before.host}
        for call in self._calls:
            kept = {place: line for place, line in call.lines.items() if id(line) in lines}
            call.lines.clear()
            for stream in self._wanted(call.picture):
                old = kept.get((stream.side, stream.media_index))
                if old is not None:
                    self._place(call, stream, old)
        for call in self._calls:
            self.follow(call)

    def move(self, number: int, host: str, since: int, *, secure: Callable[[bool], bool]) -> None:
        """Have all legs go to another server, with what they have not sent and what they sent since capture time
        `since`. Raises PortsExhausted."""
        self._number, self._secure = number, secure
        self._speech_only, self._encodings = False, None
        before = self.reports()
        moved: list[tuple[RecordedCall, StreamPicture, Line]] = []
        for call in self._calls:
            for stream in self._wanted(call.picture):
                line = call.lines.get((stream.side, stream.media_index))
                if line is not None and line.leg is not None:
                    moved.append((call, stream, line))
            call.lines = {}
        self.offer = Offer(host, session_id=int.from_bytes(self._octets(4), "big"), octets=self._octets)
        while moved:
            call, stream, line = moved.pop(0)
            assert line.leg is not None
            leg = LegId(line.leg.source, number)
            try:
                local = self._forwarder.move(line.leg, host, max(since, call.since), leg)
            except PortsExhausted:
                for _, _, left in ((call, stream, line), *moved):
                    assert left.leg is not None
                    self._past_of(self._forwarder.close(left.leg))
                raise
            if line.leg in before:
                self._past[0] += before[line.leg].packets
            line.leg, line.local = leg, local
            self._place(call, stream, line)
        for call in self._calls:
            self.follow(call)

    def add(self, call: RecordedCall) -> None:
        """Record a call too. Raises PortsExhausted, and ValueError where it has no room."""
        self._calls.append(call)
        if self.offer.host:
            try:
                self.follow(call)
            except (PortsExhausted, ValueError):
                self.forget(call)
                raise

    def room(self, picture: CallPicture) -> bool:
        """Whether a call's streams find a place here."""
        taken = sum(len(self._wanted(call.picture)) for call in self._calls)
        return taken + len(self._wanted(picture)) <= MOST_LINES

    def follow(self, call: RecordedCall) -> None:
        """Take in what changed of a call: new streams, other formats, holds. Raises as `add`."""
        wanted = {(stream.side, stream.media_index): stream for stream in self._wanted(call.picture)}
        for place, stream in wanted.items():
            line = call.lines.get(place)
            if line is None:
                leg = LegId(Source(call.picture.index, stream.side, stream.media_index), self._number)
                local = self._forwarder.open(leg, self.offer.host, call.since)
                secure = self._secure(call.encrypted)
                try:
                    line = self.offer.add(leg, local, stream, secure=secure, most=MOST_LINES)
                except ValueError:
                    self._forwarder.close(leg)
                    raise
                call.lines[place] = line
            line.ptime = stream.ptime
            line.take(self._formats(stream))
        if call.picture.phase is not Phase.OVER:
            for place in [place for place in call.lines if place not in wanted]:
                self._drop(call.lines.pop(place))
        self._set_sending(call)

    def forget(self, call: RecordedCall) -> None:
        """A call is over here: close its legs."""
        for line in call.lines.values():
            self._drop(line)
        call.lines.clear()
        self._calls.remove(call)

    def close(self) -> None:
        """Close all legs."""
        for call in list(self._calls):
            self.forget(call)
        self.offer.host = ""

    def apply(self, readings: Sequence[Reading]) -> list[str]:
        """Take in what a server says of each description; gives why some take nothing."""
        notes = []
        for line, reading in zip(self.offer.lines, readings, strict=True):
            if line.leg is None or line.announced is None:
                continue  # added since: the answer is not about it
            if reading.remote is None:
                line.refused, line.remote = reading.why, None
                self._mute(line, muted=True)
                notes.append(f"label {line.label}: {reading.why}")
                continue
            line.refused = ""
            # What was left out of an offer because the server had refused it will be in none.
            narrowed = self._speech_only or self._encodings is not None
            remote = replace(reading.remote, offered=None) if narrowed else reading.remote
            if line.remote != remote:
                line.remote = remote
                self._forwarder.connect(line.leg, remote)
        self.settle()
        return notes

    def settle(self) -> None:
        """Let go on what may: a pause is over, and the server was never told of it, or agrees."""
        for line in self.offer.lines:
            if line.leg is not None and line.sending and line.remote is not None and line.remote.sending:
                self._mute(line, muted=False)

    @property
    def connected(self) -> bool:
        """Whether any description was accepted."""
        return any(line.remote is not None for line in self.offer.lines if line.leg is not None)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to be sent."""
        return not any(line.leg is not None for line in self.offer.lines)

    def narrow(self, said: SessionDescription | None) -> bool:
        """A server found our offer not acceptable: offer less, what it says that it has (RFC 3261, section 21.4.26)
        or else speech alone. False where nothing is left to be tried."""
        if self._speech_only:
            return False
        if said is not None and self._encodings is None:
            known = {each.encoding.upper() for media in said.media for each in media.formats.values()}
            own = {each.encoding.upper() for line in self.offer.lines for each in line.formats.values()}
            if known & own - AUXILIARY and own - known:
                self._encodings = frozenset(known)
                self._narrow()
                return True
        before = [(dict(line.formats), line.refused) for line in self.offer.lines]
        self._speech_only = True
        self._narrow()
        return before != [(dict(line.formats), line.refused) for line in self.offer.lines]

    def told(self, call: RecordedCall) -> Told:
        """What metadata say of a call now."""
        sending = {(stream.side, stream.media_index): stream.sending for stream in call.picture.streams}
        streams = tuple(
            ToldStream(side, index, line.label, sending.get((side, index), True))
            for (side, index), line in call.lines.items()
        )
        since = call.associated or call.since
        return Told(call.picture, streams, since, call.until, call.overrides, call.late)

    def legs(self) -> list[LegId]:
        """All that are open."""
        return [line.leg for line in self.offer.lines if line.leg is not None]

    def reports(self) -> dict[LegId, LegReport]:
        """What became of them."""
        return self._forwarder.report(self.legs())

    def set_sending(self) -> None:
        """Calls pause or go on: stop media at once, or have the next offer say that they come again."""
        for call in self._calls:
            self._set_sending(call)

    def _set_sending(self, call: RecordedCall) -> None:
        held = self._options.on_hold is OnHold.PAUSE and bool(call.picture.held_by)
        for line in call.lines.values():
            line.sending = not (call.paused or held)
            if not line.sending:
                self._mute(line, muted=True)

    def _mute(self, line: Line, *, muted: bool) -> None:
        if line.leg is None or line.muted is muted:
            return
        line.muted = muted
        if muted:
            self._forwarder.pause(line.leg)
        else:
            self._forwarder.resume(line.leg)

    def _place(self, call: RecordedCall, stream: StreamPicture, old: Line) -> None:
        """Give a leg that goes on its place in a new session description."""
        assert old.leg is not None
        assert old.local is not None
        line = self.offer.add(old.leg, old.local, stream, secure=self._secure(call.encrypted), most=MOST_LINES)
        line.take(self._formats(stream))
        line.muted = old.muted
        call.lines[stream.side, stream.media_index] = line

    def _drop(self, line: Line) -> None:
        if line.leg is not None:
            self._past_of(self._forwarder.close(line.leg))
        self.offer.drop(line)

    def _past_of(self, report: LegReport) -> None:
        self._past[0] += report.packets
        self._past[1] += report.unsent

    @property
    def sent(self) -> tuple[int, int]:
        """Packets (sent, not sent) of legs that are closed, to whatever server."""
        return self._past[0], self._past[1]

    def _wanted(self, picture: CallPicture) -> list[StreamPicture]:
        return recordable(picture, self._options.kinds)

    def _formats(self, stream: StreamPicture) -> Mapping[int, PayloadFormat]:
        formats: Iterable[tuple[int, PayloadFormat]] = stream.formats.items()
        if self._encodings is not None:
            formats = [(number, each) for number, each in formats if each.encoding.upper() in self._encodings]
        if self._speech_only:
            speech = [(number, each) for number, each in formats if each.encoding.upper() not in AUXILIARY]
            formats = speech[:1]
        return dict(formats) or stream.formats

    def _narrow(self) -> None:
        for call in self._calls:
            streams = {(stream.side, stream.media_index): stream for stream in call.picture.streams}
            for place, line in call.lines.items():
                if place in streams:
                    line.take(self._formats(streams[place]), only=True)
                if self._speech_only and line.media != "audio":
                    line.refused = "not acceptable"


def recordable(picture: CallPicture, kinds: Sequence[str]) -> list[StreamPicture]:
    """Streams that can be recorded: of the kinds asked for, and not under keys that nobody knows."""
    return [
        stream
        for stream in picture.streams
        if stream.media in kinds and stream.formats and (stream.keyed or not stream.encrypted)
    ]
