"""IP addresses and transport endpoints as plain integers.

An address is two unsigned 64-bit halves of its IPv6 form, high first; IPv4 is kept IPv4-mapped (RFC 4291, section
2.5.5.2), so that one pair of integer columns and one comparison serve both families.
"""

import ipaddress
from functools import lru_cache
from typing import NamedTuple

V4_MAPPED = 0xFFFF << 32
"""Low half of an IPv4-mapped address with all IPv4 bits zero."""


class Endpoint(NamedTuple):
    """A transport address: the two halves of an address and a port."""

    high: int
    low: int
    port: int

    def __str__(self) -> str:
        return _text_of(self)

    @property
    def host(self) -> str:
        """The address alone, as text."""
        return format_address(self.high, self.low)


@lru_cache(maxsize=4096)
def _text_of(endpoint: Endpoint) -> str:
    """Trace, document and metadata of a call name the same few endpoints."""
    host = format_address(endpoint.high, endpoint.low)
    return f"[{host}]:{endpoint.port}" if ":" in host else f"{host}:{endpoint.port}"


def format_address(high: int, low: int) -> str:
    """Text of an address: dotted for IPv4, RFC 5952 for IPv6."""
    if high == 0 and low >> 32 == 0xFFFF:
        return f"{low >> 24 & 255}.{low >> 16 & 255}.{low >> 8 & 255}.{low & 255}"
    return str(ipaddress.IPv6Address(high << 64 | low))


def parse_endpoint(host: str, port: int) -> Endpoint | None:
    """Endpoint of a literal IPv4 or IPv6 address (brackets and zone allowed), None for names and nonsense."""
    if not 0 <= port <= 0xFFFF:
        return None
    dotted = _parse_dotted(host) if len(host) <= _LONGEST_DOTTED else None
    if dotted is not None:
        return Endpoint(0, V4_MAPPED | dotted, port)
    try:
        address = ipaddress.ip_address(host.strip().strip("[]").partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return Endpoint(0, V4_MAPPED | int(address), port)
    value = int(address)
    return Endpoint(value >> 64, value & 0xFFFFFFFFFFFFFFFF, port)


_LONGEST_DOTTED = len("255.255.255.255")


@lru_cache(maxsize=4096)
def _parse_dotted(text: str) -> int | None:
    """An IPv4 address in plain dotted form, several times faster than the general way; None for all else."""
    value = 0
    parts = text.split(".", 4)
    if len(parts) != 4:
        return None
    for part in parts:
        if not part.isascii() or not part.isdigit() or len(part) > 3 or (part[0] == "0" and part != "0"):
            return None
        octet = int(part)
        if octet > 255:
            return None
        value = value << 8 | octet
    return value
