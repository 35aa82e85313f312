"""What is told of a call's streams once it is over: counts, quality, digits and warnings.

In: `CallMedia` and the receiver's state of its streams. Out: `StreamReport`s in order of their first packet, with the
best sighting of each stream; digits and warnings go to the call. Sightings of the same media are counted, not listed.
"""

from capture.batch import Int64
from decoders import _stream_kernels as kernels
from decoders.quality import score
from decoders.sdp import PayloadFormat
from decoders.timeline import StreamTable
from recorder.endpoints import Rule
from recorder.model import Call, Digit, StreamReport, TraceEvent, Warning_
from recorder.streams import CallMedia, MediaStream


def report_media(media: CallMedia, table: StreamTable) -> list[StreamReport]:
    """Report the streams of a call that has ended, and add what they tell to the call."""
    started = [s for s in media.streams if table.state[s.row, kernels.STARTED]]
    heads = sorted((s for s in started if s.primary is None and not s.alternate), key=_order)
    sightings = [s for s in started if s.primary is not None or s.alternate]
    reports: list[StreamReport] = []
    for head in heads:
        copies = [s for s in sightings if _shows(s, head, table)]
        best = min(
            [head, *(c for c in copies if c.primary is head)], key=lambda s: (_lost(table.state[s.row]), _order(s))
        )
        reports.append(_report(media, best, head, len(copies) + head.forks, str(len(reports) + 1), table))
        _warn(media.call, head, best, table.state[best.row])
    _digits(media.call, heads)
    _trace(media.call, heads, sightings, table)
    return reports


def _order(stream: MediaStream) -> tuple[int, int, int]:
    return stream.first_time, stream.nearness, stream.row


def _shows(sighting: MediaStream, head: MediaStream, table: StreamTable) -> bool:
    """Whether a sighting is one of this stream: the same packets, or the same direction at another hop meanwhile."""
    if sighting.primary is not None:
        return sighting.primary is head
    mine, other = table.state[sighting.row], table.state[head.row]
    return (
        sighting.speaker is head.speaker
        and sighting.media == head.media
        and mine[kernels.FIRST_TIME] <= other[kernels.LAST_TIME]
        and other[kernels.FIRST_TIME] <= mine[kernels.LAST_TIME]
    )


def expected_packets(state: Int64) -> int:
    """Packets that the sequence numbers promise (RFC 3550, appendix A.3)."""
    return int(state[kernels.EXPECTED] + state[kernels.TOP] - state[kernels.BASE] + 1)


def _lost(state: Int64) -> int:
    return max(expected_packets(state) - int(state[kernels.RECEIVED]), 0)


def _format(stream: MediaStream, state: Int64) -> PayloadFormat:
    """The format that the stream was heard in last; its first key-press format where it never was."""
    payload_type = int(state[kernels.AUDIO_TYPE])
    if not state[kernels.AUDIO]:
        kind = "TELEPHONE-EVENT" if state[kernels.EVENTS] else "CN"
        for known in stream.formats.values():
            if known.encoding.upper() == kind and stream.claim is not None:
                return known
    known_format = stream.formats.get(payload_type)
    return known_format or PayloadFormat(payload_type, "unknown", 8000, 1, "")


def _report(
    media: CallMedia, best: MediaStream, head: MediaStream, copies: int, label: str, table: StreamTable
) -> StreamReport:
    state, figures = table.state[best.row], table.figures[best.row]
    fmt = _format(best, state)
    lost = _lost(state)
    received = int(state[kernels.RECEIVED])
    counted = int(figures[kernels.JITTER_COUNT])
    quality = score(
        fmt.encoding,
        expected=received + lost,
        lost=lost,
        discarded=int(state[kernels.LATE]),
        loss_bursts=min(int(state[kernels.GAPS]) + int(state[kernels.LATE]), lost + int(state[kernels.LATE])),
    )
    if not state[kernels.AUDIO] or best.media != "audio":
        quality = None
    channel = head.channel
    return StreamReport(
        media=best.media,
        side=best.speaker,
        label=label,
        channel=channel if channel >= 0 else None,
        codec=fmt.rtpmap,
        payload_type=fmt.payload_type,
        clock_rate=fmt.clock_rate,
        ssrc=best.ssrc,
        source=best.source,
        destination=best.destination,
        started=int(state[kernels.FIRST_TIME]),
        ended=int(state[kernels.LAST_TIME]),
        packets=received,
        lost=lost,
        duplicates=int(state[kernels.DUPLICATES]),
        late=int(state[kernels.LATE]),
        reordered=int(state[kernels.REORDERED]),
        jitter_mean_ms=float(figures[kernels.JITTER_SUM]) / counted if counted else None,
        jitter_max_ms=float(figures[kernels.JITTER_MAX]) if counted else None,
        mos=quality.mos if quality else None,
        r_factor=quality.r if quality else None,
        mos_scale=quality.scale.value if quality else None,
        burst_ratio=quality.burst_ratio if quality else None,
        copies=copies,
        encrypted=best.encrypted,
        decrypted=best.encrypted and head.decrypted > 0,
        rule=best.rule.value,
        rtcp_cname=best.cname,
        rtt_ms=best.rtt_ms,
        far_end_fraction_lost=best.far_end_loss,
        far_end_jitter_ms=best.far_end_jitter_ms,
    )


