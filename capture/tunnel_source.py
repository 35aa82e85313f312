"""Mirrors that end at this machine: ERSPAN and other GRE, VXLAN, GENEVE and TZSP sent to one of its own addresses.

In: the address that the switch or cloud sends to. Out: a `LiveSource` of raw IP frames with the tunnels still around
what they carry, which `capture.layers` strips as it does everywhere. The kernel takes the packets as any host's, so
there is no promiscuous mode and no interface to name; it puts fragments together, and it sends no ICMP errors to the
switch. GRE needs CAP_NET_RAW while opening, the others nothing.

A ring on the interface that the tunnels come in on would see and unwrap them as well: `expression` says what such a
ring is to leave out (`RingOptions.excluded`), so that nothing comes twice.

Never answers, never raises on what comes, never runs Python per packet.
"""

import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from capture.batch import Bytes, Int64, PacketBatch
from capture.datagram_slots import DatagramSlots, ask_for_times
from capture.listening import Address, kernel_drops, open_socket, parse_address
from capture.live import LiveCaptureError, SourceCounters

GRE = 47
"""IP protocol of ERSPAN's carrier."""
UDP_PORTS = (4789, 6081, 37008)
"""VXLAN, GENEVE and TZSP."""
LINKTYPE_RAW = 101
MOST_FRAME = 9600
"""Octets kept of a datagram: a jumbo frame and its tunnel."""
SLOTS = 1024
RECEIVE_BUFFER = 64 << 20
GATHER = 0.005
"""Seconds that a poll waits for more once something has come: few large batches cost less than many small ones."""

_UDP_HEAD = 8
_IPV6_HEAD = 40
_HEADROOM = 64


@dataclass(slots=True)
class _Opened:
    """A socket, and how its datagrams become frames."""

    socket: socket.socket
    head: int
    """Octets to put before a datagram: none where the kernel hands out the IP header."""
    template: bytes
    """These, with lengths, sender and source port to fill in."""
    dropped: int = 0

    def count_drops(self) -> int:
        """Datagrams that the kernel dropped so far; known for ever once it was asked."""
        self.dropped = max(self.dropped, kernel_drops(self.socket))
        return self.dropped


