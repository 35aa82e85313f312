"""What is told of a call's streams once it is over: counts, quality, digits and warnings.

In: `CallMedia` and the receiver's state of its streams. Out: `StreamReport`s in order of their first packet, with the
best sighting of each stream; digits and warnings go to the call. Sightings of the same media are counted, not listed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from capture.batch import Int64
from decoders import _stream_columns as cols
from decoders.quality import score
from decoders.sdp import PayloadFormat
from decoders.timeline import StreamTable
from recorder.endpoints import Rule
from recorder.model import Call, Digit, Side, StreamReport, TraceEvent, Warning_
from recorder.streams import CallMedia, MediaStream


def report_media(media: CallMedia, table: StreamTable) -> list[StreamReport]:
    """Report the streams of a call that has ended, and add what they tell to the call."""
    heads, sightings = _heads_and_sightings(media, table)
    reports = []
    for head, best, report in _reported(heads, sightings, table):
        reports.append(report)
        _warn(media.call, head, best)
    if any(track.beyond for track in media.tracks):
        late = "Media that the capture's clock puts more than a week behind the rest is left out: the clock was set."
        media.call.warnings.append(Warning_("clock-set", late))
    _digits(media.call, heads)
    _trace(media.call, heads, sightings, table)
    return reports


def streams_so_far(media: CallMedia, table: StreamTable) -> list[StreamReport]:
    """The streams of a call in progress as they would be reported if it ended now; the call stays as it is."""
    return [report for _, _, report in _reported(*_heads_and_sightings(media, table), table)]


def rows_so_far(media: CallMedia, table: StreamTable) -> list[tuple[StreamReport, tuple[int, ...]]]:
    """`streams_so_far`, each with the rows of the table that its numbers are of."""
    reported = _reported(*_heads_and_sightings(media, table), table)
    return [(report, tuple([part.row for part in best.parts])) for _, best, report in reported]


def digits_so_far(media: CallMedia) -> list[Digit]:
    """The key presses of RFC 4733 that a call in progress has had; the call stays as it is."""
    pressed = ((stream, press) for stream in media.streams if stream.events for press in stream.events.digits())
    return [Digit(press.time, s.speaker, press.digit, press.duration_ms, "rfc4733") for s, press in pressed]


def _heads_and_sightings(media: CallMedia, table: StreamTable) -> tuple[list[MediaStream], list[MediaStream]]:
    started = [s for s in media.streams if table.state.item(s.row, cols.STARTED)]
    heads = sorted((s for s in started if s.primary is None and not s.alternate), key=_order)
    return heads, [s for s in started if s.primary is not None or s.alternate]


def _reported(
    heads: list[MediaStream], sightings: list[MediaStream], table: StreamTable
) -> Iterator[tuple[MediaStream, "_Course", StreamReport]]:
    for number, head in enumerate(heads, 1):
        courses = _courses([head, *(s for s in sightings if s.primary is head)], table)
        best = min(courses, key=lambda course: (course.lost, _order(course.parts[0])))
        others = [s for s in sightings if s.primary is None and _shows(s, head, table)]
        copies = len(courses) - 1 + len(others) + len(head.forks)
        yield head, best, _report(best, head, copies, str(number), table)


def _order(stream: MediaStream) -> tuple[int, int, int]:
    return stream.first_time, stream.nearness, stream.row


def _shows(sighting: MediaStream, head: MediaStream, table: StreamTable) -> bool:
    """Whether a sighting with packets of its own is one of this stream: the same direction at another hop meanwhile."""
    mine, other = table.state[sighting.row], table.state[head.row]
    return (
        sighting.speaker is head.speaker
        and sighting.media == head.media
        and bool(mine[cols.FIRST_TIME] <= other[cols.LAST_TIME])
        and bool(other[cols.FIRST_TIME] <= mine[cols.LAST_TIME])
    )


class Receivers(Protocol):
    """What a receiver keeps of streams, a row each: a `StreamTable`, or one that was read back."""

    @property
    def state(self) -> Int64:
        """Columns as in `_stream_columns`, shape (n, STATE)."""
        ...

    @property
    def figures(self) -> NDArray[np.float64]:
        """Shape (n, STATISTICS)."""
        ...


class Numbers(NamedTuple):
    """What of a `StreamReport` is counted or computed from counts."""

    started: int
    ended: int
    packets: int
    lost: int
    duplicates: int
    late: int
    reordered: int
    jitter_mean_ms: float | None
    jitter_max_ms: float | None
    mos: float | None
    r_factor: float | None
    mos_scale: str | None
    burst_ratio: float | None


def numbers_of(rows: Sequence[int], table: Receivers, encoding: str, media: str) -> Numbers:
    """The numbers of one sighting, whose parts are in `rows` in order of time; `encoding` as in the rtpmap."""
    parts = [table.state[row].tolist() for row in rows]
    return _numbers(parts, table.figures[rows[_longest(parts)]].tolist(), encoding, media)


def _numbers(parts: Sequence[Sequence[int]], figures: Sequence[float], encoding: str, media: str) -> Numbers:
    """`parts`: the state of each, `figures`: those of the longest."""
    lost, gaps = _loss(parts)
    received = [part[cols.RECEIVED] for part in parts]
    late = sum(part[cols.LATE] for part in parts)
    quality = None
    if media == "audio" and any(part[cols.AUDIO] for part in parts):
        expected, worse = sum(received) + lost, min(gaps + late, lost + late)
        quality = score(encoding, expected=expected, lost=lost, discarded=late, loss_bursts=worse)
    counted = figures[cols.JITTER_COUNT]
    return Numbers(
        started=parts[0][cols.FIRST_TIME],
        ended=parts[-1][cols.LAST_TIME],
        packets=sum(received),
        lost=lost,
        duplicates=sum(part[cols.DUPLICATES] for part in parts),
        late=late,
        reordered=sum(part[cols.REORDERED] for part in parts),
        jitter_mean_ms=figures[cols.JITTER_SUM] / int(counted) if counted else None,
        jitter_max_ms=figures[cols.JITTER_MAX] if counted else None,
        mos=quality.mos if quality else None,
        r_factor=quality.r if quality else None,
        mos_scale=quality.scale.value if quality else None,
        burst_ratio=quality.burst_ratio if quality else None,
    )


def _longest(parts: Sequence[Sequence[int]]) -> int:
    """Index of the part with most packets."""
    received = [part[cols.RECEIVED] for part in parts]
    return received.index(max(received))


def _loss(parts: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Packets lost in and between the parts of a sighting, and in how many runs."""
    lost = sum(_lost(part) for part in parts)
    gaps = sum(part[cols.GAPS] for part in parts)
    for before, after in pairwise(parts):
        between = (after[cols.BASE] - before[cols.TOP] - 1) & 0xFFFF
        if 0 < between < cols.MAX_DROPOUT:
            lost += between
            gaps += 1
    return lost, gaps


