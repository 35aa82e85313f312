"""Comfort noise as a CN payload describes it (RFC 3389).

In: CN payloads and how many samples to fill. Out: noise of that level and spectrum. The noise follows from the seed and
the first payload alone, and does not depend on how a run is cut into calls. Never raises.
"""

import numpy as np
from numpy.typing import NDArray

from decoders.codecs.base import Samples

_FULL_SCALE = 32768.0
"""0 dBov: the level of a square wave that just fits (RFC 3389, section 3.1)."""
_MAX_ORDER = 32
_TAPS = 512
_MAX_REFLECTION = 0.99

Floats = NDArray[np.float64]


class ComfortNoise:
    """Noise source of one stream. Give streams that sound together different seeds (their SSRC, say)."""

    def __init__(self, sample_rate: int, seed: int = 0) -> None:
        self.sample_rate = sample_rate
        self._seed = seed
        self.reset()

    def reset(self) -> None:
        """Forget the noise so far: the next payload seeds anew."""
        self._bits: np.random.PCG64 | None = None
        self._history: Floats = np.zeros(0)
        self._payload: bytes | None = None
        self._response: Floats = np.ones(1)

    def generate(self, payload: bytes, samples: int) -> Samples:
        """`samples` samples of noise as `payload` asks: octet 0 the level in -dBov, the others reflection coefficients.

        An empty payload says nothing of the level and gives silence.
        """
        if not payload or samples <= 0:
            return np.zeros(max(samples, 0), np.int16)
        if payload != self._payload:
            self._payload, self._response = payload, _impulse_response(payload[1 : 1 + _MAX_ORDER])
        if self._bits is None:
            self._bits = np.random.PCG64([self._seed & 0xFFFFFFFF, *payload[: 1 + _MAX_ORDER]])
            self._history = _white(self._bits, _TAPS - 1)
        excitation = np.concatenate((self._history, _white(self._bits, samples)))
        shaped = np.convolve(excitation, self._response)[_TAPS - 1 : len(excitation)]
        self._history = excitation[-(_TAPS - 1) :]
        level = _FULL_SCALE * 10 ** (-(payload[0] & 0x7F) / 20)
        return np.clip(np.rint(shaped * level), -32768, 32767).astype(np.int16)


def _white(bits: np.random.PCG64, samples: int) -> Floats:
    """Uniform white noise of unit power, from raw bits: their sequence is the same in every version of numpy."""
    raw: NDArray[np.uint64] = bits.random_raw(samples)
    return ((raw >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0) * np.sqrt(3.0)


def _impulse_response(coefficients: bytes) -> Floats:
    """Response of unit energy of the all-pole filter with these quantised reflection coefficients (section 3.2)."""
    predictor: Floats = np.zeros(0)
    for octet in coefficients:
        # 255 is reserved and above what any coefficient may be; the bound keeps the response inside _TAPS.
        reflection = np.clip(258 * (octet - 127) / 32768, -_MAX_REFLECTION, _MAX_REFLECTION)
        predictor = np.append(predictor + reflection * predictor[::-1], reflection)
    response = np.zeros(_TAPS)
    response[0] = 1.0
    order = len(predictor)
    for n in range(1, _TAPS if order else 1):
        reach = min(n, order)
        response[n] = -predictor[:reach] @ response[n - reach : n][::-1]
    # A response too long for _TAPS is cut; its level stays right, as the energy is that of what is left.
    return response / np.sqrt(response @ response)
