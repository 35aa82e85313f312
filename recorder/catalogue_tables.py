"""The tables of the catalogue, and a document as a row of them.

In: call documents, decision traces. Out: rows. The tables use nothing that only SQLite has; times are text in RFC 3339
with microseconds and Z, which sorts as time does.
"""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Boolean, Column, Float, Index, Integer, MetaData, Table, Text

from recorder.document import CallDocument, clean, format_time
from recorder.model import Call, StreamReport
from recorder.naming import user_part

VERSION = 1
"""Of the tables, in the catalogue's `user_version`."""

metadata = MetaData()

recordings = Table(
    "recordings",
    metadata,
    Column("id", Text, primary_key=True),
    Column("call_id", Text),
    Column("group_id", Text, nullable=False),
    Column("directory", Text, nullable=False),
    Column("caller", Text),
    Column("caller_name", Text),
    Column("caller_number", Text, nullable=False),
    Column("callee", Text),
    Column("callee_name", Text),
    Column("callee_number", Text, nullable=False),
    Column("started", Text, nullable=False),
    Column("answered", Text),
    Column("ended", Text, nullable=False),
    Column("duration_s", Float, nullable=False),
    Column("talk_s", Float),
    Column("state", Text, nullable=False),
    Column("sip_status", Integer),
    Column("audio", Text),
    Column("streams", Integer, nullable=False),
    Column("codecs", Text, nullable=False),
    Column("packets", Integer, nullable=False),
    Column("lost", Integer, nullable=False),
    Column("mos", Float),
    Column("warnings", Text, nullable=False),
    Index("recordings_started", "started", "id"),
    Index("recordings_call_id", "call_id"),
    Index("recordings_group", "group_id"),
    Index("recordings_caller", "caller_number"),
    Index("recordings_callee", "callee_number"),
)
"""One row a recording. `mos` is the worst stream's, `codecs` and `warnings` (their codes) are separated by spaces."""

traces = Table(
    "traces",
    metadata,
    Column("id", Text, primary_key=True),
    Column("call_id", Text),
    Column("started", Text, nullable=False),
    Column("recorded", Boolean, nullable=False),
    Column("trace", Text, nullable=False),
    Index("traces_call_id", "call_id"),
)
"""One row a Call-ID seen, recorded or not: why it was recorded as it was, as JSON."""

ORDERED = (recordings, traces)


def recording_row(document: CallDocument, directory: str) -> dict[str, Any]:
    """The row of a recording that stands in `directory`, relative to OUT."""
    scores = [stream.mos for stream in document.streams if stream.mos is not None]
    return {
        "id": document.id,
        "call_id": document.call_id,
        "group_id": document.group_id,
        "directory": directory,
        "caller": document.caller.uri,
        "caller_name": document.caller.name,
        "caller_number": user_part(document.caller.uri),
        "callee": document.callee.uri,
        "callee_name": document.callee.name,
        "callee_number": user_part(document.callee.uri),
        "started": document.started,
        "answered": document.answered,
        "ended": document.ended,
        "duration_s": document.duration_s,
        "talk_s": document.talk_s,
        "state": document.state,
        "sip_status": document.sip_status,
        "audio": document.audio.file if document.audio else None,
        "streams": len(document.streams),
        "codecs": " ".join(sorted({stream.codec for stream in document.streams})),
        "packets": sum(stream.packets for stream in document.streams),
        "lost": sum(stream.lost for stream in document.streams),
        "mos": min(scores, default=None),
        "warnings": " ".join(sorted({warning.code for warning in document.warnings})),
    }


def trace_row(call: Call, streams: Sequence[StreamReport], recorded: bool) -> dict[str, Any]:
    """The row of what was decided about a call: events in order, then how each stream was claimed."""
    events = [
        {"at": format_time(event.time), "packet": event.packet, "code": event.code, "text": clean(event.text)}
        for event in call.trace
    ]
    claims = [
        {
            "media": clean(stream.media),
            "participant": None if stream.side is None else stream.side.value,
            "ssrc": f"0x{stream.ssrc:08x}",
            "source": str(stream.source),
            "destination": str(stream.destination),
            "codec": clean(stream.codec),
            "packets": stream.packets,
            "rule": stream.rule,
        }
        for stream in streams
    ]
    return {
        "id": str(call.id),
        "call_id": None if call.call_id is None else clean(call.call_id),
        "started": format_time(call.started),
        "recorded": recorded,
        "trace": json.dumps({"events": events, "streams": claims}, ensure_ascii=False, separators=(",", ":")),
    }
