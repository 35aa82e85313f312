"""After a crash the streams' numbers are those that were kept last, of their own rows only."""

from dataclasses import replace

import numpy as np

from decoders import _stream_columns as cols
from decoders.timeline import StreamTable
from recorder import kept_figures
from recorder.kept_figures import Part
from tests.calls import START, stream

SECOND = 1_000_000_000


def a_table(rows, packets=100, capacity=16):
    table = StreamTable(capacity)
    for row in rows:
        state = table.state[row]
        state[cols.STARTED], state[cols.RECEIVED], state[cols.AUDIO] = 1, packets, packets
        state[cols.BASE], state[cols.TOP] = 7, 7 + packets + 4
        state[cols.FIRST_TIME], state[cols.LAST_TIME] = START + row, START + row + packets * SECOND // 50
        state[cols.GAPS], state[cols.DUPLICATES], state[cols.REORDERED] = 2, 3, 4
        table.figures[row, cols.JITTER_SUM], table.figures[row, cols.JITTER_COUNT] = 30.0, 10.0
    return table


def test_a_report_gets_the_numbers_that_were_kept(tmp_path):
    kept_figures.keep(tmp_path, a_table([3], packets=100))
    found = kept_figures.read(tmp_path).revise(replace(stream(), packets=60), [Part(3, START + 3)])
    assert (found.packets, found.lost, found.duplicates, found.reordered) == (100, 5, 3, 4)
    assert (found.started, found.ended) == (START + 3, START + 3 + 2 * SECOND)
    assert found.jitter_mean_ms == 3.0
    assert found.mos is not None
    assert replace(found, packets=60).codec == stream().codec


def test_a_stream_whose_addresses_changed_is_the_sum_of_its_rows(tmp_path):
    kept_figures.keep(tmp_path, a_table([1, 9], packets=40))
    found = kept_figures.read(tmp_path).revise(replace(stream(), packets=60), [Part(1, START + 1), Part(9, START + 9)])
    assert found.packets == 80
    assert (found.started, found.ended) == (START + 1, START + 9 + 40 * SECOND // 50)


def test_rows_that_are_another_streams_now_tell_nothing(tmp_path):
    kept_figures.keep(tmp_path, a_table([1, 2]))
    kept, report = kept_figures.read(tmp_path), replace(stream(), packets=60)
    for parts in ([Part(1, START)], [Part(2, START + 2), Part(1, START)], [Part(99, START)], [Part(-1, START)], []):
        assert kept.revise(report, parts) == report


def test_a_report_that_knows_more_than_was_kept_stays_as_it_is(tmp_path):
    kept_figures.keep(tmp_path, a_table([1], packets=50))
    report = replace(stream(), packets=60)
    assert kept_figures.read(tmp_path).revise(report, [Part(1, START + 1)]) == report


def test_only_rows_in_use_are_kept_and_the_newest_file_counts(tmp_path):
    kept_figures.keep(tmp_path, a_table([1, 2, 3], packets=10))
    kept_figures.keep(tmp_path, a_table([700], packets=20, capacity=1024))
    assert [path.name for path in tmp_path.iterdir()] == [kept_figures.FILE]
    kept = kept_figures.read(tmp_path)
    assert kept.state.shape == (701, cols.STATE)
    assert np.flatnonzero(kept.state[:, cols.STARTED]).tolist() == [700]


def test_a_file_that_is_absent_cut_or_damaged_harms_nothing(tmp_path):
    report, parts = replace(stream(), packets=60), [Part(1, START + 1)]
    assert kept_figures.read(tmp_path).revise(report, parts) == report
    kept_figures.keep(tmp_path, a_table([1, 2]))
    whole = (tmp_path / kept_figures.FILE).read_bytes()
    for cut in range(0, len(whole), 37):
        (tmp_path / kept_figures.FILE).write_bytes(whole[:cut])
        assert kept_figures.read(tmp_path).revise(report, parts).packets in (60, 100)
    (tmp_path / kept_figures.FILE).write_bytes(b"\xff" * len(whole))
    assert kept_figures.read(tmp_path).revise(report, parts) == report