def _warn(call: Call, head: MediaStream, best: MediaStream, state: Int64) -> None:
    """What a listener must know of a stream."""
    who = f"The {head.speaker.value}'s {head.media} (SSRC 0x{head.ssrc:08x})"
    say = call.warnings.append
    for codec, why in sorted(head.undecodable.items()):
        say(Warning_("undecodable", f"{who} is silent where it was {codec}: {why}."))
    if head.encrypted and head.srtp is None and state[kernels.AUDIO]:
        say(Warning_("encrypted", f"{who} is silent: it is encrypted and its keys were not seen."))
    elif head.undecrypted:
        say(Warning_("undecrypted", f"{who}: {head.undecrypted} packets could not be decrypted and are silent."))
    if state[kernels.SNAPPED]:
        say(Warning_("snapped", f"{who}: the capture cut off part of {state[kernels.SNAPPED]} packets; it is silence."))
    if state[kernels.STRAYS]:
        say(Warning_("stray-packets", f"{who}: {state[kernels.STRAYS]} packets fit nowhere in the stream; left out."))
    if state[kernels.UNKNOWN]:
        say(Warning_("unknown-payload", f"{who}: {state[kernels.UNKNOWN]} packets of payload types nobody announced."))
    if state[kernels.EPOCHS]:
        say(Warning_("sequence-restart", f"{who}: sequence numbers began anew {state[kernels.EPOCHS]} times."))
    if head.layer:
        say(Warning_("overlap", f"{who} sounded at the same time as another source of that side; both are heard."))


def _digits(call: Call, heads: list[MediaStream]) -> None:
    """Key presses of RFC 4733, each once however many streams repeat it."""
    known = {(d.side, d.digit, d.at) for d in call.digits}
    for stream in heads:
        if stream.events is None:
            continue
        for press in stream.events.digits():
            digit = Digit(press.time, stream.speaker, press.digit, press.duration_ms, "rfc4733")
            if (digit.side, digit.digit, digit.at) not in known:
                call.digits.append(digit)
                known.add((digit.side, digit.digit, digit.at))
    call.digits.sort(key=lambda d: (d.at, d.side.value, d.digit))


_RULES = {
    Rule.DESTINATION: "its destination was announced",
    Rule.SOURCE: "its source was announced",
    Rule.REVERSE: "it is the reverse of a stream already placed",
    Rule.MEDIA_ONLY: "no signalling announced it",
}


def _trace(call: Call, heads: list[MediaStream], sightings: list[MediaStream], table: StreamTable) -> None:
    """Add to the decision trace where RTP was seen and by which rule it was claimed."""
    for stream in sorted([*heads, *sightings], key=_order):
        state = table.state[stream.row]
        role = "heard as" if stream in heads else "another sighting of"
        text = (
            f"RTP {stream.source} -> {stream.destination}, SSRC 0x{stream.ssrc:08x}, "
            f"{state[kernels.RECEIVED]} packets: {role} the {stream.speaker.value}'s {stream.media}, for {_RULES[stream.rule]}"
        )
        call.trace.append(TraceEvent(stream.first_time, int(state[kernels.FIRST_NUMBER]), "rtp-claimed", text))
    if call.call_id is not None and call.answered is not None and call.recording_session is None:
        for side in ("caller", "callee"):
            if not any(s.speaker.value == side and s.media == "audio" for s in heads):
                text = f"no RTP from the {side} was seen at any address announced for it"
                call.trace.append(TraceEvent(call.last_seen, call.last_packet, "no-rtp", text))
                call.warnings.append(Warning_("one-way" if heads else "no-media", f"No audio of the {side} was seen."))
