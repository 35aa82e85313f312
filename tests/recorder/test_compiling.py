"""What the first run has compiled by a child, without the kernels of layers."""

from dataclasses import fields

import numpy as np

from capture.batch import KIND_UDP
from capture.layers import decode_layers
from recorder.compiling import _datagrams
from recorder.rehearsal import script


def test_the_childs_datagrams_are_those_that_the_kernels_find_type_by_type():
    source = script()
    rows = 0
    while not source.ended:
        batch = source.poll(0.0)
        if batch is None:
            continue
        wanted, found = decode_layers(batch), _datagrams(batch)
        udp = wanted.kind == KIND_UDP
        assert ((found.kind == KIND_UDP) == udp).all()
        rows += int(udp.sum())
        for field in fields(wanted):
            one, other = getattr(wanted, field.name), getattr(found, field.name)
            if isinstance(one, np.ndarray):
                assert one.dtype == other.dtype, field.name
                assert one.flags.c_contiguous == other.flags.c_contiguous, field.name
                if field.name != "ip_id":
                    assert (one[udp] == other[udp]).all(), field.name
    assert rows > 100
