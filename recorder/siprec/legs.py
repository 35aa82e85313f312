"""The media side of our recording sessions: one leg per media description, between sessions and the forwarder.

In: nothing. Out: values, and the `Forwarder` protocol that sessions speak to. A leg is one direction of one
communication session (what one participant sends) towards one recording server, sent from a port of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from capture.address import Endpoint
from decoders.sdp import CryptoKey, PayloadFormat
from recorder.model import Side


class Source(NamedTuple):
    """One direction of a call's media."""

    call: int
    """`Call.index`."""
    side: Side
    """Whose voice it is."""
    media_index: int
    """Position of the m= section in the call's session descriptions."""


class LegId(NamedTuple):
    """One leg; a call has legs of its own at each recording server (`session` tells them apart)."""

    source: Source
    session: int
    """Running number of the recording session."""


class LocalMedia(NamedTuple):
    """Our end of a leg: what the offer says."""

    rtp: Endpoint
    rtcp: Endpoint
    ssrc: int
    cname: str


@dataclass(frozen=True, slots=True)
class RemoteMedia:
    """The recording server's end of a leg: what its answer says."""

    rtp: Endpoint
    rtcp: Endpoint
    """Equal to `rtp` where RTCP is multiplexed."""
    payload_types: Mapping[PayloadFormat, int]
    """Format as the call has it -> payload type under which it goes out. Formats that are not here are not sent."""
    sending: bool = True
    """The answer allows media (recvonly, not held by us); else only RTCP goes out."""
    encrypt: CryptoKey | None = None
    """SDES key of ours that protects what is sent (RFC 4568)."""
    decrypt: tuple[CryptoKey, ...] = ()
    """The server's keys for its RTCP."""
    offered: frozenset[PayloadFormat] | None = None
    """Formats, as the call has them, that the answer is about: packets of others that the call has announced wait a
    while for an answer about them. None: no other will be offered."""


@dataclass(frozen=True, slots=True)
class LegReport:
    """What became of a leg so far. Times in ns, UTC."""

    packets: int
    octets: int
    """Of payload."""
    unsent: int
    """Packets that had to be dropped: too old before an answer came, gone before their flow was known to be the call's
    or before the leg was opened, formats that were not accepted, send errors. Exact for a leg that begins with its
    source; for one that begins later, those that were gone by then are counted as if they had been evenly spaced."""
    first: int | None
    """Capture time of the first packet sent."""
    last: int | None
    heard_from: int | None
    """When RTCP last came from the server; None: never."""
    fraction_lost: float | None
    """Last that the server reported, 0..1."""
    cumulative_lost: int | None
    jitter_ms: float | None
    unreachable: bool
    """The system said that nobody listens there (ICMP)."""


class Forwarder(Protocol):
    """Sends the media of calls to recording servers. Its methods may be called from any thread and never block."""

    def open(self, leg: LegId, local_host: str, since: int) -> LocalMedia:
        """Give a leg a pair of ports. Media of its source from capture time `since` (ns) on waits, bounded, for
        `connect`. Raises `PortsExhausted` (of `capture.port_pool`)."""
        ...

    def connect(self, leg: LegId, remote: RemoteMedia) -> None:
        """The answer is there, or it has changed: send what waits, then what comes."""
        ...

    def pause(self, leg: LegId) -> None:
        """Send no media (RTCP goes on), and forget what waits: what is said now is not for the record."""
        ...

    def resume(self, leg: LegId) -> None:
        """Send again, from now on."""
        ...

    def close(self, leg: LegId) -> LegReport:
        """Send RTCP BYE, give the ports back."""
        ...

    def report(self, legs: Sequence[LegId]) -> dict[LegId, LegReport]:
        """What became of legs so far."""
        ...

    def move(self, leg: LegId, local_host: str, since: int, to: LegId) -> LocalMedia:
        """Open leg `to` in place of `leg` (another server after a failure), keeping what `leg` has not sent, and what
        it sent since capture time `since` as far as that is kept. Raises `PortsExhausted`."""
        ...
