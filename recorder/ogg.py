"""Ogg files whose octets are a function of their sound alone (RFC 3533).

Encoders number a logical stream at random, so that streams may be chained. In: an Ogg file. Out: the same file with a
serial number of our choosing and checksums to match.
"""

import struct
import zlib
from pathlib import Path

from capture.errors import SpanrecError

_HEAD = struct.Struct("<4sBBqIIIB")
"""Capture pattern, version, flags, granule position, serial number, page number, checksum, segments."""
_SERIAL, _CHECKSUM = 14, 22
_REVERSED = bytes(int(f"{octet:08b}"[::-1], 2) for octet in range(256))


def renumber(path: Path, serial: int) -> None:
    """Give every page this serial number. Raises SpanrecError where the file is no Ogg file."""
    with path.open("r+b") as file:
        at = 0
        while head := file.read(_HEAD.size):
            if len(head) < _HEAD.size or head[:4] != b"OggS":
                raise SpanrecError(f"{path}: octet {at} begins no Ogg page")
            lengths = file.read(head[-1])
            page = bytearray(head + lengths + file.read(sum(lengths)))
            page[_SERIAL : _SERIAL + 4] = struct.pack("<I", serial)
            page[_CHECKSUM : _CHECKSUM + 4] = bytes(4)
            page[_CHECKSUM : _CHECKSUM + 4] = struct.pack("<I", checksum(bytes(page)))
            file.seek(at)
            file.write(page)
            at += len(page)


def checksum(page: bytes) -> int:
    """CRC of a page: zlib's polynomial, the bits the other way round, from zero (RFC 3533, section 6)."""
    value = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(value.to_bytes(4, "little").translate(_REVERSED), "big")
