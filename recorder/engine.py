"""The one engine of every mode: batches in, finished calls out.

A batch's rows are told apart by kernels; SIP goes message by message to the call tracker, RTP in columns to the media
engine. Read `Engine.ingest` first: it is the order of things. The engine never looks at a clock, a file name or a
socket; what a call becomes when it is over is up to its sink.
"""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import numpy as np

from capture.address import Endpoint
from capture.batch import DatagramBatch, Int64, PacketBatch, UInt8
from capture.layers import decode_layers
from decoders.demux import RTCP, RTP, SIP_IGNORED, classify
from decoders.rtcp import parse_rtcp
from decoders.rtp import FLOWS, STOP_END, STOP_FULL, WINDOW_OCTETS, WINDOW_PACKETS, FlowTable, Stager, Window
from recorder.call_events import (
    CallEnded,
    CallEvent,
    CallFinished,
    CallStarted,
    EndpointOffered,
    EndpointReleased,
)
from recorder.calls import CallTracker
from recorder.endpoints import EndpointRegistry
from recorder.identifiers import call_uuid, part_uuid
from recorder.media import MediaEngine
from recorder.messages import Found, Message, MessageReader, rows_of_interest
from recorder.model import Call, GroupReason, StreamReport
from recorder.reports import report_media
from recorder.sightings import Observer, sightings
from recorder.streams import CallMedia, Listening
from recorder.tracks import StoreError

WINDOW = 2_000_000_000
"""ns of capture time that media waits to be seen together."""
MEDIA_IDLE = 30_000_000_000
"""ns without a packet after which media without signalling is over."""


class Prepared(NamedTuple):
    """A batch with what the kernels say of its rows."""

    datagrams: DatagramBatch
    kinds: UInt8
    signalling: Int64
    """Rows that Python must look at, ascending: SIP, RTCP, TCP segments and IP fragments."""


def prepare(batch: PacketBatch, realm: int = 0) -> Prepared:
    """Strip the layers off a batch and tell its rows apart; needs no state, so it may run ahead in a thread. `realm` is
    where its source stands (`capture.realms`)."""
    datagrams = decode_layers(batch, realm)
    kinds = classify(datagrams)
    return Prepared(datagrams, kinds, rows_of_interest(datagrams, kinds, RTCP))


class FinishedCall(NamedTuple):
    """A call that is over, with its media closed and its streams reported."""

    call: Call
    media: CallMedia | None
    streams: list[StreamReport]


@dataclass(slots=True)
class Counts:
    """What went through the engine."""

    packets: int = 0
    sip_messages: int = 0
    sip_ignored: int = 0
    sip_unsound: int = 0
    rtp: int = 0
    rtcp: int = 0


