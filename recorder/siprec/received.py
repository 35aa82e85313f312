"""What an SRC said of a call, verbatim, beside its recording: a MIME file that grows while the call goes on.

In: bodies of SIP messages of a recording session, with when and how they came. Out: `siprec.mime` in the call's working
directory (`siprec.journal` where it is not to stay): a multipart/mixed document with a part for each message that had a
body and for each BYE, and from such a file, the parts again, up to the first that is not whole. What the parts say of
themselves stands in header fields of their own; nothing of a body is changed. Bounded by `LARGEST`; what a body says
never becomes a header or a name.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from capture.errors import SpanrecError
from decoders.sip_headers import parse_fields, split_lines
from recorder.document import format_time
from recorder.rs_metadata_values import parse_time

FILE = "siprec.mime"
JOURNAL = "siprec.journal"
"""The same file where it is not to stay beside the recording: while the call is in progress, in case of a kill."""
LARGEST = 4 << 20
"""Octets of a file."""
_SESSION = "X-Communication-Session"
MAX_PORTS = 64
MAX_VALUE = 512
"""Characters of a header field that tells what a message said."""


class ReceivedError(SpanrecError):
    """The file cannot be written."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message of a recording session."""

    at: int
    """ns, UTC."""
    call_id: str
    """Of the recording session."""
    source: str
    """ip:port that it came from."""
    what: str
    """Method or status."""
    content_type: str
    body: bytes
    disposition: str = ""
    ports: tuple[int, ...] = ()
    """Where the session's media was received, its RTP ports."""


class ReceivedFile:
    """The file of one call."""

    def __init__(self, directory: Path, boundary: str, session: str = "", *, stays: bool = True) -> None:
        """`boundary` is random: that it stands in no body is not looked at. `session`: the call's `session_id`, for
        `session_of`. `stays`: beside the recording, once the call is over. Nothing is written yet; where there is a
        file from before, it is gone on with, and what a crash cut off at its end is taken off."""
        name, other = (FILE, JOURNAL) if stays else (JOURNAL, FILE)
        self._path = f"{directory}/{name}"
        with suppress(OSError):
            os.rename(f"{directory}/{other}", self._path)  # the settings were others before a restart
        self._boundary = boundary
        self._session = session
        self.left_out = 0
        """Messages that found no more room."""
        with suppress(OSError), open(self._path, "r+b") as file:
            data = file.read(LARGEST)
            self._boundary = _boundary_of(data) or boundary
            file.truncate(max((end for _, end in _parts(data)), default=0))

    def add(self, message: Received) -> None:
        """Append a message, whole or not at all. Raises ReceivedError where the disk refuses."""
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
            try:
                before = os.fstat(descriptor).st_size
                part = _part(message, self._boundary)
                if not before:
                    part = _head(self._boundary, self._session) + part
                if before + len(part) > LARGEST:
                    self.left_out += 1
                elif os.write(descriptor, part) < len(part):
                    os.ftruncate(descriptor, before)
                    raise ReceivedError(f"{self._path}: cannot be written: the disk is full")
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ReceivedError(f"{self._path}: cannot be written: {error.strerror or error}") from error

    def close(self) -> None:
        """End the document, if there is one."""
        with suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                os.write(descriptor, f"--{self._boundary}--\r\n".encode())
            finally:
                os.close(descriptor)


def is_in(directory: Path) -> bool:
    """Whether there is such a file in `directory`."""
    return _file_in(directory).exists()


def read(directory: Path) -> Iterator[Received]:
    """The messages in the file of `directory`, in order; none where there is no file."""
    with suppress(OSError):
        for message, _ in _parts(_file_in(directory).read_bytes()):
            yield message


def _file_in(directory: Path) -> Path:
    """The file of a call, under either name."""
    return directory / (JOURNAL if (directory / JOURNAL).exists() else FILE)


def session_of(directory: Path) -> str:
    """The `session_id` that the file in `directory` was begun with; empty where it has none."""
    try:
        head, _, _ = _file_in(directory).read_bytes().partition(b"\r\n\r\n")
    except OSError:
        return ""
    _, _, rest = head.partition(f"\r\n{_SESSION}: ".encode())
    return rest.partition(b"\r\n")[0].decode("utf-8", "replace")


def _parts(data: bytes) -> Iterator[tuple[Received, int]]:
    """Each message, and where its part ends."""
    boundary = _boundary_of(data)
    if boundary is None:
        return
    delimiter = f"--{boundary}\r\n".encode()
    at = data.find(delimiter)
    while at >= 0:
        at += len(delimiter)
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            return
        fields = {name: values[0] for name, values in parse_fields(split_lines(b"\n" + data[at:end], []), []).items()}
        size = fields.get("content-length", "")
        time, _ = parse_time(fields.get("x-received", ""))
        begin = end + 4
        at = begin + int(size) + 2 if size.isdecimal() and len(size) < 10 else -1
        if at < begin or time is None or data[at - 2 : at] != b"\r\n":
            return
        message = Received(
            at=time,
            call_id=fields.get("x-recording-session", ""),
            source=fields.get("x-source", ""),
            what=fields.get("x-message", ""),
            content_type=fields.get("content-type", ""),
            body=data[begin : at - 2],
            disposition=fields.get("content-disposition", ""),
            ports=_ports(fields.get("x-media-ports", "")),
        )
        yield message, at
        if data[at : at + len(delimiter)] != delimiter:
            return


def _head(boundary: str, session: str) -> bytes:
    named = f"{_SESSION}: {_value(session)}\r\n" if session else ""
    return f'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="{boundary}"\r\n{named}\r\n'.encode(
        "utf-8", "replace"
    )


def _boundary_of(head: bytes) -> str | None:
    _, found, rest = head[:1024].partition(b'boundary="')
    return rest.partition(b'"')[0].decode("ascii", "replace") if found else None


def _part(message: Received, boundary: str) -> bytes:
    fields = [
        f"--{boundary}",
        f"Content-Type: {_value(message.content_type) or 'application/octet-stream'}",
        *([f"Content-Disposition: {_value(message.disposition)}"] if message.disposition else []),
        f"Content-Length: {len(message.body)}",
        f"X-Received: {format_time(message.at)}",
        f"X-Source: {message.source}",
        f"X-Recording-Session: {_value(message.call_id)}",
        f"X-Message: {_value(message.what)}",
        *([f"X-Media-Ports: {' '.join(map(str, message.ports))}"] if message.ports else []),
    ]
    return "\r\n".join(fields).encode("utf-8", "replace") + b"\r\n\r\n" + message.body + b"\r\n"


def _ports(text: str) -> tuple[int, ...]:
    words = text.split()[:MAX_PORTS]
    return tuple(int(word) for word in words if word.isascii() and word.isdigit() and len(word) <= 5)


def _value(text: str) -> str:
    """Text from a wire as the value of one header line."""
    return "".join(character if character.isprintable() else "?" for character in text[:MAX_VALUE]).strip()
