"""Tables and messages."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.catalogue_tables import recording_row
from recorder.console import CALLS, duration, note, print_table, printable
from tests.calls import answered_call, document


@given(st.text(st.characters(exclude_categories=())))
def test_nothing_printed_acts_on_a_terminal(text):
    shown = printable(text)
    assert all(unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in shown)


def test_escapes_are_seen_as_such_and_text_stays():
    assert printable("\x1b[2J\u202eevil\n") == "\\x1b[2J\\u202eevil\\x0a"
    assert printable("Zoë 名 +49 30") == "Zoë 名 +49 30"


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, ""), (0.0, "0:00"), (59.99, "0:59"), (61.0, "1:01"), (3_725.0, "1:02:05")]
)
def test_durations_read_as_clocks_do(seconds, text):
    assert duration(seconds) == text


def test_a_table_lines_up_also_with_wide_characters(capsys):
    calls = [answered_call(0, "名前", "1"), answered_call(1, "a" * 99, "2\x1b[31m")]
    rows = [recording_row(document(call), f"day/{call.index}") for call in calls]
    print_table(lambda: rows)
    heading, first, second = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ["started", "(UTC)", "from"]
    assert first.startswith("2026-03-01 09:15:02  名前 ")
    assert "completed" in first
    assert "0:12  2 PCMU/8000  2.0%  4.20  one-way   day/0" in first
    assert second.index("completed") - first.index("completed") == 2
    assert "a" * 39 + "…" in second
    assert "2\\x1b[31m" in second


def test_colour_is_only_where_asked_for(capsys):
    rows = [recording_row(document(), "x")]
    print_table(lambda: rows, CALLS, colour=True)
    assert "\033[32m" in capsys.readouterr().out


def test_messages_go_to_stderr(capsys):
    note("a\x07b")
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "spanrec: a\\x07b\n")
