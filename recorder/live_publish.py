"""Calls of a live service to recordings, as they end, in a thread of its own.

In: `Ended` calls. Out: audio, documents, the directory under its final name, rows of the catalogue. A disk that refuses
stops nothing: what could not be published waits here, with its working directory and journal as they are, and is tried
again. A kill at any moment leaves what `recorder/completion.py` completes: the journal goes only when documents are
whole, and a mark stays until the catalogue has the recording.
"""

import os
import queue
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from capture.errors import SpanrecError
from recorder.capture_clock import by_wall_clock
from recorder.catalogue_tables import trace_row
from recorder.completion import clear_away, mark_whole, set_aside, unmark
from recorder.document import CallDocument
from recorder.live_calls import Ended
from recorder.live_catalogue import LiveCatalogue
from recorder.mixdown import finish_audio
from recorder.model import AudioReport, Call, StreamReport, Warning_
from recorder.policy import Action
from recorder.publish import Waiting, write_documents
from recorder.store import RecordingStore

TOGETHER = 0.5
"""s for which calls are collected, so that the catalogue is not committed for each."""
MOST = 256
"""Calls of one commit."""
AGAIN = 5.0
"""s until what the disk refused is tried again."""


class PublisherError(SpanrecError):
    """Nothing more can be published."""


@dataclass(slots=True)
class _Item:
    """A call on its way, with what has been done of it."""

    ended: Ended
    correction: int
    streams: list[StreamReport] | None = None
    audio: AudioReport | None = None
    document: CallDocument | None = None
    trace: dict[str, Any] | None = None
    """The catalogue's row of its decision trace."""
    directory: str | None = None
    """Where the recording stands, once it has its final name."""
    octets: int = 0
    """What it takes on the disk."""
    recorded: bool = True


