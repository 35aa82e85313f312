"""What stands above the table of `spanrec top`, and above the ladder of a call.

In: a `Snapshot` or a `LiveCall`, a width. Out: lines.
"""

from recorder.console import duration
from recorder.document import format_time
from recorder.status import LiveCall, LiveState, LiveStream, Severity, Snapshot
from recorder.top_table import LOSS, MOS, number
from recorder.top_text import Line, Piece, Tone, cropped, length, spread

ALARMS = 3
"""Lines at most."""
STREAMS = 4
DELAY = (3.0, 5.0)
"""s from wire to disk that are worth a look, and bad."""
FREE = (0.1, 0.05)
"""Share of the disk."""


def summary(snapshot: Snapshot, width: int) -> tuple[Line, ...]:
    """The service: what it reads, how many calls, packets, the disk, and alarms."""
    uptime = duration(max(0, snapshot.time - snapshot.started) / 1e9)
    first = (Piece(f"spanrec {snapshot.version}", Tone.STRONG), Piece(" on "), *_sources(snapshot))
    clock = (Piece(f"up {uptime}  {format_time(snapshot.time)[11:19]} UTC", Tone.DIM),)
    ended = (Piece(f"{sum(snapshot.ended.values()):,} ended, {snapshot.recordings:,} recorded", Tone.DIM),)
    return (
        spread(first, clock, width),
        spread(_calls(snapshot), ended, width),
        spread(_packets(snapshot), _disk(snapshot), width),
        *(cropped(line, width) for line in _alarms(snapshot)),
    )


def describe(call: LiveCall, width: int) -> tuple[Line, ...]:
    """A call and its streams."""
    who = Piece(f"{number(call.caller)} → {number(call.callee)}", Tone.STRONG)
    since = Piece(f"{call.state.value} {duration(call.duration)}, policy {call.action.value}")
    lines = [
        spread((who,), (since,), width),
        cropped((Piece(f"id {call.id[:8]}  Call-ID {call.call_id or 'none'}", Tone.DIM),), width),
    ]
    for stream in call.streams[:STREAMS]:
        figures, ends = _figures(stream), Piece(f"{stream.source} → {stream.destination}", Tone.DIM)
        if length((*figures, ends)) + 2 <= width:
            lines.append(cropped((*figures, Piece("  "), ends), width))
        else:
            lines += [cropped(figures, width), cropped((Piece(" " * 8), ends), width)]
    if len(call.streams) > STREAMS:
        lines.append((Piece(f"and {len(call.streams) - STREAMS} more streams", Tone.DIM),))
    if call.warnings:
        lines.append(cropped((Piece(f"warnings: {', '.join(call.warnings)}", Tone.WARN),), width))
    return tuple(lines)


def _sources(snapshot: Snapshot) -> Line:
    if not snapshot.sources:
        return (Piece("no source", Tone.BAD),)
    names: dict[str, bool] = {}
    for source in snapshot.sources:
        names[source.name] = names.get(source.name, True) and source.up
    pieces = [Piece(name if up else f"{name} DOWN", Tone.PLAIN if up else Tone.BAD) for name, up in names.items()]
    return tuple(piece for each in pieces for piece in (each, Piece(", ")))[:-1]


def _calls(snapshot: Snapshot) -> Line:
    states = [f"{snapshot.calls[state]:,} {state}" for state in LiveState if snapshot.calls.get(state)]
    shed = [Piece(f"  {snapshot.shed:,} shed", Tone.BAD)] if snapshot.shed else []
    told = f": {', '.join(states)}" if states else ""
    return (
        Piece("1 call" if snapshot.in_progress == 1 else f"{snapshot.in_progress:,} calls", Tone.STRONG),
        Piece(told),
        *shed,
    )


def _packets(snapshot: Snapshot) -> Line:
    return (
        Piece(f"{snapshot.packets_per_second:,.0f} packets/s", Tone.STRONG),
        Piece("  "),
        Piece(f"{snapshot.dropped:,} dropped", Tone.BAD if snapshot.dropped else Tone.GOOD),
    )


def _disk(snapshot: Snapshot) -> Line:
    pieces = []
    if snapshot.store is not None:
        share = snapshot.store.free / snapshot.store.total if snapshot.store.total else 0.0
        tone = Tone.BAD if share < FREE[1] else Tone.WARN if share < FREE[0] else Tone.PLAIN
        pieces.append(Piece(f"disk {_size(snapshot.store.free)} free ({100 * share:.0f} %)", tone))
    if snapshot.delay is not None:
        worst = snapshot.delay.worst
        tone = Tone.BAD if worst > DELAY[1] else Tone.WARN if worst > DELAY[0] else Tone.PLAIN
        pieces.append(Piece(f"{', ' if pieces else 'disk '}{snapshot.delay.last:.1f} s behind", tone))
    return tuple(pieces)


def _alarms(snapshot: Snapshot) -> tuple[Line, ...]:
    alarms = sorted(snapshot.alarms, key=lambda alarm: (alarm.code.severity is Severity.WARNING, alarm.since))
    lines: list[Line] = []
    for alarm in alarms[:ALARMS]:
        tone = Tone.BAD if alarm.code.severity is Severity.CRITICAL else Tone.WARN
        since = format_time(alarm.since)[11:19]
        lines.append((Piece(f"! {alarm.code}", tone), Piece(f" since {since}: {alarm.text}")))
    if len(alarms) > ALARMS:
        lines.append((Piece(f"! {len(alarms) - ALARMS} more alarms", Tone.WARN),))
    return tuple(lines)


def _figures(stream: LiveStream) -> Line:
    who = "unknown" if stream.side is None else stream.side.value
    expected = stream.packets + stream.lost
    loss = 100 * stream.lost / expected if expected else 0.0
    tone = Tone.BAD if loss >= LOSS[1] else Tone.WARN if loss >= LOSS[0] else Tone.PLAIN
    pieces = [
        Piece(f"{who:<7} {stream.codec.partition('/')[0]:<5} "),
        Piece(f"{stream.packets:,} packets, "),
        Piece(f"{loss:.1f} % lost", tone),
    ]
    if stream.jitter_ms is not None:
        pieces.append(Piece(f", jitter {stream.jitter_ms:.0f} ms"))
    if stream.mos is not None:
        tone = Tone.BAD if stream.mos <= MOS[1] else Tone.WARN if stream.mos <= MOS[0] else Tone.PLAIN
        pieces.append(Piece(f", MOS {stream.mos:.1f}", tone))
    if stream.last_packet_age is not None and stream.last_packet_age >= 1:
        pieces.append(Piece(f", silent for {duration(stream.last_packet_age)}", Tone.WARN))
    return tuple(pieces)


def _size(octets: int) -> str:
    for unit, name in ((10**12, "TB"), (10**9, "GB")):
        if octets >= unit:
            return f"{octets / unit:.0f} {name}" if octets >= 10 * unit else f"{octets / unit:.1f} {name}"
    return f"{octets / 10**6:.0f} MB"
