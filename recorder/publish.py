"""Finished calls to recordings: audio at once, documents when the captures have been read to their end.

A document tells the digest of its captures, the group of its call and the recording sessions that recorded it; none of
these is known before the last packet. Until then a call waits, beyond SPILL calls in a file, so that a hundred thousand
calls need no more memory than a thousand. In: `FinishedCall`s. Out: directories, catalogue rows, calls on a reporter.
"""

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, fields
from functools import partial
from hashlib import sha256
from operator import attrgetter
from pathlib import Path
from typing import IO, Any
from uuid import UUID

from capture.address import Endpoint
from recorder.document import CallDocument, describe
from recorder.engine import FinishedCall
from recorder.metadata import build_metadata
from recorder.metadata_ids import Identifiers
from recorder.mixdown import finish_audio
from recorder.model import AudioReport, Call, CaptureReport, Identity, Party, Side, StreamReport, TraceEvent, Warning_

SPILL = 2_000
"""Calls that wait in memory."""
TOGETHER = 50
"""Calls that are pickled as one: names that all have are written once."""


@dataclass(slots=True)
class Waiting:
    """A call whose documents are not written yet."""

    call: Call
    streams: list[StreamReport]
    audio: AudioReport | None

    def __reduce__(self) -> tuple[Callable[..., "Waiting"], tuple[object, ...]]:
        """For the spool: plain values, at a fraction of the cost of an object of objects."""
        values = list(_CALL_VALUES(self.call))
        values[_CALLER], values[_CALLEE] = _party_values(values[_CALLER]), _party_values(values[_CALLEE])
        values[_TRACE], values[_WARNINGS] = [*map(tuple, values[_TRACE])], [*map(tuple, values[_WARNINGS])]
        return _waiting, (values, self.streams, self.audio)


_CALL_FIELDS = [field.name for field in fields(Call)]
_CALL_VALUES = attrgetter(*_CALL_FIELDS)
_CALLER, _CALLEE, _TRACE, _WARNINGS = map(_CALL_FIELDS.index, ("caller", "callee", "trace", "warnings"))
_trace_event: Callable[[Any], TraceEvent] = partial(tuple.__new__, TraceEvent)
_warning: Callable[[Any], Warning_] = partial(tuple.__new__, Warning_)
"""`_make` of both, without the interpreter."""


def _waiting(values: list[Any], streams: list[StreamReport], audio: AudioReport | None) -> Waiting:
    values[_CALLER], values[_CALLEE] = _party(*values[_CALLER]), _party(*values[_CALLEE])
    values[_TRACE], values[_WARNINGS] = [*map(_trace_event, values[_TRACE])], [*map(_warning, values[_WARNINGS])]
    return Waiting(Call(*values), streams, audio)


def _party_values(party: Party) -> tuple[Any, ...]:
    address = party.address
    identities = [*map(tuple, party.identities)]
    where = None if address is None else (*address,)
    return party.side, identities, where, party.contact_params, party.joined, party.left


def _party(side: Side, identities: list[Any], where: tuple[int, int, int] | None, *rest: Any) -> Party:
    return Party(side, [*map(Identity._make, identities)], None if where is None else Endpoint(*where), *rest)


@dataclass(slots=True)
class Publisher:
    """Turns finished calls into recordings."""

    spool: Path
    """File for the calls that wait; made when needed, removed at the end."""
    form: str = "wav"
    mono: bool = False
    executor: Executor | None = None
    wanted: Callable[[FinishedCall], bool] = lambda _: True
    discard: Callable[[Path], None] = lambda _: None
    """Removes the working directory of a call that is not wanted."""
    not_wanted: int = 0
    recording_sessions: int = 0
    untaken: list[Call] = field(default_factory=list)
    """Calls that are not recorded, for the decision traces; the first SPILL of them."""
    ids: dict[int, UUID] = field(default_factory=dict)
    """`Call.index` -> `Call.id` of every call, for the groups."""
    _waiting: list[tuple[FinishedCall, "Future[AudioReport | None] | AudioReport | None"]] = field(default_factory=list)
    _spilled: int = 0
    """Pickles in the file."""
    _file: IO[bytes] | None = None

    def take(self, finished: FinishedCall) -> bool:
        """A call is over: finish its audio, keep the rest until the end. False where it will not be recorded."""
        call = finished.call
        if call.id is not None:
            self.ids[call.index] = call.id
        if call.recording_session is not None:
            self.recording_sessions += 1
            self.untaken.append(call)
            return False
        if not self.wanted(finished):
            self.not_wanted += 1
            if finished.media is not None and finished.media.directory is not None:
                self.discard(finished.media.directory)
            self.untaken.append(call)
            return False
        audio: Future[AudioReport | None] | AudioReport | None = None
        if finished.media is not None and finished.media.tracks:
            if self.executor is not None:
                audio = self.executor.submit(finish_audio, finished.media, self.form, self.mono)
            else:
                audio = finish_audio(finished.media, self.form, self.mono)
        self._waiting.append((finished, audio))
        if len(self._waiting) >= SPILL:
            self._spill()
        return True

    def _spill(self) -> None:
        """Write the calls that wait to the spool."""
        if self._file is None:
            self._file = self.spool.open("w+b")
        waiting = list(self._in_memory())
        for first in range(0, len(waiting), TOGETHER):
            pickle.dump(waiting[first : first + TOGETHER], self._file, protocol=5)
            self._spilled += 1
        self._waiting.clear()

    def _in_memory(self) -> Iterator[Waiting]:
        for finished, audio in self._waiting:
            report = audio.result() if isinstance(audio, Future) else audio
            yield Waiting(finished.call, finished.streams, report)

    def waiting(self) -> Iterator[Waiting]:
        """Every call that waits, in the order in which they ended."""
        if self._file is not None:
            self._file.seek(0)
            for _ in range(self._spilled):
                yield from pickle.load(self._file)
        yield from self._in_memory()

    def close(self) -> None:
        """Remove the spool."""
        if self._file is not None:
            self._file.close()
            self.spool.unlink(missing_ok=True)
            self._file = None
        self._waiting.clear()


def write_documents(
    waiting: Waiting, directory: Path | str, captures: Sequence[CaptureReport], ids: dict[int, UUID]
) -> tuple[CallDocument, bytes]:
    """Write metadata.xml and call.json of a call into its working directory. Gives the document, and as it is there."""
    call = waiting.call
    assert call.id is not None
    group = ids.get(call.group, call.id) if call.group is not None else call.id
    metadata = build_metadata(call, waiting.streams, waiting.audio, captures, ids=Identifiers(call.id), group_id=group)
    write_file(f"{directory}/metadata.xml", metadata)
    document = describe(call, waiting.streams, waiting.audio, sha256(metadata).hexdigest(), captures, group)
    told = document.to_bytes()
    write_file(f"{directory}/call.json", told)
    return document, told


def write_file(path: str, data: bytes) -> None:
    """Write a whole file, with no more system calls than that takes: there are two for every call."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)
