"""The engine's side of our SRC: calls become pictures, flows become sources, and every call has its decision.

In: what the engine hears and begins (it is a `Follower` of the service). Out: pictures to the sessions, flows placed at
the forwarder, decisions by the rules for calls as they begin, calls whose packets are to be kept because no server can
be had. Runs in the engine's thread; `decide` and `spool` may be called from the sessions'.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from uuid import UUID

from recorder.call_facts import CallFacts, facts_of_beginning
from recorder.engine import Engine
from recorder.messages import Message
from recorder.model import Call, MediaEndpoint
from recorder.reports import digits_so_far
from recorder.sightings import FlowSighting
from recorder.siprec.auto_pause import is_paused
from recorder.siprec.forward_claims import ForwardClaims, PlacesFlows
from recorder.siprec.picture import CallPicture
from recorder.siprec.pictures import Pictures
from recorder.siprec.src_decision import NOT_RECORDED, SrcDecision

GROUPS_EVERY = 1_000_000_000
"""ns of capture time between two looks at which calls belong together."""
MOST_KEPT = 64
"""Calls whose packets begin to be kept in one turn: what was said before is looked up for each, and packets wait."""
REMEMBERED = 60_000_000_000
"""ns for which the decision of a call that is over is kept: the sessions may come to its last picture late."""


class SrcFollower:
    """Follows the calls of one engine."""

    def __init__(
        self,
        forwarder: PlacesFlows,
        choose: Callable[[CallFacts], SrcDecision],
        post: Callable[[CallPicture], None],
        group: UUID | None = None,
        unserved: Callable[[SrcDecision], bool] = lambda decision: False,
    ) -> None:
        """`group`: of all calls, where that is known from elsewhere. `unserved`: no server is there for a call, whose
        packets are then kept from its beginning."""
        self._forwarder = forwarder
        self._choose = choose
        self._post = post
        self._group = group
        self._unserved = unserved
        self._message: Message | None = None
        self._calls: dict[int, Call] = {}
        self._decisions: dict[int, SrcDecision] = {}
        """By `Call.index`; each is replaced as a whole, so that the sessions may read it meanwhile."""
        self._coded: dict[int, CallPicture] = {}
        """The last picture of calls that a code pauses, by `Call.index`."""
        self._over: deque[tuple[int, int]] = deque()
        """(when, `Call.index`) of calls that are over."""
        self._to_keep: deque[int] = deque()
        self._next_groups = self._window = 0

    def attach(self, engine: Engine, keep_packets: Callable[[Sequence[Call]], None]) -> None:
        """See `Follower`."""
        self._engine = engine
        self._keep = keep_packets
        known = self._group
        group_of = engine.tracker.group_identifier if known is None else lambda _: known
        self._pictures = Pictures(engine.registry, group_of)
        self._claims = ForwardClaims(engine.registry, self._forwarder, self._is_wanted, self._lingers)

    def heard(self, message: Message) -> None:
        """A SIP message, before the call tracker has it."""
        self._message = message
        self._pictures.heard(message)

    def begun(self, call: Call) -> None:
        """A call begins."""
        if call.recording_session is not None or call.received:
            return
        self._calls[call.index] = call
        decision = self._decisions[call.index] = self._choose(facts_of_beginning(call, self._message))
        self._pictures.begun(call)
        if decision.record and self._unserved(decision):
            self._to_keep.append(call.index)

    def dropped(self, call: Call) -> None:
        """A call turned out to be part of another."""
        self._pictures.dropped(call)
        self._calls.pop(call.index, None)
        self._decisions.pop(call.index, None)
        self._coded.pop(call.index, None)

    def finished(self, call: Call, flows: Sequence[FlowSighting]) -> None:
        """A call is over."""
        self._pictures.finished(call, flows)
        if self._calls.pop(call.index, None) is not None:
            self._over.append((self._engine.now, call.index))
            self._coded.pop(call.index, None)

    def turn(self, now: int) -> None:
        """Tell what changed."""
        if now >= self._next_groups:
            self._next_groups = now + GROUPS_EVERY
            self._pictures.look_at_groups()
        for picture in self._pictures.turn():
            self._pause(picture)
            self._post(picture)
        window = self._engine.window_end
        if window != self._window:
            self._window = window
            # Digits among the media are known now, and no message tells of them.
            for picture in list(self._coded.values()):
                if self._pause(picture):
                    self._post(picture)
        while self._over and now - self._over[0][0] > REMEMBERED:
            self._decisions.pop(self._over.popleft()[1], None)
        self._claims.turn(now)
        if self._to_keep:
            indices = [self._to_keep.popleft() for _ in range(min(len(self._to_keep), MOST_KEPT))]
            self._keep([self._calls[index] for index in indices if index in self._calls])

    # What the sessions ask, in their thread

    def decide(self, picture: CallPicture) -> SrcDecision:
        """What to do with a call."""
        return self._decisions.get(picture.index, NOT_RECORDED)

    def spool(self, index: int) -> None:
        """No server can be had for a call (by `Call.index`): keep its packets from now on."""
        self._to_keep.append(index)

    def _pause(self, picture: CallPicture) -> bool:
        """Decide whether a call is recorded now; whether that is news."""
        call, decision = self._calls.get(picture.index), self._decisions.get(picture.index)
        if call is None or decision is None:
            return False
        if decision.pausing.pause_digits:
            self._coded[picture.index] = picture
        media = self._engine.media.calls.get(picture.index) if self._engine.media is not None else None
        pressed = digits_so_far(media) if media is not None and decision.pausing.pause_digits else []
        paused = is_paused(picture, [*call.digits, *pressed], decision.pausing)
        if paused == decision.paused:
            return False
        self._decisions[picture.index] = replace(decision, paused=paused)
        return True

    def _lingers(self, index: int) -> bool:
        """Whether a call is over, and its session may be about to begin all the same."""
        return index in self._decisions and index not in self._calls

    def _is_wanted(self, endpoint: MediaEndpoint) -> bool:
        """Any call in progress may be recorded at any moment, when somebody asks for it."""
        return endpoint.call in self._calls