@dataclass(slots=True)
class Engine:
    """Calls and media of one run."""

    directory_of: Callable[[Call], Path]
    sink: Callable[[FinishedCall], None]
    """Called for every call that is over, in the order in which they end."""
    workers: int = 1
    executor: Executor | None = None
    counts: Counts = field(default_factory=Counts)
    calls: int = 0
    """Calls that are over."""
    tracker: CallTracker = field(default_factory=CallTracker)
    registry: EndpointRegistry = field(default_factory=EndpointRegistry)
    messages: MessageReader = field(default_factory=MessageReader)
    media: MediaEngine | None = None
    observers: tuple[Observer, ...] = ()
    identify: Callable[[Call], UUID] | None = None
    """Gives every call its identifier; None makes them from where the calls stand in the capture."""
    begun: Callable[[Call], None] = lambda _: None
    """Told of every call that begins, before it has any media."""
    dropped: Callable[[Call], None] = lambda _: None
    """Told of media without signalling that turned out to be of another call, which has its tracks now."""
    store_failed: Callable[[Call, StoreError], None] | None = None
    """Told of a call whose audio cannot be written any more, so that the others go on; None lets the error out."""
    listening: Callable[[Call], Listening] = lambda _: Listening.HEARD
    """How much of a beginning call's media is wanted; asked after `begun`."""
    headed: bool = False
    """Whether audio in the making is a playable file at any moment."""
    room: tuple[int, int] = (WINDOW_PACKETS, WINDOW_OCTETS)
    """Packets and octets of media that a window takes; where there are more, it ends early."""
    most_flows: int = FLOWS
    """Flows of RTP that are told apart at one time."""
    now: int = 0
    _until: int = 0
    _started: dict[int, int] = field(default_factory=dict)
    """Capture index -> time of its first packet."""
    _last_id: tuple[int, int, int] = (-1, -1, 0)

    @property
    def window_end(self) -> int:
        """Capture time at which the window in progress is closed, ns."""
        return self._until

    def ingest(self, prepared: Prepared) -> None:
        """Take a batch: stage its media up to the window's end, hear its signalling, close the window, go on."""
        datagrams, kinds, signalling = prepared
        batch = datagrams.packets
        if len(batch) == 0:
            return
        media = self.media or self._begin(batch)
        self._count(batch, kinds)
        found = deque(self.messages.find(datagrams, kinds, signalling))
        reports = deque(signalling[kinds[signalling] == RTCP].tolist())
        row = 0
        while row < len(batch):
            begin = row
            row, reason = media.stager.stage(datagrams, kinds, begin, self._until)
            while found and found[0].row < row:
                self._hear(found.popleft())
            while reports and reports[0] < row:
                self._hear_rtcp(datagrams, reports.popleft())
            # Capture times may step back: only the latest so far is the same whatever the batches.
            self.now = max(self.now, int(batch.time[begin : row + 1].max()))
            if reason != STOP_END:
                self._close(int(batch.time[min(row, len(batch) - 1)]), full=reason == STOP_FULL)

    def tick(self, now: int) -> None:
        """Capture time has come to `now` (ns), whether packets have or not: close a window that is due."""
        if self.media is not None and now >= self._until:
            self._close(now, full=False)

    def take_up(self, epoch: int) -> None:
        """Begin without a packet, to go on with calls of before: the timeline counts from capture time `epoch`."""
        self._begin_at(epoch)
        self.now = epoch

    def hear_again(self, message: Message) -> None:
        """A message of a call of before, in order of time."""
        self._feed(message)

    def carry_out(self, events: Iterable[CallEvent]) -> None:
        """What happened to calls whose signalling is not heard here."""
        self._handle(events)

    def give_up(self, call: Call) -> None:
        """End a call of which nothing more will come."""
        self._handle(self.tracker.give_up(call, self.now))

    def finish(self) -> None:
        """The capture is over: finish what is in progress."""
        if self.media is None:
            return
        for message in self.messages.finish():
            self._feed(message)
        self.media.close_window(self.now, final=True)
        self.media.close_window(self.now, final=True)
        self._touch()
        self._handle(self.tracker.finish(self.now))
        self.media.give_back_unclaimed()

    def _begin(self, batch: PacketBatch) -> MediaEngine:
        """The first packet gives the time that everything is counted from."""
        return self._begin_at(int(batch.time[0]))

    def _begin_at(self, epoch: int) -> MediaEngine:
        flows = FlowTable(self.most_flows)
        self.media = MediaEngine(
            registry=self.registry,
            stager=Stager(flows, Window.empty(*self.room)),
            epoch=epoch,
            new_media_call=self._media_call,
            same_media=self._same_media,
            absorbed=self._absorbed,
            directory_of=self.directory_of,
            workers=self.workers,
            executor=self.executor,
            store_failed=self.store_failed,
            headed=self.headed,
            listening=self.listening,
        )
        self._until = epoch + WINDOW
        return self.media

    def _count(self, batch: PacketBatch, kinds: UInt8) -> None:
        found = np.bincount(kinds, minlength=8)
        self.counts.packets += len(batch)
        self.counts.sip_ignored += int(found[SIP_IGNORED])
        self.counts.rtp += int(found[RTP])
        self.counts.rtcp += int(found[RTCP])
        first, last = int(batch.capture[0]), int(batch.capture[-1])
        if first not in self._started or last not in self._started or first != last:
            for capture in np.unique(batch.capture).tolist():
                if capture not in self._started:
                    self._started[capture] = int(batch.time[int(np.argmax(batch.capture == capture))])

    def _hear(self, found: Found) -> None:
        """Feed a message to the tracker."""
        message = self.messages.parse(found)
        if message is not None:
            self.counts.sip_messages += 1
            self._feed(message)

    def _feed(self, message: Message) -> None:
        for observer in self.observers:
            observer.heard(message)
        events = self.tracker.feed(message.parsed, message.seen)
        if events:
            self._handle(events)

    def _hear_rtcp(self, datagrams: DatagramBatch, row: int) -> None:
        begin, length = int(datagrams.payload[row]), int(datagrams.length[row])
        compound = parse_rtcp(datagrams.packets.buffer[begin : begin + length].tobytes())
        if self.media is not None and compound is not None:
            self.media.hear_rtcp(int(datagrams.packets.time[row]), compound)

    def _close(self, now: int, *, full: bool) -> None:
        """End the window at capture time `now` and let calls end that are over."""
        assert self.media is not None
        self.media.close_window(now, full=full)
        if not full or now >= self._until:
            self._until = now + WINDOW - now % WINDOW if now % WINDOW else now + WINDOW
        self.now = max(self.now, now)
        self._touch()
        self._handle(self.tracker.expire(self.now))

    def _touch(self) -> None:
        """Tell the tracker of media, and end media without signalling that fell silent."""
        assert self.media is not None
        silent = []
        for media in self.media.calls.values():
            if media.call.call_id is None and self.now - media.last_media > MEDIA_IDLE:
                silent.append(media.call)
            elif media.last_media:
                self.tracker.touch(media.call.index, media.last_media)
        for call in silent:
            self._handle(self.tracker.end_media_only(call, self.now))

    def _handle(self, events: Iterable[CallEvent]) -> None:
        """Carry out what the tracker decided."""
        for event in events:
            if isinstance(event, EndpointOffered):
                self.registry.announce(event.endpoint, event.signalled_from)
            elif isinstance(event, CallStarted):
                self._name(event.call)
                self.begun(event.call)
                if self.media is not None:
                    self.media.start_call(event.call)
            elif isinstance(event, CallFinished):
                self._finish_call(event.call)
            elif isinstance(event, CallEnded):
                self.registry.release(event.call.index, event.at)
            elif isinstance(event, EndpointReleased):
                self.registry.release_endpoint(event.endpoint, event.at)

    def _name(self, call: Call) -> None:
        """Identify a call, by where it stands in its capture unless others do it."""
        if self.identify is not None:
            call.id = self.identify(call)
            return
        if call.call_id is None:
            # A packet of media may also be the one whose time ended the wait for a message, with which a call began.
            call.id = part_uuid(call_uuid(self._started.get(call.capture, 0), call.first_packet), "media", 0)
            return
        place = (call.capture, call.first_packet)
        ordinal = self._last_id[2] + 1 if self._last_id[:2] == place else 0
        self._last_id = (*place, ordinal)
        call.id = call_uuid(self._started.get(call.capture, 0), call.first_packet, ordinal)

    def _finish_call(self, call: Call) -> None:
        media = self.media.end_call(call) if self.media is not None else None
        streams: list[StreamReport] = []
        if media is not None and self.media is not None:
            streams = report_media(media, self.media.table)
            if call.recording_session is not None:
                call.recording_session.packets = sum(stream.packets for stream in streams)
            for observer in self.observers:
                observer.finished(call, sightings(media, self.media))
            self.media.release_rows(media)
        self.registry.forget(call.index)
        self.calls += 1
        self.sink(FinishedCall(call, media, streams))

    def _media_call(self, time: int, packet: int, capture: int, source: Endpoint, destination: Endpoint) -> Call:
        call = self.tracker.media_only(time, packet, capture)
        call.caller.address, call.callee.address = source, destination
        self._name(call)
        self.begun(call)
        return call

    def _same_media(self, one: int, other: int) -> None:
        calls = self.tracker.calls_active
        first, second = calls.get(one), calls.get(other)
        if first is not None and second is not None:
            self.tracker.group(first, second, GroupReason.MEDIA)

    def _absorbed(self, call: Call) -> None:
        self.tracker.drop(call)
        self.dropped(call)
