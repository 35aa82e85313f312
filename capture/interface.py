"""Facts about network interfaces, asked of the Linux kernel over rtnetlink (rtnetlink(7)).

In: an interface's name. Out: an `Interface`, and the `Framing` that a packet socket gives its frames. The answers are
those of the network namespace in which an `InterfaceTable` was made, need no privileges, and nothing is ever changed.
"""

import errno
import socket
import struct
from dataclasses import dataclass

from capture.live import LiveCaptureError

ANY = "any"
"""Stands for all interfaces of the machine, as in tcpdump."""

ARPHRD_ETHER = 1
ARPHRD_LOOPBACK = 772
_IP_ONLY = {65534, 519}
"""ARPHRD_NONE (tun, WireGuard) and ARPHRD_RAWIP: frames begin with the IP header."""
_COOKED = {32, 512, 768, 769, 776, 778, 823}
"""InfiniBand, PPP, IP-in-IP, IPv6 tunnels, SIT, GRE, GRE over IPv6: their own headers differ from kernel to kernel, so
packets are taken from the network layer on, as tcpdump does."""

LINK_ETHERNET = 1
LINK_RAW = 101
LINK_SLL2 = 276

_RTM_GETLINK = 18
_RTM_NEWLINK = 16
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_REQUEST = 1
_NLM_F_DUMP = 0x300
_IFLA_IFNAME = 3
_IFLA_MTU = 4
_IFLA_EXT_MASK = 29
_IFLA_PROMISCUITY = 30
_SKIP_STATISTICS = 8
_IFF_UP = 0x1
_IFF_RUNNING = 0x40
_LONGEST_NAME = 15

_HEADER = struct.Struct("=IHHII")
_IFINFO = struct.Struct("=BxHiII")
_ATTRIBUTE = struct.Struct("=HH")
_U32 = struct.Struct("=I")


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface as it is now."""

    name: str
    index: int
    """Another one when the interface was deleted and made again."""
    hardware_type: int
    """An ARPHRD_ value."""
    up: bool
    """Switched on."""
    running: bool
    """Switched on, and its cable or its peer is there."""
    promiscuity: int
    """How many have asked for promiscuous mode."""
    mtu: int

    @property
    def is_loopback(self) -> bool:
        """Whether it shows every packet twice, going out and coming in."""
        return self.hardware_type == ARPHRD_LOOPBACK


@dataclass(frozen=True, slots=True)
class Framing:
    """How frames of an interface come out of a packet socket."""

    link_type: int
    """A LINKTYPE_ value."""
    cooked: bool
    """The kernel gives the network layer on; the source writes a Linux SLL2 header before it."""


def framing(interface: Interface | None) -> Framing:
    """Framing of an interface, or of `any` (None). Raises `LiveCaptureError` where there are no packets to be had."""
    if interface is None or interface.hardware_type in _COOKED:
        return Framing(LINK_SLL2, cooked=True)
    if interface.hardware_type in (ARPHRD_ETHER, ARPHRD_LOOPBACK):
        return Framing(LINK_ETHERNET, cooked=False)
    if interface.hardware_type in _IP_ONLY:
        return Framing(LINK_RAW, cooked=False)
    raise LiveCaptureError(
        f"{interface.name}: interfaces of hardware type {interface.hardware_type} carry no IP packets that could be "
        f"recorded (Ethernet, loopback, tun, PPP and IP tunnels do). Name another interface."
    )


class InterfaceTable:
    """The interfaces of the network namespace that the calling thread is in when this is made."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.settimeout(2.0)
        self._sequence = 0

    def find(self, name: str) -> Interface | None:
        """The interface of this name, None where there is none."""
        if not 0 < len(name.encode()) <= _LONGEST_NAME or "\0" in name:
            return None
        wanted = name.encode() + b"\0"
        found = self._ask(0, _attribute(_IFLA_IFNAME, wanted))
        return found[0] if found else None

    def names(self) -> list[str]:
        """All names, in the kernel's order."""
        return [interface.name for interface in self._ask(_NLM_F_DUMP, b"")]

    def require(self, name: str) -> Interface:
        """The interface of this name; raises `LiveCaptureError` where there is none."""
        found = self.find(name)
        if found is None:
            others = ", ".join(self.names()) or "none"
            raise LiveCaptureError(f"There is no interface {name!r}. There are: {others}; {ANY!r} stands for all.")
        return found

    def close(self) -> None:
        """Let go of the descriptor."""
        self._socket.close()

    def _ask(self, flags: int, attributes: bytes) -> list[Interface]:
        """Send a request for links and read its answers."""
        self._sequence += 1
        body = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _attribute(_IFLA_EXT_MASK, _U32.pack(_SKIP_STATISTICS))
        body += attributes
        head = _HEADER.pack(_HEADER.size + len(body), _RTM_GETLINK, _NLM_F_REQUEST | flags, self._sequence, 0)
        self._socket.send(head + body)
        found: list[Interface] = []
        while True:
            data = self._socket.recv(1 << 17)
            at = 0
            while at + _HEADER.size <= len(data):
                length, kind, _, sequence, _ = _HEADER.unpack_from(data, at)
                message = data[at + _HEADER.size : at + length]
                at += max(_aligned(length), _HEADER.size)
                if sequence != self._sequence:
                    continue  # the late answer to a question that timed out
                if kind == _NLMSG_DONE:
                    return found
                if kind == _NLMSG_ERROR:
                    _raise_unless_absent(message)
                    return found
                if kind == _RTM_NEWLINK:
                    found.append(_interface(message))
                    if not flags:
                        return found


def _raise_unless_absent(message: bytes) -> None:
    """That an interface does not exist is an answer, everything else an error."""
    code = -struct.unpack_from("=i", message)[0]
    if code not in (0, errno.ENODEV):
        raise OSError(code, "the kernel refuses to tell about interfaces")


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(_aligned(length) - length)


def _interface(message: bytes) -> Interface:
    """What an RTM_NEWLINK message tells."""
    _, hardware_type, index, flags, _ = _IFINFO.unpack_from(message)
    name, mtu, promiscuity = "", 0, 0
    at = _IFINFO.size
    while at + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, at)
        value = message[at + _ATTRIBUTE.size : at + length]
        if kind == _IFLA_IFNAME:
            name = value.rstrip(b"\0").decode(errors="replace")
        elif kind == _IFLA_MTU:
            mtu = _U32.unpack(value)[0]
        elif kind == _IFLA_PROMISCUITY:
            promiscuity = _U32.unpack(value)[0]
        at += max(_aligned(length), _ATTRIBUTE.size)
    up = bool(flags & _IFF_UP)
    return Interface(name, index, hardware_type, up, up and bool(flags & _IFF_RUNNING), promiscuity, mtu)
