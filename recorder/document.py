"""The call document, `call.json`, schema `spanrec/call/1`.

In: what the stages of the recorder report of one call (`recorder.model`). Out: `CallDocument`, a typed value, and its
bytes. The JSON Schema (docs/call.schema.json) and the check of documents read back come from the same types through
pydantic, which is imported only for those two. Never reads a file or a clock, never guesses: what is unknown is null.

Field names are those of the JSON; a trailing underscore (`from_`) keeps a Python keyword apart and is not in the JSON.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, lru_cache
from math import isfinite
from typing import Any, ClassVar, Literal, Protocol, cast
from uuid import UUID

from recorder.model import AudioReport, Call, CallState, Digit, Party, Side, StreamReport

SCHEMA: Literal["spanrec/call/1"] = "spanrec/call/1"

State = Literal["completed", "cancelled", "refused", "failed", "incomplete", "media-only"]
Participant = Literal["caller", "callee"]
Time = str
"""RFC 3339, microseconds, Z: 2026-03-01T09:15:02.123456Z."""

_CONFIG: dict[str, Any] = {
    "extra": "forbid",
    "alias_generator": lambda name: name.rstrip("_"),
    "use_attribute_docstrings": True,
}
"""How pydantic reads the types below (`schema`, `parse`); plain Python until then."""


class NamedCapture(Protocol):
    """What the document tells of a capture: `CaptureReport` is one."""

    @property
    def file(self) -> str:
        """Base name."""

    @property
    def sha256(self) -> str:
        """Digest of the file as given."""


@dataclass(frozen=True, slots=True)
class PartyEntry:
    """A participant."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG
    uri: str | None
    """The most trusted identity's URI."""
    name: str | None
    """Display name, null where none was heard."""
    address: str | None
    """ip:port of its signalling, null if unseen."""


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """One RTP SSRC in one direction."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG
    media: str
    """audio, video..."""
    participant: Participant | None
    """Who sent it, null where that is unknown."""
    label: str
    """The stream's label in metadata.xml."""
    channel: int | None
    """Channel of the audio file: 0 left, 1 right, null where it is in none."""
    codec: str
    """As in the rtpmap, e.g. PCMU/8000."""
    payload_type: int
    clock_rate: int
    ssrc: str
    """0x and eight hexadecimal digits."""
    source: str
    """ip:port or [ip6]:port, of the copy that was kept."""
    destination: str
    started: Time
    ended: Time
    packets: int
    """Distinct packets of the SSRC, events and comfort noise too."""
    lost: int
    expected: int
    """packets + lost."""
    duplicates: int
    """Copies dropped, mirrored ones too."""
    late: int
    """Packets that came after their place had been written."""
    reordered: int
    jitter_ms: "Jitter"
    """RFC 3550 interarrival jitter."""
    mos: float | None
    """E-model estimate (ITU-T G.107), null where not computable."""
    copies: int
    """Number of other sightings of the same media."""
    encrypted: bool
    """On the wire."""


@dataclass(frozen=True, slots=True)
class Jitter:
    """Interarrival jitter, ms; null where fewer than two packets came."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG
    mean: float | None
    max: float | None


@dataclass(frozen=True, slots=True)
class DigitEntry:
    """A DTMF digit."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG
    at: Time
    participant: Participant
    digit: str
    duration_ms: int | None
    via: Literal["rfc4733", "info"]


@dataclass(frozen=True, slots=True)
class HoldEntry:
    """A period on hold."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG
    from_: Time
    """The request that holds."""
    to: Time | None
    """The request that resumes, or the call's end."""
    by: Participant


@dataclass(frozen=True, slots=True)
class AudioEntry:
    """The audio file."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG
    file: str
    """Relative to the recording's directory."""
    format: str
    sample_rate: int
    channels: int
    samples: int
    """Per channel."""
    started: Time
    """When sample 0 reached the wire."""
    sha256: str


@dataclass(frozen=True, slots=True)
class MetadataEntry:
    """The RFC 7865 metadata file."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG
    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class CaptureEntry:
    """Where the call stands in a capture."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG
    file: str
    """Base name."""
    sha256: str
    """Of the file as given."""
    first_packet: int
    """Frame number from 1, as Wireshark counts."""
    last_packet: int


