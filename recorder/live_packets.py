"""Packets of calls in progress: what a live service writes to packets.pcapng while a call goes on.

In: every batch twice, before and after the engine has it; the messages and the ends of calls in between. Out: a file in
the working directory of each call whose decision says so, complete and closed before the call is published. A call gets
its SIP messages, whatever carried them, and what its endpoints send and receive from the moment they are announced.
Bounded: what waits for the disk, the size of a file, the frames that are held back. A disk that refuses costs the call
its packets and nothing else. As long as no call is kept, no packet is looked at, but for those of TCP and in fragments
where the policy may yet keep a call. Read `LivePackets.before`, `LivePackets.after` first.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from operator import itemgetter
from typing import TypeVar

import numpy as np

from capture.batch import KIND_FRAGMENT, KIND_TCP, Int32, Int64
from capture.tcpstreams import endpoints
from recorder.endpoints import Rule
from recorder.engine import Engine, Prepared
from recorder.held_frames import MAX_AGE, Held, HeldBatch, HeldFrames
from recorder.journal_frames import journal_frames
from recorder.live_calls import LiveCalls, LiveRecord
from recorder.live_claims import LiveClaims
from recorder.messages import Message
from recorder.model import Call, Sighting, Transport
from recorder.packet_file import PacketFile, blocks_of
from recorder.packet_index import TCP, flow_key
from recorder.packets import FILE
from recorder.recent_media import RecentMedia, media_rows
from recorder.sightings import FlowSighting
from recorder.streams import Listening
from recorder.trace import warn
from recorder.tracks import StoreError

LARGEST = 1 << 30
"""Octets of a call's packets: ten hours of G.711."""
MAX_PENDING = 16 << 20
"""Octets of all calls that wait to be written."""
WRITTEN_EVERY = 1_000_000_000
"""ns of capture time that a packet waits at most."""
MAX_KNOWN = 20_000
"""Directions of TCP, and fragmented datagrams, that are remembered; the oldest go first."""
DATAGRAM = 2_000_000_000
"""ns within which the fragments of a datagram come."""
_CHOSEN = 4096
"""Held frames of a call that are remembered, so that none is written twice."""
_V = TypeVar("_V")
_BY_ANNOUNCEMENT = (Rule.DESTINATION, Rule.SOURCE)


@dataclass(slots=True, eq=False)
class _Kept:
    """A call whose packets are kept."""

    record: LiveRecord
    file: PacketFile
    since: int = 0
    """Capture time since when something waits to be written, ns; 0 where nothing does."""
    rows: list[int] = field(default_factory=list)
    """Of the batch in progress: its messages that came in one datagram each."""
    held: dict[int, memoryview] = field(default_factory=dict)
    """Place among all frames -> block of frames that were held back, for this batch."""
    chosen: "OrderedDict[int, None]" = field(default_factory=OrderedDict)
    """Places of held frames that it has."""
    waiting: int = 0
    """Octets that wait to be written."""

    @property
    def call(self) -> Call:
        """Whose packets these are."""
        return self.record.call


@dataclass(slots=True)
class _Note:
    """A message of the batch in progress."""

    seen: Sighting
    kept: _Kept | None


