"""SIP over UDP: one socket of ours, with what the system learns of peers that are not there.

In: datagrams to send. Out: datagrams that came, and for those that cannot have arrived, why: errors of the socket, and
ICMP as Linux hands it to the sender (IP_RECVERR). Never blocks. Bounded: datagrams of one wake-up, destinations whose
failure somebody waits for.
"""

import asyncio
import os
import socket
import struct
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

from capture.address import Endpoint, parse_endpoint
from recorder.sip_ua.wire import Failed

MOST_AT_ONCE = 64
LARGEST = 65_535
_MOST_WAITING = 4096
_RECVERR = {socket.AF_INET: (socket.IPPROTO_IP, 11), socket.AF_INET6: (socket.IPPROTO_IPV6, 25)}
"""IP_RECVERR and IPV6_RECVERR of linux/in.h and linux/in6.h."""
_ERRQUEUE = 0x2000
_ERROR = struct.Struct("=IBBBBII")
"""struct sock_extended_err: errno, origin, type, code, padding, info, data."""
_BUFFER = 1 << 20

Received = Callable[[bytes, Endpoint], None]


class DatagramSocket:
    """A bound UDP socket in the running loop."""

    def __init__(self, endpoint: Endpoint, received: Received) -> None:
        """Bind it; port 0: any. Raises OSError."""
        self._received = received
        self._waiting: OrderedDict[Endpoint, Failed] = OrderedDict()
        """Destination -> who is told that nobody is there."""
        self._buffer = bytearray(LARGEST)
        """A datagram is copied from here to memory of its own size: what is cut to size leaves holes."""
        self._loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
        self._socket = opened = socket.socket(family, socket.SOCK_DGRAM)
        try:
            opened.setblocking(False)
            if family == socket.AF_INET6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            with suppress(OSError):
                opened.setsockopt(*_RECVERR[family], 1)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            opened.bind((endpoint.host, endpoint.port))
            host, port = opened.getsockname()[:2]
            bound = parse_endpoint(host, port)
            assert bound is not None
            self.local = bound
        except BaseException:
            opened.close()
            raise
        self.ipv6 = family == socket.AF_INET6
        self._loop.add_reader(opened.fileno(), self._read)

    def send(self, data: bytes, to: Endpoint, failed: Failed | None) -> None:
        """Send one datagram."""
        if failed is not None:
            self._waiting.pop(to, None)
            self._waiting[to] = failed
            if len(self._waiting) > _MOST_WAITING:
                self._waiting.popitem(last=False)
        for _ in range(2):
            try:
                self._socket.sendto(data, (to.host, to.port))
                return
            except (BlockingIOError, InterruptedError):
                return  # as good as lost on the way: SIP sends again
            except ConnectionRefusedError:
                self._read_errors()  # of an earlier datagram; the system took it for this one
            except OSError as error:
                self._waiting.pop(to, None)
                if failed is not None:
                    self._loop.call_soon(failed, error.strerror or str(error))
                return

    def close(self) -> None:
        """Close it."""
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._waiting.clear()

    def _read(self) -> None:
        self._read_errors()
        for _ in range(MOST_AT_ONCE):
            try:
                octets, address = self._socket.recvfrom_into(self._buffer)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # an ICMP error; its details are in the queue
            source, data = parse_endpoint(address[0], address[1]), bytes(memoryview(self._buffer)[:octets])
            if source is not None and data.strip(b"\r\n\0 "):
                self._waiting.pop(source, None)
                self._received(data, source)

    def _read_errors(self) -> None:
        for _ in range(MOST_AT_ONCE):
            try:
                _, control, _, address = self._socket.recvmsg(1, 512, _ERRQUEUE)
            except OSError:
                return
            to = parse_endpoint(address[0], address[1]) if address else None
            failed = self._waiting.pop(to, None) if to is not None else None
            if failed is not None:
                failed(_phrase(control))


def _phrase(control: list[tuple[int, int, bytes]]) -> str:
    for _, _, data in control:
        if len(data) >= _ERROR.size:
            return os.strerror(_ERROR.unpack_from(data)[0]).lower()
    return "unreachable"
