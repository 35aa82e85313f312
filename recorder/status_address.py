"""Where the status is served: a unix socket, or an address and port.

In: text of an option, the environment. Out: a `Path` or a `TcpAddress`. Looks for sockets; opens none.
"""

import re
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from recorder.status import StatusError

SOCKET = "status.sock"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")
RUNTIME = Path("/run/spanrec")
"""Runtime directory of the installed service."""
SESSIONS = (Path("/run/spanrec-src"), Path("/run/spanrec-srs"))
"""Those of the services that have recording sessions."""


class TcpAddress(NamedTuple):
    """A literal IP address (a name, where one only connects) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Nothing beyond this machine reaches it."""
        return ip_address(self.host).is_loopback


Address = Path | TcpAddress


def parse_address(text: str, *, names: bool = False) -> Address:
    """`127.0.0.1:9180`, `[::1]:9180`, `localhost:9180`, `:9180` (loopback), or the path of a socket.

    Raises StatusError for what is neither. With `names`, for connecting, a host may have a name.
    """
    if "/" in text:
        return Path(text)
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    host = "127.0.0.1" if host in ("", "localhost") else host
    try:
        if not colon or not (port.isascii() and port.isdigit() and int(port) <= 0xFFFF):
            raise ValueError
        if names and _NAME.fullmatch(host):
            return TcpAddress(host, int(port))
        return TcpAddress(str(ip_address(host)), int(port))
    except ValueError:
        raise StatusError(f"{text!r}: is no address such as 127.0.0.1:9180, and no path of a socket") from None


def own_socket(environment: Mapping[str, str]) -> Path:
    """Where a service that runs now should serve."""
    return _places(environment)[0]


def find_socket(environment: Mapping[str, str], *, sessions: bool = False) -> Path:
    """Where a running service serves: the first place that has a socket, else that of the installed service. With
    `sessions`, one that has recording sessions comes first."""
    places = [*_places(environment), *(place / SOCKET for place in SESSIONS)]
    if sessions:
        places.sort(key=lambda path: path == RUNTIME / SOCKET)
    return next((path for path in places if _is_socket(path)), (SESSIONS[0] if sessions else RUNTIME) / SOCKET)


def _is_socket(path: Path) -> bool:
    try:
        return path.is_socket()
    except PermissionError:
        return False


def _places(environment: Mapping[str, str]) -> list[Path]:
    places = [RUNTIME / SOCKET]
    # Of the user who runs it by hand; systemd names the service's own directories, of which the first counts.
    if user := environment.get("XDG_RUNTIME_DIR"):
        places.insert(0, Path(user) / "spanrec" / SOCKET)
    if service := environment.get("RUNTIME_DIRECTORY"):
        places.insert(0, Path(service.partition(":")[0]) / SOCKET)
    return places