class LivePublisher:
    """Takes calls from the loop; everything else happens in its thread, the upkeep of the catalogue included."""

    def __init__(
        self,
        store: RecordingStore,
        catalogue: LiveCatalogue,
        working: Path,
        *,
        form: str = "wav",
        mono: bool = False,
        published: Callable[[CallDocument, str], None] = lambda *_: None,
        trouble: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        """`published` is told of each recording, `trouble` a sentence when the disk refuses and None when all is well
        again; both in the publisher's thread."""
        self.store = store
        self.catalogue = catalogue
        self.working = working
        self.recordings = 0
        self._form, self._mono = form, mono
        self._published, self._trouble = published, trouble
        self._queue: queue.SimpleQueue[_Item | Callable[[], None] | None] = queue.SimpleQueue()
        self._again: list[_Item] = []
        # A loop that failed must end the process, for the next one to go on: this thread does not keep it.
        self._thread = threading.Thread(target=self._run, name="spanrec-publish", daemon=True)
        self._stopping = False
        self._failure: Exception | None = None

    @property
    def waiting(self) -> int:
        """Calls that are over and not published yet."""
        return self._queue.qsize() + len(self._again)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def take(self, ended: Ended, correction: int) -> None:
        """A call is over. `correction`: what was added to its times, ns (`recorder/capture_clock.py`)."""
        self._queue.put(_Item(ended, correction))

    def call(self, work: Callable[[], None]) -> None:
        """Do something in the publisher's thread, which owns the catalogue."""
        self._queue.put(work)

    def close(self, seconds: float = 60.0) -> int:
        """Publish what is there, within some seconds. Returns how many calls are left for the next run."""
        self._stopping = True
        self._queue.put(None)
        self._thread.join(seconds)
        return self.waiting

    def check(self) -> None:
        """Raise PublisherError where the thread has ended by an error that nobody foresaw."""
        if self._failure is not None:
            raise PublisherError(f"Publishing ended: {self._failure!r}; a restart completes what is left.")

    def _run(self) -> None:
        try:
            ending = False
            while not ending:
                batch, ending = self._collect()
                self._publish_all([*self._again, *batch])
        except Exception as error:
            self._failure = error
            raise

    def _collect(self) -> tuple[list[_Item], bool]:
        """The next call and those of half a second after it; whether there will be no more."""
        batch: list[_Item] = []
        wait: float = AGAIN if self._again else 3600.0
        until = 0.0
        while len(batch) < MOST:
            try:
                item = self._queue.get(timeout=wait)
            except queue.Empty:
                break
            if item is None:
                return batch, True
            if isinstance(item, _Item):
                batch.append(item)
            else:
                self._guarded(item)
            now = time.monotonic()
            until = until or now + TOGETHER
            wait = 0.0 if self._stopping else max(until - now, 0.0)
        return batch, False

    def _guarded(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except (SpanrecError, OSError) as error:
            self.catalogue.undo()
            self._trouble(str(error))
            return False
        return True

    def _publish_all(self, items: list[_Item]) -> None:
        """Publish calls and commit them together; what fails waits."""
        failed: list[_Item] = []
        done: list[_Item] = []
        troubled = bool(self._again)
        for item in items:
            try:
                self._publish(item)
                self._enter(item)
                done.append(item)
            except (SpanrecError, OSError) as error:
                failed.append(item)
                self._trouble(str(error))
                troubled = True
        if self._guarded(self.catalogue.commit):
            for item in done:
                self._tell(item)
        else:
            failed = [*done, *failed]
            troubled = True
        self._again = failed
        if troubled and not failed:
            self._trouble(None)

    def _publish(self, item: _Item) -> None:
        """Make the recording of a call, or let go of one that is not recorded. Steps that are done are not repeated."""
        finished, record, group = item.ended
        call, work = finished.call, record.directory
        if item.directory is not None or not item.recorded:
            return
        if record.decision.action is Action.SKIP or call.recording_session is not None:
            shutil.rmtree(work, ignore_errors=True)
            item.recorded = False
            return
        assert call.id is not None
        if item.streams is None:
            self._settle(item)
        assert item.streams is not None
        if not os.path.isdir(work):  # the disk had refused it
            work.mkdir()
        groups = {} if group is None or call.group is None else {call.group: group}
        item.document, octets = write_documents(Waiting(call, item.streams, item.audio), work, (), groups)
        item.trace = trace_row(call, item.streams, recorded=True)
        mark_whole(work, octets, item.trace)
        item.octets = clear_away(work)
        item.directory = self.store.publish(item.document, work)

    def _settle(self, item: _Item) -> None:
        """Finish the audio, and say by the wall clock all that will be said of the call."""
        finished, record, _ = item.ended
        call, audio = finished.call, None
        if finished.media is not None and finished.media.tracks:
            if self._form != "wav" or self._mono or len(finished.media.tracks) > 1:
                set_aside(record.directory, [track.path for track in finished.media.tracks])
            audio = finish_audio(finished.media, self._form, self._mono)
            if audio is None:
                # The disk was full before the first sample.
                for track in finished.media.tracks:
                    track.path.unlink(missing_ok=True)
        streams = [*record.before, *finished.streams]
        if record.before:
            streams = [replace(stream, label=str(number)) for number, stream in enumerate(streams, 1)]
            _forgive(call, streams)
        call.captures = {}
        item.streams, item.audio = by_wall_clock(call, streams, audio, item.correction)

    def _enter(self, item: _Item) -> None:
        """Put a call into the catalogue."""
        if item.document is not None and item.directory is not None:
            self.catalogue.add_recording(item.document, item.directory, item.octets)
        if item.trace is None:
            item.trace = trace_row(item.ended.finished.call, item.streams or (), recorded=item.recorded)
        self.catalogue.add_trace(item.trace)

    def _tell(self, item: _Item) -> None:
        """The catalogue has the call."""
        if item.document is not None and item.directory is not None:
            unmark(self.working / UUID(item.document.id).hex)
            self.recordings += 1
            self._published(item.document, item.directory)


def _forgive(call: Call, streams: list[StreamReport]) -> None:
    """Take back that a side was not heard where it was, before the recorder was interrupted."""
    heard = {stream.side for stream in streams if stream.media == "audio"}
    if heard:
        sides = [side for side in (call.caller.side, call.callee.side) if side not in heard]
        call.warnings = [w for w in call.warnings if w.code not in ("one-way", "no-media")]
        if call.answered is not None:
            call.warnings += [Warning_("one-way", f"No audio of the {side.value} was seen.") for side in sides]
