"""The live service over captures, without an interface: sources that give what a file holds, at once or in parts."""

import io
import json
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

from capture.batch import PacketBatch
from capture.live import SourceCounters
from capture.source import CaptureSource
from recorder.document import CallDocument, parse
from recorder.log import ServiceLog, open_log
from recorder.policy import Policy, PolicyHolder
from recorder.policy_file import load_policy
from recorder.service import CaptureService
from recorder.service_types import Follower, ServiceOptions


class FileSource:
    """A live source that gives a capture's packets batch by batch. Its times are the capture's."""

    stamped_here = False

    def __init__(self, path: Path, *, batch_size: int = 64, before: Callable[[int], None] = lambda _: None) -> None:
        """`before` is told the number of packets given so far, before more are given."""
        self.name = path.name
        self.ended = False
        self._batches = iter(CaptureSource([path], batch_size=batch_size, hash_files=False))
        self._before = before
        self._packets = 0

    def poll(self, timeout: float) -> PacketBatch | None:
        self._before(self._packets)
        batch = next(self._batches, None)
        self.ended = batch is None
        self._packets += 0 if batch is None else len(batch)
        return batch

    def counters(self) -> SourceCounters:
        return SourceCounters(self._packets, 0, 0, 0, not self.ended, None)

    def close(self) -> None:
        self.ended = True


def policy_of(tmp_path: Path, text: str) -> Policy:
    """The policy that a settings file with this text has."""
    return load_policy(tomllib.loads(text), tmp_path / "spanrec.toml")


def quiet_log() -> tuple[ServiceLog, io.StringIO]:
    stream = io.StringIO()
    return open_log(stream), stream


def service(
    out: Path,
    policy: Policy | None = None,
    log: ServiceLog | None = None,
    followers: Sequence[Follower] = (),
    **options: object,
) -> CaptureService:
    log = log or quiet_log()[0]
    holder = PolicyHolder(policy or Policy(), lambda _: None)
    return CaptureService(ServiceOptions(out, **options), holder, log, followers)  # type: ignore[arg-type]


def record_live(out: Path, sources: Sequence[FileSource], **options: object) -> list[tuple[CallDocument, Path]]:
    """Run a service over the sources to their end; gives its recordings, in order of start."""
    service(out, **options).run(sources, lambda: None, lambda _: None)  # type: ignore[arg-type]
    return recordings(out)


def recordings(out: Path) -> list[tuple[CallDocument, Path]]:
    found = [(parse(path.read_bytes()), path.parent) for path in out.glob("2*/*/*/*/call.json")]
    return sorted(found, key=lambda each: (each[0].started, each[0].call_id or ""))


def comparable(document: CallDocument) -> dict[str, object]:
    """What of a document a live recording has in common with a replay: all but identifiers and captures."""
    told = json.loads(document.to_bytes())
    for name in ("id", "group_id", "captures", "metadata"):
        del told[name]
    return dict(told)
