"""The directory in which recordings stand, and how they come there whole.

In: files written into working directories below OUT/.partial. Out: recordings under their final name, each put there
by one rename. Never shows a file that is not whole, never writes outside OUT, never takes over a directory that it
did not make. One process at a time writes to a store; that process may use several threads.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from uuid import UUID

from capture.errors import SpanrecError
from recorder.document import CallDocument
from recorder.naming import directory_name

PARTIAL = ".partial"
_LOCK = "spanrec.lock"
_DOCUMENT = "call.json"
_HEAD = 512
"""Octets of a call.json that are sure to hold its id, the second member."""


class StoreError(SpanrecError):
    """OUT cannot be used or written."""


class RecordingStore:
    """OUT, held by this process from construction to `close`.

    Raises StoreError where OUT cannot be made or written, or another process is writing to it.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.partial = out / PARTIAL
        self.notes: list[str] = []
        """Sentences for the user: what an interrupted run had left."""
        self._days: set[str] = set()
        with telling_disk(out, "make the output directory"):
            out.mkdir(parents=True, exist_ok=True)
        self._lock = self._take()

    def __enter__(self) -> "RecordingStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(self, identifier: UUID) -> Path:
        """The working directory of a call, made when first asked for."""
        return Path(self.working(identifier))

    def working(self, identifier: UUID) -> str:
        """`begin`, and the path as text: parsing it takes as long as making the directory."""
        work = f"{self.partial}/{identifier.hex}"
        try:
            os.mkdir(work)
        except FileExistsError:
            pass
        except OSError as error:
            raise _sentence(work, "make", error) from error
        return work

    def discard(self, work: Path) -> None:
        """Drop the working directory of a call that is not to be recorded."""
        if work.parent == self.partial:
            shutil.rmtree(work, ignore_errors=True)

    def publish(self, document: CallDocument, work: Path | None = None) -> str:
        """Put the working directory of a call, all files in it written, under its final name.

        `work` is another directory below OUT that takes the place of the working directory. Returns the directory
        relative to OUT. An older recording of the same call is replaced; where another call has the name, all digits
        of the identifier are used.
        """
        origin = str(work) if work is not None else f"{self.partial}/{document.id.replace('-', '')}"
        for name in _names(document):
            if self._move(origin, name, document.id):
                return name
        raise StoreError(f"{self.out / name}: stands there already and is no recording of this call; move it away")

    def find(self, document: CallDocument) -> str | None:
        """The directory in which the recording of a document stands, relative to OUT; None where it does not."""
        return next((name for name in _names(document) if _identifier(self.out / name) == document.id), None)

    def remove(self, directory: str) -> None:
        """Remove a recording that another one has superseded, and the days that this leaves empty."""
        path = recording_path(self.out, directory)
        if _identifier(path) is None:
            return
        with telling_disk(path, "remove"):
            shutil.rmtree(path)
        for day in path.relative_to(self.out).parents:
            if day == Path():
                break
            try:
                (self.out / day).rmdir()
            except OSError:
                break
            self._days.discard(day.as_posix())

    def close(self) -> None:
        """Remove what is unfinished and let go of OUT. Nothing happens the second time."""
        if self._lock < 0:
            return
        shutil.rmtree(self.partial, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1

    def _take(self) -> int:
        """Hold OUT/.partial, emptied. Returns the descriptor of its lock."""
        lock = self.partial / _LOCK
        with telling_disk(self.partial, "use"):
            try:
                self.partial.mkdir()
            except FileExistsError:
                if self.partial.is_symlink() or (any(self.partial.iterdir()) and not lock.exists()):
                    raise StoreError(f"{self.partial}: is not of spanrec; move it away or record elsewhere") from None
            descriptor = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_nlink == 0:
                    # The process that held it has just finished and removed it.
                    raise BlockingIOError(errno.EAGAIN, "released a moment ago")
            except BlockingIOError:
                os.close(descriptor)
                raise StoreError(
                    f"{self.out}: another spanrec is writing to it; wait for it or record elsewhere"
                ) from None
            self._clear()
        return descriptor

    def _clear(self) -> None:
        """Remove what an interrupted run left."""
        left = [entry for entry in self.partial.iterdir() if entry.name != _LOCK]
        for entry in left:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        if left:
            self.notes.append(f"removed {len(left)} unfinished recordings that an interrupted run had left")

    def _move(self, work: str, name: str, identifier: str) -> bool:
        """Rename `work` to `name`; False where another call's recording stands there."""
        final = f"{self.out}/{name}"
        day = name.rpartition("/")[0]
        try:
            if day not in self._days:
                os.makedirs(f"{self.out}/{day}", exist_ok=True)
                self._days.add(day)
            try:
                os.rename(work, final)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
                if _identifier(Path(final)) != identifier:
                    return False
                old = f"{self.partial}/old-{identifier}"
                os.rename(final, old)
                os.rename(work, final)
                shutil.rmtree(old)
        except OSError as error:
            raise _sentence(final, "write", error) from error
        return True


def _names(document: CallDocument) -> Iterator[str]:
    """Names that a recording may have, the usual one first."""
    for digits in (8, 32):
        yield directory_name(document.started, document.caller.uri, document.callee.uri, document.id, digits)


def recording_path(out: Path, directory: str) -> Path:
    """The path of a recording's `directory`, as documents and catalogues tell it, which must lie in `out`."""
    parts = directory.split("/")
    if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts):
        raise StoreError(f"{directory!r}: is no directory of a recording")
    return out.joinpath(*parts)


def _identifier(recording: Path) -> str | None:
    """The id in the call.json of a recording, None where it is none."""
    try:
        with (recording / _DOCUMENT).open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return None
    _, found, rest = head.partition(b'"id": "')
    return rest[:36].decode("ascii", "replace") if found else None


@contextmanager
def telling_disk(path: Path, doing: str) -> Iterator[None]:
    """Turn errors of the file system into a sentence that names the path."""
    try:
        yield
    except OSError as error:
        raise _sentence(path, doing, error) from error


def _sentence(path: Path | str, doing: str, error: OSError) -> StoreError:
    return StoreError(f"{path}: cannot {doing}: {error.strerror or error}")
