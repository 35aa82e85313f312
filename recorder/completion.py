"""The last steps of a recording, so that a kill between any two of them is made good by the next run.

In: a working directory whose documents are whole, or what an earlier run left. Out: a mark beside the directory from
that moment until the catalogue has the recording; and what is marked, published. A mark holds the document and the
catalogue's row of the decision trace.
"""

import json
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from recorder import checkpoint, journal
from recorder.catalogue_upkeep import octets_of
from recorder.document import parse
from recorder.live_catalogue import LiveCatalogue
from recorder.publish import write_file
from recorder.siprec import received
from recorder.store import RecordingStore

_ENDING = ".whole"
_ASIDE = "tracks"
_BESIDE = {journal.FILE, received.JOURNAL, checkpoint.FILE, f"{checkpoint.FILE}.new", "audio.joined"}
"""Files of a working directory that are not of its recording."""
_DIRECTORIES = {_ASIDE, f"{_ASIDE}.new"}


def mark_whole(work: Path, document: bytes, trace: dict[str, Any]) -> None:
    """Say that the documents in a working directory are whole. `document`: what its call.json holds."""
    from pydantic_core import to_json

    fresh = f"{work}.new"
    write_file(fresh, to_json({"document": document.decode(), "trace": trace}))
    os.rename(fresh, f"{work}{_ENDING}")


def set_aside(work: Path, tracks: Iterable[Path]) -> None:
    """Keep the tracks of a call while its audio is made of them: until it is marked, the next try begins with them.

    They are linked, not copied: what makes the audio writes another file and gives it the name of this one.
    """
    take_back(work)
    fresh = work / f"{_ASIDE}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    for track in tracks:
        with suppress(FileNotFoundError):
            (fresh / track.name).hardlink_to(track)
    fresh.rename(work / _ASIDE)


def take_back(work: Path) -> None:
    """The audio was being made of the tracks and was not finished: as if it had not begun."""
    shutil.rmtree(work / f"{_ASIDE}.new", ignore_errors=True)
    aside = work / _ASIDE
    if aside.exists():
        for track in aside.iterdir():
            track.rename(work / track.name)
            track.unlink(missing_ok=True)  # two names of one file: the renaming did nothing
        aside.rmdir()


def unmark(work: Path) -> None:
    """The catalogue has the recording."""
    with suppress(FileNotFoundError):
        os.unlink(f"{work}{_ENDING}")


def clear_away(work: Path) -> int:
    """Remove what a working directory holds beside its recording. Returns what the recording takes on the disk."""
    octets = 0
    with os.scandir(work) as entries:
        for entry in list(entries):
            if entry.name in _BESIDE:
                os.unlink(entry)
            elif entry.name in _DIRECTORIES:
                shutil.rmtree(entry, ignore_errors=True)
            else:
                octets += octets_of(entry)
    return octets


def complete(working: Path, store: RecordingStore, catalogue: LiveCatalogue) -> list[str]:
    """Publish what an earlier run had made whole. Returns the directories, relative to OUT."""
    for unfinished in working.glob("*.new"):
        unfinished.unlink()
    directories = []
    for mark in sorted(working.glob(f"*{_ENDING}")):
        work = mark.with_suffix("")
        try:
            value = json.loads(mark.read_bytes())
            document = parse(value["document"].encode())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            mark.unlink()
            continue
        if work.is_dir():
            clear_away(work)
            directory: str | None = store.publish(document, work)
        else:
            directory = store.find(document)
        if directory is not None:
            catalogue.add_recording(document, directory)
            catalogue.add_trace(value["trace"])
            catalogue.commit()
            directories.append(directory)
        mark.unlink()
    return directories
