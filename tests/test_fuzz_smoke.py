"""A few seconds of every fuzz target: the same inputs each time, the seeds first. `make fuzz` does it at length."""

from random import Random

import pytest

from tests.fuzz.plain import inputs
from tests.fuzz.run import ROOT, kernel_modules
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_breaks_a_promise(name):
    target = TARGETS[name]
    for data in inputs(target, Random(name), target.short):
        target.run(data)


def test_no_kernel_is_instrumented():
    """numba cannot compile what the fuzzer has put its counters into, and then no target runs at all."""
    kernels = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for package in ("capture", "decoders", "recorder")
        for path in (ROOT / package).rglob("_*_kernels.py")
    ]
    assert len(kernels) > 20
    assert set(kernels) <= set(kernel_modules())
