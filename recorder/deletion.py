"""Deleting recordings, so that none is ever seen half deleted and every one is accounted for.

In: a store that this process holds, its catalogue, a plan. Out: recordings gone, their rows too, and a line for each in
OUT/deletions.jsonl, which is only ever added to. The order is: the intent is written down; directories leave by one
rename each; the log tells of them; rows go; files go; the intent goes. Whatever a kill leaves of that, `complete`
brings to its end. What is on legal hold stays, even where it was held a moment ago.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from recorder.catalogue_upkeep import has_row, remove_rows
from recorder.document import format_time
from recorder.legal_hold import frozen
from recorder.retention import Deletion
from recorder.store import StoreError, recording_path, telling_disk

LOG = "deletions.jsonl"
DIRECTORY = ".deleting"
BATCH = 100
"""Recordings deleted together."""
YOUNG = 32 * 86_400_000_000_000
"""ns: days as young as this may yet get recordings of long calls, so their directories stay even when empty."""

_INTENT = "intent.jsonl"
_TORN = 1 << 16
"""Octets that writes which were cut short may have left at the end of the log."""
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DAY = re.compile(r"\d{4}/\d\d/\d\d")


@dataclass(frozen=True, slots=True)
class Deleted:
    """A recording that was deleted, as the log tells it. Names and numbers are not in it."""

    at: str
    id: str
    call_id: str | None
    started: str
    rule: str
    reason: str
    octets: int
    audio_sha256: str | None
    """None where it had no audio, or was gone already."""
    found: bool
    """False where the recording was gone already, and only its row was left."""

    def fields(self) -> dict[str, object]:
        """The same for a log of events, with the names that it uses."""
        return {
            "call": self.id,
            "call_id": self.call_id,
            "started": self.started,
            "octets": self.octets,
            "text": f"{self.rule}: {self.reason}",
        }


@dataclass(frozen=True, slots=True)
class _Intended:
    """A line of the intent."""

    deleted: Deleted
    directory: str


def carry_out(
    out: Path,
    catalogue: Connection,
    deletions: Sequence[Deletion],
    now: int,
    announce: Callable[[Deleted], None] = lambda _: None,
    leave: Callable[[Deletion, str], None] = lambda *_: None,
) -> int:
    """Delete what is planned, at `now` (ns). Returns how many recordings that were.

    `announce` is told of each; `leave` of what is not as the catalogue says and so not deleted, with a sentence. Raises
    SpanrecError or OSError where the disk refuses, sqlite3.Error where the catalogue does: the next run has the rest.
    """
    complete(out, catalogue, announce)
    count = 0
    for first in range(0, len(deletions), BATCH):
        with frozen(out) as held:
            chosen = [
                deletion
                for deletion in deletions[first : first + BATCH]
                if deletion.id not in held and has_row(catalogue, deletion.id, deletion.directory)
            ]
            intended = list(_intended(out, chosen, format_time(now), leave))
            if not intended:
                continue
            _write_intent(out, intended)
            _move(out, intended)
        _settle(out, catalogue, intended, announce)
        count += len(intended)
    if count:
        _remove_empty_days(out, now)
    return count


def complete(out: Path, catalogue: Connection, announce: Callable[[Deleted], None] = lambda _: None) -> int:
    """Bring to an end what an interrupted run had begun to delete. Returns how many recordings that were."""
    if not (out / DIRECTORY).exists():
        return 0
    # What still stands in its place was not begun with, and may have been put on hold since.
    begun = [
        each
        for each in _read_intent(out / DIRECTORY / _INTENT)
        if (out / DIRECTORY / each.deleted.id).exists() or not recording_path(out, each.directory).exists()
    ]
    _settle(out, catalogue, begun, announce)
    return len(begun)


def _intended(
    out: Path, deletions: Sequence[Deletion], at: str, leave: Callable[[Deletion, str], None]
) -> Iterator[_Intended]:
    """What is to be done, with what only the recordings themselves tell."""
    for deletion in deletions:
        try:
            path = recording_path(out, deletion.directory)
        except StoreError as error:
            leave(deletion, f"{error}; it is not deleted")
            continue
        found = path.exists()
        document = _document(path) if found else {}
        if not _UUID.fullmatch(deletion.id) or (found and document.get("id") != deletion.id):
            leave(deletion, f"{path}: is not the recording that the catalogue says; it is not deleted")
            continue
        audio = document.get("audio")
        deleted = Deleted(
            at=at,
            id=deletion.id,
            call_id=deletion.call_id,
            started=deletion.started,
            rule=deletion.rule,
            reason=deletion.reason,
            octets=deletion.octets,
            audio_sha256=audio.get("sha256") if isinstance(audio, dict) else None,
            found=found,
        )
        yield _Intended(deleted, deletion.directory)


def _write_intent(out: Path, intended: Sequence[_Intended]) -> None:
    """Write down what will be done, whole or not at all."""
    directory = out / DIRECTORY
    with telling_disk(directory, "write"):
        directory.mkdir(exist_ok=True)
        fresh = directory / f"fresh-{_INTENT}"
        with fresh.open("w") as file:
            file.writelines(
                json.dumps({**asdict(each.deleted), "directory": each.directory}) + "\n" for each in intended
            )
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(directory / _INTENT)
        _sync(directory)
        _sync(out)


def _read_intent(path: Path) -> list[_Intended]:
    """What was written down; nothing where a crash came before."""
    try:
        lines = path.read_text().splitlines()
        values = [json.loads(line) for line in lines]
        return [_Intended(directory=each.pop("directory"), deleted=Deleted(**each)) for each in values]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"{path}: cannot read: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{path}: is damaged; look what stands beside it and remove both ({error})") from error


def _move(out: Path, intended: Sequence[_Intended]) -> None:
    """Take recordings out of sight."""
    days = set()
    for each in intended:
        path = recording_path(out, each.directory)
        with telling_disk(path, "delete"):
            if each.deleted.found:
                path.rename(out / DIRECTORY / each.deleted.id)
                days.add(path.parent)
    for directory in (out / DIRECTORY, *days):
        _sync(directory)


def _settle(out: Path, catalogue: Connection, begun: Sequence[_Intended], announce: Callable[[Deleted], None]) -> None:
    """Do what remains for recordings that are out of sight. May be done again after a crash."""
    fresh = _log(out, [each.deleted for each in begun])
    # A row that belongs to a recording of the same call, made anew meanwhile, stays.
    gone = [each for each in begun if not recording_path(out, each.directory).exists()]
    remove_rows(catalogue, [(each.deleted.id, each.directory) for each in gone])
    directory = out / DIRECTORY
    with telling_disk(directory, "empty"):
        for entry in directory.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
        for name in (_INTENT, f"fresh-{_INTENT}"):
            (directory / name).unlink(missing_ok=True)
        directory.rmdir()
    for deleted in fresh:
        announce(deleted)


def _log(out: Path, deleted: Sequence[Deleted]) -> list[Deleted]:
    """Add to the log what it does not tell yet, and give that."""
    path = out / LOG
    lines = {json.dumps(asdict(each)).encode(): each for each in deleted}
    if not lines:
        return []
    with telling_disk(path, "write"), path.open("a+b") as file:
        # Since an interrupted batch nothing but that batch was logged.
        size = file.tell()
        file.seek(max(0, size - 2 * sum(map(len, lines)) - _TORN))
        *told, torn = file.read().split(b"\n")
        fresh = [line for line in lines if line not in told]
        file.write((b"\n" if torn else b"") + b"".join(line + b"\n" for line in fresh))
        file.flush()
        os.fsync(file.fileno())
    return [lines[line] for line in fresh]


def _document(path: Path) -> dict[str, Any]:
    """The call.json of a recording; empty where there is none."""
    try:
        document = json.loads((path / "call.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _remove_empty_days(out: Path, now: int) -> None:
    """Remove directories of days, months and years that have nothing left."""
    young = format_time(max(0, now - YOUNG))[:10].replace("-", "/")
    for day in sorted(out.glob("[0-9]*/[0-9]*/[0-9]*")):
        if _DAY.fullmatch(day.relative_to(out).as_posix()) and day.relative_to(out).as_posix() < young:
            for directory in (day, day.parent, day.parent.parent):
                try:
                    directory.rmdir()
                except OSError:
                    break


def _sync(directory: Path) -> None:
    """Have renames in a directory outlive a loss of power."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
