"""Where the user agent listens, as settings say it: `udp:127.0.0.1:5060`, `tcp:[::1]:5060`, `tls:0.0.0.0:5061`.

In: text. Out: `Listen`. No name is looked up: an address is an address.
"""

from dataclasses import dataclass

from capture.address import Endpoint, parse_endpoint
from capture.errors import SpanrecError
from recorder.model import Transport

PORTS = {Transport.UDP: 5060, Transport.TCP: 5060, Transport.TLS: 5061}
"""Of a transport where none is given (RFC 3261, section 19.1.2)."""


class ListenError(SpanrecError):
    """An address cannot be listened at."""


@dataclass(frozen=True, slots=True)
class Listen:
    """A transport and an address of this machine."""

    transport: Transport
    endpoint: Endpoint
    """Port 0: any."""

    def __str__(self) -> str:
        return f"{self.transport}:{self.endpoint}"


def parse_listen(text: str) -> Listen:
    """Read one. Raises ListenError."""
    name, _, address = text.strip().partition(":")
    try:
        transport = Transport(name.lower())
        default = PORTS[transport]
    except (ValueError, KeyError) as error:
        raise _odd(text) from error
    host, port = address, str(default)
    if address.startswith("["):
        host, _, rest = address[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif address.count(":") == 1:
        host, _, port = address.partition(":")
    endpoint = parse_endpoint(host, int(port)) if port.isdecimal() and len(port) < 6 else None
    if endpoint is None:
        raise _odd(text)
    return Listen(transport, endpoint)


def _odd(text: str) -> ListenError:
    return ListenError(f"{text!r}: is no address to listen at; write udp:127.0.0.1:5060, tcp:[::1]:5060 or tls:…:5061")
