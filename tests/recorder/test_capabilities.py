"""Capabilities as the kernel tells them."""

import os

from recorder import capabilities
from tests.child import run


def test_masks_and_names_are_each_others_inverse():
    assert capabilities.names_of(capabilities.mask_of(capabilities.NAMES)) == capabilities.NAMES
    assert capabilities.mask_of(["net_raw"]) == 1 << 13
    assert capabilities.names_of(1 << 45) == ("45",)


def test_the_state_of_a_thread_is_that_of_the_kernel():
    state = capabilities.this_thread()
    assert state.users[:3] == os.getresuid()
    assert state.groups[:3] == os.getresgid()
    assert state.supplementary == set(os.getgroups())
    assert state.tid in [thread.tid for thread in capabilities.threads()]


def test_what_is_kept_is_all_that_is_left():
    told = run(
        """
from recorder import capabilities
held = capabilities.this_thread().permitted
some = held & capabilities.mask_of(["net_raw", "chown"])
capabilities.keep_only(some)
first = capabilities.this_thread()
capabilities.keep_only(0)
tell([first.permitted == first.effective == some, capabilities.this_thread().held])
"""
    )
    assert told == [True, 0]


def test_more_than_is_held_cannot_be_kept():
    told = run(
        """
from recorder import capabilities
capabilities.keep_only(0)
try:
    capabilities.keep_only(1)
    tell("kept")
except PermissionError:
    tell("refused")
"""
    )
    assert told == "refused"
