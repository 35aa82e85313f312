"""SIP ladders as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from recorder.console import printable
from recorder.ladder import LEFT, draw
from recorder.status import LadderStep
from tests.live_status import NOW, ladder

A, B, C = "192.0.2.1:5060", "198.51.100.1:5060", "[2001:db8::1]:5070"


def step(source: str, destination: str, line: str, after_ms: int = 0, **flags: bool) -> LadderStep:
    return LadderStep(NOW + after_ms * 1_000_000, source, destination, line, **flags)


def test_a_call_looks_like_a_ladder():
    drawn = draw([step(A, B, "INVITE", has_sdp=True), step(B, A, "200 OK", 1234)], 80)
    assert [*drawn.heading, *drawn.rows] == [
        "                               ┌───────────┐             ┌──────────────┐",
        "                               │ 192.0.2.1 │             │ 198.51.100.1 │",
        "                               │   :5060   │             │    :5060     │",
        "                               └─────┬─────┘             └───────┬──────┘",
        "09:15:02.000                         │────── INVITE (SDP) ──────>│",
        "09:15:03.234   +1.234                │<──────── 200 OK ──────────│",
    ]


def test_every_message_is_a_row_with_its_time_and_the_time_since_the_one_before():
    rows = draw([step(A, B, "INVITE"), step(A, B, "INVITE", 500), step(B, A, "200 OK", 4_000_000)], 80).rows
    assert [row[:LEFT].split() for row in rows] == [
        ["09:15:02.000"],
        ["09:15:02.500", "+0.500"],
        ["10:21:42.000", "+1:06:39"],
    ]


def test_times_that_step_back_are_told():
    rows = draw([step(A, B, "INVITE"), step(B, A, "100 Trying", -3)], 80).rows
    assert "-0.003" in rows[1]


def test_arrows_go_from_sender_to_receiver_across_the_hosts_between():
    drawn = draw([step(A, B, "INVITE"), step(B, C, "INVITE"), step(C, A, "ACK")], 100)
    places = [index for index, character in enumerate(drawn.heading[3]) if character == "┬"]
    there, on, back = drawn.rows
    assert there[places[1] - 1] == ">"
    assert there[places[0]] == there[places[1]] == there[places[2]] == "│"
    assert on[places[2] - 1] == ">"
    assert back[places[0] + 1] == "<"
    assert back[places[1]] in "┼ACK "
    assert "─" in back[places[1] + 2 : places[2]]


def test_a_repeated_message_has_a_broken_arrow():
    first, again = draw([step(A, B, "INVITE"), step(A, B, "INVITE", retransmission=True)], 80).rows
    assert "─" in first
    assert "╌" not in first
    assert "╌" in again
    assert "─" not in again


def test_a_message_of_a_host_to_itself_is_seen():
    (row,) = draw([step(A, A, "OPTIONS")], 80).rows
    assert "<─ OPTIONS" in row


def test_where_hosts_are_many_the_ladder_is_wide():
    hosts = [f"192.0.2.{index}:5060" for index in range(8)]
    drawn = draw([step(hosts[0], host, "INVITE") for host in hosts[1:]], 80)
    assert drawn.width > 80
    assert all(host.partition(":")[0] in drawn.heading[1] for host in hosts)


def test_long_names_end_in_an_ellipsis_but_sdp_is_told():
    (row,) = draw([step(A, B, "183 Session Progress and more that does not fit", has_sdp=True)], 80).rows
    assert "183 Session P" in row
    assert "… (SDP)" in row


def test_nothing_seen_is_nothing_drawn():
    assert draw([], 80).rows == ()


def test_all_messages_of_a_call_are_drawn():
    steps = ladder(3)
    rows = draw(steps, 80).rows
    assert len(rows) == len(steps)
    assert all(step.line.split()[0] in row for step, row in zip(steps, rows, strict=True))


text = st.text(st.characters(), max_size=40)


@given(
    st.lists(st.builds(LadderStep, st.integers(0, 2**62), text, text, text, st.booleans(), st.booleans())),
    st.integers(0, 200),
)
def test_no_message_breaks_the_ladder_or_the_terminal(steps, width):
    drawn = draw(steps, width)
    assert len(drawn.rows) == len(steps)
    for line in (*drawn.heading, *drawn.rows):
        assert printable(line) == line
        assert cell_len(line) <= drawn.width
    for row in drawn.rows:
        assert row[:2].isdigit()


@pytest.mark.parametrize(("width", "drawn"), [(0, 80), (80, 80), (119, 119), (121, 119)])
def test_it_fills_the_width_as_far_as_hosts_stand_equally_apart(width, drawn):
    assert draw(ladder(1), width).width == drawn
