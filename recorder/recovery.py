"""Calls that an earlier run left in progress go on in the same recording.

In: the working directories of the store, an engine that has not begun. Out: the engine as if it had run on: calls with
all that their messages told, audio that grows where it stood, the time between marked as an interruption. What cannot
be gone on with (media without signalling, a journal that is gone) is completed as it is.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable
from uuid import UUID

from decoders.sip import parse_message
from decoders.timeline import TICKS
from recorder import checkpoint, journal, kept_figures
from recorder.checkpoint import Checkpoint, TrackPlace
from recorder.completion import take_back
from recorder.document import format_time
from recorder.engine import WINDOW, Engine
from recorder.kept_figures import KeptFigures
from recorder.live_calls import Interrupted, LiveCalls
from recorder.messages import Message
from recorder.model import Call, Sighting
from recorder.siprec import received
from recorder.streams import CallMedia, Listening
from recorder.trace import warn
from recorder.tracks import Track
from recorder.wav import FRAME, HEADER

SECOND = 1_000_000_000
BEGINNING = SECOND // 2
"""ns of a stream that begins which may not be on the disk while later samples of others are."""
UNHEARD = SECOND // 20
"""ns between the last sample and the end of a call that is no loss: a BYE follows the last packet a little later."""
STANDSTILL = 5 * SECOND
"""A call whose audio ended no more than this before that of the others, ns, was talking when the recorder stopped."""


TakeUp = Callable[[Interrupted, int], Call | None]
"""What is in a working directory, capture time (ns) -> the call, None where no SRC sent it."""


@runtime_checkable
class Restorer(Protocol):
    """Who knows calls whose signalling is not in a journal."""

    def take_up(self, left: Interrupted, now: int) -> Call | None:
        """See `TakeUp`."""
        ...


def restore(
    engine: Engine, live: LiveCalls, working: Path, now: int | None, take_up: TakeUp = lambda left, now: None
) -> int:
    """Take up what is in `working` at capture time `now` (ns), None where no clock tells it. Returns how many calls."""
    kept = kept_figures.read(working)
    found = [left for path in sorted(working.iterdir()) if path.is_dir() and (left := _look(path, kept)) is not None]
    if not found:
        return 0
    heard = _hear_journals(live, found)
    until = {left.directory: _recorded_until(left) for left in found}
    if now is None:
        now = max(*until.values(), *(seen.time for seen, _ in heard), 0)
    engine.take_up(now)
    for seen, data in heard:
        parsed = parse_message(data)
        if parsed is not None:
            engine.hear_again(Message(parsed, seen, data))
    live.restoring.clear()
    by_directory = {record.directory: record for record in live.records.values()}
    stopped = max(until.values())
    for left in found:
        record = by_directory.get(left.directory)
        call = record.call if record is not None else _without_messages(engine, live, left, take_up(left, now))
        record = live.records[call.index]
        media = engine.media.calls.get(call.index) if engine.media is not None else None
        if media is not None:
            _attach(engine, media, left)
        missing = _missing(call, left, until[left.directory], stopped, now)
        record.interruptions = _joined((*left.state.interruptions, *missing))
        if record.interruptions:
            _warn(call, record.interruptions)
        if call.answered is not None and until[left.directory] > stopped - STANDSTILL:
            record.awaited_since = now
        if left.state.awaited_since is not None:
            # Nothing was heard between two restarts.
            record.awaited_since = left.state.awaited_since
        state = replace(left.state, interruptions=record.interruptions, awaited_since=record.awaited_since)
        live.save_state(record, state)
    return len(found)


def _hear_journals(live: LiveCalls, found: list[Interrupted]) -> list[tuple[Sighting, bytes]]:
    """The messages of all calls in order of time. `live` is told whose they are."""
    heard: list[tuple[Sighting, bytes]] = []
    for left in sorted(found, key=lambda left: left.state.call_started):
        journal.mend(left.directory)
        messages = list(journal.read(left.directory))
        heard += messages
        if messages and left.state.call_id is not None:
            live.restoring.setdefault(left.state.call_id, []).append(left)
    return sorted(heard, key=lambda each: (each[0].time, each[0].packet))


def _recorded_until(left: Interrupted) -> int:
    """Capture time up to which all that was heard of a call is kept, ns."""
    state = left.state
    if state.listening is not Listening.HEARD:
        return max(state.last_media, state.call_started)
    begin, ends = state.audio_started, [state.call_started]
    if begin is not None:
        ends += [begin + _frames(left, place) * SECOND // place.rate for place in state.tracks]
    return max(ends)


def _missing(call: Call, left: Interrupted, until: int, stopped: int, now: int) -> tuple[tuple[int, int], ...]:
    """From and until when a call was not recorded, if it was then in progress. `stopped`: up to when others have audio.

    A call that a BYE ended has been answered, also where the answer was among what was missed. What all calls send is
    written window by window, by several workers: one that ended a window before what others have on the disk has all of
    its own there.
    """
    if call.ended is not None and (call.ended - until <= UNHEARD or call.ended <= stopped - WINDOW - BEGINNING):
        return ()
    end = now if call.ended is None else min(call.ended, now)
    begin = max(until - BEGINNING, left.state.call_started)
    return ((min(begin, end), end),)


def _joined(spans: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """Interruptions in order, those that touch as one: the recorder may be stopped again before it has heard a call."""
    joined: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return tuple(joined)


def _look(directory: Path, kept: KeptFigures) -> Interrupted | None:
    """What is there of a call; what is no call's is removed."""
    take_back(directory)
    state = checkpoint.load(directory)
    if state is not None:
        state = checkpoint.revised(state, kept)
    try:
        status = (directory / "audio.wav").stat()
        identifier = UUID(hex=directory.name)
    except (ValueError, OSError):
        known = any(journal.read(directory)) or received.is_in(directory)
        begun = state is not None and (state.call_id is None or known)
        if state is None or not begun:
            # Killed before its first message was kept: the next one begins the call again.
            shutil.rmtree(directory, ignore_errors=True)
            return None
        return Interrupted(directory, state)
    if state is None:
        call_id = next((m.call_id for _, data in journal.read(directory) if (m := parse_message(data))), None)
        state = Checkpoint(identifier, call_id, status.st_mtime_ns, Listening.HEARD)
    if state.audio_started is None:
        # Killed between the first samples and the checkpoint that says when they were: the file tells when it ended.
        frames = max(status.st_size - HEADER, 0) // FRAME
        started = max(status.st_mtime_ns - frames * 1_000_000_000 // 8000, state.call_started)
        place = TrackPlace("audio.wav", 8000, 0, (0, 1))
        state = replace(state, audio_started=started, tracks=(place,))
    return Interrupted(directory, state)


def _without_messages(engine: Engine, live: LiveCalls, left: Interrupted, taken_up: Call | None) -> Call:
    """A call of which there is only media: it goes no further, unless an SRC had sent it and sends it again."""
    state = left.state
    if taken_up is not None:
        taken_up.id = state.id
        live.take_up(taken_up, left)
        if engine.media is not None:
            engine.media.start_call(taken_up).last_media = state.last_media
        return taken_up
    call = engine.tracker.media_only(state.call_started, 0, 0)
    call.id = state.id
    call.call_id = None
    call.caller.address, call.callee.address = state.caller, state.callee
    call.last_seen = max(call.last_seen, state.last_media)
    live.take_up(call, left)
    if engine.media is not None:
        engine.media.start_call(call).last_media = state.last_media
    if state.call_id is not None:
        warn(call, "signalling-lost", "The recorder was interrupted, and the call's signalling is lost.")
    return call


def _attach(engine: Engine, media: CallMedia, left: Interrupted) -> None:
    """Have the audio go on where it stood."""
    state = left.state
    media.directory = left.directory
    media.call.digits += state.digits
    media.last_media = max(media.last_media, state.last_media)
    engine.tracker.touch(media.call.index, state.last_media)
    if state.audio_started is None or engine.media is None:
        return
    media.started = state.audio_started
    media.zero = (state.audio_started - engine.media.epoch) * (TICKS // 1000) // 1_000_000
    for place in state.tracks:
        path = left.directory / place.file
        media.tracks.append(Track(path, place.rate, media.zero, place.layer, _frames(left, place), set(place.channels)))


def _frames(left: Interrupted, place: TrackPlace) -> int:
    """Whole frames of a track on the disk."""
    try:
        return max((left.directory / place.file).stat().st_size - HEADER, 0) // FRAME
    except OSError:
        return 0


def _warn(call: Call, interruptions: tuple[tuple[int, int], ...]) -> None:
    times = "; ".join(f"from {format_time(begin)} to {format_time(end)}" for begin, end in interruptions[:8])
    warn(call, "interrupted", f"The recorder did not run {times}: what was said meanwhile is missing.")
