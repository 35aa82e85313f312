"""What retention deletes, and why."""

import sqlite3
import time
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.amounts import Age, Amount
from recorder.catalogue_tables import recordings
from recorder.document import format_time
from recorder.retention import Plan, Space, plan
from recorder.retention_rules import Retention, Terms

DAY = 86_400_000_000_000
NOW = 20_000 * DAY
NAMES = ("sales", "test", "vip")


@dataclass(frozen=True)
class Kept:
    """A recording in a catalogue."""

    number: int
    age: int
    """Days."""
    octets: int = 10
    tags: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return f"{self.number:08x}-0000-4000-8000-000000000000"

    @property
    def started(self) -> int:
        return NOW - self.age * DAY


def catalogue(kept: list[Kept]) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for statement in recordings.definition():
        connection.execute(statement)
    for each in kept:
        row = dict.fromkeys(recordings.names, "")
        row |= {"id": each.id, "call_id": f"call-{each.number}", "started": format_time(each.started)}
        row |= {"directory": f"day/{each.number}", "octets": each.octets, "tags": " ".join(sorted(each.tags))}  # type: ignore[dict-item]
        connection.execute(f"INSERT INTO recordings VALUES ({', '.join(':' + name for name in row)})", row)
    return connection


def chosen(found: Plan) -> list[int]:
    return [int(deletion.id[:8], 16) for deletion in found.deletions]


def planned(terms: Terms, *kept: Kept, **more: object) -> list[int]:
    held, space = more.pop("held", ()), more.pop("space", None)
    return chosen(plan(Retention(terms, **more), catalogue(list(kept)), held, NOW, space))  # type: ignore[arg-type]


def test_without_terms_nothing_is_deleted():
    assert planned(Terms(), Kept(0, 9000), space=Space(0, 100)) == []


def test_what_is_older_than_it_is_kept_goes_oldest_first():
    kept = [Kept(0, 89), Kept(1, 91), Kept(2, 500), Kept(3, 90)]
    assert planned(Terms(keep=Age(90, "d")), *kept) == [2, 1]


def test_a_deletion_says_by_which_setting_and_why():
    found = plan(Retention(Terms(keep=Age(90, "d"))), catalogue([Kept(1, 91, 77, ("vip",))]), (), NOW)
    (deletion,) = found.deletions
    assert deletion.rule == "retention.keep = 90d"
    assert deletion.reason == "was kept as long as it was to be"
    assert (deletion.call_id, deletion.directory, deletion.octets) == ("call-1", "day/1", 77)
    assert deletion.started == format_time(Kept(1, 91).started)
    assert found.octets == 77


def test_what_is_held_stays_and_still_takes_room():
    kept = [Kept(0, 500), Kept(1, 400), Kept(2, 300)]
    assert planned(Terms(keep=Age(90, "d")), *kept, held={kept[0].id}) == [1, 2]
    assert planned(Terms(max_size=20), *kept, held={kept[0].id}) == [1]


def test_tags_have_terms_of_their_own():
    tags = {"sales": Terms(keep=Age(7, "y")), "test": Terms(keep=Age(2, "d"))}
    kept = [Kept(0, 100), Kept(1, 100, tags=("sales",)), Kept(2, 3, tags=("test",)), Kept(3, 3, tags=("sales", "test"))]
    assert planned(Terms(keep=Age(90, "d")), *kept, tags=tags) == [0, 2]


def test_too_much_in_all_takes_the_oldest_until_it_fits():
    kept = [Kept(number, 100 - number, 10) for number in range(10)]
    assert planned(Terms(max_size=100), *kept) == []
    assert planned(Terms(max_size=99), *kept) == [0]
    assert planned(Terms(max_size=71), *kept) == [0, 1, 2]
    assert planned(Terms(max_size=0), *kept) == list(range(10))


def test_too_much_of_a_tag_takes_of_that_tag_alone():
    kept = [Kept(number, 100 - number, 10, ("test",) if number % 2 else ()) for number in range(10)]
    assert planned(Terms(), *kept, tags={"test": Terms(max_size=30)}) == [1, 3]
    assert planned(Terms(max_size=60), *kept, tags={"test": Terms(max_size=30)}) == [0, 1, 2, 3]


