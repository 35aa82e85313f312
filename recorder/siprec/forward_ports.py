"""The sockets of a leg: a pair of UDP ports of its own, bound on the address that its session announced.

In: an address of this machine, and the address of a recording server. Out: a socket for RTP and one for RTCP, which
never wait. Sending never raises. Ports come from a `PortPool` and go back to it when the pair is closed.
"""

import errno
import socket
from dataclasses import dataclass

from capture.address import Endpoint, parse_endpoint
from capture.port_pool import PortPool, PortsExhausted

LOW_PORT = 35000
HIGH_PORT = 39999
_SEND_BUFFER = 256 << 10
_RECEIVE_BUFFER = 16 << 10
"""Nothing but reports comes back."""
_TRIES = 256
MOST_DATAGRAM = 2048


@dataclass(slots=True)
class PortPair:
    """Two open sockets."""

    rtp_socket: socket.socket
    rtcp_socket: socket.socket
    rtp: Endpoint
    rtcp: Endpoint
    _pool: PortPool

    @classmethod
    def take(cls, pool: PortPool, host: str) -> "PortPair":
        """Bind a pair on an address of this machine. Raises PortsExhausted."""
        local = parse_endpoint(host, 0)
        if local is None:
            raise PortsExhausted(f"media cannot be sent from {host}: give an IP address of this machine")
        family = socket.AF_INET if local.high == 0 and local.low >> 32 == 0xFFFF else socket.AF_INET6
        for _ in range(_TRIES):
            port = pool.take()
            opened: list[socket.socket] = []
            try:
                opened.append(_open(family, local.host, port))
                opened.append(_open(family, local.host, port + 1))
            except OSError as error:
                for socket_ in opened:
                    socket_.close()
                pool.give_back(port)
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    raise PortsExhausted("no file descriptor is left for media: raise the limit (ulimit -n)") from error
                if error.errno != errno.EADDRINUSE:
                    raise PortsExhausted(f"media cannot be sent from {host}: {error.strerror}") from error
                continue
            rtp, rtcp = local._replace(port=port), local._replace(port=port + 1)
            return cls(opened[0], opened[1], rtp, rtcp, pool)
        raise PortsExhausted("other programs hold the ports for media that is sent: give another range")

    def connect(self, remote: Endpoint) -> bool:
        """Send RTP there from now on; False where the system says that there is no way."""
        try:
            self.rtp_socket.connect((remote.host, remote.port))
            # What came back from where it sent before is no answer of the new end.
            self.rtp_socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close both and give the ports back."""
        self.rtp_socket.close()
        self.rtcp_socket.close()
        self._pool.give_back(self.rtp.port)


def _open(family: int, host: str, port: int) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_DGRAM)
    try:
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        opened.bind((host, port))
    except OSError:
        opened.close()
        raise
    return opened
