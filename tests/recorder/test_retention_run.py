"""Retention at work."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from recorder.amounts import Age, Amount
from recorder.catalogue import FILE, CatalogueError
from recorder.catalogue_upkeep import open_for_upkeep
from recorder.deletion import LOG
from recorder.legal_hold import HoldError
from recorder.retention_rules import Retention, Terms
from recorder.retention_run import RESERVE, RESERVED, RetentionRun, space_of
from tests.calls import SECOND, START, answered_call, fill

DAY = 86_400 * SECOND


class Service:
    """What a service gives retention to work with."""

    def __init__(self, out: Path, retention: Retention) -> None:
        self.now = START + 100 * DAY
        self.retention = retention
        self.deleted: list[str] = []
        self.notes: list[str] = []
        self.out = out
        self.run = RetentionRun(
            out,
            lambda: self.retention,
            lambda: self.now,
            lambda deleted: self.deleted.append(deleted.id),
            self.notes.append,
        )

    def upkeep(self) -> int:
        catalogue = open_for_upkeep(self.out / FILE)
        try:
            return self.run(catalogue)
        finally:
            catalogue.close()

    def rows(self, table: str) -> int:
        catalogue = open_for_upkeep(self.out / FILE)
        (count,) = catalogue.execute(f"SELECT count(*) FROM {table}").fetchone()
        catalogue.close()
        return int(count)


@pytest.fixture
def out(tmp_path):
    fill(tmp_path, [answered_call(index) for index in range(5)], [answered_call(5)])
    return tmp_path


def test_time_deletes_and_takes_traces_of_unrecorded_calls_along(out):
    service = Service(out, Retention(Terms(keep=Age(100, "d"))))
    assert service.upkeep() == 0
    assert (service.rows("recordings"), service.rows("traces")) == (5, 6)
    service.now += 3 * SECOND
    assert service.upkeep() == 3
    service.now += 60 * SECOND
    assert service.upkeep() == 2
    assert (service.rows("recordings"), service.rows("traces")) == (0, 0)
    assert len(set(service.deleted)) == 5


def test_the_terms_in_force_count(out):
    service = Service(out, Retention())
    assert service.upkeep() == 0
    assert not (out / RESERVE).exists()
    service.retention = Retention(Terms(max_size=0))
    assert service.upkeep() == 5


def test_work_comes_in_pieces(out, monkeypatch):
    monkeypatch.setattr("recorder.retention_run.MOST_DELETED", 2)
    service = Service(out, Retention(Terms(keep=Age(1, "d"))))
    assert [service.upkeep() for _ in range(4)] == [2, 2, 1, 0]


def test_what_cannot_be_met_is_said_once_until_it_is_met(out):
    service = Service(out, Retention(Terms(max_size=0, at_least=Age(1, "y"))))
    service.upkeep()
    service.upkeep()
    assert len(service.notes) == 1
    service.retention = Retention()
    service.upkeep()
    service.retention = Retention(Terms(max_size=0, at_least=Age(1, "y")))
    service.upkeep()
    assert len(service.notes) == 2


def test_what_is_not_as_the_catalogue_says_is_in_nobodys_way(out, monkeypatch):
    monkeypatch.setattr("recorder.retention_run.MOST_DELETED", 2)
    for path in sorted(out.glob("2026/*/*/*/call.json"))[:3]:
        path.write_text("{}")
    service = Service(out, Retention(Terms(keep=Age(1, "d"))))
    assert [service.upkeep() for _ in range(5)] == [0, 1, 1, 0, 0]
    assert len(service.notes) == 3


def test_where_the_holds_cannot_be_read_nothing_is_deleted(out):
    (out / "holds.jsonl").write_text("what?\n")
    service = Service(out, Retention(Terms(max_size=0)))
    with pytest.raises(HoldError, match="until then nothing is deleted"):
        service.upkeep()
    assert service.rows("recordings") == 5


def test_a_catalogue_that_refuses_is_left_as_it_was(out):
    service = Service(out, Retention(Terms(max_size=0)))
    catalogue = open_for_upkeep(out / FILE)
    catalogue.execute("PRAGMA query_only = ON")
    with pytest.raises(CatalogueError, match="cannot write the catalogue"):
        service.run(catalogue)
    assert not catalogue.in_transaction
    catalogue.close()
    assert service.rows("recordings") == 5
    assert service.upkeep() == 5


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 40 MB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root, to mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "spanrec-test", str(disk)], check=False, timeout=20
    )
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True, timeout=20)


def test_on_a_full_disk_the_reserve_makes_way_for_deleting(small_disk):
    fill(small_disk, [answered_call(index) for index in range(10)])
    for path in small_disk.rglob("audio.wav"):
        path.write_bytes(b"x" * (1 << 20))
    service = Service(small_disk, Retention(min_free=Amount(share=0.2)))
    assert service.upkeep() == 0
    assert (small_disk / RESERVE).stat().st_size == RESERVED
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space left"):
        ballast.write_bytes(bytes(64 << 20))
    assert space_of(small_disk).free == 0
    assert service.upkeep() + service.upkeep() >= 4
    assert len((small_disk / LOG).read_text().splitlines()) == len(service.deleted)
    ballast.unlink()
    service.upkeep()
    assert space_of(small_disk).free >= 8 << 20
    assert (small_disk / RESERVE).stat().st_blocks * 512 >= RESERVED
