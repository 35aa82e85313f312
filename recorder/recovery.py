"""Calls that an earlier run left in progress go on in the same recording.

In: the working directories of the store, an engine that has not begun. Out: the engine as if it had run on: calls with
all that their messages told, audio that grows where it stood, the time between marked as an interruption. What cannot
be gone on with (media without signalling, a journal that is gone) is completed as it is.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from decoders.sip import parse_message
from decoders.timeline import TICKS
from recorder import checkpoint, journal
from recorder.checkpoint import Checkpoint
from recorder.completion import take_back
from recorder.document import format_time
from recorder.engine import Engine
from recorder.live_calls import Interrupted, LiveCalls
from recorder.messages import Message
from recorder.model import Call, Sighting
from recorder.streams import CallMedia, Listening
from recorder.trace import warn
from recorder.tracks import FRAME, Track
from recorder.wav import HEADER


def restore(engine: Engine, live: LiveCalls, working: Path, now: int | None) -> int:
    """Take up what is in `working` at capture time `now` (ns), None where no clock tells it. Returns how many calls."""
    found = [left for path in sorted(working.iterdir()) if path.is_dir() and (left := _look(path)) is not None]
    if not found:
        return 0
    if now is None:
        now = max(max(left.state.last_media, left.state.call_started) for left in found)
    engine.take_up(now)
    heard: list[tuple[Sighting, bytes]] = []
    for left in sorted(found, key=lambda left: left.state.call_started):
        journal.mend(left.directory)
        messages = list(journal.read(left.directory))
        heard += messages
        if messages and left.state.call_id is not None:
            live.restoring.setdefault(left.state.call_id, []).append(left)
    for seen, data in sorted(heard, key=lambda each: (each[0].time, each[0].packet)):
        parsed = parse_message(data)
        if parsed is not None:
            engine.hear_again(Message(parsed, seen, data))
    live.restoring.clear()
    by_directory = {record.directory: record for record in live.records.values()}
    for left in found:
        record = by_directory.get(left.directory)
        call = record.call if record is not None else _without_messages(engine, live, left)
        record = live.records[call.index]
        media = engine.media.calls.get(call.index) if engine.media is not None else None
        if media is not None:
            _attach(engine, media, left, now)
        if call.ended is None:
            since = max(left.state.last_media, call.last_seen)
            record.interruptions = (*left.state.interruptions, (since, now))
            _warn(call, record.interruptions)
        live.save_state(record, replace(left.state, interruptions=record.interruptions))
    return len(found)


def _look(directory: Path) -> Interrupted | None:
    """What is there of a call; what is no call's is removed."""
    take_back(directory)
    state = checkpoint.load(directory)
    try:
        status = (directory / "audio.wav").stat()
        identifier = UUID(hex=directory.name)
    except (ValueError, OSError):
        if state is None:
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
        place = checkpoint.TrackPlace("audio.wav", 8000, 0, (0, 1))
        state = replace(state, audio_started=started, tracks=(place,))
    return Interrupted(directory, state)


def _without_messages(engine: Engine, live: LiveCalls, left: Interrupted) -> Call:
    """A call of which there is only media: it goes no further."""
    state = left.state
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


def _attach(engine: Engine, media: CallMedia, left: Interrupted, now: int) -> None:
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
        try:
            frames = max(path.stat().st_size - HEADER, 0) // FRAME
        except OSError:
            frames = 0
        media.tracks.append(Track(path, place.rate, media.zero, place.layer, frames, set(place.channels)))


def _warn(call: Call, interruptions: tuple[tuple[int, int], ...]) -> None:
    times = "; ".join(f"from {format_time(begin)} to {format_time(end)}" for begin, end in interruptions[:8])
    warn(call, "interrupted", f"The recorder did not run {times}: what was said meanwhile is missing.")
