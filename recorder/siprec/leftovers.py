"""Recording sessions that a killed process left open at their servers: kept in files, and ended at the next start.

In: dialogs as they are established and as they end. Out: a file of a few lines for each that is in progress, and after
a kill a BYE (RFC 3261, section 15) for each file that is found. A file is written by one system call, so that a kill
leaves the whole of it or nothing; it is not synced: what a power failure takes ends by its session timer. Holds no
secret: who is asked for a password takes it from the settings.
"""

import asyncio
import errno
import json
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from capture.address import parse_endpoint
from recorder.model import Transport
from recorder.sip_ua.agent_session import AgentSession
from recorder.sip_ua.api import Credentials, Session
from recorder.sip_ua.dialog import Dialog
from recorder.sip_ua.wire import Target

AHEAD = 1_000_000
"""What the BYE's CSeq is above the one that was written down: requests have been sent since then."""
PAUSES = (0.0, 5.0, 30.0, 120.0)
"""s before each attempt; after the last one the server is left to its session timer."""
_MOST = 100_000
"""Files that are read."""
_LARGEST = 65536
_AT_ONCE = 32
_TEXTS = ("call_id", "local", "remote", "local_tag", "remote_tag", "remote_target")


@dataclass(frozen=True, slots=True)
class Leftover:
    """A dialog of an earlier process."""

    path: Path
    dialog: Dialog
    back: Target
    """Where the peer was."""
    server: str
    """URI of the recording server, as settings have it."""
    agent: str
    """Name of the agent that held it."""


Goodbye = Callable[[Leftover, Credentials | None], Coroutine[Any, Any, bool]]
"""Sends BYE; whether it was answered."""


class Leftovers:
    """Of one store. Belongs to the sessions' loop."""

    def __init__(self, directory: Path, trouble: Callable[[Exception], None] = lambda error: None) -> None:
        """`trouble` is told when files cannot be written, once until they can again."""
        self._directory = directory
        self._trouble = trouble
        self._refusing = False

    def note(self, session: Session, server: str, agent: str) -> Callable[[], None]:
        """A session was established; gives what is to be called when it has ended. Does not raise."""
        if not isinstance(session, AgentSession):
            return lambda: None
        dialog, back = session.core.dialog, session.core.back.target
        record = {name: getattr(dialog, name) for name in _TEXTS} | {
            "routes": dialog.routes,
            "cseq": dialog.local_cseq,
            "transport": back.transport,
            "host": back.endpoint.host,
            "port": back.endpoint.port,
            "name": back.name,
            "server": server,
            "agent": agent,
        }
        # A server that begins a session chooses the Call-ID: it never reaches the name.
        digest = sha256("\0".join(dialog.id).encode(errors="surrogatepass")).hexdigest()[:32]
        path = f"{self._directory}/{digest}.json"
        try:
            try:
                _write(path, json.dumps(record).encode())
            except FileNotFoundError:
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                _write(path, json.dumps(record).encode())
            self._refusing = False
        except OSError as error:
            if not self._refusing:
                self._refusing = True
                self._trouble(error)
        return lambda: _remove(path)

    def found(self) -> list[Leftover]:
        """What earlier processes left; files that nothing can be made of are removed."""
        try:
            names = sorted(os.listdir(self._directory))[:_MOST]
        except OSError:
            return []
        left = []
        for name in names:
            path = self._directory / name
            known = _read(path) if path.suffix == ".json" else None
            if known is None:
                _remove(path)
            else:
                left.append(known)
        return left


async def end_all(
    left: Sequence[Leftover], goodbye: Goodbye, credentials: Mapping[str, Credentials | None]
) -> None:  # fmt: skip
    """Have each ended, trying again where nobody answers; a file stays as long as that takes. `credentials` are those
    of each server's URI."""
    turn = asyncio.Semaphore(_AT_ONCE)

    async def end(one: Leftover) -> None:
        for pause in PAUSES:
            await asyncio.sleep(pause)
            async with turn:
                if await goodbye(one, credentials.get(one.server)):
                    break
        _remove(one.path)

    await asyncio.gather(*map(end, left))


def _read(path: Path) -> Leftover | None:
    try:
        if path.stat().st_size > _LARGEST:
            return None
        record = json.loads(path.read_text())
        texts = {name: record[name] for name in _TEXTS}
        endpoint = parse_endpoint(record["host"], record["port"])
        routes, server, agent, name = tuple(record["routes"]), record["server"], record["agent"], record["name"]
        if endpoint is None or not all(isinstance(e, str) for e in (*texts.values(), *routes, server, agent, name)):
            return None
        dialog = Dialog(**texts, routes=routes, local_cseq=int(record["cseq"]) + AHEAD, remote_cseq=None, caller=True)
        return Leftover(path, dialog, Target(Transport(record["transport"]), endpoint, name), server, agent)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: str, data: bytes) -> None:
    """With no more system calls than that takes: there is one for every session, in the loop of all of them."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        if os.write(descriptor, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(descriptor)


def _remove(path: Path | str) -> None:
    with suppress(OSError):  # the next start tries again
        os.unlink(path)
