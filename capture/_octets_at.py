"""Numbers in an array of octets, and copies of octets, by one instruction of the processor each.

In: an array and an offset in it, not negative, that the caller has checked. Out: unsigned numbers, as int64 up to 32
bits. Octet by octet, a kernel would look at every index once more and load two or four times.

Where numba is told to check bounds (NUMBA_BOUNDSCHECK, as fuzzing does) or not to compile, the functions of `PLAIN` do
the same through indices that are looked at.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import config, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from capture.batch import Bytes

__all__ = ["PLAIN", "be16", "be32", "be64", "copy", "le32", "octet"]


@njit(nogil=True)
def _octet(buffer: Bytes, at: int) -> int:
    return int(buffer[at])


@njit(nogil=True)
def _be16(buffer: Bytes, at: int) -> int:
    return int(buffer[at]) << 8 | int(buffer[at + 1])


@njit(nogil=True)
def _be32(buffer: Bytes, at: int) -> int:
    return int(buffer[at]) << 24 | int(buffer[at + 1]) << 16 | int(buffer[at + 2]) << 8 | int(buffer[at + 3])


@njit(nogil=True)
def _be64(buffer: Bytes, at: int) -> np.uint64:
    value = np.uint64(0)
    for k in range(8):
        value = value << np.uint64(8) | np.uint64(buffer[at + k])
    return value


@njit(nogil=True)
def _le32(buffer: Bytes, at: int) -> int:
    return int(buffer[at]) | int(buffer[at + 1]) << 8 | int(buffer[at + 2]) << 16 | int(buffer[at + 3]) << 24


@njit(nogil=True)
def _copy(target: Bytes, to: int, origin: Bytes, at: int, size: int) -> None:
    for k in range(size):
        target[to + k] = origin[at + k]


PLAIN: dict[str, Callable[..., Any]] = {
    "octet": _octet,
    "be16": _be16,
    "be32": _be32,
    "be64": _be64,
    "le32": _le32,
    "copy": _copy,
}
"""What the functions of this module do, index by index."""


def _address(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    return builder.gep(context.make_array(kind)(context, builder, array).data, [at])


def _number(bits: int, *, big: bool) -> Any:
    """A function (buffer, at) that loads a number of so many bits."""

    @intrinsic
    def load(typing_context: Any, buffer: Any, at: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            address = _address(context, builder, signature.args[0], *arguments)
            value = builder.load(builder.bitcast(address, ir.IntType(bits).as_pointer()), align=1)
            value = builder.bswap(value) if big and bits > 8 else value
            return value if bits == 64 else builder.zext(value, ir.IntType(64))

        return (types.uint64 if bits == 64 else types.int64)(buffer, types.int64), generate

    return load


@intrinsic
def _memcpy(typing_context: Any, target: Any, to: Any, origin: Any, at: Any, size: Any) -> Any:
    """Copy `size` octets between arrays that do not overlap."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        into = _address(context, builder, signature.args[0], *arguments[:2])
        out = _address(context, builder, signature.args[2], *arguments[2:4])
        cgutils.raw_memcpy(builder, into, out, arguments[4], 1)
        return context.get_dummy_value()

    return types.void(target, types.int64, origin, types.int64, types.int64), generate


if config.BOUNDSCHECK or config.DISABLE_JIT:
    octet, be16, be32, be64, le32, copy = PLAIN.values()
else:
    octet, be16, be32 = _number(8, big=True), _number(16, big=True), _number(32, big=True)
    be64, le32, copy = _number(64, big=True), _number(32, big=False), _memcpy
