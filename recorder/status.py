"""What the live service tells of itself, as values.

In: nothing; the service makes these. Out: `Snapshot` (the whole), `LiveCall` (a call in progress), `LadderStep` (a
message of a call), and `StatusProvider`, through which the status server asks for them. Values only: frozen, so that
any thread may read them. Times are ns since the epoch, UTC, and RFC 3339 in JSON (`status_json`); ages, delays and
durations are seconds. Texts may come from the wire: who shows them cleans them.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Annotated, Any, Protocol

from capture.errors import SpanrecError
from decoders.quality import Scale
from recorder.model import Call, CallState, Side
from recorder.policy import Action

MOS_BOUNDS = (2.58, 3.1, 3.6, 4.03, 4.34)
"""Upper bounds of a histogram of MOS: where ITU-T G.107, annex B, changes its word for how satisfied users are."""


class StatusError(SpanrecError):
    """The state of the service cannot be told, or not now."""


class _Rfc3339:
    """Marks a time: ns as a Python value, a string in JSON."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> Any:
        """Pydantic asks for this when `status_json` is first used; nothing else needs pydantic."""
        from recorder.status_json import time_schema

        return time_schema()


class _FromWire:
    """Marks a text that may hold octets that were no UTF-8, as lone surrogates: JSON has no such."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> Any:
        """As above."""
        from recorder.status_json import wire_schema

        return wire_schema()


Time = Annotated[int, _Rfc3339]
WireText = Annotated[str, _FromWire]


class LiveState(StrEnum):
    """Where a call in progress stands."""

    CALLING = "calling"
    """INVITE seen, no answer yet."""
    RINGING = "ringing"
    ACTIVE = "active"
    HELD = "held"
    ENDING = "ending"
    """Over on the wire; what is late is still waited for, then it is published."""
    MEDIA_ONLY = "media-only"


class Severity(StrEnum):
    """How much an alarm matters."""

    CRITICAL = "critical"
    """Calls are not recorded, or not whole."""
    WARNING = "warning"
    """Calls are recorded, but someone should look."""


class AlarmCode(StrEnum):
    """Every alarm there is."""

    SOURCE_DOWN = "source-down"
    """An interface or listener gives nothing more: link down, gone, or failed."""
    KERNEL_DROPS = "kernel-drops"
    """The kernel dropped packets in the last minute."""
    RING_FROZEN = "ring-frozen"
    """The ring was full in the last minute."""
    OVERLOAD = "overload"
    """Calls are shed."""
    DISK_FULL = "disk-full"
    """Too little space: no new recordings."""
    DISK_FAILING = "disk-failing"
    """Writing fails: no new recordings."""
    DISK_DELAY = "disk-delay"
    """Audio reaches the disk later than it should."""
    DISK_LOW = "disk-low"
    """Space is getting scarce."""
    NO_PACKETS = "no-packets"
    """A source that is up has been silent for long."""
    SETTINGS_REFUSED = "settings-refused"
    """A new settings file was bad: the old settings still hold."""
    RETENTION_FAILED = "retention-failed"
    """What should be deleted cannot be."""
    CERTIFICATE = "certificate"
    """Our TLS certificate cannot be renewed: that of before is shown."""
    CLOCK_STEPPED = "clock-stepped"
    """The system clock was set."""

    @property
    def severity(self) -> Severity:
        """Critical where calls are lost or cut."""
        return Severity.CRITICAL if self in _CRITICAL else Severity.WARNING

    @property
    def stops_recording(self) -> bool:
        """No new recordings while it lasts."""
        return self in (AlarmCode.DISK_FULL, AlarmCode.DISK_FAILING)


_CRITICAL = frozenset(
    (
        AlarmCode.SOURCE_DOWN,
        AlarmCode.KERNEL_DROPS,
        AlarmCode.RING_FROZEN,
        AlarmCode.OVERLOAD,
        AlarmCode.DISK_FULL,
        AlarmCode.DISK_FAILING,
    )
)


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something is wrong now."""

    code: AlarmCode
    since: Time
    text: str
    """A sentence: what, where, what to do."""


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """A live source; counters are of all time since it was opened."""

    name: str
    packets: int
    octets: int
    dropped: int
    """By the kernel, before they reached the source."""
    frozen: int
    """How often its ring was full."""
    up: bool
    packets_per_second: float = 0.0
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went through the engine since the service started."""

    sip: int = 0
    """Messages of calls."""
    sip_ignored: int = 0
    """REGISTER, OPTIONS and the like."""
    sip_unsound: int = 0
    rtp: int = 0
    rtcp: int = 0


@dataclass(frozen=True, slots=True)
class DiskDelay:
    """How long audio takes from the wire to the disk, s."""

    last: float
    worst: float
    """Of the last minute."""


@dataclass(frozen=True, slots=True)
class StoreSpace:
    """The file system of the store, octets."""

    free: int
    total: int


@dataclass(frozen=True, slots=True)
class MosHistogram:
    """MOS of the streams that have ended: as many in each class, the last beyond all bounds."""

    counts: tuple[int, ...] = (0,) * (len(MOS_BOUNDS) + 1)
    total: float = 0.0
    """Sum of all values."""

    def with_value(self, mos: float) -> "MosHistogram":
        """With one stream more."""
        place = bisect_left(MOS_BOUNDS, mos)
        counts = (*self.counts[:place], self.counts[place] + 1, *self.counts[place + 1 :])
        return replace(self, counts=counts, total=self.total + mos)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole service at one moment."""

    time: Time
    version: str
    started: Time
    sources: tuple[SourceStatus, ...] = ()
    calls: Mapping[LiveState, int] = field(default_factory=dict)
    """In progress; a state that is absent has none."""
    ended: Mapping[CallState, int] = field(default_factory=dict)
    """Since the service started."""
    streams: int = 0
    """In progress."""
    traffic: Traffic = Traffic()
    recordings: int = 0
    """Published since the service started."""
    shed: int = 0
    """Calls that were given up, wholly or in part, under overload."""
    delay: DiskDelay | None = None
    """None until audio has been written."""
    store: StoreSpace | None = None
    """None where the file system does not tell."""
    last_packet_age: float | None = None
    """None until a packet has come."""
    mos: Mapping[Scale, MosHistogram] = field(default_factory=dict)
    alarms: tuple[Alarm, ...] = ()

    @property
    def in_progress(self) -> int:
        """Calls in progress."""
        return sum(self.calls.values())

    @property
    def packets_per_second(self) -> float:
        """Of all sources."""
        return sum(source.packets_per_second for source in self.sources)

    @property
    def dropped(self) -> int:
        """Packets that the kernel dropped, of all sources."""
        return sum(source.dropped for source in self.sources)


