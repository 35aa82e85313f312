"""The column types that carry packets from a source to the decoders.

In: whatever a source reads. Out: `PacketBatch` (frames) and, one per batch, `DatagramBatch` (transport payloads).
Never one object per packet.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]
UInt64 = NDArray[np.uint64]
UInt32 = NDArray[np.uint32]
UInt16 = NDArray[np.uint16]
UInt8 = NDArray[np.uint8]

KIND_NONE = 0
"""Nothing that spanrec can use (ARP, ICMP, an unknown link type, a damaged header)."""
KIND_UDP = 1
"""A whole UDP datagram; `payload` and `length` give its payload."""
KIND_TCP = 2
"""A TCP segment; `payload` points at the TCP header."""
KIND_FRAGMENT = 3
"""An IP fragment; `payload` points at the innermost IP header."""
KIND_OTHER = 4
"""An IP packet of another protocol that the columns do not follow (SCTP, ESP...)."""


@dataclass(slots=True)
class PacketBatch:
    """Frames in capture order over one buffer. All columns have shape (n,).

    `buffer` is only promised to stay unchanged until the batch has been ingested.
    """

    buffer: Bytes
    time: Int64
    """Capture time, ns since the epoch, UTC."""
    offset: Int64
    """Of the frame's first octet in `buffer`."""
    captured: Int32
    """Octets present in `buffer`."""
    wire: Int32
    """Octets the frame had on the wire (>= captured where a snap length cut it)."""
    link_type: Int32
    """LINKTYPE_ value of each frame's interface (https://www.tcpdump.org/linktypes.html)."""
    number: Int64
    """Frame number within its capture, from 1, as Wireshark counts."""
    capture: Int32
    """Index of the capture (file) that the frame came from."""

    def __len__(self) -> int:
        return len(self.time)


@dataclass(slots=True)
class DatagramBatch:
    """What the link, tunnel, network and transport layers of a `PacketBatch` say. Same length and order."""

    packets: PacketBatch
    kind: UInt8
    """One of the KIND_ values."""
    payload: Int64
    """Offset in the buffer; see the KIND_ values for of what."""
    length: Int32
    """Octets present there (captured, trailing link padding removed)."""
    missing: Int32
    """Octets that the headers promise but the snap length cut off."""
    source_high: UInt64
    source_low: UInt64
    destination_high: UInt64
    destination_low: UInt64
    source_port: UInt16
    destination_port: UInt16
    realm: UInt32
    """Hash of the VLAN tags and tunnel identifiers around the packet, 0 where there are none: equal addresses in
    different realms are different hosts."""
    ip_id: UInt16
    """IPv4 identification, 0 for IPv6."""

    def __len__(self) -> int:
        return len(self.kind)
