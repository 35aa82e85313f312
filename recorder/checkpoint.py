"""What of a call's media must outlive a crash: where its audio stands in time, and the figures of its streams.

In: the media of a call in progress. Out: `Checkpoint`, a value, as a small file beside the audio that is always whole;
and from that file, the value again. The signalling is kept by `recorder/journal.py`. Reads no audio.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from pathlib import Path
from typing import Any
from uuid import UUID

from capture.address import Endpoint
from capture.errors import SpanrecError
from decoders import _stream_columns as cols
from decoders.timeline import StreamTable
from recorder.kept_figures import KeptFigures, Part
from recorder.model import Call, Digit, Side, StreamReport, Warning_
from recorder.reports import digits_so_far, rows_so_far
from recorder.streams import CallMedia, Listening

FILE = "checkpoint"
VERSION = 1
_OURS = {"clock-set", "disk-failing", "disk-full", "kernel-drops", "shed", "source-down"}
_REPORT = tuple(field.name for field in fields(StreamReport))
_REPORTED = attrgetter(*_REPORT)
_ENCODE = json.JSONEncoder(separators=(",", ":")).encode


class CheckpointError(SpanrecError):
    """A checkpoint cannot be written."""


@dataclass(frozen=True, slots=True)
class TrackPlace:
    """A file of samples and where it stands."""

    file: str
    rate: int
    layer: int
    channels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A call in progress, as far as its SIP messages do not tell it."""

    id: UUID
    call_id: str | None
    call_started: int
    """Capture time, ns."""
    listening: Listening
    tags: tuple[str, ...] = ()
    audio_started: int | None = None
    """Capture time of sample 0 of every track, ns; None where there is no audio yet."""
    tracks: tuple[TrackPlace, ...] = ()
    streams: tuple[StreamReport, ...] = ()
    parts: tuple[tuple[Part, ...], ...] = ()
    """Of each stream, the rows of the stream table that its numbers are of; none where it is of an earlier run."""
    digits: tuple[Digit, ...] = ()
    last_media: int = 0
    caller: Endpoint | None = None
    """Ends of media without signalling."""
    callee: Endpoint | None = None
    interruptions: tuple[tuple[int, int], ...] = ()
    """From and until when, capture time in ns, nothing was recorded because the recorder did not run."""
    warnings: tuple[Warning_, ...] = ()
    """What the call's messages do not tell: that packets were dropped, that the disk was full..."""
    awaited_since: int | None = None
    """Capture time of the first restart, ns, since which a call that was talking has not been heard."""


def checkpoint_of(
    call: Call,
    media: CallMedia,
    table: StreamTable,
    before: tuple[StreamReport, ...] = (),
    interruptions: tuple[tuple[int, int], ...] = (),
) -> Checkpoint:
    """The state of a call in progress. `before`: reports of its streams from earlier runs."""
    found = rows_so_far(media, table)
    parts = tuple(tuple(Part(row, table.state.item(row, cols.FIRST_TIME)) for row in rows) for _, rows in found)
    streams = (*before, *(report for report, _ in found))
    return _checkpoint(call, media, streams, (*(() for _ in before), *parts), interruptions)


def last_checkpoint(
    call: Call,
    media: CallMedia,
    streams: tuple[StreamReport, ...],
    interruptions: tuple[tuple[int, int], ...] = (),
) -> Checkpoint:
    """The state of a call that is over. `streams`: the final reports, those from earlier runs too; nothing that is kept
    of later traffic belongs to them."""
    return _checkpoint(call, media, streams, tuple(() for _ in streams), interruptions)


def _checkpoint(
    call: Call,
    media: CallMedia,
    streams: tuple[StreamReport, ...],
    parts: tuple[tuple[Part, ...], ...],
    interruptions: tuple[tuple[int, int], ...],
) -> Checkpoint:
    assert call.id is not None
    return Checkpoint(
        id=call.id,
        call_id=call.call_id,
        call_started=call.started,
        listening=media.listening,
        tags=call.tags,
        audio_started=media.started,
        tracks=tuple(TrackPlace(t.path.name, t.rate, t.layer, tuple(sorted(t.channels_used))) for t in media.tracks),
        streams=streams,
        parts=parts,
        digits=tuple(digits_so_far(media)),
        last_media=media.last_media,
        caller=call.caller.address,
        callee=call.callee.address,
        interruptions=interruptions,
        warnings=service_warnings(call),
    )


