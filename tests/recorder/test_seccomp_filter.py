"""The filter program: what it decides, on machines that we have not got too."""

import errno
import struct

import pytest

from recorder.seccomp_filter import ARCHITECTURES, NEW_NAMESPACES, REFUSED, SOCKET_FAMILIES, assemble

ALLOW = 0x7FFF0000
FAIL = 0x00050000
READ = {"x86_64": 0, "aarch64": 63, "riscv64": 63}


def decide(machine: str, number: int, argument: int = 0, audit: int | None = None) -> int:
    """What the kernel would do: the errno of a call, 0 where it passes. An interpreter of the few instructions used."""
    program = list(struct.iter_unpack("=HBBI", assemble(machine)))
    audit = ARCHITECTURES[machine].audit if audit is None else audit
    data = struct.pack("<IIQ6Q", number, audit, 0, argument, 0, 0, 0, 0, 0)
    place = accumulator = 0
    while True:
        code, then, otherwise, value = program[place]
        place += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x06:
            assert value == ALLOW or value & 0xFFFF0000 == FAIL
            return 0 if value == ALLOW else value & 0xFFFF
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[code]
            place += then if holds else otherwise


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_what_is_listed_is_refused_and_the_rest_passes(machine):
    numbers = {row[ARCHITECTURES[machine].column] for row in REFUSED.values()} - {None}
    special = {ARCHITECTURES[machine].clone, ARCHITECTURES[machine].clone3, ARCHITECTURES[machine].socket}
    assert not numbers & special
    for number in set(range(500)) - special:
        assert decide(machine, number) == (errno.EPERM if number in numbers else 0), number


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_another_architectures_calls_are_refused(machine):
    assert decide(machine, READ[machine]) == 0
    assert decide(machine, READ[machine], audit=0x40000003) == errno.EPERM


def test_the_32_bit_interface_of_x86_64_is_refused():
    assert decide("x86_64", 0x40000000) == errno.EPERM


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_threads_and_children_are_had_but_no_namespaces(machine):
    clone = ARCHITECTURES[machine].clone
    thread = 0x3D0F00
    assert decide(machine, clone, thread) == 0
    for bit in range(32):
        expected = errno.EPERM if NEW_NAMESPACES >> bit & 1 else 0
        assert decide(machine, clone, 1 << bit) == expected
    assert decide(machine, 435) == errno.ENOSYS


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_only_ordinary_families_of_sockets_are_had(machine):
    call = ARCHITECTURES[machine].socket
    for family in range(64):
        expected = 0 if family in SOCKET_FAMILIES.values() else errno.EAFNOSUPPORT
        assert decide(machine, call, family) == expected
