"""Who sends to each of our media ports: one sender is let through, strays are not, and what was lost is counted.

In: batches of `capture.media_ports`, and what session descriptions say of a port. Out: the rows that are of the sender
the port is locked to, and a `PortState` for each port. Callers see to it that one thread at a time is in here.

Rules. The first sender of RTP has the port: its address and SSRC. It keeps it until it has been silent for a second;
then the next one takes it over. At once goes over to: another SSRC at the same address (a new phase of the same
source), another address with the same SSRC and the next sequence numbers (a NAT that changed its mind), and the address
that the session description names (whoever came before it was a stray). RTCP is let through with the same SSRC or from
the same host. What is neither RTP nor RTCP goes nowhere: SIP that is sent to a media port must not be heard as SIP.
"""

from dataclasses import dataclass, fields

import numpy as np

from capture.address import Endpoint
from capture.batch import Bytes, Int32, Int64, PacketBatch
from capture.layers import decode_layers, read_only
from decoders.demux import RTCP, classify
from recorder.siprec import _port_kernels as kernels

_HALF = (1 << 64) - 1
_NOTHING = PacketBatch(
    buffer=np.zeros(1, np.uint8),
    time=np.zeros(0, np.int64),
    offset=np.zeros(0, np.int64),
    captured=np.zeros(0, np.int32),
    wire=np.zeros(0, np.int32),
    link_type=np.zeros(0, np.int32),
    number=np.zeros(0, np.int64),
    capture=np.zeros(0, np.int32),
)


@dataclass(frozen=True, slots=True)
class Stray:
    """A sender that was not let through."""

    address: Endpoint
    ssrc: int
    last: int
    """ns, UTC."""


@dataclass(frozen=True, slots=True)
class PortState:
    """What came to a pair of ports since it was opened. Times are ns, UTC."""

    packets: int
    """Of RTP that were let through."""
    first: int | None
    """When the present source began."""
    last: int | None
    """When RTP last came from it."""
    address: Endpoint | None
    """Where it sends from."""
    ssrc: int | None
    received: int
    """Packets of the present source; duplicates count, as RFC 3550 has it."""
    lost: int
    """Of these; negative where duplicates are more."""
    highest: int
    """Extended sequence number (RFC 3550, section 6.4.1)."""
    jitter: int
    """In units of the RTP clock."""
    rtcp_from: Endpoint | None
    """Where RTCP last came from."""
    rtcp_last: int | None
    bye: int | None
    """When the present source said that it leaves."""
    takeovers: int
    """Times another sender or SSRC took the port over."""
    moves: int
    """Times the source went on from another address."""
    strays: int
    """Packets of others, not let through."""
    stray: Stray | None
    """The latest of these of RTP."""
    foreign: int
    """Datagrams that were neither RTP nor RTCP."""


