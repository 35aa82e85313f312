"""What a metadata document says beyond RFC 7865, in spanrec's own namespace.

In: the values that the document is made from. Out: elements of `NAMESPACE` for the places where the schema of RFC
7865 allows foreign ones (its xs:any), which are the ends of group, session, participant, stream and recording; never
in nameID, name, reason or param. Their schema: tests/schema/spanrec-metadata-1.xsd.

Digits that were dialled are left out: they can be secrets, and metadata travels further than a call document.
"""

from collections.abc import Sequence
from math import isfinite
from typing import Any
from uuid import UUID

from lxml import etree

from recorder.document import format_time
from recorder.metadata_text import xml_text
from recorder.model import (
    AudioReport,
    Call,
    CaptureReport,
    IdentityOrigin,
    Party,
    RecordingSession,
    Side,
    StreamReport,
)

NAMESPACE = "urn:spanrec:metadata:1"
PREFIX = "sr"

Value = str | int | float | None


def conversation(call: Call, first_call: UUID) -> Any:
    """In `group`: the first call of the conversation and what ties this call to others."""
    element = _element("conversation", first_call=str(first_call))
    for reason in dict.fromkeys(reason for _, reason in call.group_reasons):
        _child(element, "tied-by", reason)
    return element


def call_facts(call: Call) -> Any:
    """In `session`: the call as its signalling tells it, and who else recorded it."""
    element = _element(
        "call",
        state=call.state,
        started=_time(call.started),
        ringing=_time(call.ringing),
        answered=_time(call.answered),
        ended=_time(call.ended),
        last_seen=_time(max(call.last_seen, call.started)),
        sip_status=call.sip_status,
        sip_reason=call.sip_reason,
        ended_by=call.ended_by,
    )
    if call.call_id is not None:
        _child(element, "call-id", call.call_id)
    for protocol, cause, text in call.reason_headers:
        _child(element, "reason", text, protocol=protocol, cause=cause)
    for hold in call.holds:
        _child(element, "hold", begin=_time(hold.begin), end=_time(hold.end), by=hold.by)
    for session in call.recorded_by:
        element.append(_recorded_by(session))
    for warning in call.warnings:
        _child(element, "warning", warning.text, code=warning.code)
    return element


def _recorded_by(session: RecordingSession) -> Any:
    """A recording session of somebody else's SRC (RFC 7866) that was seen to record the call."""
    element = _element(
        "recorded-by",
        call_id=session.call_id,
        started=_time(session.started),
        ended=_time(session.ended),
        src=_endpoint(session.src),
        srs=_endpoint(session.srs),
        packets=session.packets,
    )
    for session_id in session.session_ids:
        _child(element, "session-id", session_id)
    for aor in session.aors:
        _child(element, "aor", aor)
    return element


def party_facts(party: Party) -> Any:
    """In `participant`: role, signalling address and every identity heard, verbatim, with where it stood."""
    element = _element("party", role=party.side, address=_endpoint(party.address))
    for identity in party.identities:
        origin = _ORIGINS.get(identity.origin, "From" if party.side is Side.CALLER else "To")
        _child(element, "identity", origin=origin, uri=identity.uri, name=identity.name)
    return element


_ORIGINS = {
    IdentityOrigin.ASSERTED: "P-Asserted-Identity",
    IdentityOrigin.REMOTE_PARTY: "Remote-Party-ID",
    IdentityOrigin.REQUEST_URI: "Request-URI",
    IdentityOrigin.DIVERSION: "Diversion",
}


def media_facts(stream: StreamReport) -> Any:
    """In `stream`: what was on the wire and how well it came."""
    element = _element(
        "media",
        kind=stream.media,
        participant=stream.side,
        channel=stream.channel,
        codec=stream.codec,
        payload_type=stream.payload_type,
        clock_rate=stream.clock_rate,
        ssrc=f"0x{stream.ssrc:08x}",
        source=_endpoint(stream.source),
        destination=_endpoint(stream.destination),
        started=_time(stream.started),
        ended=_time(stream.ended),
        copies=stream.copies,
        encryption=_encryption(stream),
        placed_by=stream.rule,
    )
    _child(
        element,
        "packets",
        received=stream.packets,
        expected=stream.packets + stream.lost,
        lost=stream.lost,
        duplicates=stream.duplicates,
        late=stream.late,
        reordered=stream.reordered,
    )
    _optional(element, "jitter", mean_ms=stream.jitter_mean_ms, max_ms=stream.jitter_max_ms)
    if stream.mos is not None:
        _optional(
            element,
            "quality",
            mos=stream.mos,
            scale=stream.mos_scale,
            r_factor=stream.r_factor,
            burst_ratio=stream.burst_ratio,
        )
    _optional(
        element,
        "rtcp",
        cname=stream.rtcp_cname,
        round_trip_ms=stream.rtt_ms,
        far_end_fraction_lost=stream.far_end_fraction_lost,
        far_end_jitter_ms=stream.far_end_jitter_ms,
    )
    return element


def provenance(call: Call, audio: AudioReport | None, captures: Sequence[CaptureReport], version: str | None) -> Any:
    """In `recording`: the program, the audio that goes with the document and the packets that all of it came from."""
    element = _element("provenance")
    _child(element, "program", name="spanrec", version=version)
    if audio is not None:
        _child(
            element,
            "audio",
            file=audio.file,
            format=audio.format,
            sample_rate=audio.sample_rate,
            channels=audio.channels,
            samples=audio.samples,
            started=_time(audio.started),
            sha256=audio.sha256,
        )
    for index, (first, last) in sorted(call.captures.items()):
        capture = captures[index]
        _child(element, "capture", file=capture.file, sha256=capture.sha256, first_packet=first, last_packet=last)
    return element


def _encryption(stream: StreamReport) -> str:
    if not stream.encrypted:
        return "none"
    return "decrypted" if stream.decrypted else "not-decrypted"


def _time(time: int | None) -> str | None:
    return None if time is None else format_time(time)


def _endpoint(endpoint: object | None) -> str | None:
    return None if endpoint is None else str(endpoint)


def _element(name: str, text: str | None = None, /, **attributes: Value) -> Any:
    """An element of our namespace; attributes that are None, or no number, are left out, `_` in names becomes `-`."""
    element = etree.Element(f"{{{NAMESPACE}}}{name}", nsmap={PREFIX: NAMESPACE})
    for key, value in attributes.items():
        if value is None or (isinstance(value, float) and not isfinite(value)):
            continue
        # Three decimals: what lies beyond is noise, and would differ between machines.
        shown = f"{value:.3f}".rstrip("0").removesuffix(".") if isinstance(value, float) else str(value)
        element.set(key.replace("_", "-"), xml_text(shown))
    if text is not None:
        element.text = xml_text(text)
    return element


def _child(parent: Any, name: str, text: str | None = None, /, **attributes: Value) -> None:
    parent.append(_element(name, text, **attributes))


def _optional(parent: Any, name: str, /, **attributes: Value) -> None:
    """A child, unless nothing of it is known."""
    element = _element(name, **attributes)
    if element.attrib:
        parent.append(element)
