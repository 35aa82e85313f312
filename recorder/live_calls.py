"""The calls in progress of a live service: what was decided for each, and what is kept of it in case of a crash.

In: what the engine hears and begins. Out: how much of each call's media is wanted, a working directory with journal and
checkpoint for each, and for a call that is over, all that its recording is made of (`Ended`). It reads no packet and
writes no document.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from uuid import UUID, uuid4

from decoders.timeline import StreamTable
from recorder import checkpoint
from recorder.call_facts import CallFacts, facts_of_beginning
from recorder.checkpoint import Checkpoint, CheckpointError, checkpoint_of, last_checkpoint, service_warnings
from recorder.engine import FinishedCall
from recorder.journal import JournalError, Journals
from recorder.messages import Message
from recorder.model import Call, StreamReport
from recorder.packets import FILE as PACKETS
from recorder.policy import Action, Decision, note_decision
from recorder.sightings import FlowSighting
from recorder.status import LadderStep
from recorder.streams import CallMedia, Listening
from recorder.trace import note, warn

MOST_STEPS = 200
"""Messages of a call that its ladder shows."""

_WANTED = {
    Action.RECORD: Listening.HEARD,
    Action.METADATA: Listening.COUNTED,
    Action.SKIP: Listening.PASSED_OVER,
}


class Refusal(NamedTuple):
    """Why no audio is begun now."""

    code: str
    text: str


@dataclass(slots=True, eq=False)
class LiveRecord:
    """A call in progress, as the service sees it."""

    call: Call
    directory: Path
    decision: Decision
    listening: Listening
    ladder: list[LadderStep] = field(default_factory=list)
    said: set[tuple[object, ...]] = field(default_factory=set)
    """What its ladder shows, to tell what is sent again."""
    before: tuple[StreamReport, ...] = ()
    """Reports of its streams from before the recorder was interrupted."""
    interruptions: tuple[tuple[int, int], ...] = ()
    awaited_since: int | None = None
    """Capture time of the restart, ns, for a call that was talking before it."""
    saved: int = 0
    """Capture time of the last checkpoint of its media, ns; 0 where another one is due."""
    looked_at: int = 0
    """Capture time at which it was last asked whether another one is due, ns."""
    made_of: tuple[object, ...] = ()
    """What the last checkpoint told beside counts."""
    placed: bool = False
    """The checkpoint says where its audio stands in time."""
    broken: bool = False
    """Its journal or checkpoint could not be written."""


class Ended(NamedTuple):
    """A call that is over."""

    finished: FinishedCall
    record: LiveRecord
    group: UUID | None
    """`Call.id` of the first call of its group."""


class Interrupted(NamedTuple):
    """A call that an earlier run left in progress."""

    directory: Path
    state: Checkpoint


class LiveCalls:
    """Hears what the engine hears (an `Observer`), and is asked by it what to listen to."""

    def __init__(
        self,
        working: Path,
        decide: Callable[[CallFacts], Decision],
        refusal: Callable[[], Refusal | None] = lambda: None,
        trouble: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`working` has a directory for each call. `refusal` is asked before audio is begun; `trouble` takes sentences
        about a disk that refuses."""
        self.records: dict[int, LiveRecord] = {}
        """By `Call.index`."""
        self.restoring: dict[str, list[Interrupted]] = {}
        """Call-ID -> what an earlier run left, while its messages are heard again."""
        self._working = working
        self._decide = decide
        self._refusal = refusal
        self._trouble = trouble
        self._by_call_id: dict[str, LiveRecord] = {}
        self._message: Message | None = None
        self._journals = Journals()

    # What the engine tells

    def heard(self, message: Message) -> None:
        """A SIP message, before the call tracker has it."""
        self._message = message
        record = self._by_call_id.get(message.parsed.call_id or "")
        if record is not None:
            self._keep(record, message)

    def finished(self, call: Call, flows: Sequence[FlowSighting]) -> None:
        """A call is over: `end` says so too, with its media."""

    def identify(self, call: Call) -> UUID:
        """A random identifier, or the one that the call had before a restart."""
        left = self.restoring.get(call.call_id or "")
        return left[0].state.id if left else uuid4()

    def begun(self, call: Call) -> None:
        """A call begins: decide about it, and give it a working directory."""
        left = self.restoring.get(call.call_id or "")
        assert call.id is not None
        if left:
            self.take_up(call, left.pop(0))
            return
        facts = facts_of_beginning(call, self._message)
        decision = self._decide(facts)
        note_decision(call, decision)
        record = LiveRecord(call, self._working / call.id.hex, decision, _WANTED[decision.action])
        refusal = self._refusal() if record.listening is Listening.HEARD else None
        try:
            record.directory.mkdir()
        except OSError as error:
            refusal = Refusal("disk-failing", f"{record.directory}: cannot be made: {error.strerror or error}")
            record.broken = True
            self._trouble(refusal.text)
        if refusal is not None:
            record.listening = Listening.PASSED_OVER
            note(call, call.last_seen, call.last_packet, refusal.code, refusal.text)
            warn(call, refusal.code, refusal.text)
        self._enter(record)
        told = service_warnings(call)
        self._save(record, Checkpoint(call.id, call.call_id, call.started, record.listening, call.tags, warnings=told))
        if self._is_heard(call) and self._message is not None:
            self._keep(record, self._message)

    def listening(self, call: Call) -> Listening:
        """How much of a call's media is wanted."""
        record = self.records.get(call.index)
        return record.listening if record is not None else Listening.HEARD

    def directory_of(self, call: Call) -> Path:
        """Where a call's tracks are written."""
        return self.records[call.index].directory

    # What the service does

    def take_up(self, call: Call, left: Interrupted) -> LiveRecord:
        """Go on with a call that an earlier run left in progress."""
        state = left.state
        decision = Decision(
            action=next(action for action, wanted in _WANTED.items() if wanted is state.listening),
            keep_packets=(left.directory / PACKETS).exists(),
            tags=state.tags,
            rule="as before the restart",
        )
        note_decision(call, decision)
        for warning in state.warnings:
            warn(call, warning.code, warning.text)
        record = LiveRecord(
            call, left.directory, decision, state.listening, before=state.streams, interruptions=state.interruptions
        )
        self._enter(record)
        return record

    def save(self, media: CallMedia, table: StreamTable, now: int) -> None:
        """Write the checkpoint of a call in progress."""
        record = self.records.get(media.call.index)
        if record is None or record.broken:
            return
        record.saved, record.placed = now, media.started is not None
        self._save(record, checkpoint_of(media.call, media, table, record.before, record.interruptions))

    def tell(self, record: LiveRecord, code: str, text: str) -> None:
        """Warn of a call in progress; a warning that is new makes its next checkpoint due at once."""
        known = len(record.call.warnings)
        warn(record.call, code, text)
        if len(record.call.warnings) > known:
            record.saved = 0

    def save_state(self, record: LiveRecord, state: Checkpoint) -> None:
        """Write a checkpoint that was taken elsewhere."""
        self._save(record, state)

    def end(self, finished: FinishedCall, group: UUID | None) -> Ended | None:
        """A call is over: let it go, and keep what was counted of it until it is published. None for one that the
        service never saw begin."""
        call = finished.call
        record = self.records.pop(call.index, None)
        if record is None:
            return None
        self._journals.close(record.directory)
        if self._is_heard(call) and self._by_call_id.get(call.call_id or "") is record:
            del self._by_call_id[call.call_id or ""]
        if finished.media is not None and record.listening is not Listening.PASSED_OVER:
            streams = (*record.before, *finished.streams)
            self._save(record, last_checkpoint(call, finished.media, streams, record.interruptions))
        return Ended(finished, record, group)

    def drop(self, call: Call) -> None:
        """A call turned out to be part of another, which has what was recorded of it."""
        record = self.records.pop(call.index, None)
        if record is not None:
            self._journals.close(record.directory)
            shutil.rmtree(record.directory, ignore_errors=True)

    def ladder(self, identifier: str) -> list[LadderStep] | None:
        """Messages of a call in progress by its id, None for no such call."""
        for record in self.records.values():
            if str(record.call.id) == identifier:
                return record.ladder
        return None

    def _enter(self, record: LiveRecord) -> None:
        self.records[record.call.index] = record
        if self._is_heard(record.call):
            self._by_call_id[record.call.call_id or ""] = record

    @staticmethod
    def _is_heard(call: Call) -> bool:
        """Its SIP messages are: they are its ladder and its journal."""
        return call.call_id is not None and not call.received

    def _keep(self, record: LiveRecord, message: Message) -> None:
        """Add a message to a call's ladder and journal."""
        parsed, seen = message.parsed, message.seen
        if len(record.ladder) < MOST_STEPS:
            line = parsed.method or f"{parsed.status} {parsed.reason or ''}".rstrip()
            said = (line, parsed.get("cseq"), seen.source, seen.destination)
            step = LadderStep(
                seen.time, str(seen.source), str(seen.destination), line, parsed.sdp() is not None, said in record.said
            )
            record.ladder.append(step)
            record.said.add(said)
        if self.restoring or record.broken:
            return
        try:
            self._journals.append(record.directory, message)
        except JournalError as error:
            record.broken = True
            self._trouble(str(error))

    def _save(self, record: LiveRecord, state: Checkpoint) -> None:
        if record.broken:
            return
        try:
            checkpoint.save(record.directory, state)
        except CheckpointError as error:
            record.broken = True
            self._trouble(str(error))