@dataclass(frozen=True, slots=True)
class WarningEntry:
    """Something a reader of the recording must know."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG
    code: str
    """Stable, kebab-case."""
    text: str


@dataclass(frozen=True, slots=True)
class CallDocument:
    """What is known of one call. Times are capture time, UTC; null where it never happened or was never seen."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG
    schema: Literal["spanrec/call/1"]
    id: str
    """UUID made from where the call stands in the capture."""
    call_id: str | None
    """SIP Call-ID, null for media that no signalling explains."""
    group_id: str
    """`id` of the first call of its conversation, its own where alone."""
    caller: PartyEntry
    callee: PartyEntry
    started: Time
    """First INVITE; first packet where there is none."""
    ringing: Time | None
    """First 180 to 183."""
    answered: Time | None
    ended: Time
    """BYE, CANCEL or final refusal; last packet where incomplete."""
    duration_s: float
    """ended - started."""
    talk_s: float | None
    """ended - answered."""
    state: State
    sip_status: int | None
    sip_reason: str | None
    ended_by: Participant | None
    streams: tuple[StreamEntry, ...]
    dtmf: tuple[DigitEntry, ...]
    holds: tuple[HoldEntry, ...]
    audio: AudioEntry | None
    metadata: MetadataEntry
    captures: tuple[CaptureEntry, ...]
    warnings: tuple[WarningEntry, ...]
    tags: tuple[str, ...] = ()
    """Given by the recording policy; absent where it gave none."""

    def to_bytes(self) -> bytes:
        """The bytes of call.json: UTF-8, members in the order of the schema, two spaces, newline at the end."""
        from pydantic_core import to_json

        # Mappings: it takes three times as long over dataclasses.
        told = {
            **_members(self),
            "caller": _members(self.caller),
            "callee": _members(self.callee),
            "streams": [{**_members(stream), "jitter_ms": _members(stream.jitter_ms)} for stream in self.streams],
            "dtmf": [_members(digit) for digit in self.dtmf],
            "holds": [{"from": hold.from_, "to": hold.to, "by": hold.by} for hold in self.holds],
            "audio": None if self.audio is None else _members(self.audio),
            "metadata": _members(self.metadata),
            "captures": [_members(capture) for capture in self.captures],
            "warnings": [_members(warning) for warning in self.warnings],
        }
        if not self.tags:
            del told["tags"]
        return to_json(told, indent=2) + b"\n"


def _members(value: Any) -> dict[str, Any]:
    """The members of one of the types above, in order."""
    return {name: getattr(value, name) for name in value.__slots__}


def describe(
    call: Call,
    streams: Sequence[StreamReport],
    audio: AudioReport | None,
    metadata_sha256: str,
    captures: Sequence[NamedCapture],
    group_id: UUID | None = None,
) -> CallDocument:
    """The document of a call that has ended or whose capture has.

    `captures` is indexed by capture index; `group_id` None means that the call is alone. The call must have its `id`.
    """
    if call.id is None:
        raise ValueError(f"call {call.index} has no id yet")
    identifier = str(call.id)
    # A capture's clock may step back; a call still does not end before it starts.
    ended = max(call.ended if call.ended is not None else call.last_seen, call.started)
    return CallDocument(
        schema=SCHEMA,
        id=identifier,
        call_id=None if call.call_id is None else clean(call.call_id),
        group_id=identifier if group_id is None or group_id is call.id else str(group_id),
        caller=_party(call.caller),
        callee=_party(call.callee),
        started=format_time(call.started),
        ringing=_optional_time(call.ringing),
        answered=_optional_time(call.answered),
        ended=format_time(ended),
        duration_s=_seconds(call.started, ended),
        talk_s=None if call.answered is None else _seconds(call.answered, max(ended, call.answered)),
        state=_state(call),
        sip_status=call.sip_status,
        sip_reason=None if call.sip_reason is None else clean(call.sip_reason),
        ended_by=None if call.ended_by is None else _PARTICIPANT[call.ended_by],
        streams=tuple([_stream(s) for s in streams]),
        dtmf=tuple([_digit(d) for d in call.digits]),
        holds=tuple([HoldEntry(format_time(h.begin), _optional_time(h.end), _PARTICIPANT[h.by]) for h in call.holds]),
        audio=None if audio is None else _audio(audio),
        metadata=MetadataEntry("metadata.xml", metadata_sha256),
        captures=tuple(
            [
                CaptureEntry(clean(captures[i].file), captures[i].sha256, first, last)
                for i, (first, last) in sorted(call.captures.items())
            ]
        ),
        warnings=tuple([WarningEntry(code, clean(text)) for code, text in call.warnings]),
        tags=call.tags,
    )


