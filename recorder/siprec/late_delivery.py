"""Late delivery: a call that was kept is played to a recording server, as if it were going on.

In: an entry of the spool. Out: what came of it. The capture runs at its own pace through an engine, a forwarder and
sessions of its own, over the agents of the service; the call has the identifiers and times that it had, and metadata
that say that it comes late. To be called in the sessions' loop; the engine and the forwarder run in threads.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID, uuid4

from capture.paced_source import Pace, PacedSource
from recorder.engine import Engine, prepare
from recorder.model import Call
from recorder.sip_ua.api import Agent
from recorder.siprec.control import EventKind, SessionEvent
from recorder.siprec.forward import Capacity, ForwardOptions, MediaForwarder
from recorder.siprec.sip_settings import Ports
from recorder.siprec.spool import Entry, Outcome
from recorder.siprec.src_connect import Noted, unnoted
from recorder.siprec.src_decision import NOT_RECORDED, Instance, Server, SrcDecision
from recorder.siprec.src_follower import SrcFollower
from recorder.siprec.src_sessions import Kept, SrcOptions, SrcSessions
from recorder.streams import Listening

LEAD = 1.0
"""s before the first packet."""
LAST = 20.0
"""s that the sessions have to end after the last packet."""
_TURN = 0.5
"""s between two looks at what the call's messages say: it is over already, nothing hurries."""
_STEP = 0.06
"""s between two looks at its media: what is due goes out together, three packets of a stream with most codecs. Their
timestamps say when they belong; looks that are more frequent cost calls in progress what they need themselves."""
_ROOM = Capacity(flows=512, sources=64, legs=64, history=4 << 20, rows=1 << 10)
"""For the media of one call."""
_WINDOW = 1 << 12, 1 << 20
"""Packets and octets of media that its engine looks at together."""
_NICENESS = 5
"""Of its forwarder's thread: calls in progress go first."""


@dataclass(frozen=True, slots=True)
class LateDelivery:
    """Delivers a call; several may be in progress (`spool.Delivery`)."""

    agents: Mapping[str, Agent]
    local_host: Callable[[Server, str], Awaitable[str]]
    complete: Callable[[Instance], Instance]
    """An instance as it was kept, with the credentials that the settings have for its servers."""
    ports: Ports
    """Those of the media of calls in progress: a port that is taken is passed over."""
    noted: Noted = unnoted
    """Told of dialogs, so that none outlives a kill."""

    async def __call__(self, entry: Entry) -> Outcome:
        """Play an entry."""
        pace = Pace()
        forwarder = MediaForwarder(ForwardOptions(self.ports.low, self.ports.high, _ROOM, _NICENESS, _STEP))
        kept: list[Kept] = []
        told: list[SessionEvent] = []
        begun: list[int] = []
        known = entry.call.picture
        instance = replace(self.complete(entry.call.instance), persistent=False)
        decision = SrcDecision(True, (instance,), reason="kept until a server could be had")

        def decide(call_id: str | None) -> SrcDecision:
            if call_id != known.call_id:
                return NOT_RECORDED
            begun.append(1)
            return decision

        sessions = SrcSessions(
            self.agents,
            forwarder,
            lambda picture: decide(picture.call_id),
            local_host=self.local_host,
            options=SrcOptions(late=True),
            keep=kept.append,
            clock=lambda: pace.now() or time.time_ns(),
            noted=self.noted,
        )
        sessions.listen(told.append)
        follower = SrcFollower(forwarder, lambda facts: decide(facts.call_id), sessions.post, known.group)
        calls, media = (PacedSource([entry.packets], pace, lead=LEAD, step=_STEP) for _ in range(2))
        # Threads of its own: those of the loop are few, and others wait for them.
        threads = ThreadPoolExecutor(2, "spanrec-late")
        loop = asyncio.get_running_loop()
        sending = loop.run_in_executor(threads, forwarder.run, media)
        try:
            await loop.run_in_executor(threads, _play, entry, calls, pace, follower)
            until = loop.time() + LAST
            while sessions.sessions and loop.time() < until:
                await asyncio.sleep(0.1)
        finally:
            calls.close()  # where this is cancelled, its thread would go on to the end of the call
            await sessions.close()
            forwarder.stopping = True
            await asyncio.wait([sending], timeout=5.0)
            threads.shutdown(wait=False)
        return _outcome(bool(begun), bool(kept), {event.kind for event in told})


def _outcome(begun: bool, kept: bool, told: Collection[EventKind]) -> Outcome:
    """`begun`: the capture holds the call; `kept`: some of it reached no server; `told`: what its session told."""
    if kept:
        return Outcome.LATER
    if not begun or EventKind.FAILURE in told:
        return Outcome.NEVER
    return Outcome.DELIVERED if EventKind.START in told else Outcome.LATER


def _play(entry: Entry, source: PacedSource, pace: Pace, follower: SrcFollower) -> None:
    """Run the engine over the capture, in a thread of its own."""
    picture = entry.call.picture

    def identify(call: Call) -> UUID:
        return picture.id if call.call_id == picture.call_id else uuid4()

    with TemporaryDirectory(prefix="spanrec-late-") as place:
        engine = Engine(
            lambda _: Path(place),
            lambda _: None,
            observers=(follower,),
            identify=identify,
            begun=follower.begun,
            dropped=follower.dropped,
            listening=lambda _: Listening.COUNTED,
            room=_WINDOW,
            most_flows=_ROOM.flows,
        )
        follower.attach(engine, lambda _: None)
        while not source.ended:
            time.sleep(_TURN)
            batch = source.poll(0.0)
            if batch is not None:
                engine.ingest(prepare(batch))
            now = pace.now()
            if now is not None:
                engine.tick(now)
                follower.turn(now)
        engine.finish()
        follower.turn(engine.now)
