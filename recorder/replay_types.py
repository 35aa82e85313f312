"""What the command line and the replay engine say to each other.

In: `ReplayOptions`, checked, from the command line. Out: `ReplaySummary`, and while the run lasts calls on a
`Reporter`. Neither side imports the other; nothing here imports numpy, so that the command line starts fast.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Protocol

from recorder.document import CallDocument
from recorder.model import CaptureReport

BATCH_SIZE = 8192
"""Packets per batch, unless asked otherwise: their columns stay in a processor's second-level cache."""


class AudioFormat(StrEnum):
    """How the audio of a recording is written."""

    WAV = "wav"
    FLAC = "flac"
    OGG = "ogg"
    """Opus in Ogg (RFC 7845)."""
    MP3 = "mp3"


class Dissector(StrEnum):
    """Who strips links, tunnels and TLS off the packets."""

    NATIVE = "native"
    TSHARK = "tshark"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which calls are recorded: those that meet every criterion given. An empty criterion is met by all."""

    numbers: tuple[str, ...] = ()
    """Any of these equals, or with a `*` at either end matches, the user part of the caller's or callee's URI."""
    call_ids: tuple[str, ...] = ()
    addresses: tuple[IPv4Network | IPv6Network, ...] = ()
    """Any of these holds a signalling or media address of the call."""
    since: int | None = None
    """Calls that started at or after this capture time, ns."""
    until: int | None = None
    """Calls that started before this capture time, ns."""

    @property
    def everything(self) -> bool:
        """No criterion was given."""
        return self == Selection()


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """One replay, as asked for."""

    captures: tuple[str, ...]
    """Files, directories, or "-" for standard input, as given."""
    out: Path
    workers: int = 0
    """Processes or threads that share the work; 0 is one per available processor. Never changes the output."""
    batch_size: int = BATCH_SIZE
    """Packets per batch. Never changes the output."""
    selection: Selection = field(default_factory=Selection)
    audio_format: AudioFormat = AudioFormat.WAV
    mono: bool = False
    """Both participants mixed into one channel."""
    keep_packets: bool = False
    """Write packets.pcapng beside each recording."""
    dissector: Dissector = Dissector.NATIVE
    keylog: Path | None = None
    """TLS key log (NSS format) for the tshark dissector."""
    verify: bool = False
    """Compare calls, streams, packet and loss counts with tshark's."""


@dataclass(frozen=True, slots=True)
class ReplayCounts:
    """How much was found. Every figure is of the captures, none of the machine."""

    packets: int = 0
    sip_messages: int = 0
    """Parsed; the messages passed over are not in it."""
    sip_ignored: int = 0
    """REGISTER, OPTIONS and the like, passed over by their first line."""
    rtp_packets: int = 0
    rtcp_packets: int = 0
    rtp_unclaimed: int = 0
    """RTP packets that ended in no recording."""
    calls: int = 0
    """Recordings written, media-only ones too."""
    media_only: int = 0
    streams: int = 0
    recording_sessions: int = 0
    """SIPREC sessions of others, reported with the calls they record."""
    not_selected: int = 0
    """Calls that the selection left out."""


@dataclass(frozen=True, slots=True)
class ReplaySummary:
    """What a replay did. The calls themselves went to `Reporter.call_done`, one by one."""

    captures: Sequence[CaptureReport]
    counts: ReplayCounts
    damaged: bool
    """Some input was damaged or was no capture; `captures[].damage` or a warning names it."""
    differences: Sequence[str] = ()
    """With `verify`: one sentence for each figure on which tshark differs."""


class Reporter(Protocol):
    """Who is told how a replay goes."""

    def progress(self, packets: int, calls: int, bytes_done: int, bytes_total: int | None) -> None:
        """Totals so far; called about once per batch. `bytes_total` is None where the input has no known size."""

    def call_done(self, document: CallDocument, directory: str) -> None:
        """A recording stands under its final name; `directory` is relative to OUT, with forward slashes."""

    def warning(self, text: str) -> None:
        """One sentence for the user: damage, an input passed over, a part that is missing."""
