"""Recording sessions that we receive, among the calls of the one engine.

In: `RsPicture`s, from any thread. Out, in the engine's thread: calls that begin, endpoints at which their media arrive,
calls that are over; and in each call's working directory, what the SRC said of it, verbatim. Several sessions of one
call (a second server's, one after a failure) are joined by `session_id`; a session may carry several calls. It is told
what the engine tells (it is a `Follower` of the service), and reads no clock but that.
"""

import heapq
import queue
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from recorder.call_events import CallEnded, CallEvent, CallStarted
from recorder.engine import Engine
from recorder.live_calls import Interrupted
from recorder.messages import Message
from recorder.model import Call, GroupReason
from recorder.sightings import FlowSighting
from recorder.siprec.port_ledger import name_of
from recorder.siprec.received import Received
from recorder.siprec.srs_call import ReceivedCall
from recorder.siprec.srs_cast import Placed
from recorder.siprec.srs_gaps import say_missing, say_silent, unheard
from recorder.siprec.srs_joining import same_call, same_people, unique
from recorder.siprec.srs_kept import KeptMessages
from recorder.siprec.srs_picture import Over, RsPicture, by_capture_time
from recorder.siprec.srs_restore import remember
from recorder.siprec.srs_view import Communication, View
from recorder.trace import note

GRACE = 5_000_000_000
"""ns after its end for which a call is kept open: media still on their way, another session that takes over."""
REJOIN = 60_000_000_000
"""ns for which a call waits for another session after its last one went without a word."""
NOTED_EVERY = 1_000_000_000
"""ns between two looks at when each session had media last."""
MAX_OVER = 256
MAX_LATELY = 4096
MAX_PENDING = 1 << 18
"""Octets of messages kept of a session for calls that begin in it later."""


@dataclass(slots=True)
class _Rs:
    """A recording session in progress."""

    picture: RsPicture
    calls: dict[str, ReceivedCall] = field(default_factory=dict)
    """By `session_id`; empty: what no metadata explain."""
    messages: list[Received] = field(default_factory=list)
    octets: int = 0
    over: dict[str, None] = field(default_factory=dict)
    """Calls of it that are over, by `session_id`: the metadata may go on to name them."""


