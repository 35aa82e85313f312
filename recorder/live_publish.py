"""Calls of a live service to recordings, as they end, in a thread of its own.

In: `Ended` calls. Out: audio, documents, the directory under its final name, rows of the catalogue. A disk that refuses
stops nothing: what could not be published waits here, with its working directory and journal as they are, and is tried
again. A kill at any moment leaves what `recorder/completion.py` completes: the journal goes only when documents are
whole, and a mark stays until the catalogue has the recording.
"""

import queue
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

from capture.errors import SpanrecError
from recorder.capture_clock import by_wall_clock
from recorder.catalogue_tables import trace_row
from recorder.completion import clear_away, mark_whole, unmark
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


@dataclass(slots=True)
class _Item:
    """A call on its way, with what has been done of it."""

    ended: Ended
    correction: int
    streams: list[StreamReport] | None = None
    audio: AudioReport | None = None


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
        self._thread = threading.Thread(target=self._run, name="spanrec-publish")
        self._stopping = False

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

    def _run(self) -> None:
        while True:
            batch, ending = self._collect()
            self._publish_all([*self._again, *batch])
            if ending:
                return

    def _collect(self) -> tuple[list[_Item], bool]:
        """Calls of the next half second; whether there will be no more."""
        batch: list[_Item] = []
        wait: float = AGAIN if self._again else 3600.0
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
            wait = 0.0 if self._stopping else TOGETHER
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
        done: list[tuple[CallDocument, str] | None] = []
        troubled = bool(self._again)
        for item in items:
            try:
                done.append(self._publish(item))
            except (SpanrecError, OSError) as error:
                failed.append(item)
                self._trouble(str(error))
                troubled = True
        if self._guarded(self.catalogue.commit):
            for each in done:
                if each is not None:
                    document, directory = each
                    unmark(self.working / UUID(document.id).hex)
                    self.recordings += 1
                    self._published(document, directory)
        self._again = failed
        if troubled and not failed:
            self._trouble(None)

    def _publish(self, item: _Item) -> tuple[CallDocument, str] | None:
        """Make the recording of a call, or let go of one that is not recorded."""
        finished, record, group = item.ended
        call, work = finished.call, record.directory
        if record.decision.action is Action.SKIP or call.recording_session is not None:
            shutil.rmtree(work, ignore_errors=True)
            self.catalogue.add_trace(call, (), recorded=False)
            return None
        assert call.id is not None
        if item.streams is None:
            audio = None
            if finished.media is not None and finished.media.tracks:
                audio = finish_audio(finished.media, self._form, self._mono)
            streams = [*record.before, *finished.streams]
            streams = [replace(stream, label=str(number)) for number, stream in enumerate(streams, 1)]
            if record.before:
                _forgive(call, streams)
            call.captures = {}
            item.streams, item.audio = by_wall_clock(call, streams, audio, item.correction)
        work.mkdir(exist_ok=True)
        groups = {} if group is None or call.group is None else {call.group: group}
        document = write_documents(Waiting(call, item.streams, item.audio), work, (), groups)
        mark_whole(work, document, trace_row(call, item.streams, recorded=True))
        clear_away(work)
        directory = self.store.publish(document, work)
        self.catalogue.add_recording(document, directory)
        self.catalogue.add_trace(call, item.streams, recorded=True)
        return document, directory


def _forgive(call: Call, streams: list[StreamReport]) -> None:
    """Take back that a side was not heard where it was, before the recorder was interrupted."""
    heard = {stream.side for stream in streams if stream.media == "audio"}
    if heard:
        sides = [side for side in (call.caller.side, call.callee.side) if side not in heard]
        call.warnings = [w for w in call.warnings if w.code not in ("one-way", "no-media")]
        if call.answered is not None:
            call.warnings += [Warning_("one-way", f"No audio of the {side.value} was seen.") for side in sides]
