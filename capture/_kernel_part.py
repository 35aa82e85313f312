"""The decorator of functions that kernels call, and Python never.

In: a plain function. Out: the same function, which a kernel that calls it has compiled as a part of itself. As a kernel
of its own it would also get what Python calls it by, and a place in the cache, which takes time in the first run. It is
for parts that are many and seldom run, those of tunnels: parts that every packet passes are kernels, as replay was a
tenth slower without. Called from Python, a part is the plain function that it was.
"""

from numba.extending import register_jitable

__all__ = ["kernel_part"]

kernel_part = register_jitable(nogil=True, no_cfunc_wrapper=True)