class SessionCalls:
    """Makes calls of recording sessions."""

    def __init__(
        self,
        *,
        keep: bool = True,
        rejoin: int = REJOIN,
        correction: Callable[[], int] = lambda: 0,
        trouble: Callable[[str], None] = lambda _: None,
        failed: Callable[[Exception], None] | None = None,
        running: Callable[[], None] = lambda: None,
    ) -> None:
        """`keep`: what was received stays beside the recording, verbatim; without it, until the call is over.
        `correction` gives what is added to wall-clock times to have capture times, ns. `trouble` takes sentences about
        a disk that refuses. `failed` is told of an error that nobody foresaw, so that one session's picture costs the
        others nothing; None lets it out. `running` is told once, in the engine's thread, that sessions are noted."""
        self._kept = KeptMessages(stay=keep, trouble=trouble)
        self._rejoin = rejoin
        self._correction = correction
        self._failed = failed
        self._running: Callable[[], None] | None = running
        self._queue: queue.SimpleQueue[RsPicture] = queue.SimpleQueue()
        self._sessions: dict[int, _Rs] = {}
        self._calls: dict[int, ReceivedCall] = {}
        """By `Call.index`."""
        self._by_key: dict[str, ReceivedCall] = {}
        self._views: dict[int, View] = {}
        """Last metadata of each call's sessions."""
        self._lately: OrderedDict[str, int] = OrderedDict()
        """`Call.index` of the last call of each group and communication session."""
        self._dues: list[tuple[int, int]] = []
        """(when a call may be over, its `Call.index`), a heap; what has changed since is passed over."""
        self._noted = 0
        self._taken_before: dict[bytes, int] = {}
        self._over: dict[int, ReceivedCall] = {}
        """Calls whose packets are still to be counted."""
        self.media: dict[int, int] = {}
        """Running number of a session -> capture time of its last packet of media, ns. Read by the sessions' loop."""
        self.identifiers: dict[int, tuple[str, ...]] = {}
        """Running number of a session -> `Call.id` of its calls, likewise."""

    def submit(self, picture: RsPicture) -> None:
        """A recording session changed; from any thread."""
        self._queue.put(picture)

    def taken_before(self, sessions: Mapping[bytes, int]) -> None:
        """Calls of sessions that an earlier run had accepted: `name_of` them -> when, ns by the wall clock. Those that
        it had not noted when it was killed lack what was sent until their SRCs come again."""
        self._taken_before = dict(sessions)

    def take_up(self, left: Interrupted, now: int) -> Call | None:
        """Go on with a call that an SRC was sending when an earlier run was interrupted: it waits for the SRC.

        None where nothing is kept of what an SRC sent. The engine has begun, and the caller gives the call its media.
        """
        found = remember(left.directory, -1 - len(self._calls))
        if found is None:
            return None
        first, picture, session, over = found
        received = self._admit(first, session.id if session is not None else "")
        self._kept.open(received.call, left.directory, received.key)
        self._taken_before.pop(name_of(received.key), None)
        if session is not None:
            received.hear(first, next((each for each in first.view.sessions if each.id == session.id), session), ())
        received.hear(picture, session, ())
        self._views[received.call.index] = picture.view
        received.leave(picture.rs, picture.at, over)
        self._wait_until(received, now + (self._rejoin if over is Over.LOST else GRACE))
        received.call.ended = received.end
        return received.call

    # What the engine and the service tell (`Follower`)

    def attach(self, engine: Engine, keep_packets: Callable[[Sequence[Call]], None] = lambda _: None) -> None:
        """The engine whose calls these are. See `Follower`."""
        self._engine = engine

    def heard(self, message: Message) -> None:
        """A SIP message on the wire: none of ours."""

    def begun(self, call: Call) -> None:
        """A call begins."""

    def dropped(self, call: Call) -> None:
        """A call turned out to be part of another."""

    def finished(self, call: Call, flows: Sequence[FlowSighting]) -> None:
        """A call is over: tell how many packets each of its sessions carried, and what none did."""
        received = self._over.pop(call.index, None)
        if received is None:
            return
        for flow in flows:
            session = received.carried_by.get(flow.destination)
            if session is not None:
                session.packets += flow.packets
        missing = unheard(flows, received.carried_by)
        say_missing(call, "No media of the call came before another recording session took over,", missing)
        if not received.cast.mixed:
            say_silent(call, flows, received.carried_by, received.speakers)
        else:
            # That a side has no stream of its own does not mean that it was not heard.
            call.warnings = [warning for warning in call.warnings if warning.code != "one-way"]

    def turn(self, now: int) -> None:
        """Take in what came; end calls of which nothing more is waited for. `now`: capture time, ns."""
        if self._running is not None:
            self._running()
            self._running = None
        while not self._queue.empty():
            picture, correction = self._queue.get(), self._correction()
            if self._engine.media is None:
                self._engine.take_up(max(now, picture.at))
            try:
                self._apply(by_capture_time(picture, correction) if correction else picture)
            except Exception as error:
                if self._failed is None:
                    raise
                self._failed(error)
        while self._dues and self._dues[0][0] <= now:
            due, index = heapq.heappop(self._dues)
            waiting = self._calls.get(index)
            if waiting is not None and waiting.due == due:
                self._engine.carry_out(self._engine.tracker.dismiss(waiting.call, now))
        if now - self._noted >= NOTED_EVERY:
            self._noted = now
            self._note_media()

    # Pictures

    def _apply(self, picture: RsPicture) -> None:
        rs = self._sessions.get(picture.rs)
        if rs is None:
            rs = self._sessions[picture.rs] = _Rs(picture)
        rs.picture = picture
        self._take_messages(rs, picture)
        for session, placed in self._shares(rs, picture):
            found = self._find(rs, picture, session, placed)
            if found is not None:
                self._hear(rs, found, picture, session, placed)
        self._let_go(rs, picture)
        self.identifiers[picture.rs] = tuple(str(each.call.id) for each in rs.calls.values() if each.call.id)
        if picture.over is not None:
            del self._sessions[picture.rs]
            self.media.pop(picture.rs, None)
            self.identifiers.pop(picture.rs, None)

    def _shares(self, rs: _Rs, picture: RsPicture) -> list[tuple[Communication | None, list[Placed]]]:
        """The communication sessions of a picture, each with the lines that carry it."""
        sessions = picture.view.sessions
        if not sessions:
            # Metadata without a session: nothing is recorded for now (RFC 7866, section 10). Without any, all is.
            lines: list[Placed] = [(line, None) for line in picture.lines]
            return [] if picture.view.said and not rs.calls else [(None, lines)]
        labels = {flow.label: (at, flow) for at, session in enumerate(sessions) for flow in session.flows if flow.label}
        placed: list[list[Placed]] = [[] for _ in sessions]
        unnamed: list[Placed] = []
        for line in picture.lines:
            at, flow = labels.get(line.label or "", (None, None))
            if at is None:
                unnamed.append((line, None))
            else:
                placed[at].append((line, flow))
        for each in unnamed:
            placed[self._home(rs, sessions, placed, each)].append(each)
        shares: list[tuple[Communication | None, list[Placed]]] = []
        for session, lines in zip(sessions, placed, strict=True):
            shares.append((session, sorted(lines, key=_position)))
        return shares

    def _home(self, rs: _Rs, sessions: Sequence[Communication], placed: Sequence[list[Placed]], line: Placed) -> int:
        """Where a line belongs that no stream names: to the call that has it, else to the first that has none."""
        for at, session in enumerate(sessions):
            known = rs.calls.get(session.id)
            if known is not None and (rs.picture.rs, line[0].index) in known.cast.lines:
                return at
        return next((at for at, lines in enumerate(placed) if not lines), 0)

    def _find(
        self, rs: _Rs, picture: RsPicture, session: Communication | None, placed: Sequence[Placed]
    ) -> ReceivedCall | None:
        """The call of a session, made where it is new; None where there is nothing to record of it."""
        key = session.id if session is not None else ""
        known = rs.calls.get(key)
        if known is None and session is None and rs.calls:
            return next(iter(rs.calls.values()))
        if known is None and session is not None and "" in rs.calls:
            # Metadata came late: what was recorded until now is of the first session that they name.
            known = rs.calls[key] = rs.calls.pop("")
            known.key = key
            if unique(key):
                self._by_key.setdefault(key, known)
        if known is not None:
            return known
        if session is not None and (known := self._renamed(rs, picture, session)) is not None:
            return known
        other = self._by_key.get(key)
        if other is not None and session is not None and same_call(other, session, picture.view.persons):
            rs.calls[key] = other
            return other
        if session is not None and session.stop is not None and (not placed or key in rs.over):
            return None
        return self._begin(rs, picture, key)

    def _renamed(self, rs: _Rs, picture: RsPicture, session: Communication) -> ReceivedCall | None:
        """The only call of a recording session under another identifier: some SRCs make them anew each time."""
        if len(rs.calls) != 1 or len(picture.view.sessions) != 1 or self._by_key.get(session.id) is not None:
            return None
        ((key, known),) = rs.calls.items()
        if not key or known.end is not None or not same_people(known, session, picture.view.persons):
            return None
        rs.calls = {session.id: known}
        if self._by_key.get(key) is known:
            del self._by_key[key]
        known.key = session.id
        if unique(session.id):
            self._by_key[session.id] = known
        return known

    def _begin(self, rs: _Rs, picture: RsPicture, key: str) -> ReceivedCall:
        received = rs.calls[key] = self._admit(picture, key)
        before = self._taken_before.pop(name_of(key), None) if unique(key) else None
        if before is not None:
            received.miss(before + self._correction(), picture)
        return received

    def _admit(self, picture: RsPicture, key: str) -> ReceivedCall:
        tracker = self._engine.tracker
        call = tracker.admit(picture.call_id, picture.at, lambda now: self._settle(received, now))
        received = ReceivedCall(call, key, picture.at)
        self._calls[call.index] = received
        if unique(key):
            self._by_key[key] = received
        note(call, picture.at, 0, "recording-session", f"sent by {picture.src} as {picture.call_id[:120]}")
        return received

    def _hear(
        self,
        rs: _Rs,
        received: ReceivedCall,
        picture: RsPicture,
        session: Communication | None,
        placed: Sequence[Placed],
    ) -> None:
        call, fresh = received.call, received.call.index not in self._views
        events = received.hear(picture, session, placed)
        if picture.view.said or fresh:
            self._views[call.index] = picture.view
        if fresh:
            events.insert(0, CallStarted(call))
        if session is not None:
            self._relate(call, session)
        if received.end is not None and call.ended is None and picture.over is None:
            events.append(self._ended(received, picture.at))
        self._engine.carry_out(events)
        # The call has its directory only when it has begun.
        messages = rs.messages if fresh else picture.messages
        self._kept.write(call, self._engine.directory_of, received.key, messages)

    def _relate(self, call: Call, session: Communication) -> None:
        """Calls of one group, and what remains of a call whose recording was over, belong together."""
        keys = [f"siprec-group {session.group}"] if session.group else []
        keys += [f"siprec-session {session.id}"] if unique(session.id) else []
        tracker = self._engine.tracker
        tracker.share(call, keys, GroupReason.METADATA)
        for key in keys:
            before = self._lately.pop(key, None)
            if before is not None and before != call.index and before not in self._calls:
                tracker.join(call, before, GroupReason.METADATA)
            self._lately[key] = call.index
            if len(self._lately) > MAX_LATELY:
                self._lately.popitem(last=False)

    def _ended(self, received: ReceivedCall, at: int) -> CallEvent:
        received.call.ended = received.end
        self._wait_until(received, at + GRACE)
        return CallEnded(received.call, at)

    def _let_go(self, rs: _Rs, picture: RsPicture) -> None:
        """A recording session is over, or its metadata name a call no more (RFC 7866, section 9.2)."""
        named = {session.id for session in picture.view.sessions}
        gone = [key for key in rs.calls if picture.over is not None or (key and picture.view.said and key not in named)]
        events: list[CallEvent] = []
        for received in dict.fromkeys(rs.calls.pop(key) for key in gone):
            events += received.leave(picture.rs, picture.at, picture.over)
            if received.legs or received.call.index not in self._calls:
                continue
            if received.end is not None or picture.over is not Over.LOST:
                events.append(self._ended(received, picture.at))
            else:
                self._wait_until(received, picture.at + self._rejoin)
        self._engine.carry_out(events)

    def _wait_until(self, received: ReceivedCall, due: int) -> None:
        """Nothing more is waited for from a time on, unless something comes before."""
        received.due = due
        heapq.heappush(self._dues, (due, received.call.index))

    def _settle(self, received: ReceivedCall, now: int) -> None:
        """A call is over: whoever ends it asks for this first."""
        call = received.call
        received.settle(now, self._views.pop(call.index, None))
        self._calls.pop(call.index, None)
        if self._by_key.get(received.key) is received:
            del self._by_key[received.key]
        for number in received.legs:
            rs = self._sessions.get(number)
            if rs is not None:
                rs.calls = {key: each for key, each in rs.calls.items() if each is not received}
                rs.over[received.key] = None
                if len(rs.over) > MAX_OVER:
                    del rs.over[next(iter(rs.over))]
        self._over[call.index] = received
        self._kept.end(call)

    # What was received

    def _take_messages(self, rs: _Rs, picture: RsPicture) -> None:
        for message in picture.messages:
            if rs.octets + len(message.body) <= MAX_PENDING:
                rs.octets += len(message.body)
                rs.messages.append(message)

    def _note_media(self) -> None:
        media = self._engine.media
        if media is None:
            return
        for number, rs in self._sessions.items():
            last = 0
            for each in rs.calls.values():
                known = media.calls.get(each.call.index)
                if known is not None and known.last_media > last:
                    last = known.last_media
            self.media[number] = last


def _position(placed: Placed) -> int:
    return placed[0].index
