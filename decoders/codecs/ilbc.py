"""iLBC (RFC 3951, RFC 3952): frames of 20 ms in 38 octets or of 30 ms in 50, as the format's `mode` agreed.

Some peers send the other mode than they agreed on, so that the length of a payload decides where only one fits.
"""

from collections.abc import Sequence

from decoders.codecs.base import EMPTY, Samples
from decoders.codecs.ffmpeg import CodecSetup, FrameDecoder
from decoders.payload import fixed_frames

_RATE = 8000
_OCTETS = {20: 38, 30: 50}


class IlbcDecoder:
    """Both modes, each with its own state; `mode` is the agreed one, 20 or 30 ms."""

    def __init__(self, mode: int) -> None:
        self.sample_rate = _RATE
        self._modes = (mode, 50 - mode)
        self._decoders = {
            ms: FrameDecoder(
                CodecSetup("ilbc", _RATE, {"block_align": str(octets)}), fixed_frames(octets, ms * _RATE // 1000)
            )
            for ms, octets in _OCTETS.items()
        }

    def decode(self, payloads: Sequence[bytes]) -> list[Samples]:
        """Samples of each payload; empty where its length fits neither mode."""
        return [self._decode_payload(payload) for payload in payloads]

    def reset(self) -> None:
        """Forget the state of both modes."""
        for decoder in self._decoders.values():
            decoder.reset()

    def _decode_payload(self, payload: bytes) -> Samples:
        for mode in self._modes:
            if payload and len(payload) % _OCTETS[mode] == 0:
                return self._decoders[mode].decode([payload])[0]
        return EMPTY
