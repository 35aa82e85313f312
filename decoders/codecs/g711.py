"""G.711 µ-law and A-law by table, both ways (ITU-T G.711, RFC 3551, section 4.5.14).

In: octets as they stand on the wire (A-law with its even bits inverted). Out: 16-bit samples, the 14 (13) bit values of
the recommendation shifted to the left end, as every other program has them. Encoding compares all
16 bits with the decision values of the recommendation.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from decoders.codecs.base import Samples, mix_to_mono, split_samples

_ULAW_BIAS = 0x84
_ULAW_CLIP = 32635


def _ulaw_table() -> Samples:
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    segment, step = code >> 4 & 7, code & 15
    magnitude = ((step << 3) + _ULAW_BIAS << segment) - _ULAW_BIAS
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _alaw_table() -> Samples:
    code = np.arange(256, dtype=np.int32) ^ 0x55
    segment, step = code >> 4 & 7, code & 15
    # The lowest segment has no leading one; each level stands in the middle of its interval (+8).
    magnitude = np.where(segment > 0, (step << 4) + 0x108 << np.maximum(segment - 1, 0), (step << 4) + 8)
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


ULAW: Samples = _ulaw_table()
"""Sample of each µ-law octet, shape (256,): 0x00 -> -32124, 0xff -> 0."""
ALAW: Samples = _alaw_table()
"""Sample of each A-law octet, shape (256,): 0x2a -> -32256, 0xd5 -> 8."""
ULAW.flags.writeable = False
ALAW.flags.writeable = False


def _segment(magnitude: NDArray[np.int32], first: int) -> NDArray[np.int32]:
    """Number of the doubling that `magnitude` lies in, 0 below `first`, at most 7."""
    bounds = first << np.arange(7)
    return np.searchsorted(bounds, magnitude, side="right").astype(np.int32)


def encode_ulaw(samples: Samples) -> NDArray[np.uint8]:
    """µ-law octets of 16-bit `samples`, any shape; exact for every value in `ULAW`."""
    linear = samples.astype(np.int32)
    magnitude = np.minimum(np.abs(linear), _ULAW_CLIP) + _ULAW_BIAS
    segment = _segment(magnitude, 0x100)
    code = segment << 4 | magnitude >> segment + 3 & 15
    return (~(code | np.where(linear < 0, 0x80, 0)) & 0xFF).astype(np.uint8)


def encode_alaw(samples: Samples) -> NDArray[np.uint8]:
    """A-law octets of 16-bit `samples`, any shape; exact for every value in `ALAW`."""
    linear = samples.astype(np.int32)
    # Negative values use the ones' complement, so that -1 falls in the interval next to 0.
    magnitude = np.where(linear < 0, ~linear, linear)
    segment = _segment(magnitude, 0x100)
    code = segment << 4 | magnitude >> np.maximum(segment, 1) + 3 & 15
    return ((code | np.where(linear < 0, 0, 0x80)) ^ 0x55).astype(np.uint8)


class G711Decoder:
    """Either law: one table look-up for all payloads of a call, without state."""

    def __init__(self, table: Samples, sample_rate: int, channels: int = 1) -> None:
        self.sample_rate = sample_rate
        self._table = table
        self._channels = channels

    def decode(self, payloads: Sequence[bytes]) -> list[Samples]:
        """One sample an octet and channel."""
        if self._channels > 1:
            return [self._mixed(payload) for payload in payloads]
        octets = np.frombuffer(b"".join(payloads), np.uint8)
        return split_samples(self._table[octets], [len(payload) for payload in payloads])

    def reset(self) -> None:
        """Nothing to forget."""

    def _mixed(self, payload: bytes) -> Samples:
        return mix_to_mono(self._table[np.frombuffer(payload, np.uint8)], self._channels)
