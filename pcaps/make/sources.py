"""Known audio for the lab's calls and the benchmarks, from seeds alone, and an independent G.711 to judge ours by.

In: a seed, a duration, a sample rate. Out: int16 samples, the same on every machine. Never reads a file; imports
nothing but numpy, and nothing of spanrec, so that tests may compare the two.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int16]
Octets = NDArray[np.uint8]

ULAW_BIAS = 33
"""G.711 table 2a: added to the 14-bit magnitude so that the segments become powers of two."""


def uniform(seed: int, count: int) -> NDArray[np.float64]:
    """`count` numbers in [0, 1) from SplitMix64: exact integer arithmetic, so equal on every machine and numpy."""
    step = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        state = np.uint64(seed) * np.uint64(0xD1342543DE82EF95) + np.arange(1, count + 1, dtype=np.uint64) * step
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def pilot_frequency(seed: int) -> int:
    """Hz of the steady tone under a source, so that a spectrum tells whose voice it is: 400, 450 ... 1350."""
    return 400 + 50 * (seed % 20)


def speech_like(seed: int, seconds: float, rate: int = 8000) -> Samples:
    """Syllables of harmonics and hiss with pauses between them, over a quiet pilot tone (-36 dBFS).

    Shape (seconds * rate,). A prefix of a longer duration equals the shorter one.
    """
    count = round(seconds * rate)
    syllables = int(count / rate / 0.18) + 2
    dice = uniform(seed, 5 * syllables).reshape(syllables, 5)
    time = np.arange(count, dtype=np.float64) / rate
    syllable = np.minimum((time / 0.18).astype(np.int64), syllables - 1)
    within = time / 0.18 - syllable
    pitch, loudness, voiced, formant, pause = dice[syllable].T
    envelope = np.sin(np.pi * within) ** 2 * (0.25 + 0.75 * loudness) * (pause > 0.2)
    base = 95 + 12 * (seed % 9) + 25 * pitch
    voice = np.zeros(count)
    for harmonic in range(1, 13):
        strength = 1 / (1 + ((harmonic * base - 350 - 1400 * formant) / 500) ** 2)
        voice += strength * np.sin(2 * np.pi * harmonic * base * within * 0.18)
    hiss = uniform(seed + 0x10000, count) * 2 - 1
    sound = envelope * np.where(voiced > 0.25, 0.28 * voice + 0.02 * hiss, 0.3 * hiss)
    sound += 0.0158 * np.sin(2 * np.pi * pilot_frequency(seed) * time)
    return np.round(np.clip(sound, -0.98, 0.98) * 32767).astype(np.int16)


def ulaw_encode(samples: Samples) -> Octets:
    """G.711 mu-law octets of 16-bit samples (the low 2 bits fall away, as in the ITU reference G.191)."""
    value = samples.astype(np.int32)
    negative = value < 0
    # G.191 takes the ones' complement of negative values, so that -1 is a magnitude of 0.
    magnitude = np.minimum((np.where(negative, ~value, value) >> 2) + ULAW_BIAS, 0x1FFF)
    segment = np.frexp(magnitude.astype(np.float64))[1].astype(np.int32) - 6
    code = segment << 4 | (magnitude >> (segment + 1)) & 0x0F
    return (np.where(negative, 0x7F, 0xFF) - code).astype(np.uint8)


def alaw_encode(samples: Samples) -> Octets:
    """G.711 A-law octets of 16-bit samples (the low 4 bits fall away, even bits inverted)."""
    value = samples.astype(np.int32)
    negative = value < 0
    magnitude = np.where(negative, ~value, value) >> 4
    segment = np.maximum(np.frexp(magnitude.astype(np.float64))[1].astype(np.int32) - 4, 0)
    mantissa = np.where(segment > 1, magnitude >> np.maximum(segment - 1, 0), magnitude) & 0x0F
    code = segment << 4 | mantissa
    return ((code | np.where(negative, 0, 0x80)) ^ 0x55).astype(np.uint8)


@lru_cache(maxsize=1)
def ulaw_table() -> Samples:
    """Sample of each mu-law octet. Shape (256,)."""
    code = ~np.arange(256) & 0xFF
    magnitude = ((2 * (code & 0x0F) + ULAW_BIAS) << (code >> 4 & 7)) - ULAW_BIAS
    return (4 * np.where(code & 0x80, -magnitude, magnitude)).astype(np.int16)


@lru_cache(maxsize=1)
def alaw_table() -> Samples:
    """Sample of each A-law octet. Shape (256,)."""
    code = np.arange(256) ^ 0x55
    segment, mantissa = code >> 4 & 7, code & 0x0F
    magnitude = np.where(segment == 0, 2 * mantissa + 1, (2 * mantissa + 33) << np.maximum(segment - 1, 0))
    return (8 * np.where(code & 0x80, magnitude, -magnitude)).astype(np.int16)


def encode(codec: str, samples: Samples) -> Octets:
    """G.711 octets; `codec` as in rtpmap: PCMU or PCMA."""
    return {"PCMU": ulaw_encode, "PCMA": alaw_encode}[codec](samples)


def decode(codec: str, octets: Octets) -> Samples:
    """16-bit samples of G.711 octets; `codec` as in rtpmap."""
    return {"PCMU": ulaw_table, "PCMA": alaw_table}[codec]()[octets]


def through(codec: str, samples: Samples) -> Samples:
    """What a listener hears of `samples`: encoded and decoded again."""
    return decode(codec, encode(codec, samples))
