"""Our side of the offer/answer exchanges of one recording session that we receive (RFC 3264; RFC 7866, section 8.3).

In: descriptions that the SRC offers, and a pair of ports for each media description that is taken. Out: the answer, as
a description with every media description of the offer in its place, and `Line`s: what is agreed. Audio is taken with
the formats that can be decoded, in the offer's order and under its payload types, events and comfort noise among them;
the rest is refused by port 0. A version number is never trusted: descriptions are compared. Nothing is sent here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

from capture.address import Endpoint
from capture.errors import SpanrecError
from decoders._srtp_keys import SUITES, why_key_unusable
from decoders.codecs.registry import why_undecodable
from decoders.sdp import CryptoKey, Direction, MediaDescription, Origin, PayloadFormat, SessionDescription
from recorder.media_endpoints import literal

if TYPE_CHECKING:
    from capture.media_ports import MediaPort

MAX_LINES = 16
"""Audio descriptions of one session that are taken; a conference with one for each participant is the largest known."""
_AUXILIARY = frozenset({"TELEPHONE-EVENT", "CN", "RED"})
"""Formats that are of use beside speech."""
_SENDING = (Direction.SENDRECV, Direction.SENDONLY)


class Ports(Protocol):
    """Where pairs of ports come from."""

    def open(self, host: str) -> "MediaPort":
        """A pair at an address of ours; `rtp` of it is what others send to. Raises SpanrecError where none is left."""
        ...

    def release(self, port: "MediaPort") -> None:
        """A pair that is used no more."""
        ...


class OfferError(SpanrecError):
    """An offer of which nothing can be taken: refused, and the session stays as it was."""


@dataclass(frozen=True, slots=True)
class Line:
    """A media description that was taken: where the SRC sends one stream, and how."""

    index: int
    """Position of its m= section."""
    media: str
    label: str | None
    formats: Mapping[int, PayloadFormat]
    """Agreed, in the order of the offer."""
    port: "MediaPort"
    mux: bool
    """RTCP comes and goes by the RTP port (RFC 5761)."""
    source: Endpoint | None
    """Where the SRC says that it receives; not to be trusted as the source of its media."""
    rtcp_to: Endpoint | None
    """Where our RTCP goes, by the offer."""
    sending: bool
    """By its description the SRC sends now."""
    encrypted: bool
    theirs: tuple[CryptoKey, ...] = ()
    """Keys that protect what the SRC sends."""
    ours: CryptoKey | None = None
    """The key that protects our RTCP."""


class _Chosen(NamedTuple):
    """What is taken of an offered description."""

    formats: Mapping[int, PayloadFormat]
    crypto: CryptoKey | None
    """The offered key whose suite and tag the answer takes."""


class Answerer:
    """The descriptions of one session."""

    def __init__(
        self,
        host: str,
        ports: Ports,
        *,
        session_id: int,
        octets: Callable[[int], bytes],
        allow: Callable[[int], None] = lambda pairs: None,
    ) -> None:
        """Ports are opened at `host`; what they are announced as stands in descriptions. `octets` gives so many random
        ones, for keys. `allow` raises SpanrecError where so many pairs more are too many."""
        self._allow = allow
        self._host = host
        self._ports = ports
        self._octets = octets
        self._origin = Origin("-", str(session_id), 0, host)
        self._lines: dict[int, Line] = {}
        self._offered: tuple[MediaDescription, ...] = ()
        self._last: SessionDescription | None = None

    @property
    def lines(self) -> tuple[Line, ...]:
        """What is agreed, in order of the m= sections."""
        return tuple(self._lines[index] for index in sorted(self._lines))

    def answer(self, offer: SessionDescription, *, paused: bool = False) -> SessionDescription:
        """Take an offer. `paused`: we want no media for now.

        Raises OfferError where nothing of it can be taken or it cannot be read to its end, and SpanrecError where no
        ports are left; then nothing has changed.
        """
        if [media.index for media in offer.media] != list(range(len(offer.media))) or not offer.media:
            raise OfferError("The offer has no media description, or one that cannot be read.")
        if any(note == "too many media descriptions" for note in offer.notes):
            raise OfferError("The offer has more media descriptions than are looked at.")
        chosen = dict[int, _Chosen]()
        for media in offer.media:
            taken = choose(media) if len(chosen) < MAX_LINES else None
            if taken is not None:
                chosen[media.index] = taken
        if not chosen and not self._offered:
            raise OfferError("The offer has no audio in a format that can be recorded.")
        opened = self._open([index for index in chosen if index not in self._lines])
        for index in [index for index in self._lines if index not in chosen]:
            self._ports.release(self._lines.pop(index).port)
        for media in offer.media:
            if media.index in chosen:
                self._lines[media.index] = self._line(media, chosen[media.index], opened)
        self._offered = offer.media
        return self._describe(paused=paused)

    def offer(self, *, paused: bool) -> SessionDescription:
        """The session as it stands, as an offer of ours: no stream is added (RFC 7866, section 7.2)."""
        return self._describe(paused=paused, offering=True)

    def answered(self, answer: SessionDescription) -> None:
        """The SRC answered an offer of ours: where it wants RTCP, whether it sends, its keys."""
        for media in answer.media:
            line = self._lines.get(media.index)
            if line is not None and not media.rejected and media.rtp:
                self._lines[media.index] = _heard(line, media)

    def close(self) -> None:
        """The session is over: give the ports back."""
        for line in self._lines.values():
            self._ports.release(line.port)
        self._lines.clear()

    def _open(self, indices: list[int]) -> "dict[int, MediaPort]":
        opened: dict[int, MediaPort] = {}
        self._allow(len(indices))
        try:
            for index in indices:
                opened[index] = self._ports.open(self._host)
        except SpanrecError:
            for port in opened.values():
                self._ports.release(port)
            raise
        return opened

    def _line(self, media: MediaDescription, chosen: _Chosen, opened: "Mapping[int, MediaPort]") -> Line:
        before = self._lines.get(media.index)
        port = opened[media.index] if before is None else before.port
        key = None
        if chosen.crypto is not None:
            key = self._key(chosen.crypto, before, literal(media.address, media.port))
        line = Line(
            index=media.index,
            media=media.media,
            label=media.label,
            formats=chosen.formats,
            port=port,
            mux=media.rtcp_mux,
            source=None,
            rtcp_to=None,
            sending=False,
            encrypted=media.encrypted,
            ours=key,
        )
        return replace(_heard(line, media), theirs=() if chosen.crypto is None else (chosen.crypto,))

    def _key(self, offered: CryptoKey, before: Line | None, source: Endpoint | None) -> CryptoKey:
        """Our own key of the offered suite and tag: the one that stands, unless the other end moved or changed its own
        (RFC 4568, section 7.1.4)."""
        if before is not None and before.ours is not None and before.theirs == (offered,) and before.source == source:
            return before.ours
        return CryptoKey(offered.tag, offered.suite, self._octets(len(offered.key)), lifetime=offered.lifetime)

    def _describe(self, *, paused: bool, offering: bool = False) -> SessionDescription:
        """Our description now; its version goes up where it says something new (RFC 3264, section 8)."""
        media = tuple(self._own(offered, paused=paused, offering=offering) for offered in self._offered)
        if self._last is None or self._last.media != media:
            self._origin = replace(self._origin, version=(self._origin.version or 0) + 1)
            host = next((each.address for each in media if each.port), self._host)
            self._last = SessionDescription(replace(self._origin, address=host), "-", media, host)
        return self._last

    def _own(self, offered: MediaDescription, *, paused: bool, offering: bool) -> MediaDescription:
        line = self._lines.get(offered.index)
        if line is None:
            return MediaDescription(
                offered.index, offered.media, 0, offered.protocol, self._host, offered.formats, label=offered.label
            )
        willing = not paused and (offering or line.sending or _one_way(offered))
        return MediaDescription(
            index=line.index,
            media=line.media,
            port=line.port.rtp.port,
            protocol=offered.protocol,
            address=line.port.rtp.host,
            formats=line.formats,
            direction=Direction.RECVONLY if willing else Direction.INACTIVE,
            rtcp_port=None if line.mux or line.port.rtcp.port == line.port.rtp.port + 1 else line.port.rtcp.port,
            rtcp_mux=line.mux,
            ptime=offered.ptime,
            crypto=() if line.ours is None else (line.ours,),
            label=line.label,
            mid=offered.mid,
        )


def choose(media: MediaDescription) -> _Chosen | None:
    """What can be taken of an offered description, None where it is refused."""
    if media.media != "audio" or media.port == 0 or not media.rtp:
        return None
    formats = {number: known for number, known in media.formats.items() if _of_use(known)}
    if all(known.encoding.upper() in _AUXILIARY for known in formats.values()):
        return None
    if not media.encrypted:
        return _Chosen(formats, None)
    if media.protocol.upper().startswith(("UDP/TLS", "TCP/")):
        return None  # the keys come from DTLS, which RFC 7866, section 12.2, does not ask for
    crypto = _usable(media.crypto)
    return None if crypto is None else _Chosen(formats, crypto)


def _of_use(known: PayloadFormat) -> bool:
    return known.encoding.upper() in _AUXILIARY or not why_undecodable(known)


def _usable(offered: tuple[CryptoKey, ...]) -> CryptoKey | None:
    """The first offered key that can be used; one without session parameters before others."""
    usable = [key for key in offered if key.suite.upper() in SUITES and not why_key_unusable(key)]
    return next((key for key in usable if not key.session_params), usable[0] if usable else None)


def _heard(line: Line, media: MediaDescription) -> Line:
    """A line by what the SRC says of it now."""
    source = literal(media.address, media.port)
    if media.rtcp_mux:
        rtcp_to = source
    elif media.rtcp_address or media.rtcp_port:
        rtcp_to = literal(media.rtcp_address or media.address, media.rtcp_port or media.port + 1)
    else:
        rtcp_to = literal(media.address, media.port + 1) if media.port < 0xFFFF else None
    return replace(
        line,
        source=source,
        rtcp_to=rtcp_to,
        sending=media.direction in _SENDING and not media.held_by_address,
        theirs=media.crypto or line.theirs,
    )


def _one_way(offered: MediaDescription) -> bool:
    """It says outright that it only sends: an unspecified address beside that (RFC 3264, section 8.4) holds nothing."""
    return offered.direction is Direction.SENDONLY
