"""A kernel's memory fence, for memory that the Linux kernel writes at the same time.

In and out: nothing. What stands before it in a kernel is done, as every processor sees it, before what stands behind.
"""

from typing import Any

from numba import types
from numba.extending import intrinsic


@intrinsic
def fence(typing_context: Any) -> Any:
    """Full fence (LLVM's `fence seq_cst`)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate
