"""One range of addresses for all rings, with the memory of plain files in place of rings."""

import gc
import mmap
import tempfile

import numpy as np
import pytest

from capture.ring_memory import RingMemory

PAGE = mmap.PAGESIZE


@pytest.fixture
def file():
    with tempfile.TemporaryFile() as made:
        made.write(b"x" * 2 * PAGE)
        made.flush()
        yield made


def test_what_is_placed_appears_in_its_place_and_is_shared(file):
    memory = RingMemory(4 * PAGE)
    memory.place(file.fileno(), PAGE, 2 * PAGE)
    assert memory.octets[:PAGE].any() == memory.octets[3 * PAGE :].any() == False  # noqa: E712
    assert (memory.octets[PAGE : 3 * PAGE] == ord("x")).all()
    memory.octets[PAGE] = ord("y")
    file.seek(0)
    assert file.read(2) == b"yx"


def test_what_is_withdrawn_reads_as_zeros_and_another_may_take_its_place(file):
    memory = RingMemory(2 * PAGE)
    memory.place(file.fileno(), 0, 2 * PAGE)
    memory.withdraw(0, 2 * PAGE)
    assert not memory.octets.any()
    memory.place(file.fileno(), 0, 2 * PAGE)
    assert memory.octets.all()


def addresses():
    with open("/proc/self/maps", encoding="ascii") as lines:
        return {int(line.split("-")[0], 16) for line in lines}


def test_the_range_lives_as_long_as_a_view_of_it(file):
    memory = RingMemory(2 * PAGE)
    memory.place(file.fileno(), 0, 2 * PAGE)
    view = memory.octets[10:20].view(np.uint16)
    place = memory.octets.ctypes.data
    del memory
    gc.collect()
    assert place in addresses()
    assert view[0] == 0x7878
    del view
    gc.collect()
    assert place not in addresses()


def test_what_cannot_be_mapped_is_an_os_error():
    with pytest.raises(OSError, match="memory"):
        RingMemory(1 << 60)
    with pytest.raises(OSError, match="descriptor"):
        RingMemory(PAGE).place(10**6, 0, PAGE)
