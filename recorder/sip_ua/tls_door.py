"""Where TLS connections come in: a peer counts from the moment that its connection is accepted, not only once its
handshake is done, and the handshake has a time.

In: an address, a context, who makes connections. Out: connections that have agreed; those that have not are closed
without a word. Bounded by what `full` says; a descriptor that is not to be had is waited for.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from capture.address import Endpoint

BACKLOG = 128
_PAUSE = 0.5
"""s to wait where the system has no descriptor left."""


@dataclass(frozen=True, slots=True)
class DoorUser:
    """Whose door it is."""

    full: Callable[[], bool]
    """Asked before each connection is let in."""
    make: Callable[[], asyncio.BufferedProtocol]
    """The protocol of one more connection; it is told of the connection once the handshake is done."""


class TlsDoor:
    """Listens in the running loop until `close`."""

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext, patience: float, user: DoorUser) -> None:
        """Listen; port 0: any. `patience`: s for a handshake. Raises OSError."""
        family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
        self._listener = socket.create_server((endpoint.host, endpoint.port), family=family, backlog=BACKLOG)
        self._listener.setblocking(False)
        self._context, self._patience, self._user = context, patience, user
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._accepting = self._loop.create_task(self._accept())

    @property
    def bound(self) -> tuple[str, int]:
        """Address and port."""
        host, port = self._listener.getsockname()[:2]
        return str(host), int(port)

    @property
    def handshakes(self) -> int:
        """Connections that have not agreed yet."""
        return len(self._tasks)

    async def close(self) -> None:
        """Listen no more; handshakes are broken off."""
        tasks = [self._accepting, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listener.close()

    async def _accept(self) -> None:
        while True:
            try:
                accepted, _ = await self._loop.sock_accept(self._listener)
            except OSError:
                # The peer is gone already, or there is no descriptor: others may wait, nobody is refused for good.
                await asyncio.sleep(_PAUSE)
                continue
            if self._user.full():
                accepted.close()
                continue
            task = self._loop.create_task(self._shake_hands(accepted))
            self._tasks.add(task)
            task.add_done_callback(partial(self._done, accepted))

    async def _shake_hands(self, accepted: socket.socket) -> None:
        await self._loop.connect_accepted_socket(
            self._user.make, accepted, ssl=self._context, ssl_handshake_timeout=self._patience
        )

    def _done(self, accepted: socket.socket, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None and not task.cancelled():
            return
        accepted.close()
        if error is not None and not isinstance(error, OSError):
            self._loop.call_exception_handler({"message": "a handshake failed", "exception": error})
