"""Names of what the kernels of the receiver share: the columns of a stream's state and of a job, kinds, limits.

Positions are ticks of 1/14,112,000 s since the engine's epoch: a whole number of ticks for every sample of every
audio rate in use (8 to 48 kHz and the 11.025 kHz family). `decoders.timeline` explains the rules and owns the columns.
"""

import numpy as np
from numpy.typing import NDArray

Int16 = NDArray[np.int16]
Floats = NDArray[np.float64]

TICKS = 14_112_000
"""Timeline ticks in a second."""

# Columns of a stream's integer state.
(
    FORMATS, PRIMARY, STARTED, BASE, TOP, BAD, SEEN, SEEN_1, SEEN_2, SEEN_3, RECEIVED, DUPLICATES, REORDERED, LATE,
    EXPECTED, EPOCHS, GAPS, UTS, TRANSIT, TRANSIT_CLOCK, AFTER_EVENT, SEGMENT_UTS, SEGMENT_POSITION, SEGMENT_CLOCK,
    OLD_UTS, OLD_POSITION, BASELINE, BASELINE_KNOWN, FIRST_TIME, LAST_TIME, FIRST_STAMP, LOW_TICKS, HIGH_TICKS,
    LAST_END, SHIFTS, RESTARTS, AUDIO, EVENTS, NOISE, UNKNOWN, STRAYS, SNAPPED, AUDIO_TYPE, FIRST_NUMBER, LAST_NUMBER,
    OTHERS, LAST_CAPTURE, STATE,
) = range(48)  # fmt: skip
"""STATE is the number of columns. OTHERS counts what of a window is left to decoders; LOW_TICKS and HIGH_TICKS
bound what of it the kernels place."""

JOB_FIRST, JOB_LAST, JOB_LOW, JOB_FRAMES, JOB_KEPT, JOB_OUT, JOB_ZERO, JOB_STEP, JOB = range(9)
"""Columns of a job for `place`; JOB is their number."""

JITTER, JITTER_MAX, JITTER_SUM, JITTER_COUNT, STATISTICS = range(5)
"""Columns of a stream's floating-point state, jitter in RTP clock units; STATISTICS is their number."""

KIND_UNKNOWN = 0
KIND_ULAW = 1
KIND_ALAW = 2
KIND_CODEC = 3
"""Audio that a decoder object decodes."""
KIND_EVENT = 4
KIND_NOISE = 5
KIND_REDUNDANT = 6
KIND_SILENT = 7
"""Audio that cannot be decoded: it keeps its place, and stays silent."""
KIND_OTHER = 8
"""Not audio."""

MAX_DROPOUT = 3000
MAX_MISORDER = 100
HISTORY = 256
"""Sequence numbers behind the highest for which duplicates are known."""

JUMP = TICKS // 25
"""40 ms: a step of the delay that begins a new block."""
JUMP_AT_START = TICKS // 4
"""While the baseline is not known, only a step of 250 ms separates blocks."""
DRIFT = TICKS // 100
"""10 ms: channels may be this far off the capture clock before packets are moved."""
SETTLED = TICKS * 2 // 5
"""400 ms: how long a block must last to move packets later."""
LEAP = TICKS
"""1 s: no network makes packets this early; the sender's timestamp jumped."""
LATE_TICKS = TICKS * 6 // 100
"""60 ms: what a usual jitter buffer would have discarded."""
STRAY = 5 * TICKS
"""A packet this far behind what was placed belongs to no place."""
UNHEARD = -(1 << 62)
"""Delay of a packet that says nothing of the delay: an event, noise, or one out of order."""

DROPPED = 255
"""Kind of an entry that leaves no sound."""
