"""A kernel's hint to the processor that octets will be read soon.

In: an array of octets and an index. Out: nothing; a hint beyond the array or its mapped pages is harmless, because the
processor drops it. A record chain is a chain of dependent loads, so without the hint each record costs a cache miss.
"""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

LINE = 64
"""Octets of a cache line on all processors of interest; a wrong value costs speed only."""

_READ = 0
_KEEP_IN_L2 = 2
_DATA = 1


@intrinsic
def prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Hint that `array[index]` will be read (LLVM's `llvm.prefetch`)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        word = ir.IntType(32)
        pointer = ir.IntType(8).as_pointer()
        address = builder.bitcast(builder.gep(data, [arguments[1]]), pointer)
        kind = ir.FunctionType(ir.VoidType(), [pointer, word, word, word])
        hint = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        builder.call(hint, [address, word(_READ), word(_KEEP_IN_L2), word(_DATA)])
        return context.get_dummy_value()

    return types.void(array, index), generate