class PortMonitor:
    """State of all pairs of ports; a pair is `MediaPort.place // 2`."""

    def __init__(self, pairs: int) -> None:
        self.states: Int64 = np.zeros((pairs, kernels.STATE), np.int64)
        self._muted = np.zeros(pairs, np.bool_)
        self.take(_NOTHING, np.zeros(0, np.int32))  # compiles the kernel, or loads it

    def begin(self, pair: int) -> None:
        """The pair was opened anew."""
        self.states[pair] = 0
        self._muted[pair] = False
        self.states[pair, kernels.CLOCK] = 8000
        self.states[pair, kernels.BAD] = -1

    def expect(self, pair: int, *, clock_rate: int, secure: bool, source: Endpoint | None) -> None:
        """What a description says: the RTP clock in Hz, whether RTCP is encrypted, where media should come from."""
        state = self.states[pair]
        state[kernels.CLOCK] = max(clock_rate, 1)
        state[kernels.SECURE] = secure
        state[kernels.EXPECTED] = source is not None
        if source is not None:
            state[kernels.EXPECTED_HIGH : kernels.EXPECTED_PORT + 1] = _signed(source)

    def mute(self, pair: int, *, muted: bool) -> None:
        """Let nothing of the pair through, or let it through again; its sender is watched all the same."""
        self._muted[pair] = muted

    def take(self, batch: PacketBatch, places: Int32) -> tuple[PacketBatch, list[tuple[int, bytes, int]]]:
        """The rows that are let through, and (pair, octets, time) of the encrypted RTCP among them."""
        datagrams = decode_layers(batch)
        kinds = classify(datagrams)
        version = batch.buffer[batch.offset] >> 4
        direct = (datagrams.payload - batch.offset == np.where(version == 4, 28, 48)).astype(np.uint8)
        keep = np.zeros(len(batch), np.uint8)
        kernels.watch_rows(
            self.states, places, batch.time, direct, kinds, read_only(batch.buffer), datagrams.payload,
            datagrams.length, datagrams.source_high, datagrams.source_low, datagrams.source_port, keep,
        )  # fmt: skip
        secured = []
        for row in np.flatnonzero((kinds == RTCP) & (keep != 0)).tolist():
            pair = int(places[row]) >> 1
            if self.states[pair, kernels.SECURE]:
                at = int(datagrams.payload[row])
                octets = batch.buffer[at : at + int(datagrams.length[row])].tobytes()
                secured.append((pair, octets, int(batch.time[row])))
        if self._muted.any():
            keep[self._muted[places >> 1]] = 0
        return _kept(batch, keep), secured

    def hear_plain(self, pair: int, octets: bytes, time: int) -> None:
        """RTCP that was encrypted."""
        kernels.hear_reports(self.states[pair], time, np.frombuffer(octets, np.uint8), 0, len(octets))

    def last(self, pair: int) -> int:
        """When RTP last came to a pair, of its sender or a stray, ns; 0 for never."""
        return int(max(self.states[pair, kernels.LAST], self.states[pair, kernels.STRAY_LAST]))

    def state(self, pair: int) -> PortState:
        """What is known of a pair."""
        value = self.states[pair].tolist()
        locked = bool(value[kernels.LOCKED])
        heard = bool(value[kernels.RTCP_LAST])
        stray = None
        if value[kernels.STRAY_LAST]:
            address = _endpoint(value[kernels.STRAY_HIGH], value[kernels.STRAY_LOW], value[kernels.STRAY_PORT])
            stray = Stray(address, value[kernels.STRAY_SSRC], value[kernels.STRAY_LAST])
        return PortState(
            packets=value[kernels.PACKETS],
            first=value[kernels.FIRST] if locked else None,
            last=value[kernels.LAST] if locked else None,
            address=_endpoint(value[kernels.HIGH], value[kernels.LOW], value[kernels.PORT]) if locked else None,
            ssrc=value[kernels.SSRC] if locked else None,
            received=value[kernels.RECEIVED],
            lost=value[kernels.TOP] - value[kernels.BASE] + 1 - value[kernels.RECEIVED] if locked else 0,
            highest=value[kernels.TOP],
            jitter=value[kernels.JITTER] >> 4,
            rtcp_from=_endpoint(*value[kernels.RTCP_HIGH : kernels.RTCP_PORT + 1]) if heard else None,
            rtcp_last=value[kernels.RTCP_LAST] if heard else None,
            bye=value[kernels.BYE] or None,
            takeovers=value[kernels.TAKEOVERS],
            moves=value[kernels.MOVES],
            strays=value[kernels.STRAYS],
            stray=stray,
            foreign=value[kernels.FOREIGN],
        )


def _kept(batch: PacketBatch, keep: Bytes) -> PacketBatch:
    if keep.all():
        return batch
    rows = keep != 0
    columns = {each.name: getattr(batch, each.name) for each in fields(batch)}
    return PacketBatch(**{name: column if name == "buffer" else column[rows] for name, column in columns.items()})


def _endpoint(high: int, low: int, port: int) -> Endpoint:
    return Endpoint(high & _HALF, low & _HALF, port)


def _signed(endpoint: Endpoint) -> Int64:
    """Columns of an endpoint."""
    return np.array([endpoint.high, endpoint.low, endpoint.port], np.uint64).view(np.int64)
