"""The live service on a wire, killed and disturbed in short: nothing that was recorded is lost (`bench/faults.py`)."""

import pytest

from bench.faults import main
from bench.veth import is_possible

pytestmark = pytest.mark.skipif(not is_possible(), reason="needs root, iproute2 and network namespaces")


def test_killed_under_load_every_call_is_accounted_for(capfd):
    words = ["kill", "--rounds", "2", "--calls", "8", "--hold", "3", "--pause", "1.5", "--settle", "6.5"]
    assert main(words) == 0, capfd.readouterr().err


def test_told_to_stop_in_the_middle_of_calls_it_finishes_them(capfd):
    assert main(["terminate", "--calls", "6", "--hold", "3"]) == 0, capfd.readouterr().err
