"""Octets of a file as given, in pieces, and unpacked ones from them.

In: a file descriptor. Out: pieces of bounded size, for any ratio of compression; SHA-256 of the octets as given.
Reading never raises: `trouble` says why octets ended before their time.
"""

import fcntl
import hashlib
import os
import select
import stat
import zlib
from pathlib import Path

import zstandard

_PIECE = 256 << 10
_GZIP_STEP = 16 << 10
_ZSTD_STEP = 1 << 10
"""A zstd block has at least 4 octets and yields at most 128 KiB, so that a step cannot yield more than 32 MiB."""

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class RawOctets:
    """A file as given, read in pieces and digested on the way."""

    def __init__(self, descriptor: int, path: Path | None, hashed: bool, hold_open: bool) -> None:
        """`path` is needed where the file is not to be held open between reads."""
        self._descriptor: int | None = descriptor
        self._path = path
        self._hold_open = hold_open or path is None
        self._hash = hashlib.sha256() if hashed else None
        self._head = b""
        self.trouble = ""
        self.taken = 0
        status = os.fstat(descriptor)
        regular = stat.S_ISREG(status.st_mode)
        self.live = not regular
        self.total = status.st_size if regular else None
        if stat.S_ISFIFO(status.st_mode):
            _enlarge_pipe(descriptor)

    def head(self, size: int) -> bytes:
        """The first octets, fewer only where the file is shorter; they will be read again."""
        while len(self._head) < size:
            piece = self._read(size - len(self._head))
            if not piece:
                break
            self._head += piece
        return self._head

    def read(self, size: int) -> bytes:
        """Some octets, at most `size`, waiting for the first; none at the end."""
        if self._head:
            piece, self._head = self._head[:size], self._head[size:]
            return piece
        return self._read(size)

    def ready(self) -> bool:
        """Whether reading would not have to wait."""
        if not self.live or self._head or self._descriptor is None:
            return True
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> str | None:
        """Read and digest the rest, close, give the digest."""
        if self._hash:
            while self._read(_PIECE):
                pass
        if self._descriptor is not None and self._descriptor != 0:
            os.close(self._descriptor)
            self._descriptor = None
        return self._hash.hexdigest() if self._hash else None

    def _read(self, size: int) -> bytes:
        try:
            piece = self._read_held(size)
        except OSError as error:
            self.trouble = f"reading failed: {error.strerror}"
            return b""
        self.taken += len(piece)
        if self._hash:
            self._hash.update(piece)
        return piece

    def _read_held(self, size: int) -> bytes:
        if self._descriptor is None:
            assert self._path is not None
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            os.lseek(self._descriptor, self.taken, os.SEEK_SET)
        piece = os.read(self._descriptor, size)
        if not self._hold_open:
            os.close(self._descriptor)
            self._descriptor = None
        return piece


class PlainOctets:
    """Octets that are not packed."""

    def __init__(self, raw: RawOctets) -> None:
        self._raw = raw

    @property
    def trouble(self) -> str:
        """Why the octets ended early."""
        return self._raw.trouble

    def read(self, size: int) -> bytes:
        """Some octets, at most `size`; none at the end."""
        return self._raw.read(size)


class GzipOctets:
    """gzip (RFC 1952), any number of members."""

    def __init__(self, raw: RawOctets) -> None:
        self._raw = raw
        self.trouble = ""
        self._member = zlib.decompressobj(wbits=31)
        self._packed = b""
        self._ended = False

    def read(self, size: int) -> bytes:
        """Some unpacked octets, at most `size`; none at the end."""
        while not self._ended:
            if not self._packed:
                self._packed = self._raw.read(_GZIP_STEP)
                if not self._packed:
                    return self._end_early()
            try:
                piece = self._member.decompress(self._packed, size)
            except zlib.error:
                return self._end("the gzip data are damaged")
            self._packed = self._member.unconsumed_tail
            if self._member.eof:
                self._next_member(self._member.unused_data)
            if piece:
                return piece
        return b""

    def _next_member(self, rest: bytes) -> None:
        self._packed = rest or self._raw.read(_GZIP_STEP)
        # Padding with zeros behind the last member is allowed to archivers.
        while self._packed and not self._packed.strip(b"\0"):
            self._packed = self._raw.read(_GZIP_STEP)
        self._ended = not self._packed
        self._member = zlib.decompressobj(wbits=31)

    def _end_early(self) -> bytes:
        self._end(self._raw.trouble or "the gzip data end early")
        return self._member.flush()

    def _end(self, why: str) -> bytes:
        self.trouble = why
        self._ended = True
        return b""


class ZstdOctets:
    """Zstandard (RFC 8878), any number of frames, skippable ones too."""

    def __init__(self, raw: RawOctets) -> None:
        self._raw = raw
        self.trouble = ""
        self._decoder = zstandard.ZstdDecompressor()
        self._frame = self._decoder.decompressobj()
        self._between = True
        self._packed = memoryview(b"")
        self._unpacked = memoryview(b"")
        self._ended = False

    def read(self, size: int) -> bytes:
        """Some unpacked octets, at most `size`; none at the end."""
        while not self._unpacked and not self._ended:
            if not self._packed:
                self._packed = memoryview(self._raw.read(_PIECE))
            if not self._packed:
                self._ended = True
                self.trouble = self._raw.trouble or ("" if self._between else "the zstd data end early")
            else:
                self._unpack(size)
        piece = bytes(self._unpacked[:size])
        self._unpacked = self._unpacked[size:]
        return piece

    def _unpack(self, enough: int) -> None:
        pieces: list[bytes] = []
        have = 0
        while self._packed and have < enough:
            step, self._packed = self._packed[:_ZSTD_STEP], self._packed[_ZSTD_STEP:]
            try:
                piece = self._frame.decompress(step)
            except zstandard.ZstdError:
                self.trouble = "the zstd data are damaged"
                self._ended = True
                break
            self._between = self._frame.eof
            if self._frame.eof:
                self._packed = memoryview(bytes(self._frame.unused_data or b"") + bytes(self._packed))
                self._frame = self._decoder.decompressobj()
            if piece:
                pieces.append(piece)
                have += len(piece)
        self._unpacked = memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))


def is_packed(head: bytes) -> bool:
    """Whether a file that begins with these 4 octets is compressed."""
    return head.startswith((_GZIP_MAGIC, _ZSTD_MAGIC)) or _is_skippable_frame(head)


def _is_skippable_frame(head: bytes) -> bool:
    return len(head) >= 4 and head[0] & 0xF0 == 0x50 and head[1:4] == b"\x2a\x4d\x18"


def unpacker(raw: RawOctets) -> PlainOctets | GzipOctets | ZstdOctets:
    """What gives the unpacked octets of a file, chosen by how it begins."""
    head = raw.head(4)
    if head.startswith(_GZIP_MAGIC):
        return GzipOctets(raw)
    if head.startswith(_ZSTD_MAGIC) or _is_skippable_frame(head):
        return ZstdOctets(raw)
    return PlainOctets(raw)


def _enlarge_pipe(descriptor: int) -> None:
    """Fewer, larger pieces; a refusal (a limit for this user) changes nothing else."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, 1 << 20)
    except (OSError, AttributeError):
        return