def test_a_disk_that_fills_takes_the_oldest_until_there_is_room():
    kept = [Kept(number, 100 - number, 10) for number in range(10)]
    assert planned(Terms(), *kept, min_free=Amount(share=0.1), space=Space(100, 1000)) == []
    assert planned(Terms(), *kept, min_free=Amount(share=0.1), space=Space(75, 1000)) == [0, 1, 2]
    assert planned(Terms(), *kept, min_free=Amount(octets=90), space=Space(75, 1000)) == [0, 1]
    assert planned(Terms(), *kept, min_free=Amount(share=0.1)) == []


def test_room_that_age_makes_counts():
    kept = [Kept(number, 100 - number, 10) for number in range(10)]
    terms = Terms(keep=Age(97, "d"), max_size=70)
    assert planned(terms, *kept) == [0, 1, 2]
    assert planned(terms, *kept, min_free=Amount(octets=40), space=Space(10, 1000)) == [0, 1, 2]
    assert planned(terms, *kept, min_free=Amount(octets=41), space=Space(10, 1000)) == [0, 1, 2, 3]


def test_what_must_be_kept_is_deleted_for_no_want_of_room_and_that_is_said():
    kept = [Kept(0, 500, tags=("sales",)), Kept(1, 20), Kept(2, 6)]
    retention = Retention(
        Terms(at_least=Age(1, "w"), max_size=0), Amount(share=1.0), tags={"sales": Terms(at_least=Age(7, "y"))}
    )
    found = plan(retention, catalogue(kept), (), NOW, Space(0, 1000))
    assert chosen(found) == [1]
    assert found.shortfalls == (
        "retention.max_size = 0: 20 octets too much stay; what is left is held or must be kept longer",
        "retention.min_free: 990 octets too much stay; what is left is held or must be kept longer",
    )


def test_a_recording_that_takes_no_room_is_not_deleted_for_room():
    assert planned(Terms(max_size=10), Kept(0, 9, 0), Kept(1, 8), Kept(2, 7)) == [1]


def test_a_plan_has_an_end():
    kept = [Kept(number, 200 - number) for number in range(100)]
    found = plan(Retention(Terms(keep=Age(50, "d"), max_size=0)), catalogue(kept), (), NOW, most=30)
    assert chosen(found) == list(range(30))


ages = st.integers(0, 400)
terms = st.builds(
    Terms,
    keep=st.none() | st.builds(Age, st.integers(1, 400), st.just("d")),
    at_least=st.none() | st.builds(Age, st.integers(1, 400), st.just("d")),
    max_size=st.none() | st.integers(0, 300),
)
stores = st.lists(
    st.builds(
        Kept,
        number=st.integers(0, 10_000),
        age=ages,
        octets=st.integers(0, 30),
        tags=st.lists(st.sampled_from(NAMES), max_size=2, unique=True).map(tuple),
    ),
    max_size=25,
    unique_by=lambda kept: kept.number,
)


@dataclass(frozen=True)
class Case:
    """A store, its terms, and what is held."""

    kept: list[Kept]
    held: frozenset[str]
    retention: Retention
    space: Space

    def plan(self, kept: list[Kept] | None = None, freed: int = 0) -> Plan:
        space = Space(self.space.free + freed, self.space.total)
        return plan(self.retention, catalogue(self.kept if kept is None else kept), self.held, NOW, space)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    kept = draw(stores)
    held = (
        frozenset(draw(st.lists(st.sampled_from(kept), max_size=5).map(lambda some: {each.id for each in some})))
        if kept
        else frozenset()
    )
    tags = draw(st.dictionaries(st.sampled_from(NAMES), terms, max_size=2))
    retention = Retention(draw(terms), draw(st.none() | st.integers(0, 400).map(Amount)), tags)
    return Case(kept, held, retention, Space(draw(st.integers(0, 400)), 1000))


@settings(max_examples=40, deadline=None)
@given(cases())
def test_nothing_held_and_nothing_too_young_is_ever_planned(case):
    by_id = {kept.id: kept for kept in case.kept}
    for deletion in case.plan().deletions:
        kept = by_id[deletion.id]
        assert deletion.id not in case.held
        for least in (
            each.at_least for each in (case.retention.terms, *(case.retention.tags.get(t, Terms()) for t in kept.tags))
        ):
            assert least is None or kept.started < least.before(NOW)


