"""When the state of calls in progress is kept for the case of a crash.

In: the media engine, whenever a window of it is written and once a second. Out: a checkpoint of each call whose
audio has begun, of each whose make-up has changed (streams, tracks, key presses, codecs), and of all others now and
then; and every few seconds the counts of all streams in one file (`kept_figures`), which costs little for thousands.
"""

from collections.abc import Callable
from pathlib import Path

from decoders import _stream_columns as cols
from decoders.timeline import StreamTable
from recorder import kept_figures
from recorder.live_calls import LiveCalls
from recorder.media import MediaEngine
from recorder.streams import CallMedia

LOOK = 10_000_000_000
"""ns of capture time between two looks at a call's make-up."""
REFRESH = 120_000_000_000
"""ns of capture time after which a checkpoint is written although the make-up is the same: names and RTCP's figures."""
MOST = 250
"""Checkpoints written in one second."""
FIGURES = 5_000_000_000
"""ns of capture time between two times that all counts are kept."""


class Checkpointing:
    """Owns what was written last of each call."""

    def __init__(self, live: LiveCalls, working: Path, trouble: Callable[[str], None]) -> None:
        """`trouble` takes a sentence about a disk that refuses."""
        self._live = live
        self._working = working
        self._trouble = trouble
        self._figures = 0
        """Capture time at which counts were kept last, ns."""

    def begun(self, media: MediaEngine, now: int) -> None:
        """Keep where audio stands that has just begun."""
        for each in media.calls.values():
            record = self._live.records.get(each.call.index)
            if record is not None and not record.placed and each.started is not None:
                record.made_of = _made_of(each, media.table)
                self._live.save(each, media.table, now)

    def each_second(self, media: MediaEngine, now: int) -> None:
        """Keep what is due."""
        written = 0
        for each in media.calls.values():
            record = self._live.records.get(each.call.index)
            if record is None or not each.streams or written == MOST:
                continue
            due = not record.saved or now - record.saved >= REFRESH
            if due or now - record.looked_at >= LOOK:
                made_of, record.looked_at = _made_of(each, media.table), now
                if due or record.made_of != made_of:
                    record.made_of = made_of
                    self._live.save(each, media.table, now)
                    written += 1
        if now - self._figures >= FIGURES:
            self._figures = now
            try:
                kept_figures.keep(self._working, media.table)
            except OSError as error:
                self._trouble(f"{self._working / kept_figures.FILE}: cannot be written: {error.strerror or error}")

    def finish(self) -> None:
        """Every call is over."""
        (self._working / kept_figures.FILE).unlink(missing_ok=True)


def _made_of(media: CallMedia, table: StreamTable) -> tuple[object, ...]:
    """What a checkpoint tells beside counts; it is compared, never read."""
    told = table.state.item
    streams = [
        (s.row, s.primary is None, s.alternate, s.channel, told(s.row, cols.AUDIO_TYPE), told(s.row, cols.EVENTS))
        for s in media.streams
    ]
    return (*streams, *(len(track.channels_used) for track in media.tracks))
