"""The clock of a network card that stamps frames itself, used only where it tells the same time as the machine.

In: an interface. Out: a `NicClock` and its distance from the machine's clock, or the reason why there is none. A card's
clock counts from anywhere until a program disciplines it (phc2sys of linuxptp), so its stamps are worth nothing by
themselves. Having a card stamp all frames needs CAP_NET_ADMIN, unless it does so already.
"""

import array
import fcntl
import os
import socket
import struct
import time

NEAR_NS = 10_000_000
"""A card's clock is taken into use when it is no further than this from the machine's, ..."""
FAR_NS = 100_000_000
"""... and out of use when it is further than this."""

_SIOCETHTOOL = 0x8946
_SIOCSHWTSTAMP = 0x89B0
_SIOCGHWTSTAMP = 0x89B1
_ETHTOOL_GET_TS_INFO = 0x41
_TS_INFO = struct.Struct("=IIiI12xI12x")
_CONFIG = struct.Struct("=iii")
_REQUEST = struct.Struct("@16sP16x")
_STAMPS_RECEIVED = 1 << 2 | 1 << 6
"""SOF_TIMESTAMPING_RX_HARDWARE, SOF_TIMESTAMPING_RAW_HARDWARE."""
_FILTER_ALL = 1


class NicClock:
    """The clock of a card that stamps every frame it receives."""

    def __init__(self, index: int) -> None:
        """`index`: of the clock, /dev/ptp<index>. Raises OSError where it may not be read."""
        self._descriptor = os.open(f"/dev/ptp{index}", os.O_RDONLY | os.O_CLOEXEC)
        self._clock = ~self._descriptor << 3 | 3
        """As FD_TO_CLOCKID has it (clock_gettime(2))."""

    def offset_ns(self) -> int:
        """How far it is ahead of the machine's clock."""
        before = time.time_ns()
        here = time.clock_gettime_ns(self._clock)
        return here - (before + time.time_ns()) // 2

    def close(self) -> None:
        """Let go of the descriptor."""
        os.close(self._descriptor)


def open_nic_clock(name: str) -> tuple[NicClock | None, str]:
    """The clock that stamps all frames of an interface from now on; or None and why, in the middle of a sentence."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            index = _stamping_clock(asking, name)
            if index is None:
                return None, "the network card stamps no frames"
            clock = NicClock(index)
            offset = abs(clock.offset_ns())
            if offset > NEAR_NS:
                clock.close()
                return None, f"the network card's clock is {offset / 1e9:.3f} s off (phc2sys would discipline it)"
            _stamp_all(asking, name)
        except OSError as error:
            return None, f"the network card's clock cannot be used ({error.strerror})"
        return clock, ""


def _stamping_clock(asking: socket.socket, name: str) -> int | None:
    """Number of the clock of a card that can stamp every frame, None where it cannot."""
    held = array.array("B", _TS_INFO.pack(_ETHTOOL_GET_TS_INFO, 0, -1, 0, 0))
    fcntl.ioctl(asking, _SIOCETHTOOL, _REQUEST.pack(name.encode(), held.buffer_info()[0]))
    _, stamps, index, _, filters = _TS_INFO.unpack(held)
    if stamps & _STAMPS_RECEIVED != _STAMPS_RECEIVED or index < 0 or filters >> _FILTER_ALL & 1 == 0:
        return None
    return int(index)


def _stamp_all(asking: socket.socket, name: str) -> None:
    """Have the card stamp all frames it receives; what it does for frames it sends (PTP) is left as it is."""
    held = array.array("B", bytes(_CONFIG.size))
    request = _REQUEST.pack(name.encode(), held.buffer_info()[0])
    try:
        fcntl.ioctl(asking, _SIOCGHWTSTAMP, request)
        flags, sent, received = _CONFIG.unpack(held)
    except OSError:
        flags, sent, received = 0, 0, 0
    if received != _FILTER_ALL:
        _CONFIG.pack_into(held, 0, flags, sent, _FILTER_ALL)
        fcntl.ioctl(asking, _SIOCSHWTSTAMP, request)