@settings(max_examples=40, deadline=None)
@given(cases())
def test_the_oldest_go_first_and_none_twice(case):
    found = case.plan()
    order = [(deletion.started, deletion.id) for deletion in found.deletions]
    assert order == sorted(set(order))


@settings(max_examples=40, deadline=None)
@given(cases())
def test_after_a_plan_there_is_nothing_more_to_do(case):
    found = case.plan()
    gone = {deletion.id for deletion in found.deletions}
    left = [kept for kept in case.kept if kept.id not in gone]
    again = case.plan(left, found.octets)
    assert again.deletions == ()
    assert len(again.shortfalls) == len(found.shortfalls)


@settings(max_examples=40, deadline=None)
@given(cases())
def test_for_want_of_room_no_more_goes_than_is_wanted(case):
    """Whatever is deleted for room could not have stayed: with the newest of it still there, a term is not met."""
    found = case.plan()
    for_room = [deletion for deletion in found.deletions if ".keep" not in deletion.rule]
    for rule in {deletion.rule for deletion in for_room}:
        newest = [deletion for deletion in for_room if deletion.rule == rule][-1]
        gone = {deletion.id for deletion in found.deletions} - {newest.id}
        left = [kept for kept in case.kept if kept.id not in gone]
        again = case.plan(left, found.octets - newest.octets)
        assert again.deletions or again.shortfalls


@settings(max_examples=40, deadline=None)
@given(cases())
def test_everything_that_has_expired_is_planned(case):
    gone = {deletion.id for deletion in case.plan().deletions}
    for kept in case.kept:
        expired = case.retention.cutoffs(kept.tags, NOW).expired
        assert kept.id in gone or kept.id in case.held or kept.started >= expired


@settings(max_examples=40, deadline=None)
@given(cases())
def test_where_room_is_still_wanted_everything_that_may_go_goes(case):
    found = case.plan()
    gone = {deletion.id for deletion in found.deletions}
    for shortfall in found.shortfalls:
        name = shortfall.split(".")[2] if shortfall.startswith("retention.tags.") else None
        for kept in case.kept:
            if (name is None or name in kept.tags) and kept.octets and kept.id not in case.held:
                assert kept.id in gone or kept.started >= case.retention.cutoffs(kept.tags, NOW).free


def test_many_recordings_take_no_longer_than_what_is_deleted():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for statement in recordings.definition():
        connection.execute(statement)
    row = dict.fromkeys(recordings.names, "''") | {
        "id": "printf('%08x-0000-4000-8000-000000000000', value)",
        "started": "strftime('%Y-%m-%dT%H:%M:%S.000000Z', 1700000000 + value * 100, 'unixepoch')",
        "octets": "100",
        "tags": "CASE value % 4 WHEN 0 THEN 'sales' ELSE '' END",
    }
    many = "WITH RECURSIVE n(value) AS (VALUES (0) UNION ALL SELECT value + 1 FROM n WHERE value < 99999)"
    connection.execute(f"INSERT INTO recordings {many} SELECT {', '.join(row.values())} FROM n")
    now = 1_700_000_000_000_000_000 + 100_000 * 100 * 1_000_000_000
    retention = Retention(Terms(keep=Age(110, "d")), tags={"sales": Terms(keep=Age(7, "y"))})
    begin = time.perf_counter()
    found = plan(retention, connection, (), now)
    # The steps of the index that were taken, not the clock of a busy machine, are what counts; the clock only warns.
    assert time.perf_counter() - begin < 2
    assert 3000 < len(found.deletions) < 5000
    details = connection.execute(
        "EXPLAIN QUERY PLAN SELECT started FROM recordings WHERE tags = '' AND started < '2' ORDER BY started, id"
    ).fetchall()
    assert "recordings_kept (tags=? AND started<?)" in details[0][3]
    assert len(details) == 1, "sorted, not read in order"


@pytest.mark.parametrize("octets", [None])
def test_a_recording_without_a_size_expires_too(octets):
    assert planned(Terms(keep=Age(90, "d")), Kept(0, 91, octets)) == [0]