def revised(state: Checkpoint, kept: KeptFigures) -> Checkpoint:
    """The checkpoint with the numbers that were kept after it, for another run to go on from."""
    # One that was written before there were parts has none.
    parts = state.parts or ((),) * len(state.streams)
    streams = tuple(kept.revise(*each) for each in zip(state.streams, parts, strict=True))
    last = max((stream.ended for stream in streams), default=0)
    return replace(state, streams=streams, parts=(), last_media=max(state.last_media, last))


def service_warnings(call: Call) -> tuple[Warning_, ...]:
    """Those of a call's warnings that are of the recorder, not of the call."""
    return tuple(warning for warning in call.warnings if warning.code in _OURS)


def save(directory: Path, state: Checkpoint) -> None:
    """Write the checkpoint into `directory`, in the place of the one before."""
    data = _ENCODE(_told(state)).encode("utf-8", "surrogatepass")
    path, fresh = f"{directory}/{FILE}", f"{directory}/{FILE}.new"
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        try:
            written = os.write(descriptor, data)
        finally:
            os.close(descriptor)
        if written < len(data):
            raise CheckpointError(f"{path}: cannot be written: the disk is full")
        os.rename(fresh, path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror or error}") from error


def load(directory: Path) -> Checkpoint | None:
    """The checkpoint in `directory`, None where there is none that can be used."""
    try:
        value = json.loads((directory / FILE).read_bytes().decode("utf-8", "surrogatepass"))
        return _heard(value) if value["version"] == VERSION else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _told(state: Checkpoint) -> dict[str, Any]:
    return {
        "version": VERSION,
        "id": state.id.hex,
        "call_id": state.call_id,
        "call_started": state.call_started,
        "listening": int(state.listening),
        "tags": state.tags,
        "audio_started": state.audio_started,
        "tracks": [(t.file, t.rate, t.layer, t.channels) for t in state.tracks],
        "streams": [dict(zip(_REPORT, _REPORTED(stream), strict=True)) for stream in state.streams],
        "parts": state.parts,
        "digits": state.digits,
        "last_media": state.last_media,
        "caller": state.caller,
        "callee": state.callee,
        "interruptions": state.interruptions,
        "awaited_since": state.awaited_since,
        "warnings": [(warning.code, warning.text) for warning in state.warnings],
    }


def _heard(value: Mapping[str, Any]) -> Checkpoint:
    return Checkpoint(
        id=UUID(hex=value["id"]),
        call_id=value["call_id"],
        call_started=int(value["call_started"]),
        listening=Listening(value["listening"]),
        tags=tuple(value["tags"]),
        audio_started=value["audio_started"],
        tracks=tuple(TrackPlace(_name(f), int(r), int(layer), tuple(c)) for f, r, layer, c in value["tracks"]),
        streams=tuple(_report(stream) for stream in value["streams"]),
        parts=tuple(tuple(Part(int(row), int(time)) for row, time in parts) for parts in value.get("parts", ())),
        digits=tuple(Digit(at, Side(side), digit, ms, via) for at, side, digit, ms, via in value["digits"]),
        last_media=int(value["last_media"]),
        caller=_endpoint(value["caller"]),
        callee=_endpoint(value["callee"]),
        interruptions=tuple((int(begin), int(end)) for begin, end in value["interruptions"]),
        awaited_since=value["awaited_since"],
        warnings=tuple(Warning_(str(code), str(text)) for code, text in value["warnings"]),
    )


def _report(value: Mapping[str, Any]) -> StreamReport:
    known = {name: value[name] for name in _REPORT}
    known["side"] = None if known["side"] is None else Side(known["side"])
    for end in ("source", "destination"):
        known[end] = Endpoint(*known[end])
    return StreamReport(**known)


def _endpoint(value: list[int] | None) -> Endpoint | None:
    return None if value is None else Endpoint(*value)


def _name(file: str) -> str:
    """A name that stays in its directory."""
    if "/" in file or file.startswith("."):
        raise ValueError(file)
    return file