@dataclass(frozen=True, slots=True)
class LiveStream:
    """One RTP source of a call in progress."""

    side: Side | None
    """Who sends it."""
    codec: WireText
    """As in the rtpmap."""
    source: str
    """ip:port or [ip6]:port."""
    destination: str
    packets: int = 0
    lost: int = 0
    jitter_ms: float | None = None
    """RFC 3550, now."""
    mos: float | None = None
    """So far."""
    packets_per_second: float = 0.0
    last_packet_age: float | None = None


@dataclass(frozen=True, slots=True)
class LiveCall:
    """A call in progress."""

    id: str
    call_id: WireText | None
    """None for media without signalling."""
    state: LiveState
    started: Time
    answered: Time | None
    duration: float
    """s since it started."""
    caller: WireText | None = None
    """URI."""
    callee: WireText | None = None
    action: Action = Action.RECORD
    streams: tuple[LiveStream, ...] = ()
    warnings: tuple[str, ...] = ()
    """Codes."""


@dataclass(frozen=True, slots=True)
class LadderStep:
    """A SIP message of a call, as it was seen at one hop."""

    time: Time
    source: str
    """ip:port or [ip6]:port."""
    destination: str
    line: WireText
    """INVITE, BYE...; 200 OK, 487 Request Terminated..."""
    has_sdp: bool = False
    retransmission: bool = False


class StatusProvider(Protocol):
    """Whom the status server asks, from threads of its own."""

    def snapshot(self) -> Snapshot:
        """The latest."""

    def age(self) -> float:
        """Seconds since the latest snapshot was made, by a clock that nobody sets."""

    def calls(self) -> Sequence[LiveCall]:
        """Calls in progress. Raises StatusError where the service does not answer in time."""

    def ladder(self, call: str) -> Sequence[LadderStep] | None:
        """Messages of a call in progress by its `id`, None for no such call. Raises StatusError as `calls` does."""


def live_state(call: Call) -> LiveState:
    """Where a call that the tracker still has stands."""
    if call.ended is not None:
        return LiveState.ENDING
    if call.call_id is None:
        return LiveState.MEDIA_ONLY
    if call.answered is not None:
        return LiveState.HELD if call.holds and call.holds[-1].end is None else LiveState.ACTIVE
    return LiveState.CALLING if call.ringing is None else LiveState.RINGING
