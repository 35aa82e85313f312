"""Sockets that listen for packets which other hosts send here.

In: addresses as a user writes them. Out: bound sockets with large buffers, and how many datagrams the kernel had to
drop for them. Only literal addresses are taken, so that no name server decides who may send. What a user can cause
raises `LiveCaptureError`.
"""

import errno
import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

from capture.live import LiveCaptureError

Address = IPv4Address | IPv6Address

RECEIVE_BUFFER = 16 << 20
"""Octets that the kernel may hold for a socket; the system's own limit counts where we are no administrator."""

_SO_RCVBUFFORCE = 33
_SO_MEMINFO = 55
_MEMORY_FACTS = 9
_DROPS = 8
"""Place of the count of drops in SO_MEMINFO (linux/sock_diag.h)."""


def parse_address(text: str) -> Address:
    """A literal address, brackets around IPv6 allowed. Raises LiveCaptureError for anything else."""
    try:
        return ip_address(text[1:-1] if text.startswith("[") and text.endswith("]") else text)
    except ValueError:
        raise LiveCaptureError(
            f"{text!r} is no IP address: give the address of this machine to listen on, such as 127.0.0.1 or [::1]"
        ) from None


def parse_place(text: str, port: int) -> tuple[Address, int]:
    """An address and a port from `127.0.0.1:9060`, `[::1]:9060`, or an address alone, which then has `port`.

    Raises:
        LiveCaptureError: it is none of these.
    """
    host, colon, number = text.rpartition(":")
    alone = not colon or text.endswith("]") or (":" in host and not host.endswith("]"))
    if alone:
        return parse_address(text), port
    if not (number.isascii() and number.isdigit() and int(number) <= 0xFFFF):
        raise LiveCaptureError(f"{text!r} has no port from 0 to 65535 behind its colon: write it as 127.0.0.1:{port}")
    return parse_address(host), int(number)


def format_place(address: Address, port: int) -> str:
    """What `parse_place` reads."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def open_socket(
    address: Address, kind: socket.SocketKind, port: int, protocol: int = 0, buffer: int = RECEIVE_BUFFER
) -> socket.socket:
    """A bound socket that never blocks: raw with `protocol`, of datagrams with `buffer` octets, or a listening stream.

    Raises:
        LiveCaptureError: it cannot be had; the text says why and what to do.
    """
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    place = str(address) if kind == socket.SOCK_RAW else format_place(address, port)
    try:
        opened = socket.socket(family, kind, protocol)
    except OSError as error:
        raise LiveCaptureError(_explain(place, error)) from error
    try:
        if family == socket.AF_INET6 and kind != socket.SOCK_RAW:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            _enlarge(opened, buffer)
        opened.setblocking(False)
        opened.bind((str(address), port))
        if kind == socket.SOCK_STREAM:
            opened.listen()
    except OSError as error:
        opened.close()
        raise LiveCaptureError(_explain(place, error)) from error
    return opened


def kernel_drops(opened: socket.socket) -> int:
    """Datagrams that the kernel has dropped because this socket was full; 0 where the system does not say."""
    try:
        facts = opened.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4 * _MEMORY_FACTS)
    except OSError:
        return 0
    return int(struct.unpack_from("=I", facts, 4 * _DROPS)[0]) if len(facts) > 4 * _DROPS else 0


def _enlarge(opened: socket.socket, octets: int) -> None:
    try:
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, octets)
    except OSError:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, octets)


def _explain(place: str, error: OSError) -> str:
    advice = {
        errno.EADDRINUSE: "another program listens there: stop it, or choose another port",
        errno.EADDRNOTAVAIL: "this machine does not have that address: `ip address` shows those it has",
        errno.EACCES: "that takes more rights: choose a port above 1023, or give CAP_NET_BIND_SERVICE",
        errno.EPERM: "that takes the right to open raw sockets: give CAP_NET_RAW",
        errno.EAFNOSUPPORT: "this machine has no IP of that version",
    }.get(error.errno or 0, error.strerror or "the system refuses")
    return f"cannot listen on {place}: {advice}"
