"""Kernel that decodes G.711 into tracks' files: what they have read, what comes placed, all written, track by track.

In: jobs of `decoders._placing_kernels`, and an open file for each. Out: frames in the files. It leaves the interpreter
alone for the whole of a window, and needs scratch for one track only, which stays in the processor's cache.
"""

from numba import config, njit, types

from capture.batch import Bytes, Int32, Int64, UInt8
from decoders._placing_kernels import place
from decoders._stream_columns import JOB_FRAMES, JOB_KEPT, JOB_LOW, Int16
from recorder.wav import FRAME, HEADER

_pread = types.ExternalFunction("pread", types.int64(types.int32, types.uintp, types.uintp, types.int64))
_pwrite = types.ExternalFunction("pwrite", types.int64(types.int32, types.uintp, types.uintp, types.int64))


@njit(cache=True, nogil=True)
def _record_compiled(
    jobs: Int64,
    files: Int64,
    begin: int,
    channels: Int32,
    bounds: Int64,
    taken: Int64,
    out_kind: UInt8,
    position: Int64,
    source: Int64,
    size: Int32,
    arena: Bytes,
    left: Int16,
    right: Int16,
    out: Int16,
    address: int,
) -> int:
    """Carry out jobs from `begin` on; gives the first one whose file could not be read or written whole, or how many
    jobs there are.

    `files` are descriptors, below 0 for jobs that are left out. Every job has JOB_OUT 0: `out`, at `address`, is
    scratch with room for the longest one.
    """
    for j in range(begin, jobs.shape[0]):
        if files[j] < 0:
            continue
        at = HEADER + FRAME * jobs[j, JOB_LOW]
        kept = FRAME * jobs[j, JOB_KEPT]
        if kept > 0 and _pread(files[j], address, kept, at) != kept:
            return j
        place(jobs[j : j + 1], channels, bounds, taken, out_kind, position, source, size, arena, left, right, out)
        octets = FRAME * jobs[j, JOB_FRAMES]
        if _pwrite(files[j], address, octets, at) != octets:
            return j
    return jobs.shape[0]


def _record_plain(jobs: Int64, files: Int64, begin: int, *_: object) -> int:
    """Without a compiler no job can be carried out here."""
    return next((j for j in range(begin, len(jobs)) if files[j] >= 0), len(jobs))


record = _record_plain if config.DISABLE_JIT else _record_compiled
