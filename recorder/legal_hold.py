"""Legal holds: recordings that nobody deletes while a reason stands.

In: ids of recordings, reasons. Out: OUT/holds.jsonl, a line for each hold and each release, only ever added to, so that
it tells who held what and when, and outlives every catalogue. Whoever deletes does so within `frozen`, so that no hold
comes too late unnoticed. A file that cannot be read whole is an error: then nothing is deleted.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capture.errors import SpanrecError

FILE = "holds.jsonl"
LONGEST = 1000
"""Characters of a reason or a name."""


class HoldError(SpanrecError):
    """The holds cannot be read or written."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold that stands."""

    id: str
    """Of the recording."""
    at: str
    """When it was put, RFC 3339."""
    by: str
    reason: str


def holds(out: Path) -> dict[str, Hold]:
    """The holds that stand in the store `out`, by id. Raises HoldError."""
    path = out / FILE
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            return _standing(path, file.read())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise HoldError(f"{path}: cannot read: {error.strerror or error}") from error


@contextmanager
def frozen(out: Path) -> Iterator[Mapping[str, Hold]]:
    """The holds that stand, of which none is added or released until this is left."""
    path = out / FILE
    try:
        file = path.open("rb") if path.exists() else path.open("a+b")
    except OSError as error:
        raise HoldError(f"{path}: cannot open: {error.strerror or error}") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield _standing(path, file.read())


def hold(out: Path, identifiers: list[str], *, at: str, by: str, reason: str) -> list[str]:
    """Put recordings on hold; those that are held already for this reason stay as they are. Returns the others."""
    return _add(out, "hold", identifiers, at, by, reason)


def release(out: Path, identifiers: list[str], *, at: str, by: str, reason: str) -> list[str]:
    """Let go of recordings on hold. Returns those that were."""
    return _add(out, "release", identifiers, at, by, reason)


def _add(out: Path, action: str, identifiers: list[str], at: str, by: str, reason: str) -> list[str]:
    path = out / FILE
    by, reason = by[:LONGEST], reason[:LONGEST]
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            content = file.read()
            if not content and os.geteuid() == 0:
                # Whoever deletes must be able to read it: the owner of the store.
                owner = out.stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            standing = _standing(path, content)
            if action == "hold":
                chosen = [each for each in identifiers if each not in standing or standing[each].reason != reason]
            else:
                chosen = [each for each in identifiers if each in standing]
            entries = ({"at": at, "action": action, "id": each, "by": by, "reason": reason} for each in chosen)
            lines = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
            # What a crash left of a line was never said to be done.
            file.truncate(content.rfind(b"\n") + 1)
            file.seek(0, os.SEEK_END)
            while lines:
                lines = lines[file.write(lines) :]
            os.fsync(file.fileno())
    except OSError as error:
        raise HoldError(f"{path}: cannot write: {error.strerror or error}") from error
    return chosen


def _standing(path: Path, content: bytes) -> dict[str, Hold]:
    """Holds without those that were released."""
    standing: dict[str, Hold] = {}
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        entry = _entry(line)
        if entry is None:
            raise HoldError(f"{path}: line {number} is no hold; mend it, until then nothing is deleted")
        if entry["action"] == "release":
            standing.pop(entry["id"], None)
        else:
            standing[entry["id"]] = Hold(entry["id"], entry["at"], entry["by"], entry["reason"])
    return standing


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict) or entry.get("action") not in ("hold", "release"):
        return None
    return entry if all(isinstance(entry.get(key), str) for key in ("at", "id", "by", "reason")) else None
