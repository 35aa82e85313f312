"""IP addresses and transport endpoints as plain integers.

An address is two unsigned 64-bit halves of its IPv6 form, high first; IPv4 is kept IPv4-mapped (RFC 4291, section
2.5.5.2), so that one pair of integer columns and one comparison serve both families.
"""

import ipaddress
from typing import NamedTuple

V4_MAPPED = 0xFFFF << 32
"""Low half of an IPv4-mapped address with all IPv4 bits zero."""


class Endpoint(NamedTuple):
    """A transport address: the two halves of an address and a port."""

    high: int
    low: int
    port: int

    def __str__(self) -> str:
        host = format_address(self.high, self.low)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def host(self) -> str:
        """The address alone, as text."""
        return format_address(self.high, self.low)


def format_address(high: int, low: int) -> str:
    """Text of an address: dotted for IPv4, RFC 5952 for IPv6."""
    if high == 0 and low >> 32 == 0xFFFF:
        return str(ipaddress.IPv4Address(low & 0xFFFFFFFF))
    return str(ipaddress.IPv6Address(high << 64 | low))


def parse_endpoint(host: str, port: int) -> Endpoint | None:
    """Endpoint of a literal IPv4 or IPv6 address (brackets and zone allowed), None for names and nonsense."""
    try:
        address = ipaddress.ip_address(host.strip().strip("[]").partition("%")[0])
    except ValueError:
        return None
    if not 0 <= port <= 0xFFFF:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return Endpoint(0, V4_MAPPED | int(address), port)
    value = int(address)
    return Endpoint(value >> 64, value & 0xFFFFFFFFFFFFFFFF, port)
