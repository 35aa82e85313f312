"""The table of calls and what stands above it."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from recorder.console import printable
from recorder.model import Side
from recorder.policy import Action
from recorder.status import Alarm, AlarmCode, DiskDelay, LiveCall, LiveState, LiveStream, SourceStatus, StoreSpace
from recorder.top_summary import describe, summary
from recorder.top_table import COLUMNS, arranged, fitting, heading, line, places
from recorder.top_text import Tone, cropped, fitted, plain
from tests.live_status import ALARM, NOW, SECOND, live_call, snapshot

WIDE = places(250)


def stream(side: Side | None = Side.CALLER, packets: int = 99, lost: int = 1, **changes) -> LiveStream:
    return replace(
        LiveStream(side, "PCMA/8000", "192.0.2.1:4000", "192.0.2.2:4002", packets, lost, 2.0, 4.2, 50.0, 0.01),
        **changes,
    )


def call(*streams: LiveStream, **changes) -> LiveCall:
    base = LiveCall(
        "00c0ffee", "a@b", LiveState.ACTIVE, NOW, NOW, 12.0, "sip:1@x", "tel:+49302", Action.RECORD, streams
    )
    return replace(base, **changes)


def cells(shown: LiveCall) -> dict[str, str]:
    return {place.column.title: piece.text.strip() for place, piece in zip(WIDE, line(shown, WIDE), strict=True)}


def tones(shown: LiveCall) -> dict[str, Tone]:
    return {place.column.title: piece.tone for place, piece in zip(WIDE, line(shown, WIDE), strict=True)}


def by(title: str):
    return next(column for column in COLUMNS if column.title == title)


def test_a_row_tells_of_both_sides():
    told = cells(call(stream(), stream(Side.CALLEE, 450, 50, mos=3.0, jitter_ms=40.0)))
    expected = (
        *("09:15:02", "1", "+49302", "active", "0:12", "PCMA", "99/450", "1.0/10", "2/40", "4.2/3.0", "100"),
        *("record", "", "a@b"),
    )
    assert tuple(told.values()) == expected


def test_several_streams_of_a_side_are_one():
    told = cells(call(stream(), stream(packets=1, lost=99, mos=1.0, codec="G722/8000")))
    assert (told["packets"], told["loss %"], told["MOS"], told["codec"]) == ("100/-", "50/-", "1.0/-", "PCMA,…")


def test_what_is_not_known_is_empty():
    told = cells(call(caller=None, callee=None, call_id=None))
    assert [told[title] for title in ("from", "to", "Call-ID", "loss %", "MOS", "pkt/s")] == [
        "?",
        "?",
        "none",
        "",
        "",
        "",
    ]
    assert cells(call(stream(mos=None, packets=0, lost=0)))["MOS"] == ""


def test_what_is_worth_a_look_is_coloured():
    assert tones(call(stream()))["loss %"] is Tone.WARN
    assert tones(call(stream(lost=0)))["loss %"] is Tone.PLAIN
    assert tones(call(stream(lost=50)))["loss %"] is Tone.BAD
    assert tones(call(stream(mos=3.6), stream(Side.CALLEE)))["MOS"] is Tone.WARN
    assert tones(call(stream(mos=3.1)))["MOS"] is Tone.BAD
    assert tones(call(stream(mos=4.0)))["MOS"] is Tone.PLAIN
    assert tones(call(warnings=("one-way",)))["state"] is Tone.WARN
    assert set(tones(call(action=Action.SKIP)).values()) == {Tone.DIM}


def test_in_80_cells_there_is_all_that_matters_and_numbers_are_whole():
    shown = {place.column.title: place.width for place in places(79)}
    assert list(shown) == ["from", "to", "state", "time", "codec", "loss %", "MOS", "pkt/s"]
    assert shown["from"] >= len("+493012345678")


@pytest.mark.parametrize("width", range(20, 260))
def test_a_line_is_never_wider_than_the_terminal(width):
    shown = places(width)
    assert cell_len(plain(line(live_call(3), shown))) <= width
    assert cell_len(plain(heading(shown, shown[0].column))) <= width
    for each in (*summary(snapshot(50, alarms=(ALARM,)), width), *describe(live_call(3), width)):
        assert cell_len(plain(each)) <= width


def test_a_wider_terminal_never_shows_less():
    columns = [{place.column.title for place in places(width)} for width in range(20, 260)]
    assert all(narrow <= wide for narrow, wide in pairwise(columns))
    assert len(columns[-1]) == len(COLUMNS)


def test_sorting_puts_first_what_needs_a_look():
    good, bad = call(stream(lost=0, mos=4.4), id="good"), call(stream(lost=50, mos=2.0, jitter_ms=90.0), id="bad")
    silent = call(id="silent")
    for title in ("loss %", "MOS", "jitter"):
        assert [c.id for c in arranged([good, silent, bad], by=by(title))] == ["bad", "good", "silent"]
        assert [c.id for c in arranged([good, silent, bad], by=by(title), descending=True)] == ["good", "bad", "silent"]
    long, short = call(duration=90.0, id="long"), call(duration=1.0, id="short")
    assert [c.id for c in arranged([short, long], by=by("time"))] == ["long", "short"]


def test_calls_that_are_equal_stay_in_the_order_of_their_starts():
    calls = [call(id=str(index), started=NOW - index * SECOND) for index in range(5)]
    for column in COLUMNS:
        if column.title != "started":
            assert [c.id for c in arranged(calls, by=column)] == ["4", "3", "2", "1", "0"]


@pytest.mark.parametrize("wanted", ["+4930", "A@B", "192.0.2.2", "pcma", "ACTIVE", "00c0", "sip:1@", ""])
def test_a_filter_looks_at_all_texts_in_either_case(wanted):
    assert arranged([call(stream(), callee="sip:+4930@x")], wanted)


def test_a_filter_leaves_out_the_rest():
    assert arranged([call()], "nothing") == []


def test_in_full_every_column_is_as_wide_as_what_is_in_it():
    calls = [call(stream()), call(caller="sip:" + "9" * 100 + "@x")]
    widths = {place.column.title: place.width for place in fitting(calls)}
    assert widths["from"] == 40
    assert widths["to"] == len("+49302")
    assert widths["warnings"] == len("warnings")


def test_the_summary_says_what_is_wrong():
    whole = replace(
        snapshot(5),
        sources=(SourceStatus("eth1", 1, 1, 7, 0, True), SourceStatus("eth2", 1, 1, 0, 0, False)),
        shed=3,
        store=StoreSpace(10**9, 100 * 10**9),
        delay=DiskDelay(4.0, 9.0),
        alarms=(Alarm(AlarmCode.DISK_LOW, NOW, "Little is left."), ALARM),
    )
    lines = summary(whole, 120)
    bad = [piece.text for each in lines for piece in each if piece.tone is Tone.BAD]
    assert bad == ["eth2 DOWN", "  3 shed", "7 dropped", "disk 1.0 GB free (1 %)", ", 4.0 s behind", "! kernel-drops"]
    assert "disk-low" in plain(lines[-1])


def test_many_alarms_leave_room_for_calls():
    alarms = tuple(Alarm(code, NOW, "x") for code in AlarmCode)
    lines = summary(replace(snapshot(5), alarms=alarms), 80)
    assert len(lines) == 7
    assert plain(lines[-1]) == f"! {len(alarms) - 3} more alarms"


def test_a_service_that_knows_little_yet_is_shown():
    bare = replace(snapshot(0), sources=(), store=None, delay=None, ended={})
    assert "no source" in plain(summary(bare, 100)[0])
    assert plain(summary(replace(bare, calls={LiveState.ACTIVE: 1}), 100)[1]).startswith("1 call: 1 active")


def test_a_call_is_described_with_its_streams():
    shown = call(stream(last_packet_age=7.0), stream(None), *[stream()] * 4, warnings=("one-way", "encrypted"))
    text = "\n".join(plain(each) for each in describe(shown, 100))
    for part in ("1 → +49302", "id 00c0ffee", "a@b", "1.0 % lost", "silent for 0:07", "unknown", "and 2 more streams"):
        assert part in text
    assert "192.0.2.1:4000 → 192.0.2.2:4002" in text
    assert "warnings: one-way, encrypted" in text


wire = st.text(st.characters(), max_size=60)


@given(wire, wire, wire, wire, st.integers(20, 200))
def test_nothing_from_the_wire_leaves_its_cell_or_acts_on_a_terminal(caller, callee, call_id, codec, width):
    shown = call(stream(codec=codec, source=callee), caller=caller, callee=callee, call_id=call_id, warnings=(codec,))
    widths = places(width)
    for each in (line(shown, widths), *describe(shown, width), cropped(line(shown, fitting([shown])), width)):
        assert printable(plain(each)) == plain(each)
        assert cell_len(plain(each)) <= width
    for piece, place in zip(line(shown, widths), widths, strict=True):
        assert cell_len(piece.text) == place.width + 1


@given(wire, st.integers(0, 50), st.booleans())
def test_a_fitted_text_has_the_width_that_was_asked_for(text, width, right):
    assert cell_len(fitted(text, width, right=right)) == width
