"""send(2) from within a kernel. In: a descriptor and memory. Out: octets that were sent, or the negative error number.

Never waits and never raises. The socket must be connected.
"""

import ctypes
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import config, njit, types
from numba.extending import intrinsic

REFUSED = -111
"""ECONNREFUSED: an earlier datagram came back as undeliverable (Linux)."""
_FLAGS = 0x40 | 0x4000
"""MSG_DONTWAIT, MSG_NOSIGNAL."""

_send = types.ExternalFunction("send", types.int64(types.int32, types.uintp, types.uintp, types.int32))
_error_place = types.ExternalFunction("__errno_location", types.uintp())


@intrinsic
def _word_at(typing_context: Any, address: Any) -> Any:
    """The 32-bit number at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], ir.IntType(32).as_pointer()))

    return types.int32(types.uintp), generate


@njit(cache=True, nogil=True)
def _send_compiled(descriptor: int, address: int, size: int) -> int:
    sent = _send(descriptor, address, size, _FLAGS)
    return int(sent) if sent >= 0 else -int(_word_at(_error_place()))


def _send_plain(descriptor: int, address: int, size: int) -> int:
    """The same without a compiler."""
    library = ctypes.CDLL(None, use_errno=True)
    sent = library.send(int(descriptor), ctypes.c_void_p(int(address)), ctypes.c_size_t(int(size)), _FLAGS)
    return int(sent) if sent >= 0 else -ctypes.get_errno()


send_datagram = _send_plain if config.DISABLE_JIT else _send_compiled
