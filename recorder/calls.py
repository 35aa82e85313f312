"""The call tracker: SIP messages in capture order to calls.

In: messages with their sightings, capture time, and what the media engine finds. Out: `CallEvent`s, and in the end each
`Call` with all that its Call-ID did. A Call-ID that is used again after its call ended is another call; the same
message at another hop, or mirrored, or sent again, is not. Knows no clock, no files, no packets.

Bounds: MAX_ACTIVE calls in progress (the one nearest to its end makes room), MAX_LATELY finished calls remembered for
late messages, MAX_UNEXPLAINED Call-IDs that never became calls. What one call may hold is bounded where it is kept.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NamedTuple
from uuid import UUID

from decoders.sip import SipMessage
from recorder.address_book import AddressBook
from recorder.call_events import CallAnswered, CallEvent, CallFinished, CallStarted
from recorder.call_requests import REQUESTS
from recorder.call_responses import RESPONSES
from recorder.dialogs import Exchange, read_exchange
from recorder.grouping import Groups
from recorder.model import Call, CallState, GroupReason, Side, Sighting, TraceEvent
from recorder.outcome import Timeouts, deadline, settle
from recorder.progress import CallProgress
from recorder.siprec_seen import RecordingSessions
from recorder.trace import note, warn

MAX_ACTIVE = 32768
MAX_LATELY = 16384
LATELY = 300_000_000_000
"""ns for which a finished call is remembered."""
MAX_UNEXPLAINED = 4096
MAX_UNEXPLAINED_STEPS = 16

_OPENING = frozenset({"INVITE", "ACK", "BYE", "CANCEL"})
"""Requests that prove a call, alone."""
_IN_DIALOG = frozenset({"PRACK", "UPDATE", "INFO", "REFER"})
"""Requests that prove a call inside a dialog."""
_ENDING = frozenset({"BYE", "CANCEL"})
_RELATING = frozenset({"INVITE", "REFER"})
"""Methods that may say something of other calls."""
_METADATA_BEARERS = frozenset({"UPDATE", "INFO", "MESSAGE"})
"""Requests beside INVITE in which recording metadata have been seen."""


@dataclass(slots=True)
class Unexplained:
    """A Call-ID that never became a call."""

    call_id: str
    capture: int
    started: int
    first_packet: int
    messages: int = 0
    trace: list[TraceEvent] = field(default_factory=list)


class _Lately(NamedTuple):
    """A call that finished lately."""

    call_id: str
    call: int
    ended: int
    finished: int
    over: bool
    """Its end was seen: what follows is late, and no call."""


class CallTracker:
    """Calls in progress."""

    def __init__(self, timeouts: Timeouts | None = None) -> None:
        self.timeouts = timeouts or Timeouts()
        self._calls: dict[int, Call] = {}
        self._progress: dict[int, CallProgress] = {}
        self._by_call_id: dict[str, int] = {}
        self._lately: dict[str, _Lately] = {}
        self._unexplained: dict[str, Unexplained] = {}
        self._gone: deque[tuple[int, int]] = deque()
        """(when, index) of calls that finished, while their groups are remembered."""
        self._due: list[tuple[int, int]] = []
        self._next_index = 0
        self._book = AddressBook(self._calls)
        self._groups = Groups(self._calls, self._find, self._book)
        self._recordings = RecordingSessions(self._book)
        self._admitted: dict[int, Callable[[int], None]] = {}
        """Calls whose signalling others hear, to who draws their conclusion."""

    @property
    def calls_active(self) -> Mapping[int, Call]:
        """Calls in progress by `Call.index`, in order of first sighting."""
        return self._calls

    @property
    def unexplained(self) -> Mapping[str, Unexplained]:
        """Call-IDs that never became calls, with what was seen of them, in order of first sighting."""
        return self._unexplained

    def feed(self, message: SipMessage, seen: Sighting) -> list[CallEvent]:
        """Take in the next message. Without Call-ID or method it says nothing."""
        call_id = message.call_id
        exchange = read_exchange(message) if call_id else None
        if call_id is None or exchange is None:
            return []
        index = self._by_call_id.get(call_id)
        if index is not None and self._progress[index].ended_before(message, exchange, seen):
            del self._by_call_id[call_id]
            index = None
        events: list[CallEvent] = []
        if index is None:
            if not self._begins_call(call_id, message, exchange, seen):
                return events
            events, index = self._begin(call_id, seen)
        progress = self._progress[index]
        heard = progress.hear(message, exchange, seen)
        method, status = exchange.method, exchange.status
        handler = (REQUESTS if status is None else RESPONSES).get(method)
        if handler is not None:
            learnt = handler(progress, heard)
            if method in _RELATING or progress.call.recording_session is not None:
                self._relate(progress, message, exchange, seen, learnt)
            events += learnt
            if method in _ENDING or (status is not None and status >= 300):
                self._schedule(progress)
        return events

    def touch(self, index: int, time: int) -> None:
        """Media of a call was seen until capture time `time`."""
        call = self._calls.get(index)
        if call is not None and time > call.last_seen:
            call.last_seen = time

    def expire(self, now: int) -> list[CallEvent]:
        """Finish the calls that nothing more is waited for at capture time `now`."""
        due: list[CallProgress] = []
        while self._due and self._due[0][0] < now:
            _, index = heappop(self._due)
            progress = self._progress.get(index)
            if progress is None:
                continue
            at = deadline(progress, self.timeouts)
            if at < now and self._waits_for_recording(progress.call, now):
                at = now
            if at < now:
                due.append(progress)
            else:
                heappush(self._due, (at, index))
        self._forget(now)
        return self._finish(due, now)

    def give_up(self, call: Call, now: int) -> list[CallEvent]:
        """Wait for nothing more of a call, by capture time `now`."""
        progress = self._progress.get(call.index)
        return self.dismiss(call, now) if progress is None else self._finish([progress], now)

    def finish(self, now: int) -> list[CallEvent]:
        """The capture is over at `now`: finish every call."""
        events = self._finish(list(self._progress.values()), now)
        for call in list(self._calls.values()):
            events += self.dismiss(call, now) if call.index in self._admitted else self.end_media_only(call, now)
        return events

    def admit(self, call_id: str, started: int, settle: Callable[[int], None]) -> Call:
        """A call whose signalling is not heard here: recording sessions of ours tell of it. Whoever admits it gives the
        engine `CallStarted` and all that follows but `CallFinished`. `settle` is called, with the capture time reached,
        before that."""
        call = Call(self._next_index, call_id, started, 0, 0, started, received=True)
        self._next_index += 1
        self._calls[call.index] = call
        self._admitted[call.index] = settle
        return call

    def dismiss(self, call: Call, now: int) -> list[CallEvent]:
        """An admitted call is over, by capture time `now`."""
        settle = self._admitted.pop(call.index, None)
        if settle is None:
            return []
        settle(now)
        del self._calls[call.index]
        self._groups.finish(call)
        self._gone.append((now, call.index))
        return [CallFinished(call)]

    def share(self, call: Call, keys: Iterable[str], why: GroupReason) -> None:
        """A call has values that all calls of its conversation have; it can be joined also after it has finished."""
        self._groups.remember(call)
        self._groups.share(call, keys, why)

    def media_only(self, first_time: int, packet: int, capture: int) -> Call:
        """A call for media that no signalling explains. It starts and ends as the media engine says."""
        call = Call(self._next_index, None, first_time, packet, capture, first_time, packet)
        self._next_index += 1
        call.state = CallState.MEDIA_ONLY
        call.see(capture, packet)
        self._calls[call.index] = call
        note(call, first_time, packet, "media-only", "media that no signalling explains")
        return call

    def end_media_only(self, call: Call, now: int) -> list[CallEvent]:
        """Media without signalling is over, by capture time `now`."""
        if self._calls.pop(call.index, None) is None:
            return []
        call.ended = min(call.last_seen, now)
        self._groups.finish(call)
        self._gone.append((now, call.index))
        return [CallFinished(call)]

    def drop(self, call: Call) -> None:
        """A call without signalling turned out to belong to another: it never was."""
        if call.call_id is None and self._calls.pop(call.index, None) is not None:
            self._groups.finish(call)
            self._groups.forget(call.index)

    def group(self, a: Call, b: Call, why: GroupReason) -> None:
        """Two calls belong to one conversation."""
        self._groups.join(max(a, b, key=_index), min(a, b, key=_index).index, why)

    def join(self, call: Call, other: int, why: GroupReason) -> None:
        """A call belongs to the conversation of another, by that one's `Call.index`, which may have finished."""
        self._groups.join(call, other, why)

    def group_identifier(self, call: Call) -> UUID | None:
        """`Call.id` of the first call of its group, its own where it is alone."""
        return self._groups.identifier(call)

    def _find(self, call_id: str) -> int | None:
        """Index of the call with this Call-ID, in progress or finished lately."""
        index = self._by_call_id.get(call_id)
        if index is None and call_id in self._lately:
            index = self._lately[call_id].call
        return index

    def _begins_call(self, call_id: str, message: SipMessage, exchange: Exchange, seen: Sighting) -> bool:
        lately = self._lately.get(call_id)
        if lately is not None and lately.over and not (exchange.initial_invite and seen.time > lately.ended):
            return False
        if _proves_call(exchange):
            return True
        self._set_aside(call_id, message, exchange, seen)
        return False

    def _set_aside(self, call_id: str, message: SipMessage, exchange: Exchange, seen: Sighting) -> None:
        unexplained = self._unexplained.get(call_id)
        if unexplained is None:
            if len(self._unexplained) >= MAX_UNEXPLAINED:
                return
            unexplained = Unexplained(call_id, seen.capture, seen.time, seen.packet)
            self._unexplained[call_id] = unexplained
        unexplained.messages += 1
        if len(unexplained.trace) < MAX_UNEXPLAINED_STEPS:
            what = exchange.method if exchange.status is None else f"{exchange.status} to {exchange.method}"
            text = f"{what} {seen.source} -> {seen.destination} proves no call"
            unexplained.trace.append(TraceEvent(seen.time, seen.packet, "no-call", text))

    def _begin(self, call_id: str, seen: Sighting) -> tuple[list[CallEvent], int]:
        events = self._make_room(seen.time) if len(self._progress) >= MAX_ACTIVE else []
        before = self._unexplained.pop(call_id, None)
        started, packet, capture = seen.time, seen.packet, seen.capture
        if before is not None:
            started, packet, capture = min(before.started, started), before.first_packet, before.capture
        call = Call(self._next_index, call_id, started, packet, capture, seen.time, seen.packet)
        self._next_index += 1
        if before is not None:
            call.see(capture, packet)
            call.trace += before.trace
        self._lately.pop(call_id, None)
        self._by_call_id[call_id] = call.index
        self._calls[call.index] = call
        progress = self._progress[call.index] = CallProgress(call)
        self._groups.begin(call)
        heappush(self._due, (deadline(progress, self.timeouts), call.index))
        return [*events, CallStarted(call)], call.index

    def _relate(
        self, progress: CallProgress, message: SipMessage, exchange: Exchange, seen: Sighting, learnt: list[CallEvent]
    ) -> None:
        """What the message says of other calls."""
        call, status = progress.call, exchange.status
        if exchange.method == "INVITE":
            if status is None or 200 <= status < 300 or call.recording_session is not None:
                self._hear_recording(call, message, seen)
        elif call.recording_session is not None:
            if exchange.method in _METADATA_BEARERS:
                self._hear_recording(call, message, seen)
        elif exchange.method == "REFER" and status is None:
            to_callee = progress.tags.requester(exchange) is Side.CALLER
            self._groups.referred(call, message, seen, to_callee)
        if exchange.method != "INVITE" or call.recording_session is not None:
            return
        if progress.fresh_invite:
            self._groups.invited(call, message, seen)
            self._enter(call)
        elif status is not None and status >= 200:
            if any(isinstance(event, CallAnswered) for event in learnt):
                self._groups.answered(call)
                self._enter(call)
            elif 300 <= status < 400:
                self._groups.redirected(call, message, seen)

    def _enter(self, call: Call) -> None:
        """More is known of who takes part: a recording session may have waited for that."""
        self._book.enter(call)
        for recording in self._recordings.waiting_for(call):
            self._link(recording)

    def _hear_recording(self, call: Call, message: SipMessage, seen: Sighting) -> None:
        """Recognise somebody else's recording session, learn from its metadata, find its call."""
        if self._recordings.recognise(call, message, seen):
            self._link(call)

    def _link(self, recording: Call) -> None:
        ids = self._recordings.sip_session_ids(recording)
        named = [self._calls[index] for each in ids if (index := self._by_call_id.get(each)) is not None]
        self._recordings.link(recording, named)

    def _schedule(self, progress: CallProgress) -> None:
        """The call's end has come nearer: look at it again then. Later ends are seen when the old one is due."""
        if not progress.established or progress.bye is not None:
            heappush(self._due, (deadline(progress, self.timeouts), progress.call.index))

    def _waits_for_recording(self, call: Call, now: int) -> bool:
        """A call is reported with the sessions that record it, so it waits for them a little."""
        if not call.recorded_by or call.ended is None:
            return False
        return now < call.ended + self.timeouts.grace + self.timeouts.recorded and self._recordings.unfinished(call)

    def _make_room(self, now: int) -> list[CallEvent]:
        """Finish the call that is nearest to its end."""
        while self._due:
            at, index = heappop(self._due)
            progress = self._progress.get(index)
            if progress is None:
                continue
            due = deadline(progress, self.timeouts)
            if due > at:
                heappush(self._due, (due, index))
                continue
            if progress.call.ended is None:
                warn(progress.call, "evicted", f"More than {MAX_ACTIVE} calls at once: this one was cut short.")
            return self._finish([progress], now)
        return []

    def _finish(self, over: list[CallProgress], now: int) -> list[CallEvent]:
        """Settle calls and let them go: recording sessions first, so that their calls are reported with them whole."""
        over.sort(key=lambda progress: (progress.call.recording_session is None, progress.call.index))
        events: list[CallEvent] = []
        for progress in over:
            call = progress.call
            if self._progress.pop(call.index, None) is None:
                continue
            settle(progress, now)
            if call.recording_session is not None:
                self._recordings.end(call)
            self._let_go(call, now, seen_to_end=progress.bye is not None or call.state is not CallState.FAILED)
            events.append(CallFinished(call))
        return events

    def _let_go(self, call: Call, now: int, seen_to_end: bool) -> None:
        del self._calls[call.index]
        self._book.leave(call.index)
        self._groups.finish(call)
        self._gone.append((now, call.index))
        call_id = call.call_id or ""
        if self._by_call_id.get(call_id) == call.index:
            del self._by_call_id[call_id]
            over = seen_to_end and call.state is not CallState.INCOMPLETE
            self._lately.pop(call_id, None)
            self._lately[call_id] = _Lately(call_id, call.index, call.ended or call.last_seen, now, over)

    def _forget(self, now: int) -> None:
        """Let go of calls that finished long ago."""
        self._groups.expire(now)
        while self._gone and (self._gone[0][0] + LATELY < now or len(self._gone) > MAX_LATELY):
            self._groups.forget(self._gone.popleft()[1])
        while self._lately:
            oldest = next(iter(self._lately.values()))
            if oldest.finished + LATELY >= now and len(self._lately) <= MAX_LATELY:
                break
            del self._lately[oldest.call_id]


def _index(call: Call) -> int:
    return call.index


def _proves_call(exchange: Exchange) -> bool:
    """Whether a message alone proves that there is, or was tried, a call."""
    if exchange.status is None:
        return exchange.method in _OPENING or (exchange.method in _IN_DIALOG and exchange.to_tag is not None)
    if exchange.method == "INVITE":
        return 101 <= exchange.status < 300
    return exchange.method in ("BYE", "UPDATE", "PRACK") and 200 <= exchange.status < 300
