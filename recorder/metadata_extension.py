"""What a metadata document says beyond RFC 7865, in spanrec's own namespace.

In: the values that the document is made from. Out: elements of `NAMESPACE` at the places where the schema of RFC 7865
allows foreign ones (its xs:any), which are the ends of group, session, participant, stream and recording; never in
nameID, name, reason or param. Their schema: tests/schema/spanrec-metadata-1.xsd.

Digits that were dialled are left out: they can be secrets, and metadata travels further than a call document.
"""

from collections.abc import Mapping, Sequence
from uuid import UUID

from recorder.document import format_time
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
from recorder.xml_element import Element, Value, shown

NAMESPACE = "urn:spanrec:metadata:1"
PREFIX = "sr"


def add_conversation(group: Element, call: Call, first_call: UUID) -> None:
    """In `group`: the first call of the conversation and what ties this call to others."""
    element = _add(group, "conversation", {"first-call": str(first_call)})
    for reason in dict.fromkeys(reason for _, reason in call.group_reasons):
        _add(element, "tied-by", {}, reason)


def add_call(session: Element, call: Call) -> None:
    """In `session`: the call as its signalling tells it, and who else recorded it."""
    element = _add(
        session,
        "call",
        {
            "state": call.state,
            "started": _time(call.started),
            "ringing": _time(call.ringing),
            "answered": _time(call.answered),
            "ended": _time(call.ended),
            "last-seen": _time(max(call.last_seen, call.started)),
            "sip-status": call.sip_status,
            "sip-reason": call.sip_reason,
            "ended-by": call.ended_by,
        },
    )
    if call.call_id is not None:
        _add(element, "call-id", {}, call.call_id)
    for protocol, cause, text in call.reason_headers:
        _add(element, "reason", {"protocol": protocol, "cause": cause}, text)
    for hold in call.holds:
        _add(element, "hold", {"begin": _time(hold.begin), "end": _time(hold.end), "by": hold.by})
    for recording_session in call.recorded_by:
        _add_recorded_by(element, recording_session)
    for warning in call.warnings:
        _add(element, "warning", {"code": warning.code}, warning.text)


def _add_recorded_by(call: Element, session: RecordingSession) -> None:
    """A recording session of somebody else's SRC (RFC 7866) that was seen to record the call."""
    element = _add(
        call,
        "recorded-by",
        {
            "call-id": session.call_id,
            "started": _time(session.started),
            "ended": _time(session.ended),
            "src": _endpoint(session.src),
            "srs": _endpoint(session.srs),
            "packets": session.packets,
        },
    )
    for session_id in session.session_ids:
        _add(element, "session-id", {}, session_id)
    for aor in session.aors:
        _add(element, "aor", {}, aor)


def add_party(participant: Element, party: Party) -> None:
    """In `participant`: role, signalling address and every identity heard, verbatim, with where it stood."""
    element = _add(participant, "party", {"role": party.side, "address": _endpoint(party.address)})
    for identity in party.identities:
        origin = _ORIGINS.get(identity.origin, "From" if party.side is Side.CALLER else "To")
        _add(element, "identity", {"origin": origin, "uri": identity.uri, "name": identity.name})


_ORIGINS = {
    IdentityOrigin.ASSERTED: "P-Asserted-Identity",
    IdentityOrigin.REMOTE_PARTY: "Remote-Party-ID",
    IdentityOrigin.REQUEST_URI: "Request-URI",
    IdentityOrigin.DIVERSION: "Diversion",
}


def add_media(parent: Element, stream: StreamReport) -> None:
    """In `stream`: what was on the wire and how well it came."""
    element = _add(
        parent,
        "media",
        {
            "kind": stream.media,
            "participant": stream.side,
            "channel": stream.channel,
            "codec": stream.codec,
            "payload-type": stream.payload_type,
            "clock-rate": stream.clock_rate,
            "ssrc": f"0x{stream.ssrc:08x}",
            "source": _endpoint(stream.source),
            "destination": _endpoint(stream.destination),
            "started": _time(stream.started),
            "ended": _time(stream.ended),
            "copies": stream.copies,
            "encryption": _encryption(stream),
            "placed-by": stream.rule,
        },
    )
    _add(
        element,
        "packets",
        {
            "received": stream.packets,
            "expected": stream.packets + stream.lost,
            "lost": stream.lost,
            "duplicates": stream.duplicates,
            "late": stream.late,
            "reordered": stream.reordered,
        },
    )
    _add_known(element, "jitter", {"mean-ms": stream.jitter_mean_ms, "max-ms": stream.jitter_max_ms})
    if stream.mos is not None:
        _add_known(
            element,
            "quality",
            {
                "mos": stream.mos,
                "scale": stream.mos_scale,
                "r-factor": stream.r_factor,
                "burst-ratio": stream.burst_ratio,
            },
        )
    _add_known(
        element,
        "rtcp",
        {
            "cname": stream.rtcp_cname,
            "round-trip-ms": stream.rtt_ms,
            "far-end-fraction-lost": stream.far_end_fraction_lost,
            "far-end-jitter-ms": stream.far_end_jitter_ms,
        },
    )


def add_provenance(
    recording: Element, call: Call, audio: AudioReport | None, captures: Sequence[CaptureReport], version: str | None
) -> None:
    """In `recording`: the program, the audio that goes with the document and the packets that all of it came from."""
    element = _add(recording, "provenance", {})
    _add(element, "program", {"name": "spanrec", "version": version})
    if audio is not None:
        _add(
            element,
            "audio",
            {
                "file": audio.file,
                "format": audio.format,
                "sample-rate": audio.sample_rate,
                "channels": audio.channels,
                "samples": audio.samples,
                "started": _time(audio.started),
                "sha256": audio.sha256,
            },
        )
    for index, (first, last) in sorted(call.captures.items()):
        capture = captures[index]
        _add(
            element,
            "capture",
            {"file": capture.file, "sha256": capture.sha256, "first-packet": first, "last-packet": last},
        )


def _encryption(stream: StreamReport) -> str:
    if not stream.encrypted:
        return "none"
    return "decrypted" if stream.decrypted else "not-decrypted"


def _time(time: int | None) -> str | None:
    return None if time is None else format_time(time)


def _endpoint(endpoint: object | None) -> str | None:
    return None if endpoint is None else str(endpoint)


def _add(parent: Element, name: str, attributes: Mapping[str, Value], text: str | None = None) -> Element:
    """Append an element of our namespace."""
    return parent.add(f"{PREFIX}:{name}", attributes, text)


def _add_known(parent: Element, name: str, attributes: Mapping[str, Value]) -> None:
    """As `_add`, unless nothing of it is known."""
    if any(shown(value) is not None for value in attributes.values()):
        _add(parent, name, attributes)