def expected_packets(state: Sequence[int]) -> int:
    """Packets that the sequence numbers promise (RFC 3550, appendix A.3)."""
    return state[cols.EXPECTED] + state[cols.TOP] - state[cols.BASE] + 1


def _lost(state: Sequence[int]) -> int:
    return max(expected_packets(state) - state[cols.RECEIVED], 0)


@dataclass(frozen=True, slots=True)
class _Course:
    """One sighting of a stream from its first packet to its last: several parts where its addresses changed."""

    parts: tuple[MediaStream, ...]
    states: tuple[list[int], ...]
    """What the receiver keeps of each part, columns as in `_stream_columns`."""
    longest: int
    """Index of the part with most packets."""
    lost: int

    def total(self, column: int) -> int:
        """Sum of a column of the receiver's state over the parts."""
        return sum([state[column] for state in self.states])


def _courses(sightings: list[MediaStream], table: StreamTable) -> list[_Course]:
    """Join sightings of the same packets that follow one another: the sender moved on, it was not copied."""
    if len(sightings) == 1:
        return [_course(sightings, table)]
    state = table.state
    chains: list[list[MediaStream]] = []
    for each in sorted(sightings, key=_order):
        begun = state.item(each.row, cols.FIRST_TIME)
        chain = next((c for c in chains if state.item(c[-1].row, cols.LAST_TIME) <= begun), None)
        if chain is None:
            chains.append([each])
        else:
            chain.append(each)
    return [_course(chain, table) for chain in chains]


def _course(parts: list[MediaStream], table: StreamTable) -> _Course:
    states = tuple([table.state[part.row].tolist() for part in parts])
    return _Course(tuple(parts), states, _longest(states), _loss(states)[0])