class LivePackets:
    """Hears what the engine hears (an `Observer`), and is shown every batch by the service."""

    def __init__(
        self,
        live: LiveCalls,
        may_keep: Callable[[], bool],
        trouble: Callable[[str], None] = lambda _: None,
        *,
        largest: int = LARGEST,
        recent: RecentMedia | None = None,
    ) -> None:
        """`may_keep` tells whether the policy in force may keep packets of any call, `trouble` takes sentences about a
        disk that refuses. `recent` has what was said before `begin_late`. `attach` comes next."""
        self._live = live
        self._may_keep = may_keep
        self._trouble = trouble
        self._largest = largest
        self._recent = recent
        self._kept: dict[int, _Kept] = {}
        """By `Call.index`."""
        self._by_call_id: dict[str, _Kept] = {}
        self._waiting: OrderedDict[int, _Kept] = OrderedDict()
        """Those of which something waits to be written, the first one first."""
        self._pending = 0
        self._links: list[int] = []
        """Link types in order of sighting: the interfaces of every file."""
        self._held = HeldFrames()
        self._ends: OrderedDict[int, int] = OrderedDict()
        """Direction of TCP -> place of the segment in which its last message ended."""
        self._whole: OrderedDict[int, set[int]] = OrderedDict()
        """Fragmented datagram, or direction of TCP -> calls (by index) that have all of it."""
        self._touched: dict[int, _Kept] = {}
        """Those with signalling in the batch in progress."""
        self._message: Message | None = None
        self._notes: list[_Note] = []
        self._news: dict[int, _Kept] = {}
        self._batch: Prepared | None = None
        self._batch_held: HeldBatch | None = None
        self._first = 0
        """Place of the batch's first frame among all frames."""
        self._stamps: Int64 = np.zeros(0, np.int64)
        self._window_end = 0

    def attach(self, engine: Engine) -> None:
        """The engine whose calls these are."""
        self._engine = engine
        self._claims = LiveClaims(engine.registry)

    # What the engine tells

    def heard(self, message: Message) -> None:
        """A SIP message, before the call tracker has it."""
        self._message = message
        kept = self._by_call_id.get(message.parsed.call_id or "")
        if kept is not None:
            self._news[kept.call.index] = kept
        stream = message.seen.transport is not Transport.UDP and self._batch_held is not None
        if self._batch is not None and (kept is not None or stream):
            self._notes.append(_Note(message.seen, kept))

    def begun(self, call: Call) -> None:
        """A call begins, and its decision stands."""
        record = self._live.records.get(call.index)
        if record is None or not record.decision.keep_packets:
            return
        if record.broken or record.listening is Listening.PASSED_OVER:
            return
        comment = "media without signalling" if call.call_id is None else f"Call-ID: {call.call_id}"
        try:
            file = PacketFile.begin(record.directory / FILE, comment, self._largest)
        except StoreError as error:
            self._refused(call, error)
            return
        kept = self._kept[call.index] = self._news[call.index] = _Kept(record, file)
        message = self._message
        if call.call_id is not None and not call.received:
            self._by_call_id[call.call_id] = kept
            if self._batch is not None and message is not None:
                if self._notes and self._notes[-1].seen is message.seen:
                    self._notes[-1].kept = kept
                else:
                    self._notes.append(_Note(message.seen, kept))

    def begin_late(self, calls: Sequence[Call]) -> None:
        """Keep the packets of calls in progress from now on, behind the messages that were heard of them so far and the
        media of the last seconds, where these are to be had."""
        begun = [kept for call in calls if (kept := self._begin_late(call)) is not None]
        for kept in begun:
            self._claims.announce(kept.call.index, over=kept.call.ended is not None)
            self._claim_streams(kept)
        indices = {kept.call.index for kept in begun}
        media = self._recent.of(self._claims, indices) if self._recent is not None and begun else {}
        for kept in begun:
            said = journal_frames(kept.record.directory)
            rows = np.arange(len(said), dtype=np.int64)
            octets, begins = blocks_of(said, rows, self._interfaces(said.link_type), said.time)
            blocks = [
                (time, octets.data[begin:end])
                for time, (begin, end) in zip(said.time.tolist(), pairwise(begins.tolist()), strict=True)
            ]
            blocks += media.get(kept.call.index, ())
            if blocks:
                self._append(kept, b"".join(block for _, block in sorted(blocks, key=itemgetter(0))))

    def _begin_late(self, call: Call) -> _Kept | None:
        record = self._live.records.get(call.index)
        if record is None or call.index in self._kept or record.broken or record.listening is Listening.PASSED_OVER:
            return None
        record.decision = replace(record.decision, keep_packets=True)
        self._message = None
        self.begun(call)
        return self._kept.get(call.index)

    def finished(self, call: Call, flows: Sequence[FlowSighting]) -> None:
        """A call is over: complete its file. The registry still knows its endpoints."""
        kept = self._kept.get(call.index)
        if kept is None:
            return
        batch = self._batch
        if batch is not None:
            self._settle(batch)
            for flow in flows:
                if flow.rule not in _BY_ANNOUNCEMENT:
                    self._claims.claim_flow(call.index, flow.source, flow.destination, flow.realm)
            self._add(batch, *self._claims.rows(batch.datagrams, batch.kinds, (call.index,)), {call.index: kept})
        self._flush(kept)
        self._forget(kept)

    # What the service does

    def before(self, prepared: Prepared, stamps: Int64) -> None:
        """A batch is about to be ingested. `stamps`: its times by the wall clock, ns, before any correction."""
        self._batch = prepared
        self._batch_held = None
        self._stamps = stamps
        datagrams, _, signalling = prepared
        if len(signalling) and (self._kept or self._may_keep()):
            carried = datagrams.kind[signalling]
            rows = signalling[(carried == KIND_TCP) | (carried == KIND_FRAGMENT)]
            if len(rows):
                interfaces = self._interfaces(datagrams.packets.link_type[rows])
                self._batch_held = self._held.add(datagrams, rows, self._first, interfaces, stamps)

    def after(self) -> None:
        """The batch has been ingested: choose what of it belongs to calls, and write what is due."""
        batch = self._batch
        assert batch is not None
        if self._kept:
            if self._engine.window_end != self._window_end:
                self._window_end = self._engine.window_end
                self._look_at_streams()
            self._settle(batch)
            self._add(batch, *self._claims.rows(batch.datagrams, batch.kinds), self._touched)
        elif self._notes:
            self._settle(batch)
        if self._recent is not None:
            rows = media_rows(batch)
            interfaces = self._interfaces(batch.datagrams.packets.link_type[rows])
            self._recent.add(batch, rows, interfaces, self._stamps)
        self._touched.clear()
        self._batch = self._batch_held = None
        self._first += len(batch.datagrams)
        self.write_due()

    def write_due(self) -> None:
        """Write what has waited for long enough, or all where too much waits."""
        now = self._engine.now
        while self._waiting:
            kept = next(iter(self._waiting.values()))
            if self._pending <= MAX_PENDING and now - kept.since < WRITTEN_EVERY:
                return
            self._flush(kept)

    # What belongs to a call

    def _settle(self, batch: Prepared) -> None:
        """Take up what messages announced, and find the frames of those that were heard since this was last done."""
        for kept in self._news.values():
            self._claims.announce(kept.call.index, over=kept.call.ended is not None)
        self._news.clear()
        if self._batch_held is not None:
            self._openings(self._batch_held)
        notes, self._notes = self._notes, []
        if notes:
            for note, row in zip(notes, _rows_of(notes, batch), strict=True):
                if row >= 0:
                    self._take_message(batch, note, row)
        if self._batch_held is not None and self._whole:
            self._take_whole(self._batch_held)

    def _take_message(self, batch: Prepared, note: _Note, row: int) -> None:
        """Choose what carried a message that ended at a row of the batch."""
        datagrams, seen = batch.datagrams, note.seen
        kept = note.kept if note.kept is not None and note.kept.call.index in self._kept else None
        place, time = self._first + row, int(datagrams.packets.time[row])
        held = self._batch_held
        if seen.transport is not Transport.UDP:
            self._take_segments(batch, seen, row, kept)
        elif kept is not None and datagrams.kind[row] == KIND_FRAGMENT and held is not None:
            key = held.key_of(row)
            self._choose(kept, self._held.find(key, 0, place, time - DATAGRAM))
            _remember(self._whole, key, {*self._whole.get(key, ()), kept.call.index})
        elif kept is not None:
            kept.rows.append(row)
            self._touched[kept.call.index] = kept

    def _take_segments(self, batch: Prepared, seen: Sighting, row: int, kept: _Kept | None) -> None:
        """A message came over TCP: it is in the segments since the message before."""
        datagrams, held = batch.datagrams, self._batch_held
        place, time = self._first + row, int(datagrams.packets.time[row])
        direction = (seen.source, seen.destination)
        # The time of any packet may end the wait for a segment that is missing.
        usual = datagrams.kind[row] == KIND_TCP and held is not None and endpoints(datagrams, row) == direction
        key = held.key_of(row) if usual and held is not None else flow_key(TCP, *direction, seen.realm)
        before = self._ends.get(key, -1)
        _remember(self._ends, key, place)
        if kept is None:
            return
        mine = list(self._held.find(key, before, place, time - MAX_AGE))
        if len(mine) > 1 and mine[0].place == before and mine[1].begins:
            del mine[0]  # the message before ended with it
        self._choose(kept, mine)
        if seen.transport is not Transport.TCP:
            # A WebSocket cannot be read in part.
            for way in (key, flow_key(TCP, *direction[::-1], seen.realm)):
                calls = self._whole.get(way, set())
                if kept.call.index not in calls:
                    _remember(self._whole, way, {*calls, kept.call.index})
                    self._choose(kept, self._held.find(way, 0, place, time - MAX_AGE))

    def _openings(self, held: HeldBatch) -> None:
        """The first fragment of a datagram tells whose media it is."""
        for key, source, destination, realm, time in held.openings:
            calls = self._claims.owners(source, destination, realm, time)
            if calls:
                _remember(self._whole, key, set(calls))
                for call in calls:
                    self._choose(self._kept[call], self._held.find(key, 0, int(held.places[-1]), time - DATAGRAM))
            else:
                self._whole.pop(key, None)

    def _take_whole(self, held: HeldBatch) -> None:
        """Choose the fragments and segments of this batch of which calls have all."""
        keys = np.fromiter(self._whole, np.uint64, len(self._whole))
        for at in np.flatnonzero(np.isin(held.keys, keys)).tolist():
            for call in self._whole[int(held.keys[at])] & self._kept.keys():
                self._choose(self._kept[call], (held.at(at),))

    def _choose(self, kept: _Kept, frames: Iterable[Held]) -> None:
        """Give frames that were held back to a call that has not had them."""
        for frame in frames:
            if frame.place not in kept.chosen:
                kept.held[frame.place] = frame.block
                kept.chosen[frame.place] = None
                if len(kept.chosen) > _CHOSEN:
                    kept.chosen.popitem(last=False)
                self._touched[kept.call.index] = kept

    def _look_at_streams(self) -> None:
        """Claim what the media engine found out without an announcement, and let go of calls that are no more."""
        for kept in list(self._kept.values()):
            if not self._claim_streams(kept):
                self._flush(kept)
                self._forget(kept)

    def _claim_streams(self, kept: _Kept) -> bool:
        """Claim a call's streams of which no announcement tells; False where the engine has no such call."""
        media = self._engine.media
        found = media.calls.get(kept.call.index) if media is not None else None
        if media is None or found is None:
            return False
        for stream in found.streams:
            if stream.rule not in _BY_ANNOUNCEMENT:
                realm = int(media.stager.flows.realms[stream.flow])
                self._claims.claim_flow(kept.call.index, stream.source, stream.destination, realm)
        return True

    # What is written

    def _add(self, batch: Prepared, rows: Int64, calls: Int64, touched: Mapping[int, _Kept]) -> None:
        """Add the media `rows` of `calls`, and the signalling of calls, to their files."""
        said = [(row, index) for index, kept in touched.items() for row in kept.rows]
        if said:
            more = np.array(said, np.int64)
            rows, calls = np.concatenate((rows, more[:, 0])), np.concatenate((calls, more[:, 1]))
        order = np.lexsort((rows, calls))
        rows, calls = rows[order], calls[order]
        packets = batch.datagrams.packets
        octets, begins = blocks_of(packets, rows, self._interfaces(packets.link_type[rows]), self._stamps)
        bounds = np.flatnonzero(np.diff(calls, prepend=-1, append=-1)).tolist()
        view = octets.data
        silent = dict(touched)
        for begin, end in pairwise(bounds):
            index = int(calls[begin])
            silent.pop(index, None)
            kept = self._kept.get(index)
            if kept is None:
                continue
            blocks: bytes | memoryview = view[begins[begin] : begins[end]]
            if kept.held:
                places = (rows[begin:end] + self._first).tolist()
                cuts = begins[begin : end + 1].tolist()
                blocks = _in_order(kept, {p: view[a:b] for p, (a, b) in zip(places, pairwise(cuts), strict=True)})
            self._append(kept, blocks)
        for kept in silent.values():
            if kept.held:
                self._append(kept, _in_order(kept, {}))

    def _append(self, kept: _Kept, blocks: bytes | memoryview) -> None:
        """Have blocks wait to be written."""
        kept.rows.clear()
        kept.held.clear()
        if kept.record.listening is Listening.PASSED_OVER:
            self._flush(kept)
            self._forget(kept)
            return
        added = kept.file.add(blocks, self._links)
        if kept.file.full:
            text = f"Packets were kept up to {self._largest >> 20} MB; later ones are missing in {FILE}."
            warn(kept.call, "packets-full", text)
            self._flush(kept)
            self._forget(kept)
            return
        kept.waiting += added
        self._pending += added
        self._waiting.setdefault(kept.call.index, kept)
        kept.since = kept.since or self._engine.now

    def _flush(self, kept: _Kept) -> None:
        """Write what waits of a call; where the disk refuses, the call gets no more packets."""
        self._waiting.pop(kept.call.index, None)
        self._pending -= kept.waiting
        kept.waiting = kept.since = 0
        try:
            kept.file.flush()
        except StoreError as error:
            self._refused(kept.call, error)
            self._forget(kept)

    def _refused(self, call: Call, error: StoreError) -> None:
        warn(call, "packets-missing", f"Packets are missing in {FILE}: the disk refused.")
        self._trouble(str(error))

    def _forget(self, kept: _Kept) -> None:
        """The call gets no more packets."""
        index = kept.call.index
        for known in (self._kept, self._news, self._touched):
            known.pop(index, None)
        if self._by_call_id.get(kept.call.call_id or "") is kept:
            del self._by_call_id[kept.call.call_id or ""]
        self._claims.forget(index)

    def _interfaces(self, link_types: Int32) -> Int32:
        """The interface of each frame, the same in all files."""
        out = np.zeros(len(link_types), np.int32)
        for link_type in np.unique(link_types).tolist():
            if link_type not in self._links:
                self._links.append(link_type)
            out[link_types == link_type] = self._links.index(link_type)
        return out


def _rows_of(notes: Sequence[_Note], batch: Prepared) -> list[int]:
    """Row of the batch at which each message ended, -1 where there is none."""
    packets = batch.datagrams.packets
    places = packets.capture.astype(np.int64) << 40 | packets.number
    wanted = np.array([note.seen.capture << 40 | note.seen.packet for note in notes], np.int64)
    order = np.argsort(places, kind="stable")
    rows = order[np.minimum(np.searchsorted(places, wanted, sorter=order), len(places) - 1)]
    return np.where(places[rows] == wanted, rows, -1).tolist()


def _in_order(kept: _Kept, blocks: dict[int, memoryview]) -> bytes:
    """Blocks by place, and those that were held back for the call, in order of capture."""
    blocks.update(kept.held)
    return b"".join(blocks[place] for place in sorted(blocks))


def _remember(known: "OrderedDict[int, _V]", key: int, value: _V) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > MAX_KNOWN:
        known.popitem(last=False)
