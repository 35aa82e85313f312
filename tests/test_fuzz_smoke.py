"""A few seconds of every fuzz target: the same inputs each time, the seeds first. `make fuzz` does it at length."""

from random import Random

import pytest

from tests.fuzz.plain import inputs
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_breaks_a_promise(name):
    target = TARGETS[name]
    for data in inputs(target, Random(name), target.short):
        target.run(data)
