"""`spanrec calls hold`, `release` and `expire`: what is kept, and what is deleted.

In: a store, recordings by name, the terms of the settings file. Out: holds, deletions, and what they were on stdout.
`expire` deletes only where no other process records into the store: the service there deletes by itself.
"""

import getpass
import json
import os
import pwd
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from capture.errors import SpanrecError
from recorder.cli_calls import AsJson, Store, named_rows, opened

if TYPE_CHECKING:
    from recorder.deletion import Deleted
    from recorder.retention import Deletion
    from recorder.retention_rules import Retention

Names = Annotated[list[str], typer.Argument(metavar="ID...", help="Call-IDs, ids, or beginnings of ids.")]
By = Annotated[str | None, typer.Option(metavar="NAME", help="Who says so.", show_default="the user")]


def hold_command(
    names: Names,
    out: Store,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; goes into holds.jsonl.", show_default=False)],
    by: By = None,
) -> None:
    """Put recordings on legal hold: they are not deleted until they are released."""
    from recorder.legal_hold import hold
    from recorder.store import recording_path

    with opened(out) as catalogue:
        rows = [row for name in names for row in named_rows(catalogue, name)]
    identifiers = list(dict.fromkeys(row["id"] for row in rows))
    fresh = hold(out, identifiers, at=_now(), by=by or _user(), reason=_said(reason))
    # A deletion that was under way may have been quicker.
    gone = [row["id"] for row in rows if not recording_path(out, row["directory"]).is_dir()]
    if gone:
        raise SpanrecError(f"{', '.join(gone)}: was deleted a moment before; deletions.jsonl tells why")
    print(f"{len(fresh)} put on hold, {len(identifiers) - len(fresh)} held already")


def release_command(
    names: Names,
    out: Store,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; goes into holds.jsonl.")] = "",
    by: By = None,
) -> None:
    """Release recordings from legal hold."""
    from recorder.legal_hold import release

    with opened(out) as catalogue:
        identifiers = list(dict.fromkeys(row["id"] for name in names for row in named_rows(catalogue, name)))
    released = release(out, identifiers, at=_now(), by=by or _user(), reason=reason)
    print(f"{len(released)} released, {len(identifiers) - len(released)} not on hold")


def expire_command(
    out: Store,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be deleted.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete what the settings' [retention] says, and tell of each recording why."""
    from recorder import settings
    from recorder.retention_rules import load_retention

    path = settings.file_of(Path.cwd(), os.environ)
    found = settings.load(Path.cwd(), os.environ)
    if "retention" not in found:
        raise SpanrecError(f"{path}: has no [retention], by which anything would be deleted")
    retention = load_retention(found, path)
    told = _rehearse(out, retention) if dry_run else _expire(out, retention)
    if as_json:
        print(json.dumps({"dry_run": dry_run, "deletions": told}, indent=2))
        return
    for each in told:
        print(f"{each['started']}  {each['id']}  {each['octets']:>13,}  {each['rule']}: {each['reason']}")
    octets = sum(int(str(each["octets"])) for each in told)
    print(f"{len(told)} recordings, {octets:,} octets {'would be deleted' if dry_run else 'deleted'}")


def _rehearse(out: Path, retention: "Retention") -> list[dict[str, object]]:
    """What would be deleted. Changes nothing, not even the catalogue."""
    from recorder.catalogue import FILE, telling
    from recorder.catalogue_upkeep import measure, open_to_rehearse
    from recorder.console import note
    from recorder.legal_hold import holds
    from recorder.retention import plan
    from recorder.retention_run import space_of

    with telling(out / FILE, "read"), closing(open_to_rehearse(out / FILE)) as catalogue:
        measure(out, catalogue)
        planned = plan(retention, catalogue, holds(out), time.time_ns(), space_of(out), sys.maxsize)
    for shortfall in planned.shortfalls:
        note(shortfall)
    return [_told(deletion) for deletion in planned.deletions]


def _expire(out: Path, retention: "Retention") -> list[dict[str, object]]:
    """Delete. Raises SpanrecError where another process writes to the store."""
    from recorder.catalogue import FILE, telling
    from recorder.catalogue_upkeep import measure, open_for_upkeep, require
    from recorder.console import note
    from recorder.retention_run import RetentionRun
    from recorder.store import RecordingStore

    require(out / FILE)
    _require_owner(out)
    told: list[dict[str, object]] = []
    notes: dict[str, None] = {}
    with telling(out / FILE, "write"), RecordingStore(out), closing(open_for_upkeep(out / FILE)) as catalogue:
        measure(out, catalogue)
        run = RetentionRun(
            out=out,
            retention=lambda: retention,
            clock=time.time_ns,
            announce=lambda deleted: told.append(_told(deleted)),
            note=notes.setdefault,
        )
        while run(catalogue):
            pass
    for sentence in notes:
        note(sentence)
    return told


def _require_owner(out: Path) -> None:
    """Files that root made in the store of another would be in that one's way."""
    owner = out.stat().st_uid
    if os.geteuid() == 0 and owner != 0:
        name = next((entry.pw_name for entry in pwd.getpwall() if entry.pw_uid == owner), str(owner))
        raise SpanrecError(f"{out}: belongs to {name}; delete as that user: sudo -u {name} spanrec calls expire")


def _told(deletion: "Deletion | Deleted") -> dict[str, object]:
    names = ("id", "call_id", "started", "octets", "rule", "reason")
    return {name: getattr(deletion, name) for name in names}


def _said(reason: str) -> str:
    if not reason.strip():
        raise typer.BadParameter("say why, for those who come later", param_hint="--reason")
    return reason


def _user() -> str:
    """Who is at the terminal."""
    return os.environ.get("SUDO_USER") or getpass.getuser()


def _now() -> str:
    from recorder.document import format_time

    return format_time(time.time_ns())
