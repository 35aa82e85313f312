"""The program tshark, run on files, without privileges and without the settings of whoever runs it.

In: a capture file, and what to ask of each frame. Out: rows of text, frame by frame, as tshark prints them; SIP
messages that tshark found, through pyshark. What tshark says when it gives up on a file is told in `trouble`, never
raised.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from capture.errors import CaptureError

MAX_LINE = 1 << 20
"""Octets of a row; a longer one is of no frame that a network can carry."""
SHOWN = 300
"""Characters of tshark's own words that are passed on."""

_PREFERENCES = {
    "tcp.desegment_tcp_streams": "TRUE",
    "tcp.reassemble_out_of_order": "TRUE",
    "ip.defragment": "TRUE",
    "ipv6.defragment": "TRUE",
}


def find_tshark() -> str:
    """Path of the program. Raises CaptureError where it is not installed."""
    program = shutil.which("tshark")
    if program is None:
        raise CaptureError("tshark is not installed, which this needs: install the package tshark, or Wireshark")
    return program


@dataclass(slots=True)
class Rows:
    """Rows of one run, to be iterated once; `trouble` is final when they are exhausted."""

    process: "subprocess.Popen[bytes]"
    complaints: IO[bytes]
    path: Path
    trouble: str = ""
    """Why tshark stopped before the end of the file, empty where it did not."""

    def __iter__(self) -> Iterator[list[str]]:
        assert self.process.stdout is not None
        try:
            while line := self.process.stdout.readline(MAX_LINE):
                yield line.decode("utf-8", "replace").rstrip("\r\n").split("\t")
        finally:
            self.close()

    def close(self) -> None:
        """End the program if it runs, and read what it complained of."""
        if self.complaints.closed:
            return
        assert self.process.stdout is not None
        early = self.process.poll() is None and self.process.stdout.peek(1) != b""  # type: ignore[attr-defined]
        self.process.stdout.close()
        if early:
            self.process.kill()
        if self.process.wait() > 0:
            self.complaints.seek(0)
            said = self.complaints.read(1 << 16).decode("utf-8", "replace")
            self.trouble = _complaint(said.replace(str(self.path), self.path.name))
        self.complaints.close()


def _complaint(text: str) -> str:
    """What tshark said at last, on one line, without the names of files on this machine."""
    noise = ("Running as user", "Capturing on")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(noise)]
    said = " ".join(lines).removeprefix("tshark: ")
    return said[:SHOWN] or "it gave no reason"


@dataclass(slots=True)
class Tshark:
    """tshark with a set of preferences."""

    scratch: Path
    """Directory for what it needs while it runs."""
    keylog: Path | None = None
    """TLS key log (NSS format)."""
    program: str = field(default_factory=find_tshark)

    def __post_init__(self) -> None:
        if self.keylog is not None and not self.keylog.is_file():
            raise CaptureError(f"{self.keylog}: there is no such key log file")

    @property
    def preferences(self) -> dict[str, str]:
        """All preferences that matter here, so that nothing depends on the user's own."""
        keys = {} if self.keylog is None else {"tls.keylog_file": str(self.keylog.absolute())}
        return _PREFERENCES | keys

    def run(self, path: Path, options: Sequence[str]) -> Rows:
        """Run tshark over a file. Raises CaptureError where it cannot be started."""
        preferences = [each for name, value in self.preferences.items() for each in ("-o", f"{name}:{value}")]
        path = path.absolute()
        command = [self.program, "-n", *preferences, "-r", str(path), *options]
        complaints = tempfile.TemporaryFile(dir=self.scratch)  # noqa: SIM115 - the rows close it
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints, env=self._environment()
            )
        except OSError as error:
            complaints.close()
            raise CaptureError(f"{self.program}: cannot be started: {error.strerror}") from error
        return Rows(process, complaints, path)

    def fields(self, path: Path, names: Sequence[str], options: Sequence[str] = (), between: str = ",") -> Rows:
        """Rows of the values of these fields, every occurrence, with `between` between them."""
        wanted = [each for name in names for each in ("-e", name)]
        return self.run(path, [*options, "-T", "fields", "-E", "occurrence=a", "-E", f"aggregator={between}", *wanted])

    def sip_messages(self, path: Path, display_filter: str, decode_as: dict[str, str]) -> Iterator[tuple[int, bytes]]:
        """(frame number, octets) of the SIP messages in the frames that the filter lets pass, in order.

        This is pyshark's part: it follows tshark's JSON with the raw octets of every layer, decrypted and put together.
        Some hundred messages a second; the rows of `fields` are for what comes by the million.
        """
        import asyncio

        from pyshark import FileCapture

        loop = asyncio.new_event_loop()
        # pyshark leaves its environment to tshark, so the preferences that it is given come on top of the user's.
        capture = FileCapture(
            str(path), keep_packets=False, display_filter=display_filter, use_json=True, include_raw=True,
            tshark_path=self.program, override_prefs=self.preferences, decode_as=decode_as, eventloop=loop,
            custom_parameters=["-J", "frame sip"],
        )  # fmt: skip

        async def end(process: asyncio.subprocess.Process) -> None:
            # pyshark would kill a program that has just ended, and take a damaged file for a crash.
            if process.returncode is None and not capture._eof_reached:
                process.kill()
            await process.wait()

        capture._cleanup_subprocess = end
        try:
            for packet in capture:
                for data in _raw(packet):
                    yield int(packet.number), data
        finally:
            capture.close()
            loop.close()

    def _environment(self) -> dict[str, str]:
        """Without a configuration directory there is nobody's profile, and no plugin."""
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
        return kept | {"LC_ALL": "C.UTF-8", "TZ": "UTC", "WIRESHARK_CONFIG_DIR": str(self.scratch / "no-profile")}


def _raw(packet: Any) -> Iterator[bytes]:
    """Octets of every SIP message of a packet: a frame may hold several."""
    for layer in packet.layers:
        if layer.layer_name == "sip_raw":
            for part in (layer, *layer.duplicate_layers):
                value = part.value[0] if isinstance(part.value, list) else part.value
                if isinstance(value, str):
                    yield bytes.fromhex(value)
