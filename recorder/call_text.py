"""A call as text for a person.

In: a call document, or a decision trace from the catalogue. Out: lines, in which nothing from the wire can act on a
terminal.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from recorder.console import duration, printable
from recorder.document import CallDocument, PartyEntry, StreamEntry
from recorder.legal_hold import Hold


def describe_call(document: CallDocument, directory: str) -> Iterator[str]:
    """All that a document tells, in the order in which one would ask."""
    for line in _described(document, directory):
        yield printable(line)


def explain_call(trace: Mapping[str, Any]) -> Iterator[str]:
    """A trace as `catalogue_query.traced` gives it."""
    for line in _explained(trace):
        yield printable(line)


def describe_hold(hold: Hold) -> str:
    """A legal hold."""
    return printable(f"  held       since {hold.at} by {hold.by}: {hold.reason}")


def _described(document: CallDocument, directory: str) -> Iterator[str]:
    outcome = " ".join(str(part) for part in (document.sip_status, document.sip_reason) if part is not None)
    ended_by = f", ended by the {document.ended_by}" if document.ended_by else ""
    yield f"{document.state}{f' ({outcome})' if outcome else ''}{ended_by}"
    yield f"  id         {document.id}"
    yield f"  Call-ID    {document.call_id or 'none'}"
    if document.group_id != document.id:
        yield f"  group      {document.group_id}"
    yield f"  caller     {_party(document.caller)}"
    yield f"  callee     {_party(document.callee)}"
    for name in ("started", "ringing", "answered", "ended"):
        moment = getattr(document, name)
        if moment is not None:
            yield f"  {name:<9}  {moment}"
    talk = f", talk {duration(document.talk_s)}" if document.talk_s is not None else ""
    yield f"  duration   {duration(document.duration_s)}{talk}"
    for stream in document.streams:
        yield from _stream(stream)
    if document.dtmf:
        yield f"  digits     {' '.join(f'{d.digit} ({d.participant})' for d in document.dtmf)}"
    for hold in document.holds:
        yield f"  hold       by the {hold.by}, {hold.from_} to {hold.to or 'the end'}"
    if document.audio is not None:
        audio = document.audio
        seconds = audio.samples / audio.sample_rate if audio.sample_rate else 0.0
        shape = f"{audio.channels} x {audio.sample_rate} Hz, {seconds:.3f} s"
        yield f"  audio      {audio.file}: {audio.format}, {shape}, from {audio.started}"
    for capture in document.captures:
        yield f"  capture    {capture.file}, frames {capture.first_packet} to {capture.last_packet}"
    for warning in document.warnings:
        yield f"  warning    {warning.code}: {warning.text}"
    if document.tags:
        yield f"  tags       {' '.join(document.tags)}"
    yield f"  directory  {directory}"


def _party(party: PartyEntry) -> str:
    name = f'"{party.name}" ' if party.name else ""
    return f"{name}{party.uri or 'unknown'}{f' at {party.address}' if party.address else ''}"


def _stream(stream: StreamEntry) -> Iterator[str]:
    mos = "" if stream.mos is None else f", MOS {stream.mos:.2f}"
    jitter = "" if stream.jitter_ms.mean is None else f", jitter {stream.jitter_ms.mean:.1f} ms"
    sent = f"{stream.packets} of {stream.expected} packets"
    sender = stream.participant or "unknown"
    yield f"  stream     {sender}: {stream.media} {stream.codec} {stream.ssrc}, {sent}{jitter}{mos}"
    yield f"             {stream.source} to {stream.destination}"


def _explained(trace: Mapping[str, Any]) -> Iterator[str]:
    name = f"Call-ID {trace['call_id']}" if trace["call_id"] is not None else "media without signalling"
    if trace["directory"] is not None:
        verdict = f"recorded ({trace['state']}) in {trace['directory']}"
    else:
        verdict = "not recorded"
    yield f"{name}: {verdict}"
    yield f"  id {trace['id']}"
    # What is known only at the end of a call is noted there, with the time at which it happened.
    for event in sorted(trace["events"], key=lambda event: str(event["at"])):
        yield f"  {event['at']}  frame {event['packet']:<8} {event['code']}: {event['text']}"
    if not trace["streams"]:
        yield "  no RTP was claimed for it"
