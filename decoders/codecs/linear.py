"""Uncompressed and DVI4 audio (RFC 3551, sections 4.5.1, 4.5.10, 4.5.11).

In: payloads. Out: samples. Each payload stands alone: L8 and L16 have no state, DVI4 carries it in every payload.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from decoders.codecs.base import EMPTY, Samples, mix_to_mono

# fmt: off
_STEPS = np.array(
    [
        7, 8, 9, 10, 11, 12, 13, 14, 16, 17, 19, 21, 23, 25, 28, 31, 34, 37, 41, 45, 50, 55, 60, 66, 73, 80, 88, 97,
        107, 118, 130, 143, 157, 173, 190, 209, 230, 253, 279, 307, 337, 371, 408, 449, 494, 544, 598, 658, 724, 796,
        876, 963, 1060, 1166, 1282, 1411, 1552, 1707, 1878, 2066, 2272, 2499, 2749, 3024, 3327, 3660, 4026, 4428, 4871,
        5358, 5894, 6484, 7132, 7845, 8630, 9493, 10442, 11487, 12635, 13899, 15289, 16818, 18500, 20350, 22385, 24623,
        27086, 29794, 32767,
    ],
    np.int32,
)
# fmt: on
_INDEX_CHANGE = np.array([-1, -1, -1, -1, 2, 4, 6, 8], np.int32)
_DVI4_HEADER = 4


class LinearDecoder:
    """L16 (big-endian, two's complement) and L8 (offset binary), several channels interleaved."""

    def __init__(self, octets: int, sample_rate: int, channels: int) -> None:
        self.sample_rate = sample_rate
        self._octets = octets
        self._channels = channels

    def decode(self, payloads: Sequence[bytes]) -> list[Samples]:
        """One sample per `octets` octets and channel; an incomplete last one is cut."""
        return [mix_to_mono(self._samples(payload), self._channels) for payload in payloads]

    def reset(self) -> None:
        """Nothing to forget."""

    def _samples(self, payload: bytes) -> Samples:
        if self._octets == 1:
            return (np.frombuffer(payload, np.uint8).astype(np.int16) - 128) << 8
        return np.frombuffer(payload, ">i2", len(payload) // 2).astype(np.int16)


class Dvi4Decoder:
    """DVI4: a header with predictor and step index, then two samples an octet, first sample in the high half."""

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate

    def decode(self, payloads: Sequence[bytes]) -> list[Samples]:
        """Payloads of equal length are decoded side by side: each starts from its own header."""
        decoded: list[Samples] = [EMPTY] * len(payloads)
        by_length: dict[int, list[int]] = {}
        for position, payload in enumerate(payloads):
            if len(payload) > _DVI4_HEADER:
                by_length.setdefault(len(payload), []).append(position)
        for length, positions in by_length.items():
            rows = np.frombuffer(b"".join(payloads[i] for i in positions), np.uint8).reshape(-1, length)
            for position, samples in zip(positions, _decode_dvi4(rows), strict=True):
                decoded[position] = samples
        return decoded

    def reset(self) -> None:
        """Nothing to forget."""


def _decode_dvi4(rows: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Decode payloads of shape (payloads, octets) to samples of shape (payloads, 2 * (octets - 4))."""
    predictor = (rows[:, 0].astype(np.int32) << 8 | rows[:, 1]).astype(np.int16).astype(np.int32)
    index = np.minimum(rows[:, 2].astype(np.int32), len(_STEPS) - 1)
    body = rows[:, _DVI4_HEADER:]
    codes = np.stack((body >> 4, body & 15), axis=2).reshape(len(rows), -1).astype(np.int32)
    samples = np.empty(codes.shape, np.int16)
    for column in range(codes.shape[1]):
        code, step = codes[:, column], _STEPS[index]
        # Sum of shifted steps, as the IMA reference has it: exact where a multiplication would round otherwise.
        change = (step >> 3) + (code & 1) * (step >> 2) + (code >> 1 & 1) * (step >> 1) + (code >> 2 & 1) * step
        predictor = np.clip(predictor + np.where(code & 8, -change, change), -32768, 32767)
        index = np.clip(index + _INDEX_CHANGE[code & 7], 0, len(_STEPS) - 1)
        samples[:, column] = predictor
    return samples
