"""The forwarder: media of calls from the wire to recording servers, sent by kernels.

In: batches of a live source of its own; which flow is of which call (`place`, see `forward_claims`); legs that sessions
open and connect. Out: RTP and RTCP from each leg's own ports, with its own SSRC, numbers and payload types; flows that
nobody has spoken for (`take_new_flows`).

One thread runs it (`run`). The other methods may be called from any thread: they put commands into a queue that the
thread takes up within milliseconds, and never wait. Where the source is rings of interfaces, a kernel in a thread of
its own takes packets from them (`forward_pump`) and this one only changes its tables; from other sources this thread
takes them batch by batch. Nothing that comes over a wire raises.
"""

import base64
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from hashlib import blake2b

import numpy as np

from capture.address import Endpoint
from capture.batch import DatagramBatch, PacketBatch
from capture.layers import decode_layers, read_only
from capture.live import LiveSource
from capture.port_pool import PortPool, PortsExhausted
from capture.randomness import BufferedRandom
from decoders.sdp import CryptoKey, PayloadFormat
from decoders.srtp_protect import SrtpSender
from recorder.siprec import _forward_columns as columns
from recorder.siprec._flow_kernels import drop_silent, free_flows
from recorder.siprec._forward_columns import Capacity, grow, make_tables, may_grow, overruns, touch, touch_growth
from recorder.siprec._forward_kernels import abandon, adopt, count_lost_flow, forward_rows
from recorder.siprec._leg_kernels import drain, seek
from recorder.siprec._table_lock import TableLock, new_mutex
from recorder.siprec.forward_legs import LegBook, OpenLeg
from recorder.siprec.forward_ports import PortPair
from recorder.siprec.forward_pump import LendsRings, RingPump, hurry, prepare_rings
from recorder.siprec.forward_rtcp import RtcpState
from recorder.siprec.forward_sealed import SealedMedia
from recorder.siprec.forward_sources import Rows
from recorder.siprec.forward_values import Forwarded, ForwardOptions, NewFlow
from recorder.siprec.legs import LegId, LegReport, LocalMedia, RemoteMedia, Source

__all__ = ["Capacity", "ForwardOptions", "Forwarded", "MediaForwarder", "NewFlow", "PortsExhausted"]

MOST_CLOSED = 4096
"""Legs that are closed, and whose reports are kept."""
IDLE = 30_000_000_000
"""ns of silence after which a flow is forgotten."""
_TURN = 0.01
"""s between two looks at what was asked, where a kernel takes the packets."""
_CATCHING_UP = 0.005
"""The same where something waits. At fifty new calls a second something always does, and each turn of this thread takes
the interpreter from the others."""
_SEALING = 0.002
"""The same where media is encrypted or decrypted: each packet of it waits for the next turn."""
_MOST_COMMANDS = 32
"""Taken up at a time, where this thread takes the packets: what is on its way must not wait for many."""
_MOST_BESIDE = 1024
"""The same where a kernel takes them: nothing waits for this thread, which may have to wait for the interpreter before
each turn. Ports of sessions that are over are free only when it has come to their end."""
_LISTEN = 0.1
_SWEEP = 5.0
_WORD = (1 << 64) - 1
_COLUMN_TYPES = {"buffer": np.uint8, "time": np.int64, "offset": np.int64, "number": np.int64}


