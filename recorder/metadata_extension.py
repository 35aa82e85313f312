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
from recorder.xml_element import Value, attribute, attributes_of, content, leaf, nested, quoted

NAMESPACE = "urn:spanrec:metadata:1"
PREFIX = "sr"


def conversation(call: Call, first_call: UUID) -> str:
    """In `group`: the first call of the conversation and what ties this call to others."""
    start = f'    <sr:conversation first-call="{first_call}"'
    if not call.group_reasons:
        return f"{start}/>\n"
    reasons = dict.fromkeys(reason for _, reason in call.group_reasons)
    tied = [leaf("      ", "sr:tied-by", {}, reason) for reason in reasons]
    return f"{start}>\n{''.join(tied)}    </sr:conversation>\n"


def call_facts(call: Call) -> str:
    """In `session`: the call as its signalling tells it, and who else recorded it."""
    status = "" if call.sip_status is None else f' sip-status="{call.sip_status}"'
    reason = "" if call.sip_reason is None else f' sip-reason="{quoted(call.sip_reason)}"'
    ended_by = "" if call.ended_by is None else f' ended-by="{call.ended_by}"'
    start = (
        f'    <sr:call state="{call.state}" started="{format_time(call.started)}"{_time("ringing", call.ringing)}'
        f"{_time('answered', call.answered)}{_time('ended', call.ended)}"
        f' last-seen="{format_time(max(call.last_seen, call.started))}"{status}{reason}{ended_by}'
    )
    told = [] if call.call_id is None else [f"      <sr:call-id>{content(call.call_id)}</sr:call-id>\n"]
    for protocol, cause, text in call.reason_headers:
        told.append(leaf("      ", "sr:reason", {"protocol": protocol, "cause": cause}, text))
    told += [
        f'      <sr:hold{_time("begin", hold.begin)}{_time("end", hold.end)} by="{hold.by}"/>\n' for hold in call.holds
    ]
    told += [_recorded_by(recording_session) for recording_session in call.recorded_by]
    for code, text in call.warnings:
        told.append(f'      <sr:warning code="{quoted(code)}">{content(text)}</sr:warning>\n')
    return f"{start}>\n{''.join(told)}    </sr:call>\n" if told else f"{start}/>\n"


def _recorded_by(session: RecordingSession) -> str:
    """A recording session of somebody else's SRC (RFC 7866) that was seen to record the call."""
    attributes = {
        "call-id": session.call_id,
        "started": format_time(session.started),
        "ended": None if session.ended is None else format_time(session.ended),
        "src": _endpoint(session.src),
        "srs": _endpoint(session.srs),
        "packets": session.packets,
    }
    told = [leaf("        ", "sr:session-id", {}, session_id) for session_id in session.session_ids]
    told += [leaf("        ", "sr:aor", {}, aor) for aor in session.aors]
    return nested("      ", "sr:recorded-by", attributes, "".join(told))


def party_facts(party: Party) -> str:
    """In `participant`: role, signalling address and every identity heard, verbatim, with where it stood."""
    told = ""
    for uri, name, origin in party.identities:
        header = _ORIGINS.get(origin) or ("From" if party.side is Side.CALLER else "To")
        named = "" if name is None else f' name="{quoted(name)}"'
        told += f'      <sr:identity origin="{header}" uri="{quoted(uri)}"{named}/>\n'
    address = "" if party.address is None else f' address="{party.address}"'
    start = f'    <sr:party role="{party.side}"{address}'
    return f"{start}>\n{told}    </sr:party>\n" if told else f"{start}/>\n"


_ORIGINS = {
    IdentityOrigin.ASSERTED: "P-Asserted-Identity",
    IdentityOrigin.REMOTE_PARTY: "Remote-Party-ID",
    IdentityOrigin.REQUEST_URI: "Request-URI",
    IdentityOrigin.DIVERSION: "Diversion",
}


def media_facts(stream: StreamReport) -> str:
    """In `stream`: what was on the wire and how well it came."""
    start = (
        f'    <sr:media kind="{quoted(stream.media)}"{attribute("participant", stream.side)}'
        f'{attribute("channel", stream.channel)} codec="{quoted(stream.codec)}" payload-type="{stream.payload_type}"'
        f' clock-rate="{stream.clock_rate}" ssrc="0x{stream.ssrc:08x}" source="{stream.source}"'
        f' destination="{stream.destination}" started="{format_time(stream.started)}"'
        f' ended="{format_time(stream.ended)}" copies="{stream.copies}" encryption="{_encryption(stream)}"'
        f' placed-by="{quoted(stream.rule)}">'
    )
    packets = (
        f'      <sr:packets received="{stream.packets}" expected="{stream.packets + stream.lost}" lost="{stream.lost}"'
        f' duplicates="{stream.duplicates}" late="{stream.late}" reordered="{stream.reordered}"/>'
    )
    quality = {
        "mos": stream.mos,
        "scale": stream.mos_scale,
        "r-factor": stream.r_factor,
        "burst-ratio": stream.burst_ratio,
    }
    rtcp = {
        "cname": stream.rtcp_cname,
        "round-trip-ms": stream.rtt_ms,
        "far-end-fraction-lost": stream.far_end_fraction_lost,
        "far-end-jitter-ms": stream.far_end_jitter_ms,
    }
    told = (
        _known("sr:jitter", {"mean-ms": stream.jitter_mean_ms, "max-ms": stream.jitter_max_ms}),
        _known("sr:quality", quality) if stream.mos is not None else "",
        _known("sr:rtcp", rtcp),
    )
    return f"{start}\n{packets}\n{''.join(told)}    </sr:media>\n"


def provenance(call: Call, audio: AudioReport | None, captures: Sequence[CaptureReport], version: str | None) -> str:
    """In `recording`: the program, the audio that goes with the document and the packets that all of it came from."""
    told = [f'    <sr:program name="spanrec"{attribute("version", version)}/>\n']
    if audio is not None:
        attributes: dict[str, Value] = {
            "file": audio.file,
            "format": audio.format,
            "sample-rate": audio.sample_rate,
            "channels": audio.channels,
            "samples": audio.samples,
            "started": format_time(audio.started),
            "sha256": audio.sha256,
        }
        told.append(leaf("    ", "sr:audio", attributes))
    for index, (first, last) in sorted(call.captures.items()):
        capture = captures[index]
        told.append(
            f'    <sr:capture file="{quoted(capture.file)}" sha256="{capture.sha256}" first-packet="{first}"'
            f' last-packet="{last}"/>\n'
        )
    return f"  <sr:provenance>\n{''.join(told)}  </sr:provenance>\n"


def _encryption(stream: StreamReport) -> str:
    if not stream.encrypted:
        return "none"
    return "decrypted" if stream.decrypted else "not-decrypted"


def _time(name: str, time: int | None) -> str:
    """An attribute with a time, after a blank; empty where it is not known."""
    return "" if time is None else f' {name}="{format_time(time)}"'


def _endpoint(endpoint: object | None) -> str | None:
    return None if endpoint is None else str(endpoint)


def _known(name: str, attributes: Mapping[str, Value]) -> str:
    """An element of a stream's media, unless nothing of it is known."""
    written = attributes_of(attributes)
    return f"      <{name}{written}/>\n" if written else ""
