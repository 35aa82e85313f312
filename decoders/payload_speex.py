"""Speex payloads (RFC 5574): several frames without octet boundaries between them, to frames that each start one.

In: a payload. Out: frames of 20 ms, ended by a terminator where bits remain. Lengths follow from the sub-mode
numbers in the stream (Speex manual, section 9 and 10). Never raises.
"""

from decoders.payload import MAX_SECONDS, CodecFrame, Splitter

# Bits of a narrowband frame of each sub-mode and of a wideband layer, headers included; None where reserved.
_NARROW_BITS = (5, 43, 119, 160, 220, 300, 364, 492, 79, None, None, None, None)
_LAYER_BITS = (4, 36, 112, 192, 352, None, None, None)
_USER_MESSAGE, _MESSAGE, _TERMINATOR = 13, 14, 15
# Bits of an in-band message after its four bits of kind.
_MESSAGE_BITS = (1, 1, 4, 4, 4, 4, 4, 4, 8, 8, 16, 16, 32, 32, 64, 64)
_MAX_LAYERS = 2
_MAX_FRAMES = MAX_SECONDS * 50


class _Bits:
    """The payload as one long integer."""

    def __init__(self, payload: bytes) -> None:
        self.total = len(payload) * 8
        self._value = int.from_bytes(payload, "big")

    def at(self, position: int, count: int) -> int:
        """`count` bits from `position`; those past the end read as zero."""
        shift = self.total - position - count
        return (self._value >> shift if shift >= 0 else self._value << -shift) & (1 << count) - 1


def speex_splitter(sample_rate: int) -> Splitter:
    """Splitter for a stream of 8000, 16000 or 32000 Hz."""
    samples = sample_rate // 50

    def split(payload: bytes) -> list[CodecFrame]:
        bits = _Bits(payload)
        frames: list[CodecFrame] = []
        position = 0
        while len(frames) < _MAX_FRAMES:
            end = _frame_end(bits, position)
            if end is None:
                return frames
            if end > bits.total:
                return []
            frames.append(CodecFrame(_aligned(bits, position, end), samples))
            position = end
        return []

    return split


def _frame_end(bits: _Bits, position: int) -> int | None:
    """Bit after the frame that starts at `position`, in-band messages before it included.

    None where the payload ends: at a terminator, in less than the five bits that a frame takes, or in what no frame is.
    """
    while bits.total - position >= 5:
        kind = bits.at(position, 5)  # a leading one is a wideband layer without a frame under it
        if kind >= _TERMINATOR:
            return None
        if kind == _USER_MESSAGE:
            position += 5 + 4 + 5 + 8 * bits.at(position + 5, 4)
        elif kind == _MESSAGE:
            position += 5 + 4 + _MESSAGE_BITS[bits.at(position + 5, 4)]
        else:
            size = _NARROW_BITS[kind]
            return None if size is None else _layers_end(bits, position + size)
    return None


def _layers_end(bits: _Bits, position: int) -> int:
    """Bit after the wideband layers at `position`; past the end where one of them is reserved."""
    for _ in range(_MAX_LAYERS):
        if bits.total - position < 4 or not bits.at(position, 1):
            break
        size = _LAYER_BITS[bits.at(position + 1, 3)]
        if size is None:
            return bits.total + 1
        position += size
    return position


def _aligned(bits: _Bits, start: int, end: int) -> bytes:
    """Bits from `start` to `end` from an octet's high end, padded by a zero and ones (RFC 5574, section 3.3)."""
    size = end - start
    padding = -size % 8
    value = bits.at(start, size) << padding | ((1 << padding - 1) - 1 if padding else 0)
    return value.to_bytes((size + padding) // 8, "big")
