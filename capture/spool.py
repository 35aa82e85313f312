"""Captures that are read more than once, or by another program, as plain files.

In: standard input, or a packed file. Out: a file under a name of the caller's. What breaks off is kept as far as it
goes: whoever reads it meets the damage.
"""

import shutil
import sys
from pathlib import Path

from capture.errors import CaptureError
from capture.octets import is_packed
from capture.streams import open_input

_MAGIC_OCTETS = 4


def spool_standard_input(path: Path) -> Path:
    """Write all of standard input, as it is, to `path`. Raises CaptureError where there is no room for it."""
    try:
        with path.open("wb") as out:
            shutil.copyfileobj(sys.stdin.buffer, out, 1 << 20)
    except OSError as error:
        raise CaptureError(f"{path}: standard input cannot be kept for a second reading: {error.strerror}") from error
    return path


def is_packed_file(path: Path) -> bool:
    """Whether a file is gzip or zstd by its content."""
    try:
        with path.open("rb") as file:
            return is_packed(file.read(_MAGIC_OCTETS))
    except OSError:
        return False


def unpack(packed: Path, path: Path) -> Path:
    """Write the unpacked content of a file to `path`. Raises CaptureError where it cannot be written."""
    try:
        source = open_input(packed, hashed=False)
        try:
            with path.open("wb") as out:
                while not source.window.final:
                    source.extend()
                    out.write(source.window.buffer.data)
                    source.window.position = source.window.end
        finally:
            source.finish()
    except OSError as error:
        raise CaptureError(f"{path}: {packed.name} cannot be unpacked: {error.strerror}") from error
    return path