def parse(data: bytes) -> CallDocument:
    """A document read back, checked against the schema. Raises ValueError (pydantic's) with what does not fit."""
    return cast(CallDocument, _adapter().validate_json(data))


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of call.json."""
    published: dict[str, Any] = _adapter().json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA, **published}


@lru_cache(maxsize=1024)
def format_time(nanoseconds: int) -> Time:
    """RFC 3339 with microseconds and Z; what is finer is cut off, as it is in pcap files.

    Document, metadata and trace of a call name the same few instants again and again: those are remembered.
    """
    seconds, micros = divmod(nanoseconds // 1000, 1_000_000)
    return f"{_second(seconds)}.{micros:06d}Z"


@lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()


def clean(text: str) -> str:
    """`text` as valid Unicode: octets that were no UTF-8 on the wire (lone surrogates) become U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


_EPOCH = datetime(1970, 1, 1)
_PARTICIPANT: dict[Side, Participant] = {Side.CALLER: "caller", Side.CALLEE: "callee"}
_STATE: dict[CallState, State] = {
    CallState.COMPLETED: "completed",
    CallState.CANCELLED: "cancelled",
    CallState.REFUSED: "refused",
    CallState.FAILED: "failed",
    CallState.INCOMPLETE: "incomplete",
    CallState.MEDIA_ONLY: "media-only",
}


def _state(call: Call) -> State:
    """The state, for a call whose capture ended first too."""
    if call.state is not CallState.ACTIVE:
        return _STATE[call.state]
    if call.call_id is None:
        return "media-only"
    return "failed" if call.answered is None else "incomplete"


def _party(party: Party) -> PartyEntry:
    uri, name, address = party.uri, party.name, party.address
    return PartyEntry(
        uri=None if uri is None else clean(uri),
        name=None if name is None else clean(name),
        address=None if address is None else str(address),
    )


def _stream(stream: StreamReport) -> StreamEntry:
    return StreamEntry(
        media=clean(stream.media),
        participant=None if stream.side is None else _PARTICIPANT[stream.side],
        label=stream.label,
        channel=stream.channel,
        codec=clean(stream.codec),
        payload_type=stream.payload_type,
        clock_rate=stream.clock_rate,
        ssrc=f"0x{stream.ssrc:08x}",
        source=str(stream.source),
        destination=str(stream.destination),
        started=format_time(stream.started),
        ended=format_time(stream.ended),
        packets=stream.packets,
        lost=stream.lost,
        expected=stream.packets + stream.lost,
        duplicates=stream.duplicates,
        late=stream.late,
        reordered=stream.reordered,
        jitter_ms=Jitter(_rounded(stream.jitter_mean_ms, 3), _rounded(stream.jitter_max_ms, 3)),
        mos=_rounded(stream.mos, 2),
        copies=stream.copies,
        encrypted=stream.encrypted,
    )


def _digit(digit: Digit) -> DigitEntry:
    via = cast(Literal["rfc4733", "info"], digit.via)
    return DigitEntry(format_time(digit.at), _PARTICIPANT[digit.side], clean(digit.digit), digit.duration_ms, via)


def _audio(audio: AudioReport) -> AudioEntry:
    return AudioEntry(
        file=audio.file,
        format=audio.format,
        sample_rate=audio.sample_rate,
        channels=audio.channels,
        samples=audio.samples,
        started=format_time(audio.started),
        sha256=audio.sha256,
    )


def _optional_time(nanoseconds: int | None) -> Time | None:
    return None if nanoseconds is None else format_time(nanoseconds)


def _seconds(begin: int, end: int) -> float:
    """Seconds between two times as the document prints them, so that the figures agree with the times."""
    return (end // 1000 - begin // 1000) / 1_000_000


def _rounded(value: float | None, digits: int) -> float | None:
    if value is None or not isfinite(value):
        return None
    return round(float(value), digits)


@cache
def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(CallDocument)
