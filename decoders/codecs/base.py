"""What every audio codec offers: payloads of one stream in, 16-bit samples out."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int16]
"""Mono, shape (n,)."""


class Decoder(Protocol):
    """Decoder of one stream in one direction. It keeps the codec's state from call to call.

    Each payload gives exactly the samples that its frames stand for, in the same call: nothing is held back, nothing
    is shifted, so the caller may place the samples at the payload's RTP timestamp. Several channels are mixed to mono.
    """

    sample_rate: int
    """Of the samples given, Hz. For G.722 and the like it differs from the RTP clock (RFC 3551, section 4.5.2)."""

    def decode(self, payloads: Sequence[bytes]) -> list[Samples]:
        """Samples of each payload, in RTP order; an empty array where one is undecodable. Never raises."""

    def reset(self) -> None:
        """Forget the state, as after a restart of the stream."""


EMPTY: Samples = np.zeros(0, np.int16)
EMPTY.flags.writeable = False


def split_samples(samples: Samples, counts: Sequence[int]) -> list[Samples]:
    """Cut `samples` into runs of `counts` samples."""
    pieces, start = [], 0
    for count in counts:
        pieces.append(samples[start : start + count])
        start += count
    return pieces


def mix_to_mono(samples: Samples, channels: int) -> Samples:
    """Mean of the interleaved channels at each instant, rounded half to even; an incomplete last one is cut."""
    if channels == 1:
        return samples
    whole = samples[: len(samples) // channels * channels].reshape(-1, channels)
    return np.rint(whole.mean(axis=1)).astype(np.int16)
