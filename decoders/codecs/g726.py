"""G.726 at 16, 24, 32 and 40 kbit/s (ITU-T G.726; packings of RFC 3551, section 4.5.4, and ITU-T I.366.2, annex E).

In: payloads. Out: samples. Why not by libavcodec: at 40 kbit/s it lets the zeros of the predictor leak at the speed of
the other rates, which makes real streams half as loud and coarse, and at every rate it wraps samples that leave 16 bits
around instead of clipping them. Otherwise both give the same bits.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from decoders.codecs import _g726_kernels as kernels
from decoders.codecs.base import Samples, split_samples

# DQLN, W and F of each magnitude by bits per sample (tables 6 to 13); no code of the lowest level of three to five bits
# gives any difference, which the recommendation writes as -2048.
_LEVELS = {
    2: [116, 365],
    3: [-2048, 135, 273, 373],
    4: [-2048, 4, 135, 213, 273, 323, 373, 425],
    5: [-2048, -66, 28, 104, 169, 224, 274, 318, 358, 395, 429, 459, 488, 514, 539, 566],
}
_W = {
    2: [-22, 439],
    3: [-4, 30, 137, 582],
    4: [-12, 18, 41, 64, 112, 198, 355, 1122],
    5: [14, 14, 24, 39, 40, 41, 58, 100, 141, 179, 219, 280, 358, 440, 529, 696],
}
_F = {
    2: [0, 7],
    3: [0, 1, 2, 7],
    4: [0, 0, 0, 1, 1, 1, 3, 7],
    5: [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 3, 4, 5, 6, 6],
}


class G726Decoder:
    """`bits` per sample, 2 to 5; `low_first` where samples fill octets from the low end (RTP), not the high (AAL2)."""

    def __init__(self, sample_rate: int, bits: int, low_first: bool) -> None:
        self.sample_rate = sample_rate
        self._bits = bits
        self._low_first = low_first
        self._tables = tuple(np.array(table[bits], np.int64) for table in (_LEVELS, _W, _F))
        self.reset()

    def decode(self, payloads: Sequence[bytes]) -> list[Samples]:
        """Samples of each payload; bits that do not make a sample are left out."""
        codes = [self._unpack(payload) for payload in payloads]
        samples = np.empty(sum(map(len, codes)), np.int16)
        if len(samples):
            kernels.decode_codes(np.concatenate(codes), self._bits, *self._tables, self._state, samples)
        return split_samples(samples, [len(part) for part in codes])

    def reset(self) -> None:
        """Start as the recommendation does (table 14)."""
        self._state: NDArray[np.int64] = np.zeros(kernels.STATE, np.int64)
        self._state[kernels.MANTISSA : kernels.MANTISSA + 8] = 32
        self._state[[kernels.PK1, kernels.PK2]] = 1
        self._state[kernels.YU], self._state[kernels.YL] = 544, 34816

    def _unpack(self, payload: bytes) -> NDArray[np.uint8]:
        count = len(payload) * 8 // self._bits
        bits = np.unpackbits(np.frombuffer(payload, np.uint8), bitorder="little" if self._low_first else "big")
        places = np.arange(self._bits) if self._low_first else np.arange(self._bits)[::-1]
        weights = (1 << places).astype(np.uint8)
        codes: NDArray[np.uint8] = bits[: count * self._bits].reshape(count, self._bits) @ weights
        return codes
