"""Copies of recordings for others.

In: a store and directories of recordings in it. Out: a directory or a tar file with the same tree and SHA256SUMS, the
digests of all files in the form of `sha256sum`. The same recordings give the same tar, whenever it is made. What does
not agree with its call.json is copied and named.
"""

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from capture.errors import SpanrecError
from recorder.store import recording_path

MANIFEST = "SHA256SUMS"
_CHUNK = 1 << 20

Put = Callable[[str, Path], None]
"""Copies a file to a relative name."""


@dataclass(slots=True)
class ExportReport:
    """What was copied."""

    recordings: int = 0
    files: int = 0
    octets: int = 0
    altered: list[str] = field(default_factory=list)
    """A sentence for each file that is not what its call.json says."""


def export(out: Path, directories: Iterable[str], destination: Path) -> ExportReport:
    """Copy recordings of the store `out` to `destination`: a directory, or a tar if named .tar or .tar.gz.

    Raises SpanrecError where the destination exists or cannot be written, or a recording is gone.
    """
    report = ExportReport()
    if destination.exists():
        raise SpanrecError(f"{destination}: exists already; give a new name")
    lines: list[str] = []
    try:
        with ExitStack() as stack:
            put, finish = stack.enter_context(_target(destination))
            for directory in sorted(set(directories)):
                lines += _copy(out, directory, put, report)
            finish("".join(lines).encode())
    except OSError as error:
        raise SpanrecError(f"{error.filename or destination}: cannot copy: {error.strerror or error}") from error
    return report


def _copy(out: Path, directory: str, put: Put, report: ExportReport) -> Iterator[str]:
    """Copy one recording; gives its lines of the manifest."""
    source = recording_path(out, directory)
    if not (source / "call.json").is_file():
        raise SpanrecError(f"{source}: the catalogue has this recording, but it is gone")
    promised = _promised((source / "call.json").read_bytes())
    report.recordings += 1
    for path in sorted(entry for entry in source.iterdir() if entry.is_file()):
        name = f"{directory}/{path.name}"
        digest = _digest(path)
        if promised.get(path.name, digest) != digest:
            report.altered.append(f"{path}: is not the file that its call.json describes")
        put(name, path)
        report.files += 1
        report.octets += path.stat().st_size
        yield f"{digest}  {name}\n"


def _promised(document: bytes) -> dict[str, str]:
    """Digests that a call.json tells of the files beside it."""
    entries = json.loads(document)
    told = [entries.get("audio"), entries.get("metadata")]
    return {entry["file"]: entry["sha256"] for entry in told if entry}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _target(destination: Path) -> Iterator[tuple[Put, Callable[[bytes], None]]]:
    """How to put a file, and how to end with the manifest."""
    if destination.name.endswith((".tar", ".tar.gz", ".tgz")):
        with _tar(destination) as target:
            yield target
    else:
        destination.mkdir(parents=True)

        def put(name: str, source: Path) -> None:
            path = destination / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, path)

        yield put, lambda manifest: _write(destination / MANIFEST, manifest)


@contextmanager
def _tar(destination: Path) -> Iterator[tuple[Put, Callable[[bytes], None]]]:
    """A tar without owners and times of its own; it gets its name when it is whole."""
    partial = destination.with_name(f".{destination.name}.partial")
    with ExitStack() as stack:
        stack.callback(partial.unlink, missing_ok=True)
        file = stack.enter_context(partial.open("wb"))
        packed = None
        if destination.suffix in (".gz", ".tgz"):
            packed = stack.enter_context(gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0))
        archive = stack.enter_context(tarfile.open(fileobj=packed or file, mode="w|", bufsize=_CHUNK))

        def put(name: str, source: Path) -> None:
            with source.open("rb") as content:
                entry = tarfile.TarInfo(name)
                entry.size = source.stat().st_size
                archive.addfile(entry, content)

        def finish(manifest: bytes) -> None:
            entry = tarfile.TarInfo(MANIFEST)
            entry.size = len(manifest)
            archive.addfile(entry, io.BytesIO(manifest))
            archive.close()
            if packed is not None:
                packed.close()
            file.close()
            partial.rename(destination)

        yield put, finish


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
