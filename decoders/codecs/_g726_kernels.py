"""The G.726 decoder, one code after the other (ITU-T G.726, section 4.2). The names are those of its blocks.

In: codes of one sample each, state, tables. Out: 16-bit samples; the state is brought forward. All numbers are integers
scaled as the recommendation has them; it asks for the same bits of every implementation.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

Int64 = NDArray[np.int64]

# Places in the state vector. Coefficients B1 to B6, A1, A2 stand beside what each multiplies: the last six differences
# and the last two reconstructed samples, as sign, exponent and mantissa.
COEFFICIENT, NEGATIVE, EXPONENT, MANTISSA = 0, 8, 16, 24
A1, A2 = COEFFICIENT + 6, COEFFICIENT + 7
PK1, PK2, YU, YL, DMS, DML, AP, TD = range(32, 40)
STATE = 40


@njit(cache=True, nogil=True)
def _bit_length(magnitude: int) -> int:
    bits = 0
    while magnitude >> bits:
        bits += 1
    return bits


@njit(cache=True, nogil=True)
def _remember(state: Int64, place: int, value: int, negative: bool) -> None:
    """Keep a number as a float of six bits of mantissa (blocks FLOATA, FLOATB)."""
    bits = _bit_length(abs(value))
    state[NEGATIVE + place], state[EXPONENT + place] = np.int64(negative), bits
    state[MANTISSA + place] = (abs(value) << 6) >> bits if value else 32


@njit(cache=True, nogil=True)
def _predict(state: Int64, first: int, last: int) -> int:
    """Sum of the products of coefficients and what they multiply (blocks FMULT, ACCUM)."""
    total = 0
    for i in range(first, last):
        coefficient = abs(state[i] >> 2)
        bits = _bit_length(coefficient)
        mantissa = (coefficient << 6) >> bits if coefficient else 32
        product = (mantissa * state[MANTISSA + i] + 48) >> 4
        exponent = bits + state[EXPONENT + i]
        product = product << exponent - 19 if exponent > 19 else product >> 19 - exponent
        total += -product if (state[i] < 0) != (state[NEGATIVE + i] != 0) else product
    return total


@njit(cache=True, nogil=True)
def _adapt_predictor(state: Int64, dq: int, sez: int, negative: bool, leak: int) -> None:
    """Coefficients after a sample (blocks UPA1, UPA2, UPB, LIMC, LIMD)."""
    difference = dq + sez
    sign = 0 if difference == 0 else (-1 if difference < 0 else 1)
    cross = min(max(-state[A1] * sign * state[PK1] >> 5, -256), 255)
    a2 = state[A2] - (state[A2] >> 7) + 128 * sign * state[PK2] + cross
    a2 = min(max(a2, -12288), 12288)
    a1 = state[A1] - (state[A1] >> 8) + 192 * sign * state[PK1]
    state[A1], state[A2] = min(max(a1, a2 - 15360), 15360 - a2), a2
    for i in range(6):
        state[i] -= state[i] >> leak
        if dq:
            state[i] += 128 if (state[NEGATIVE + i] != 0) == negative else -128


@njit(cache=True, nogil=True)
def _shift_history(state: Int64, dq: int, negative: bool, reconstructed: int) -> None:
    """Make room for the newest difference and the newest reconstructed sample."""
    for i in (5, 4, 3, 2, 1, 7):
        for part in (NEGATIVE, EXPONENT, MANTISSA):
            state[part + i] = state[part + i - 1]
    _remember(state, 0, dq, negative)
    _remember(state, 6, reconstructed, reconstructed < 0)


@njit(cache=True, nogil=True)
def _adapt_scale(state: Int64, y: int, w: int, f: int, transition: bool) -> None:
    """Scale factor and speed of adaptation (blocks FILTA to FILTE, LIMB, SUBTC, TRIGA)."""
    state[DMS] += (f << 4) + (-state[DMS] >> 5)
    state[DML] += (f << 4) + (-state[DML] >> 7)
    if transition:
        state[AP] = 256
    else:
        state[AP] += -state[AP] >> 4
        if y < 1536 or state[TD] or abs((state[DMS] << 2) - state[DML]) >= state[DML] >> 3:
            state[AP] += 32
    state[YU] = min(max(y + w + (-y >> 5), 544), 5120)
    state[YL] += state[YU] + (-state[YL] >> 6)


@njit(cache=True, nogil=True)
def decode_codes(
    codes: NDArray[np.uint8], bits: int, levels: Int64, w: Int64, f: Int64, state: Int64, samples: NDArray[np.int16]
) -> None:
    """Decode `codes` (uint8, `bits` each) into `samples` (int16, as many).

    `levels`, `w` and `f` (int64) hold DQLN, W and F of the rate by magnitude; `state` (int64) is STATE long.
    """
    highest = (1 << bits) - 1
    # The zeros of 40 kbit/s forget half as fast (block UPB).
    leak = 9 if bits == 5 else 8
    for n in range(len(codes)):
        negative = codes[n] >> bits - 1 != 0
        magnitude = highest - codes[n] if negative else np.int64(codes[n])
        zeros = _predict(state, 0, 6)
        sez, se = zeros >> 1, zeros + _predict(state, 6, 8) >> 1
        speed = 64 if state[AP] >= 256 else state[AP] >> 2
        y = (state[YL] + (state[YU] - (state[YL] >> 6)) * speed) >> 6

        logarithm = levels[magnitude] + (y >> 2)
        dq = 0 if logarithm < 0 else (128 + (logarithm & 127) << (logarithm >> 7 & 15)) >> 7
        whole = state[YL] >> 15
        threshold = 31 << 10 if whole > 9 else 32 + (state[YL] >> 10 & 31) << whole
        transition = state[TD] != 0 and dq > 3 * threshold >> 2
        if negative:
            dq = -dq
        reconstructed = se + dq

        if transition:
            state[:8] = 0
        else:
            _adapt_predictor(state, dq, sez, negative, leak)
        state[PK2], state[PK1] = state[PK1], -1 if dq + sez < 0 else 1
        _shift_history(state, dq, negative, reconstructed)
        state[TD] = np.int64(state[A2] < -11776)
        _adapt_scale(state, y, w[magnitude], f[magnitude], transition)
        samples[n] = min(max(reconstructed << 2, -32768), 32767)
