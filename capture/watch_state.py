"""How far a watched directory has been read, in a small file that outlives the process.

In and out: `Taken`, one for each file of the directory. A file is known by its inode and how it begins, because names
move on when captures are rotated. The state is replaced as a whole or not at all.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from capture.live import LiveCaptureError
from capture.streams import open_input

HEAD = 1024
"""Octets that tell one capture from another: of the file's header, and the first packets with their times."""
_VERSION = 1
_LARGEST = 64 << 20


@dataclass(frozen=True, slots=True)
class Taken:
    """What was read of one file."""

    name: str
    inode: int
    head: str
    """SHA-256 (hex) of the file's first ..."""
    head_octets: int
    """... so many octets."""
    packets: int
    """Number of the last frame that was taken, as Wireshark counts."""
    octets: int
    """Size of the file when it was last read to its end, 0 where it was not."""
    done: bool
    """The writer has moved on to another file."""


class Memory:
    """What was taken of files that are not there at present, oldest first. Inodes are used again, so may be names."""

    def __init__(self, files: Iterable[Taken]) -> None:
        self._files: dict[tuple[int, str], Taken] = {}
        self._heads: dict[int, list[str]] = {}
        for each in files:
            self._keep(each)

    def __iter__(self) -> Iterator[Taken]:
        return iter(self._files.values())

    def add(self, taken: Taken, most: int) -> None:
        """Remember a file, and no more than `most`."""
        self._keep(taken)
        while len(self._files) > most:
            self._drop(next(iter(self._files)))

    def take(self, path: Path, inode: int, size: int) -> Taken | None:
        """What is remembered of the file that has this inode and size; it is then forgotten. Raises OSError."""
        for head in self._heads.get(inode, []):
            taken = self._files[inode, head]
            if size >= taken.octets and fingerprint(path, taken.head_octets) == (head, taken.head_octets):
                self._drop((inode, head))
                return taken
        return None

    def named(self, name: str) -> Taken | None:
        """The latest file of this name."""
        return next((each for each in reversed(self._files.values()) if each.name == name), None)

    def _keep(self, taken: Taken) -> None:
        key = (taken.inode, taken.head)
        if key in self._files:
            self._drop(key)
        self._files[key] = taken
        self._heads.setdefault(taken.inode, []).append(taken.head)

    def _drop(self, key: tuple[int, str]) -> None:
        del self._files[key]
        heads = self._heads[key[0]]
        heads.remove(key[1])
        if not heads:
            del self._heads[key[0]]


def fingerprint(path: Path, octets: int = HEAD) -> tuple[str, int]:
    """SHA-256 of how a file begins, and how many octets that are: at most `octets`. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(octets)
    return hashlib.sha256(head).hexdigest(), len(head)


def unpacked_fingerprint(path: Path, octets: int) -> str:
    """SHA-256 of how the content of a packed file begins. Raises OSError."""
    packed = open_input(path, hashed=False, mapped=False, chunk=HEAD)
    packed.extend()
    head = packed.window.buffer[:octets].tobytes()
    packed.finish()
    return hashlib.sha256(head).hexdigest()


def load_state(path: Path) -> list[Taken]:
    """What was taken; nothing where there is no state yet.

    Raises:
        LiveCaptureError: there is a file that is no state.
    """
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_LARGEST))
        if found["version"] != _VERSION:
            raise ValueError(f"version {found['version']}")
        return [Taken(**each) for each in found["files"]]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LiveCaptureError(
            f"{path}: the state of the watched directory cannot be read: {error.strerror}"
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise LiveCaptureError(
            f"{path}: this is not the state of a watched directory: move it away, and all files there are read again"
        ) from error


def save_state(path: Path, files: Iterable[Taken]) -> None:
    """Replace the state. Raises OSError; the old one then still stands."""
    partial = path.with_name(f"{path.name}.new")
    octets = json.dumps({"version": _VERSION, "files": [asdict(each) for each in files]}, indent=1).encode()
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(octets)
        out.flush()
        os.fsync(descriptor)
    partial.replace(path)