class TunnelSource:
    """A `LiveSource` of what is sent through tunnels to one address."""

    stamped_here = True
    ended = False

    def __init__(
        self, address: str, *, gre: bool = True, udp_ports: Sequence[int] = UDP_PORTS, capture: int = 0
    ) -> None:
        """Take tunnels to `address`: GRE where `gre`, and those over UDP at `udp_ports`.

        `capture` is the source's index in its batches.

        Raises:
            LiveCaptureError: it is no address of this machine, a port is taken, or a right is missing.
        """
        self._address = parse_address(address)
        if self._address.is_unspecified:
            raise LiveCaptureError(f"{address} is every address of this machine: name the one that tunnels are sent to")
        self._gre = gre
        self._ports = tuple(udp_ports)
        if not gre and not self._ports:
            raise LiveCaptureError("no kind of tunnel is left to listen for: allow GRE, or name a UDP port")
        self.name = f"tunnels to {self._address}"
        self._capture = capture
        self._slots = DatagramSlots(SLOTS, _HEADROOM, MOST_FRAME)
        self._flat = self._slots.rows.reshape(-1)
        self._flat.flags.writeable = False
        self._selector = selectors.DefaultSelector()
        self._opened: list[_Opened] = []
        self._first = 0
        """Whose turn it is to be read before the others."""
        self._packets = self._octets = self._cut = 0
        self._closed = False
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    @property
    def expression(self) -> str:
        """A tcpdump expression of the frames that are taken here."""
        kinds = ["proto 47"] if self._gre else []
        kinds += [f"udp dst port {port}" for port in self._ports]
        kinds.append("ip6 proto 44" if self._address.version == 6 else "ip[6:2] & 0x1fff != 0")
        return f"dst host {self._address} and ({' or '.join(kinds)})"

    def poll(self, timeout: float) -> PacketBatch | None:
        """The next frames; None where nothing came within `timeout` seconds."""
        if self._closed:
            return None
        begun = time.monotonic()
        if not self._selector.select(timeout):
            return None
        time.sleep(max(min(GATHER, begun + timeout - time.monotonic()), 0.0))
        count = 0
        offsets: list[Int64] = []
        self._first = (self._first + 1) % len(self._opened)
        for opened in (*self._opened[self._first :], *self._opened[: self._first]):
            got = self._slots.receive(opened.socket, count)
            if got:
                offsets.append(self._frame(opened, count, got))
                count += got
        return self._batch(count, np.concatenate(offsets)) if count else None

    def counters(self) -> SourceCounters:
        """Counts since the source was opened."""
        cut = f"frames cut at {MOST_FRAME} octets: {self._cut}" if self._cut else None
        return SourceCounters(
            packets=self._packets,
            octets=self._octets,
            dropped=sum(opened.count_drops() for opened in self._opened),
            frozen=0,
            up=not self._closed,
            note=cut,
        )

    def close(self) -> None:
        """Close the sockets."""
        if self._closed:
            return
        self._closed = True
        self._selector.close()
        for opened in self._opened:
            opened.count_drops()
            opened.socket.close()

    def _open(self) -> None:
        version = self._address.version
        if self._gre:
            # An IPv4 raw socket hands out the IP header, an IPv6 one does not (RFC 3542, section 3).
            template = b"" if version == 4 else _ip_head(self._address, GRE)
            self._add(open_socket(self._address, socket.SOCK_RAW, 0, GRE, RECEIVE_BUFFER), template)
        for port in self._ports:
            template = _ip_head(self._address, socket.IPPROTO_UDP) + b"\0\0" + port.to_bytes(2, "big") + bytes(4)
            self._add(open_socket(self._address, socket.SOCK_DGRAM, port, 0, RECEIVE_BUFFER), template)

    def _add(self, opened: socket.socket, template: bytes) -> None:
        self._opened.append(_Opened(opened, len(template), template))
        ask_for_times(opened)
        self._selector.register(opened, selectors.EVENT_READ)

    def _frame(self, opened: _Opened, begin: int, count: int) -> Int64:
        """Put headers before `count` datagrams from row `begin` on; where their frames begin in the buffer."""
        slots = self._slots
        head = opened.head
        start = slots.headroom - head
        if head:
            put = _put_head_4 if self._address.version == 4 else _put_head_6
            rows = slice(begin, begin + count)
            frames = slots.rows[rows, start:]
            frames[:, :head] = np.frombuffer(opened.template, np.uint8)
            put(frames, slots.lengths[rows], slots.names[rows], head)
        return np.arange(begin, begin + count, dtype=np.int64) * slots.stride + start

    def _batch(self, count: int, offset: Int64) -> PacketBatch:
        slots = self._slots
        head = slots.headroom - offset % slots.stride
        lengths = slots.lengths[:count]
        wire = (lengths + head).astype(np.int32)
        self._cut += int((lengths > slots.room).sum())
        self._packets += count
        self._octets += int(wire.sum())
        return PacketBatch(
            buffer=self._flat,
            time=slots.times[:count].copy(),
            offset=offset,
            captured=(np.minimum(lengths, slots.room) + head).astype(np.int32),
            wire=wire,
            link_type=np.full(count, LINKTYPE_RAW, np.int32),
            number=np.arange(self._packets - count + 1, self._packets + 1, dtype=np.int64),
            capture=np.full(count, self._capture, np.int32),
        )


def _ip_head(destination: Address, protocol: int) -> bytes:
    """An IP header to `destination` with length, checksum and source left to fill in."""
    if destination.version == 4:
        return bytes([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0]) + bytes(4) + destination.packed
    return bytes([0x60, 0, 0, 0, 0, 0, protocol, 64]) + bytes(16) + destination.packed


def _put_head_4(frames: Bytes, lengths: Int64, names: Bytes, head: int) -> None:
    """Fill in the IPv4 and UDP headers that frames begin with; `names` are struct sockaddr_in."""
    frames[:, 2:4] = _big_endian(lengths + head)
    frames[:, 12:16] = names[:, 4:8]
    frames[:, 20:22] = names[:, 2:4]
    frames[:, 24:26] = _big_endian(lengths + _UDP_HEAD)
    total = frames[:, 0:20:2].sum(1, np.int64) * 256 + frames[:, 1:20:2].sum(1, np.int64)
    frames[:, 10:12] = _big_endian(0xFFFF - total % 0xFFFF)  # RFC 1071, as the value modulo 65535


def _put_head_6(frames: Bytes, lengths: Int64, names: Bytes, head: int) -> None:
    """The same of IPv6, and UDP where `head` has room for it, without a checksum (RFC 6935); struct sockaddr_in6."""
    frames[:, 4:6] = _big_endian(lengths + head - _IPV6_HEAD)
    frames[:, 8:24] = names[:, 8:24]
    if head > _IPV6_HEAD:
        frames[:, 40:42] = names[:, 2:4]
        frames[:, 44:46] = _big_endian(lengths + _UDP_HEAD)


def _big_endian(values: Int64) -> Bytes:
    """Shape (n, 2): numbers of 16 bits in network order."""
    return values.astype(">u2").view(np.uint8).reshape(-1, 2)
