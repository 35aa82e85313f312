"""Calls, streams and documents that tests of documents, store, catalogue and command line have in common."""

import hashlib
import sqlite3
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from capture.address import Endpoint, parse_endpoint
from recorder.catalogue import Catalogue
from recorder.document import CallDocument, describe
from recorder.identifiers import call_uuid
from recorder.model import (
    AudioReport,
    Call,
    CallState,
    CaptureReport,
    Digit,
    Hold,
    Identity,
    IdentityOrigin,
    Party,
    Side,
    StreamReport,
    TraceEvent,
    Warning_,
)
from recorder.replay_types import ReplayCounts, ReplayOptions, ReplaySummary, Reporter
from recorder.store import RecordingStore

SECOND = 1_000_000_000
START = 1_772_356_502_123_456_789
"""2026-03-01T09:15:02.123456789Z."""
CAPTURE = CaptureReport("office.pcap", "ca" * 32, 4096, 200, ("Ethernet",), START, START + 60 * SECOND, ())
METADATA = b"<recording/>\n"
AUDIO = b"RIFF"


def endpoint(text: str, port: int) -> Endpoint:
    found = parse_endpoint(text, port)
    assert found is not None
    return found


def party(side: Side, user: str, name: str | None) -> Party:
    identity = Identity(f"sip:{user}@example.com", name, IdentityOrigin.ADDRESS)
    return Party(side, [identity], endpoint("192.0.2.1" if side is Side.CALLER else "192.0.2.2", 5060))


def answered_call(index: int = 0, caller: str = "+4930111", callee: str = "222", call_id: str | None = None) -> Call:
    """A call that `caller` ends after 12.5 s, answered after 2 s."""
    started = START + index * SECOND
    return Call(
        index=index,
        call_id=call_id or f"call-{index}@example.com",
        started=started,
        first_packet=index + 1,
        capture=0,
        last_seen=started + 13 * SECOND,
        caller=party(Side.CALLER, caller, "Zoë"),
        callee=party(Side.CALLEE, callee, None),
        ringing=started + SECOND,
        answered=started + 2 * SECOND,
        ended=started + 12 * SECOND + SECOND // 2,
        state=CallState.COMPLETED,
        sip_status=200,
        sip_reason="OK",
        ended_by=Side.CALLER,
        digits=[Digit(started + 3 * SECOND, Side.CALLER, "5", 100, "rfc4733")],
        holds=[Hold(started + 4 * SECOND, started + 5 * SECOND, Side.CALLEE)],
        warnings=[Warning_("one-way", "the callee sent nothing")],
        trace=[TraceEvent(started, index + 1, "invite-seen", "INVITE 192.0.2.1 to 192.0.2.2")],
        captures={0: (index + 1, index + 90)},
        id=call_uuid(START, index + 1),
    )


def stream(side: Side = Side.CALLER, **changes: object) -> StreamReport:
    report = StreamReport(
        media="audio",
        side=side,
        label="1",
        channel=0 if side is Side.CALLER else 1,
        codec="PCMU/8000",
        payload_type=0,
        clock_rate=8000,
        ssrc=0xBEEF,
        source=endpoint("192.0.2.1", 4000),
        destination=endpoint("2001:db8::2", 4002),
        started=START + 2 * SECOND,
        ended=START + 12 * SECOND,
        packets=490,
        lost=10,
        duplicates=1,
        late=2,
        reordered=3,
        jitter_mean_ms=1.23456,
        jitter_max_ms=9.9999,
        mos=4.2049,
        r_factor=90.0,
        mos_scale="narrowband",
        burst_ratio=1.0,
        copies=0,
        encrypted=False,
        decrypted=False,
        rule="destination",
    )
    return replace(report, **changes)  # type: ignore[arg-type]


def audio(samples: int = 80_000) -> AudioReport:
    return AudioReport("audio.wav", "wav", 8000, 2, samples, START + 2 * SECOND, hashlib.sha256(AUDIO).hexdigest())


def document(call: Call | None = None, group: UUID | None = None) -> CallDocument:
    """The document of an ordinary call with a stream in each direction."""
    call = call or answered_call()
    streams = (stream(Side.CALLER), stream(Side.CALLEE, ssrc=0xCAFE))
    return describe(call, streams, audio(), hashlib.sha256(METADATA).hexdigest(), [CAPTURE], group)


def record(store: RecordingStore, catalogue: Catalogue, call: Call) -> tuple[CallDocument, str]:
    """Put a whole recording of `call` into a store, as the engine does."""
    told = document(call)
    assert call.id is not None
    work = store.begin(call.id)
    (work / "audio.wav").write_bytes(AUDIO)
    (work / "metadata.xml").write_bytes(METADATA)
    (work / "call.json").write_bytes(told.to_bytes())
    directory = store.publish(told)
    catalogue.add_recording(told, directory)
    catalogue.add_trace(call, (stream(),), recorded=True)
    return told, directory


def fill(out: Path, calls: list[Call], unrecorded: list[Call] | None = None) -> list[str]:
    """A store with these calls; gives their directories."""
    with RecordingStore(out) as store, Catalogue(out / "catalogue.sqlite", store.partial) as catalogue:
        directories = [record(store, catalogue, call)[1] for call in calls]
        for call in unrecorded or ():
            catalogue.add_trace(call, (), recorded=False)
        for superseded in catalogue.finish():
            store.remove(superseded)
    return directories


def fake_engine(calls: list[Call], damage: tuple[str, ...] = ()) -> object:
    """A replay that finds `calls`, whatever the captures."""

    def replay(options: ReplayOptions, reporter: Reporter) -> ReplaySummary:
        reporter.progress(100, 1, 2048, 4096)
        for text in damage:
            reporter.warning(text)
        with RecordingStore(options.out) as store, Catalogue(options.out / "catalogue.sqlite", store.partial) as index:
            for call in calls:
                reporter.call_done(*record(store, index, call))
            index.finish()
        counts = ReplayCounts(packets=200, calls=len(calls), streams=2 * len(calls))
        return ReplaySummary([replace(CAPTURE, damage=damage)], counts, damaged=bool(damage))

    return replay


def as_version_1(catalogue: Path) -> None:
    """Make a catalogue one that the first version wrote: without tags and sizes."""
    connection = sqlite3.connect(catalogue)
    for statement in (
        *("DROP INDEX recordings_kept", "DROP INDEX traces_unrecorded"),
        *("ALTER TABLE recordings DROP COLUMN tags", "ALTER TABLE recordings DROP COLUMN octets"),
        "PRAGMA user_version = 1",
    ):
        connection.execute(statement)
    connection.commit()
    connection.close()
