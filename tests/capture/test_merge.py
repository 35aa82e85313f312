import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capture import merge as merging
from capture.batch import PacketBatch
from capture.merge import NEVER, merge
from tests.naive_records import merged


class ListFeed:
    """A capture whose packets are given by their times; frame i of capture r holds the octets `r:i`."""

    live = False

    def __init__(self, rank, times, largest=8192):
        self.rank = rank
        self.start = times[0] if times else NEVER
        self.opened = self.closed = False
        self.crowded = False
        self._largest = largest
        frames = [f"{rank}:{i}".encode() for i in range(len(times))]
        gaps = [b"<header>" + frame for frame in frames]
        lengths = np.array([len(frame) for frame in frames], np.int32)
        ends = np.cumsum([len(gap) for gap in gaps], dtype=np.int64)
        self._whole = PacketBatch(
            buffer=np.frombuffer(b"".join(gaps), np.uint8),
            time=np.array(times, np.int64),
            offset=ends - lengths,
            captured=lengths,
            wire=lengths + 1,
            link_type=np.full(len(times), rank + 100, np.int32),
            number=np.arange(1, len(times) + 1, dtype=np.int64),
            capture=np.full(len(times), rank, np.int32),
        )
        self._at = 0

    def open(self, crowded):
        assert not self.opened
        self.opened, self.crowded = True, crowded

    def read(self, limit, span):
        assert self.opened
        assert not self.closed
        assert limit >= 1
        begin, self._at = self._at, min(len(self._whole), self._at + min(limit, self._largest))
        if begin == self._at:
            self.closed = True
            return None
        return merging._rows(self._whole, begin, self._at)


def frames(batches):
    found = []
    for batch in batches:
        assert not batch.buffer.flags.writeable
        for i in range(len(batch)):
            at = int(batch.offset[i])
            octets = batch.buffer[at : at + int(batch.captured[i])].tobytes()
            rank, row = (int(part) for part in octets.split(b":"))
            assert (batch.capture[i], batch.number[i], batch.link_type[i]) == (rank, row + 1, rank + 100)
            assert batch.wire[i] == batch.captured[i] + 1
            found.append((rank, row))
    return found


def run(captures, batch_size=8192, largest=8192):
    feeds = [ListFeed(rank, times, largest) for rank, times in enumerate(captures)]
    batches = list(merge(feeds, batch_size))
    assert all(0 < len(batch) <= batch_size for batch in batches)
    assert all(feed.closed for feed in feeds)
    return frames(batches)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 30), max_size=25), max_size=9),
    st.integers(1, 12),
    st.integers(1, 12),
)
def test_order_is_that_of_the_naive_twin(captures, batch_size, largest):
    assert run(captures, batch_size, largest) == merged(captures)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 1000), max_size=200).map(sorted), max_size=6), st.integers(1, 300))
def test_overlapping_captures_interleave_by_time(captures, batch_size):
    assert run(captures, batch_size) == merged(captures)


def test_equal_times_go_by_rank_then_by_frame():
    assert run([[5, 5], [5, 5], [4, 5]]) == [(2, 0), (0, 0), (0, 1), (1, 0), (1, 1), (2, 1)]


def test_times_that_step_back_stay_behind_the_packet_before_them():
    assert run([[10, 2, 30], [5, 20]]) == [(1, 0), (0, 0), (0, 1), (1, 1), (0, 2)]


def test_captures_that_follow_one_another_go_through_without_a_copy():
    feeds = [ListFeed(rank, list(range(100 * rank, 100 * rank + 100)), 30) for rank in (2, 0, 1)]
    batches = list(merge(feeds, 8192))
    assert [batch.capture[0] for batch in batches] == [0] * 4 + [1] * 4 + [2] * 4
    sources = {id(feed._whole.buffer) for feed in feeds}
    assert {id(batch.buffer) for batch in batches} == sources


def test_a_capture_is_opened_only_when_its_first_packet_is_due():
    feeds = [ListFeed(rank, list(range(1000 * rank, 1000 * rank + 900)), 100) for rank in range(50)]
    most = 0
    for _ in merge(feeds, 64):
        most = max(most, sum(feed.opened and not feed.closed for feed in feeds))
    assert most <= 2


def test_captures_without_packets_are_opened_and_closed_all_the_same():
    assert run([[], [1], []]) == [(1, 0)]
    assert run([[], []]) == []
    assert run([]) == []


def test_batches_are_full_where_many_captures_overlap():
    captures = [[i * 7 + rank for i in range(500)] for rank in range(100)]
    feeds = [ListFeed(rank, times) for rank, times in enumerate(captures)]
    sizes = [len(batch) for batch in merge(feeds, 1000)]
    assert sum(sizes) == 50_000
    assert len(sizes) < 60
    assert sum(feed.crowded for feed in feeds) == 100 - merging.CROWD


def test_two_thousand_captures_at_once_are_in_order():
    captures = [[i * 50 + rank % 7 for i in range(20)] for rank in range(2000)]
    assert run(captures, 4096) == merged(captures)


@pytest.mark.parametrize("batch_size", [1, 100, 100_000])
def test_batch_size_changes_nothing_but_the_batches(batch_size):
    captures = [[i * i % 977 for i in range(300)] for _ in range(5)]
    assert run(captures, batch_size) == merged(captures)


def test_merging_takes_no_more_memory_for_longer_captures():
    def peak(count):
        feeds = [ListFeed(rank, list(range(rank, count, 3))) for rank in range(3)]
        tracemalloc.start()
        for _ in merge(feeds, 256):
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(3000)
    assert peak(60_000) < 1.5 * peak(6000) + 100_000
