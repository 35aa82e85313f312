"""What settings say of the spool of our client."""

from pathlib import Path

import pytest

from capture.errors import SpanrecError
from recorder.siprec.spool import AT_ONCE
from recorder.siprec.src_settings import load_src


@pytest.mark.parametrize(("src", "at_once"), [({}, AT_ONCE), ({"spool_at_once": 1}, 1), ({"spool_at_once": 100}, 100)])
def test_how_many_calls_are_delivered_at_once_is_set(src, at_once):
    assert load_src({"src": src}, Path("spanrec.toml")).spool.at_once == at_once


@pytest.mark.parametrize("value", [0, 101, -1, True, 1.5, "8"])
def test_a_number_of_deliveries_that_cannot_be_is_refused_with_its_place(value):
    with pytest.raises(SpanrecError, match=r"spanrec\.toml.*\[src\]: spool_at_once"):
        load_src({"src": {"spool_at_once": value}}, Path("spanrec.toml"))