class MediaForwarder:
    """A `Forwarder` (see `legs`)."""

    def __init__(self, options: ForwardOptions | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds for what is paced. Raises ValueError for a range of ports that holds no pair."""
        self._options = options or ForwardOptions()
        self._pool = PortPool(self._options.low_port, self._options.high_port)
        self._clock = clock
        self._tables = make_tables(self._options.capacity, new_mutex())
        self._lock = TableLock(self._tables.counts)
        self._rows = Rows(self._tables)
        self._sealed = SealedMedia(self._tables)
        self._book = LegBook(self._tables, self._rows, clock)
        self._wanted = np.zeros(columns.FLOW_COLUMNS, np.int64)
        self._silent = np.zeros(len(self._tables.flows), np.int32)
        self._commands: deque[Callable[[], None]] = deque()
        self._legs: dict[LegId, OpenLeg] = {}
        self._closed: OrderedDict[LegId, LegReport] = OrderedDict()
        self._new: deque[NewFlow] = deque(maxlen=self._options.capacity.flows)
        self._gone: deque[int] = deque()
        self._next_look = self._next_sweep = 0.0
        self._refused_legs = 0
        self._random = BufferedRandom()
        self._secret = self._random.randbytes(16)
        self._now = time.time_ns()
        self._over = False
        self.stopping = False
        """Set by any thread: `run` returns."""

    # What sessions ask, in any thread

    def open(self, leg: LegId, local_host: str, since: int) -> LocalMedia:
        """See `Forwarder`."""
        # One row is kept for a leg that moves: for a moment it has two.
        opened = self._make(leg, local_host, spare=1)
        self._commands.append(partial(self._book.open, opened, since))
        return opened.local

    def move(self, leg: LegId, local_host: str, since: int, to: LegId) -> LocalMedia:
        """See `Forwarder`. `leg` is closed; its report can still be had by `close`."""
        old = self._legs.get(leg)
        if old is None:
            return self.open(to, local_host, since)
        opened = self._make(to, local_host)
        self._commands.append(partial(self._book.move, old, opened, since))
        self._keep_report(leg, self.close(leg))
        return opened.local

    def connect(self, leg: LegId, remote: RemoteMedia) -> None:
        """See `Forwarder`. Raises ValueError for a key of ours that nothing can be protected with."""
        if remote.encrypt is not None:
            SrtpSender(remote.encrypt)
        found = self._legs.get(leg)
        if found is not None:
            self._commands.append(lambda: self._book.connect(found, remote, self._now))

    def pause(self, leg: LegId) -> None:
        """See `Forwarder`."""
        found = self._legs.get(leg)
        if found is not None:
            self._commands.append(partial(self._book.pause, found))

    def resume(self, leg: LegId) -> None:
        """See `Forwarder`."""
        found = self._legs.get(leg)
        if found is not None:
            self._commands.append(lambda: self._book.resume(found, self._now))

    def close(self, leg: LegId) -> LegReport:
        """See `Forwarder`. For a leg that is not open, what is known of it still."""
        found = self._legs.pop(leg, None)
        if found is None:
            return self._closed.pop(leg, None) or LegReport(0, 0, 0, None, None, None, None, None, None, False)
        report = self._book.report_of(found, self._now, closing=True)
        self._commands.append(lambda: self._book.close(found, self._now))
        return report

    def report(self, legs: Sequence[LegId]) -> dict[LegId, LegReport]:
        """See `Forwarder`. Legs that are not open are left out."""
        found = ((leg, self._legs.get(leg)) for leg in legs)
        return {leg: self._book.report_of(opened, self._now) for leg, opened in found if opened is not None}

    # What the engine's thread asks

    def take_new_flows(self) -> list[NewFlow]:
        """Flows that were found since this was last asked."""
        found = []
        while self._new:
            found.append(self._new.popleft())
        return found

    def take_gone_flows(self) -> list[int]:
        """Numbers of flows that are forgotten, and whose numbers may be others' from now on."""
        found = []
        while self._gone:
            found.append(self._gone.popleft())
        return found

    def place(
        self,
        flow: NewFlow,
        source: Source,
        formats: Mapping[int, PayloadFormat],
        crypto: Sequence[CryptoKey] = (),
    ) -> None:
        """A flow carries a source's media, by these formats and keys; again where they have changed.

        Of several flows of one source, that which was placed first is forwarded, until it falls silent.
        """
        self._commands.append(lambda: self._place(flow, source, formats, tuple(crypto)))

    def pass_over(self, flow: NewFlow) -> None:
        """A flow is of nobody, and what it has waiting is forgotten. It may be placed later."""
        self._commands.append(lambda: self._unplace(flow, columns.PASSED))

    def forwarded(self) -> Forwarded:
        """Counts, for those who look after the service."""
        packets, octets, unsent = self._book.totals()
        counts = self._tables.counts.tolist()
        flows = len(self._tables.flows) - int(self._tables.free[0])
        return Forwarded(
            packets=packets,
            octets=octets,
            unsent=unsent,
            cut=counts[columns.CUT],
            refused=counts[columns.REFUSED_FLOWS],
            flows=flows,
            legs=len(self._legs),
            no_room=self._refused_legs + self._rows.refused,
        )

    # What the forwarder's thread does

    def prepare(self) -> None:
        """Have all kernels compiled or loaded, which may take half a minute once; before anything else is asked."""
        columns_of = {each.name: np.zeros(0, _COLUMN_TYPES.get(each.name, np.int32)) for each in fields(PacketBatch)}
        self._forward(decode_layers(PacketBatch(**columns_of)))
        touch(self._tables)
        prepare_rings(self._tables)
        self._sealed.prepare()
        adopt(self._tables, 0)
        count_lost_flow(self._tables, 0)
        abandon(self._tables, 0)
        seek(self._tables, 0, 0)
        drain(self._tables, np.zeros(0, np.int64), 0)
        drop_silent(self._tables, 0, self._silent)
        free_flows(self._tables, self._silent[:0])
        with self._lock:
            pass

    def run(self, source: LiveSource) -> None:
        """Forward until `stopping`, or until the source has ended; then say BYE for all legs."""
        hurry(self._options.niceness)
        try:
            if isinstance(source, LendsRings):
                self._run_beside(source)
            else:
                self._run_batches(source)
        finally:
            self.shut()

    def _run_beside(self, source: LendsRings) -> None:
        """Do what needs Python while a kernel forwards."""
        with RingPump(self._tables, source, self._options.niceness) as pump:
            while not self.stopping:
                pump.tend()
                self.step(None, time.time_ns(), most=_MOST_BESIDE)
                time.sleep(self._pause(_TURN))

    def _run_batches(self, source: LiveSource) -> None:
        shown = began = 0
        while not self.stopping and not source.ended:
            batch = source.poll(self._pause(self._options.patience))
            if source.stamped_here:
                self.step(batch, time.time_ns())
                continue
            # Captures at their own pace: their time goes on between packets as ours does.
            if batch is not None and len(batch):
                shown, began = int(batch.time[-1]), time.monotonic_ns()
            self.step(batch, shown + time.monotonic_ns() - began if shown else time.time_ns())

    def _pause(self, usual: float) -> float:
        """s until the next turn; `usual` where nothing waits for it."""
        if self._book.sealing or self._rows.sealed:
            return _SEALING
        return _CATCHING_UP if self._commands or self._book.draining else usual

    def step(self, batch: PacketBatch | None, now: int, most: int = _MOST_COMMANDS) -> None:
        """Carry out what was asked, `most` of it at a time, forward a batch, and do what is due at capture time `now`
        (ns)."""
        self._now = now
        for _ in range(min(len(self._commands), most)):
            self._commands.popleft()()
        if batch is not None and len(batch):
            self._forward(decode_layers(batch))
        self._sealed.open_rows(self._rows.flows)
        self._book.turn(now)
        self._sealed.send_protected(self._book.sealing)
        if self._tables.counts[columns.FRESH]:
            self._tell_new()
        clock = self._clock()
        if clock >= self._next_look:
            self._next_look = clock + _LISTEN
            self._book.hear(now)
            self._make_room(now)
        if clock >= self._next_sweep:
            self._next_sweep = clock + _SWEEP
            self._sweep(now)

    def shut(self) -> None:
        """Close all legs; nothing is sent any more. A second call does nothing."""
        if self._over:
            return
        self._over = True
        while self._commands:
            self._commands.popleft()()
        for leg, opened in self._legs.items():
            self._keep_report(leg, self._book.report_of(opened, self._now))  # who led it asks later
        self._legs.clear()
        self._book.shut(self._now)

    def _make(self, leg: LegId, local_host: str, *, spare: int = 0) -> OpenLeg:
        if self._over:
            raise PortsExhausted("media is forwarded no more: the service is about to end")
        room = len(self._tables.legs) - spare
        if len(self._legs) >= room:
            self._refused_legs += 1
            raise PortsExhausted(f"{room} streams are sent to recording servers already; there is no room for more")
        ports = PortPair.take(self._pool, local_host)
        ssrc = self._random.getrandbits(32)
        local = LocalMedia(ports.rtp, ports.rtcp, ssrc, self._cname(leg.session))
        opened = self._legs[leg] = OpenLeg(leg, ports, local, RtcpState(ssrc, local.cname))
        return opened

    def _cname(self, session: int) -> str:
        """One name for all that a session sends, as its streams belong together; no other session has it (RFC 7022)."""
        digest = blake2b(str(session).encode(), key=self._secret, digest_size=12).digest()
        return base64.b64encode(digest).decode()

    def _keep_report(self, leg: LegId, report: LegReport) -> None:
        self._closed[leg] = report
        while len(self._closed) > MOST_CLOSED:
            self._closed.popitem(last=False)

    def _forward(self, datagrams: DatagramBatch) -> None:
        forward_rows(
            self._tables,
            self._wanted,
            read_only(datagrams.packets.buffer),
            datagrams.kind,
            datagrams.payload,
            datagrams.length,
            datagrams.missing,
            datagrams.source_high,
            datagrams.source_low,
            datagrams.destination_high,
            datagrams.destination_low,
            datagrams.source_port,
            datagrams.destination_port,
            datagrams.realm,
            datagrams.packets.time,
        )

    def _tell_new(self) -> None:
        """Hand over what the kernel found."""
        with self._lock:
            numbers = self._tables.fresh[: self._tables.counts[columns.FRESH]].tolist()
            self._tables.counts[columns.FRESH] = 0
        for number, row in zip(numbers, self._tables.flows[numbers].tolist(), strict=True):
            ports = row[columns.PORTS_SSRC] & _WORD
            self._new.append(
                NewFlow(
                    number,
                    Endpoint(row[columns.SOURCE_HIGH] & _WORD, row[columns.SOURCE_LOW] & _WORD, ports >> 48),
                    Endpoint(
                        row[columns.DESTINATION_HIGH] & _WORD,
                        row[columns.DESTINATION_LOW] & _WORD,
                        ports >> 32 & 0xFFFF,
                    ),
                    ports & 0xFFFFFFFF,
                    row[columns.REALM],
                    row[columns.FIRST_SEEN],
                )
            )

    def _is_current(self, flow: NewFlow) -> bool:
        """Whether a flow's row is still its own."""
        row = self._tables.flows[flow.number]
        return bool(row[columns.STATE] and row[columns.FIRST_SEEN] == flow.first)

    def _place(
        self, flow: NewFlow, source: Source, formats: Mapping[int, PayloadFormat], crypto: tuple[CryptoKey, ...]
    ) -> None:
        if not self._is_current(flow) or not self._rows.place(flow.number, source, formats, crypto):
            return
        placed = self._rows.flows[flow.number]
        if placed.srtp is not None:
            self._sealed.open_waiting(flow.number, placed)
            self._rows.opened(flow.number, source)

    def _unplace(self, flow: NewFlow, state: int) -> None:
        if self._is_current(flow):
            self._rows.unplace(flow.number, state)

    def _make_room(self, now: int) -> None:
        """Have the history grow, where it gives up what servers may still need."""
        if may_grow(self._tables) and overruns(self._tables, now):
            touch_growth(self._tables)
            with self._lock:
                grow(self._tables)

    def _sweep(self, now: int) -> None:
        """Forget flows that are silent."""
        count = drop_silent(self._tables, now - IDLE, self._silent)
        for number in self._silent[:count].tolist():
            self._rows.unplace(number, 0)
            self._gone.append(number)
        if count:
            free_flows(self._tables, self._silent[:count])
