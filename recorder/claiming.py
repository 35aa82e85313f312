"""Claiming: every flow that begins finds its calls, or is waited for, or becomes a call of its own.

In: the flows of a window that have no stream yet. Out: streams (`recorder/binding.py`), and flows marked as waiting or
ignored. Flows are met in order of their first packet, never of a hash. What happens to a flow that has a stream already
is not decided here (`recorder/handover.py`).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from capture.address import Endpoint
from decoders.rtp import Stager
from recorder.binding import Binding
from recorder.endpoints import WAIT, EndpointRegistry
from recorder.identity import MediaIdentity
from recorder.same_media import SameMedia
from recorder.stream_index import StreamIndex
from recorder.streams import CallMedia
from recorder.unclaimed import UnclaimedFlows, is_speech


@dataclass(frozen=True, slots=True)
class Claiming:
    """Finds the calls of beginning flows."""

    registry: EndpointRegistry
    stager: Stager
    index: StreamIndex
    calls: Mapping[int, CallMedia]
    binding: Binding
    same: SameMedia
    identity: MediaIdentity
    unclaimed: UnclaimedFlows
    begin_call: Callable[[int, int, int, Endpoint, Endpoint], CallMedia]
    """(time, frame, capture, source, destination) -> a call for media without signalling."""

    def meet(self, flows: Iterable[int], now: int, *, forced: bool) -> None:
        """Claim the flows that no call has yet. `now`: capture time reached, ns; `forced`: none may wait any longer."""
        held, ignored, spent = self.index.by_flow, self.unclaimed.ignored, self.unclaimed.spent
        table = self.stager.flows
        fresh = [f for f in flows if f not in held and f not in ignored and f not in spent]
        fresh.sort(key=lambda f: (int(table.first[f]), self._first_number(f), f))
        unclaimed = [flow for flow in fresh if not self._claim(flow, int(table.first[flow]))]
        self.unclaimed.waiting.difference_update(fresh)
        self.same.find_twins(unclaimed)
        for flow in unclaimed:
            if self.binding.reverse(flow):
                continue
            if forced or now - int(table.first[flow]) >= WAIT:
                self._give_up(flow)
            else:
                self.unclaimed.waiting.add(flow)

    def _first_number(self, flow: int) -> int:
        return int(self.stager.window.number[self.stager.order[self.stager.starts[flow]]])

    def _claim(self, flow: int, at: int) -> bool:
        """Bind a flow to every call that claims it; False where none does."""
        table = self.stager.flows
        source, destination = table.source(flow), table.destination(flow)
        claims = self.registry.claims(source, destination, int(table.realms[flow]), at)
        bound = False
        for claim in claims:
            media = self.calls.get(claim.by.call)
            if media is not None:
                self.binding.claimed(flow, media, claim)
                bound = True
        return bound or self.binding.reverse(flow)

    def _give_up(self, flow: int) -> None:
        """Nobody announced this flow in time: a call of its own, or nothing that can be recorded."""
        if not is_speech(self.stager, flow):
            self.identity.forget(flow)
            self.unclaimed.ignore(flow)
            return
        shown = self.same.shown_elsewhere(flow)
        if shown is not None:
            self.binding.sighting(flow, *shown)
            return
        table, window = self.stager.flows, self.stager.window
        first = int(self.stager.order[self.stager.starts[flow]])
        time, number, capture = int(window.time[first]), int(window.number[first]), int(window.capture[first])
        media = self.begin_call(time, number, capture, table.source(flow), table.destination(flow))
        self.binding.unannounced(flow, media, time)
