"""Settings of a network adapter that decide what is left of a mirror's frames when they get here.

In: an interface's name. Out: an `Adapter`, from ethtool's ioctls, which need no privileges to read, /sys and /proc/net.
What a driver does not tell is None or absent. Never changes a setting.
"""

import ctypes
import fcntl
import ipaddress
import socket
import struct
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from capture.interface import Interface, InterfaceTable

_SIOCETHTOOL = 0x8946
_SIOCGIFADDR = 0x8915
_SIOCGIFHWADDR = 0x8927
_GSET, _GDRVINFO, _GRINGPARAM, _GSTRINGS, _GSSET_INFO, _GFEATURES, _GCHANNELS = 0x01, 0x03, 0x10, 0x1B, 0x37, 0x3A, 0x3C
_SS_FEATURES = 4
_NAME_LENGTH = 32
_MOST_FEATURES = 256
_UNKNOWN_SPEED = 0xFFFFFFFF
_FULL_DUPLEX, _HALF_DUPLEX = 1, 0


@dataclass(frozen=True, slots=True)
class ReceiveCounters:
    """What was counted on reception since the interface was made; 0 for what the driver does not count."""

    packets: int = 0
    missed: int = 0
    """Lost for want of room in the adapter's receive ring, or inside the adapter."""
    length: int = 0
    """Longer than the interface's MTU allows, or too short."""
    damaged: int = 0
    """The checksum of the frame was wrong, or it had no whole octets."""
    queue: int = 0
    """Lost for want of room in the kernel's queue before all programs, of all interfaces (`capture.early_drops`)."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """An interface's settings as they are now."""

    interface: Interface
    driver: str | None
    hardware_address: bytes
    speed: int | None
    """Mbit/s."""
    full_duplex: bool | None
    features: dict[str, bool]
    """Of reception, by the kernel's names: rx-gro, rx-lro, rx-vlan-hw-parse... Empty where they cannot be asked for."""
    ring: int | None
    """Frames that the receive ring holds."""
    ring_limit: int | None
    """Frames that it could be set to."""
    queues: int | None
    """That received frames are spread over."""
    addresses: tuple[str, ...]
    """IP addresses of this machine on the interface."""
    in_bridge: bool
    counters: ReceiveCounters


def read_adapter(name: str) -> Adapter:
    """The adapter behind an interface. Raises `LiveCaptureError` where there is no such interface."""
    with closing(InterfaceTable()) as table:
        interface = table.require(name)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        told = _Told(asking, name)
        speed, full_duplex = _link(told)
        ring = told.words(_GRINGPARAM, 9)
        channels = told.words(_GCHANNELS, 9)
        return Adapter(
            interface=interface,
            driver=_driver(told),
            hardware_address=told.request(_SIOCGIFHWADDR)[18:24],
            speed=speed,
            full_duplex=full_duplex,
            features=_features(told),
            ring=ring[5] if ring and ring[1] else None,
            ring_limit=ring[1] if ring and ring[1] else None,
            queues=channels[5] + channels[8] if channels else None,
            addresses=(*_ipv4(told), *_ipv6(name)),
            in_bridge=Path(f"/sys/class/net/{name}/brport").exists(),
            counters=read_counters(name),
        )


def read_counters(name: str) -> ReceiveCounters:
    """The counters alone; zeros where there is no such interface."""

    def read(counter: str) -> int:
        try:
            return int(Path(f"/sys/class/net/{name}/statistics/rx_{counter}").read_text())
        except OSError:
            return 0

    return ReceiveCounters(
        packets=read("packets"),
        missed=read("missed_errors") + read("fifo_errors"),
        length=read("length_errors"),
        damaged=read("crc_errors") + read("frame_errors"),
    )


class _Told:
    """Answers to ioctls about one interface; empty where the driver has none."""

    def __init__(self, asking: socket.socket, name: str) -> None:
        self._asking = asking
        self._name = name.encode()

    def request(self, number: int) -> bytes:
        """A plain request; the struct ifreq that comes back, zeros where there is nothing."""
        try:
            return fcntl.ioctl(self._asking, number, struct.pack("16s24x", self._name))
        except OSError:
            return bytes(40)

    def ethtool(self, question: bytes, size: int) -> bytes:
        """An ethtool command that begins with `question`, in a structure of `size` octets."""
        structure = ctypes.create_string_buffer(question, size)
        try:
            fcntl.ioctl(self._asking, _SIOCETHTOOL, struct.pack("16sP16x", self._name, ctypes.addressof(structure)))
        except OSError:
            return b""
        return structure.raw

    def words(self, command: int, count: int) -> tuple[int, ...]:
        """An ethtool command whose structure is `count` 32-bit words, the first of them the command."""
        answer = self.ethtool(struct.pack("=I", command), 4 * count)
        return struct.unpack(f"={count}I", answer) if answer else ()


def _driver(told: _Told) -> str | None:
    answer = told.ethtool(struct.pack("=I", _GDRVINFO), 196)
    return answer[4:36].partition(b"\0")[0].decode(errors="replace") or None


def _link(told: _Told) -> tuple[int | None, bool | None]:
    """Speed in Mbit/s and whether it is full duplex (struct ethtool_cmd)."""
    answer = told.ethtool(struct.pack("=I", _GSET), 44)
    if not answer:
        return None, None
    low, duplex = struct.unpack_from("=HB", answer, 12)
    (high,) = struct.unpack_from("=H", answer, 28)
    speed = high << 16 | low
    known = speed not in (0, 0xFFFF, _UNKNOWN_SPEED)
    return speed if known else None, {_FULL_DUPLEX: True, _HALF_DUPLEX: False}.get(duplex)


def _features(told: _Told) -> dict[str, bool]:
    # struct ethtool_sset_info for one set of names: its length comes after a 64-bit mask
    answer = told.ethtool(struct.pack("=IIQ", _GSSET_INFO, 0, 1 << _SS_FEATURES), 20)
    count = min(struct.unpack_from("=I", answer, 16)[0], _MOST_FEATURES) if answer else 0
    names = told.ethtool(struct.pack("=III", _GSTRINGS, _SS_FEATURES, count), 12 + count * _NAME_LENGTH)
    blocks = (count + 31) // 32
    states = told.ethtool(struct.pack("=II", _GFEATURES, blocks), 8 + 16 * blocks)
    if not (count and names and states):
        return {}
    features = {}
    for number in range(count):
        at = 12 + number * _NAME_LENGTH
        name = names[at : at + _NAME_LENGTH].partition(b"\0")[0].decode(errors="replace")
        # each block: available, requested, active, never changed
        (active,) = struct.unpack_from("=I", states, 8 + 16 * (number // 32) + 8)
        if name.startswith("rx-"):
            features[name] = bool(active >> number % 32 & 1)
    return features


def _ipv4(told: _Told) -> list[str]:
    """The first IPv4 address."""
    family, address = struct.unpack_from("=H2x4s", told.request(_SIOCGIFADDR), 16)
    return [str(ipaddress.IPv4Address(address))] if family == socket.AF_INET else []


def _ipv6(name: str) -> list[str]:
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except FileNotFoundError:
        return []
    rows = [line.split() for line in lines]
    return [str(ipaddress.IPv6Address(int(row[0], 16))) for row in rows if row[-1] == name]
