"""Programs that our client meets in tests of whole recording sessions: sipp as recording server, TLS in front of it.

In: scenarios, certificates. Out: running programs, ended with the block that they were started for; a sipp whose
scenario was not gone through to its end fails the test.
"""

import asyncio
import random
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from recorder.sip_ua.tls import TlsFiles
from tests.certificates import Authority, address
from tests.sip_wire import Sipp, sipp
from tests.siprec_scenarios import SippServer, scenario

STREAM = {"u1": "udp", "t1": "tcp"}
"""Transports of sipp, and their names."""
PATIENCE = 280
"""s for a whole test: kernels may have to be compiled."""


@dataclass(frozen=True)
class RecordingServer:
    """A sipp that records."""

    port: int
    transport: str
    errors: Path

    @property
    def uri(self) -> str:
        """Where it is."""
        return f"sip:rec@127.0.0.1:{self.port};transport={STREAM[self.transport]}"


@asynccontextmanager
async def recording_server(
    directory: Path, server: SippServer, steps: Sequence[str], transport: str = "u1", *options: str
) -> AsyncIterator[RecordingServer]:
    """A sipp that goes through `steps` for each call, and answers OPTIONS."""
    file = directory / f"srs-{id(steps)}.xml"
    file.write_text(scenario(steps, server))
    peer = await sipp(directory, "-sf", file, "-t", transport, "-timeout", str(PATIENCE), *options)
    try:
        await until_it_listens(peer, transport)
        yield RecordingServer(peer.port, transport, directory / "sipp-errors.log")
        peer.process.send_signal(signal.SIGUSR1)  # it ends when its calls have
        await peer.finished()
    finally:
        if peer.process.returncode is None:
            peer.process.kill()
            await peer.process.communicate()


async def until_it_listens(peer: Sipp, transport: str) -> None:
    """Until it does: a busy machine starts it late."""
    kind = socket.SOCK_STREAM if transport == "t1" else socket.SOCK_DGRAM
    for _ in range(500):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", peer.port))
            except OSError:
                return
        assert peer.process.returncode is None
        await asyncio.sleep(0.01)


def set_aside() -> int:
    """A port for a program that is started later: the system gives such to nobody who leaves the choice to it."""
    for port in random.sample(range(20000, 32000), 100):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, socket.socket() as stream:
            try:
                datagrams.bind(("127.0.0.1", port))
                stream.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port is free")


@asynccontextmanager
async def tls_front(directory: Path, port: int, behind: int, files: TlsFiles, *, mutual: bool) -> AsyncIterator[None]:
    """socat that takes TLS at a port and passes it on in the clear; `mutual`: who comes must show a certificate."""
    ways = f"cert={files.certificate},key={files.key},cafile={files.authorities},verify={int(mutual)}"
    log = directory / f"socat-{port}.log"
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *("socat", f"OPENSSL-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,{ways}", f"TCP:127.0.0.1:{behind}"),
            stderr=errors,
        )
    try:
        for _ in range(500):
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    break
            assert process.returncode is None, log.read_text()
            await asyncio.sleep(0.01)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def tls_files(made: Authority, name: str) -> TlsFiles:
    """A certificate of this host."""
    return TlsFiles(*made.sign(name, address("127.0.0.1")), made.file, require_client=True)


def tls_settings(files: TlsFiles, *, own: bool = True) -> tuple[str, ...]:
    """Lines of `[src]`; `own`: we show a certificate."""
    ours = (f'tls_certificate = "{files.certificate}"', f'tls_key = "{files.key}"') if own else ()
    return (*ours, f'tls_authorities = "{files.authorities}"')
