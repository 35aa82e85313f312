"""Kamailio at loopback: a proxy that stays in dialogs, asks who calls, and speaks mutual TLS."""

import asyncio
from pathlib import Path

from recorder.model import Transport
from recorder.sip_ua.tls import TlsFiles
from tests.sip_wire import free_port

CONFIG = Path(__file__).parent / "recorder" / "sip_ua" / "kamailio.cfg"


class Proxy:
    """A Kamailio that can be stopped and started again at the same ports."""

    def __init__(self, directory: Path, algorithm: str, files: TlsFiles) -> None:
        self.port = self.tls_port = 0
        defines = {
            "ALGORITHM": f'"{algorithm}"',
            "CERTIFICATE": f'"{files.certificate}"',
            "KEY": f'"{files.key}"',
            "AUTHORITY": f'"{files.authorities}"',
        }
        self._options = [part for name, value in defines.items() for part in ("-A", f"{name}={value}")]
        self._directory = directory
        self._process: asyncio.subprocess.Process | None = None

    def uri(self, transport: Transport) -> str:
        port = self.tls_port if transport is Transport.TLS else self.port
        return f"sip:127.0.0.1:{port};transport={transport}"

    async def start(self) -> None:
        log = self._directory / "kamailio.log"
        if self.port:
            return await self._start(log)
        for _ in range(5):  # others may take a port between our look and Kamailio's
            self.port, self.tls_port = free_port(), free_port()
            log.unlink(missing_ok=True)
            try:
                return await self._start(log)
            except AssertionError:
                if "Address already in use" not in log.read_text():
                    raise
        raise AssertionError(log.read_text()[-3000:])

    async def _start(self, log: Path) -> None:
        ports = ("-A", f"UDP_PORT={self.port}", "-A", f"TLS_PORT={self.tls_port}")
        options = ("-DD", "-E", "-m", "32", "-M", "8", "-Y", self._directory, *ports, *self._options)
        with log.open("ab") as errors:
            self._process = await asyncio.create_subprocess_exec(
                "kamailio", "-f", CONFIG, *options, stdout=errors, stderr=errors
            )
        for _ in range(200):
            assert self._process.returncode is None, log.read_text()[-3000:]
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.tls_port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            await asyncio.sleep(0.2)  # its other processes
            return
        raise AssertionError(log.read_text()[-3000:])

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), 5)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