def _format(stream: MediaStream, state: Sequence[int]) -> PayloadFormat:
    """The format that the stream was heard in last; where it never was, that of its key presses or its last packet."""
    payload_type = state[cols.AUDIO_TYPE]
    if not state[cols.AUDIO]:
        kind = "TELEPHONE-EVENT" if state[cols.EVENTS] else "CN" if state[cols.NOISE] else ""
        for known in stream.formats.values():
            if known.encoding.upper() == kind and stream.claim is not None:
                return known
    known_format = stream.formats.get(payload_type)
    return known_format or PayloadFormat(payload_type, "unknown", 8000, 1, "")


def _report(best: _Course, head: MediaStream, copies: int, label: str, table: StreamTable) -> StreamReport:
    kept, last = best.parts[best.longest], best.states[-1]
    fmt = _format(kept, last if last[cols.AUDIO] else best.states[best.longest])
    numbers = _numbers(best.states, table.figures[kept.row].tolist(), fmt.encoding, kept.media)
    channel = head.channel
    return StreamReport(
        media=kept.media,
        side=kept.speaker,
        label=label,
        channel=channel if channel >= 0 else None,
        codec=fmt.rtpmap,
        payload_type=fmt.payload_type,
        clock_rate=fmt.clock_rate,
        ssrc=kept.ssrc,
        source=kept.source,
        destination=kept.destination,
        copies=copies,
        encrypted=kept.encrypted,
        decrypted=kept.encrypted and head.decrypted > 0,
        rule=kept.rule.value,
        rtcp_cname=kept.cname,
        rtt_ms=kept.rtt_ms,
        far_end_fraction_lost=kept.far_end_loss,
        far_end_jitter_ms=kept.far_end_jitter_ms,
        **numbers._asdict(),
    )


def _warn(call: Call, head: MediaStream, best: _Course) -> None:
    """What a listener must know of a stream."""
    who = f"The {head.speaker}'s {head.media} (SSRC 0x{head.ssrc:08x})"
    say = call.warnings.append
    for codec, why in sorted(head.undecodable.items()):
        say(Warning_("undecodable", f"{who} is silent where it was {codec}: {why}."))
    if head.encrypted and head.srtp is None and best.total(cols.AUDIO):
        say(Warning_("encrypted", f"{who} is silent: it is encrypted and its keys were not seen."))
    elif head.undecrypted:
        say(Warning_("undecrypted", f"{who}: {head.undecrypted} packets could not be decrypted and are silent."))
    if snapped := best.total(cols.SNAPPED):
        say(Warning_("snapped", f"{who}: the capture cut off part of {snapped} packets; it is silence."))
    if strays := best.total(cols.STRAYS):
        say(Warning_("stray-packets", f"{who}: {strays} packets fit nowhere in the stream; left out."))
    if unknown := best.total(cols.UNKNOWN):
        say(Warning_("unknown-payload", f"{who}: {unknown} packets of payload types nobody announced."))
    if epochs := best.total(cols.EPOCHS):
        say(Warning_("sequence-restart", f"{who}: sequence numbers began anew {epochs} times."))
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
    Rule.IDENTITY: "it shows the media of a stream already placed",
    Rule.DESTINATION: "its destination was announced",
    Rule.SOURCE: "its source was announced",
    Rule.REVERSE: "it is the reverse of a stream already placed",
    Rule.MEDIA_ONLY: "no signalling announced it",
}


def _trace(call: Call, heads: list[MediaStream], sightings: list[MediaStream], table: StreamTable) -> None:
    """Add to the decision trace where RTP was seen and by which rule it was claimed."""
    for stream in sorted([*heads, *sightings], key=_order):
        received, first = (table.state.item(stream.row, column) for column in (cols.RECEIVED, cols.FIRST_NUMBER))
        role = "heard as" if stream in heads else "another sighting of"
        text = (
            f"RTP {stream.source} -> {stream.destination}, SSRC 0x{stream.ssrc:08x}, "
            f"{received} packets: {role} the {stream.speaker}'s {stream.media}, for {_RULES[stream.rule]}"
        )
        call.trace.append(TraceEvent(stream.first_time, first, "rtp-claimed", text))
    if call.call_id is not None and call.answered is not None and call.recording_session is None:
        for side in Side:
            if not any(s.speaker is side and s.media == "audio" for s in heads):
                text = f"no RTP from the {side} was seen at any address announced for it"
                call.trace.append(TraceEvent(call.last_seen, call.last_packet, "no-rtp", text))
                call.warnings.append(Warning_("one-way" if heads else "no-media", f"No audio of the {side} was seen."))
