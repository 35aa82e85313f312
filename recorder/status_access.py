"""Who may ask the status server what, at one of its sockets.

In: the socket's address and token, headers of a request. Out: whether it may. Compares tokens in constant time.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from recorder.status import StatusError
from recorder.status_address import TcpAddress


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask one socket."""

    token: str | None = None
    always: bool = False
    """The token is needed for everything, not only for what is personal."""
    hosts: frozenset[str] | None = None
    """Names that a request may be addressed to; None: any."""
    everybody: bool = False
    """The socket itself keeps others out."""

    def knows_token(self, authorization: str) -> bool:
        """Whether an Authorization header shows the token."""
        scheme, _, told = authorization.partition(" ")
        same = hmac.compare_digest(told.strip().encode("latin-1", "replace"), (self.token or "").encode())
        return self.token is not None and same and scheme.lower() == "bearer"


def access_over_tcp(address: TcpAddress, token: str | None) -> Access:
    """Who may ask at an address. Raises StatusError where that would be anybody."""
    if not address.loopback:
        if token is None:
            raise StatusError(f"{address}: beyond this machine the status is served only with a token; name its file")
        return Access(token, always=True)
    return Access(token, hosts=frozenset({"localhost", "127.0.0.1", "::1", address.host}))


def host_of(values: Sequence[str]) -> str:
    """The host of the Host header, without port and brackets; empty where there is not one such header."""
    if len(values) != 1:
        return ""
    try:
        host = urlsplit(f"//{values[0]}").hostname or ""
    except ValueError:
        return ""
    try:
        return str(ip_address(host))
    except ValueError:
        return host.lower()
