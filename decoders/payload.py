"""Payload formats: what codec frames an RTP payload holds, and how many samples each stands for (RFC 3551 and others).

In: one payload. Out: its frames in order, empty where the payload does not fit its format. Never raises. A payload is
taken to stand for at most MAX_SECONDS, so that a few octets of empty frames cannot ask for hours of audio.
"""

from collections.abc import Callable
from dataclasses import dataclass

MAX_SECONDS = 1


@dataclass(frozen=True, slots=True)
class CodecFrame:
    """One frame of a codec."""

    data: bytes
    """As the codec's decoder takes it; empty where the frame stands for silence."""
    samples: int
    """Of the decoder's sample rate."""


Splitter = Callable[[bytes], list[CodecFrame]]
"""From a payload to its frames."""


def fixed_frames(octets: int, samples: int, sample_rate: int = 8000) -> Splitter:
    """Splitter for a codec whose frames all have `octets` octets and stand for `samples` samples."""
    limit = MAX_SECONDS * sample_rate // samples

    def split(payload: bytes) -> list[CodecFrame]:
        count, rest = divmod(len(payload), octets)
        if rest or count > limit:
            return []
        return [CodecFrame(payload[i * octets : (i + 1) * octets], samples) for i in range(count)]

    return split


_G729_FRAME = 10
_G729_SID = 2
_G729_SAMPLES = 80
_split_g729_speech = fixed_frames(_G729_FRAME, _G729_SAMPLES)


def split_g729(payload: bytes) -> list[CodecFrame]:
    """Speech frames of 10 ms, the last of which may be a silence descriptor of Annex B (RFC 3551, section 4.5.6).

    The descriptor stands for 10 ms of silence: what it says of the background noise is not rendered.
    """
    descriptor = len(payload) % _G729_FRAME == _G729_SID
    speech = payload[:-_G729_SID] if descriptor else payload
    frames = _split_g729_speech(speech)
    if speech and not frames:
        return []
    return [*frames, CodecFrame(b"", _G729_SAMPLES)] if descriptor else frames


_G723_OCTETS = (24, 20, 4, 1)
_G723_SAMPLES = 240


def split_g723(payload: bytes) -> list[CodecFrame]:
    """Frames of 30 ms, whose two lowest bits tell their size: 6.3, 5.3 kbit/s, SID (RFC 3551, section 4.5.3).

    The untransmitted frame of one octet belongs to ITU-T G.723.1 Annex A; RFC 3551 does not send it, some peers do.
    """
    frames: list[CodecFrame] = []
    position = 0
    while position < len(payload) and len(frames) < MAX_SECONDS * 8000 // _G723_SAMPLES:
        octets = _G723_OCTETS[payload[position] & 3]
        if position + octets > len(payload):
            return []
        frames.append(CodecFrame(payload[position : position + octets], _G723_SAMPLES))
        position += octets
    return frames if position == len(payload) else []


OPUS_RATE = 48000
_OPUS_MAX_SAMPLES = 5760
"""120 ms, the longest packet (RFC 6716, section 3.2.5, R5)."""


def opus_samples(payload: bytes) -> int:
    """Samples at 48 kHz that an Opus packet stands for (RFC 6716, section 3.1); 0 where it is unsound."""
    if not payload:
        return 0
    configuration, code = payload[0] >> 3, payload[0] & 3
    if configuration < 12:  # SILK: 10, 20, 40, 60 ms
        frame = (480, 960, 1920, 2880)[configuration & 3]
    elif configuration < 16:  # hybrid: 10, 20 ms
        frame = (480, 960)[configuration & 1]
    else:  # CELT: 2.5, 5, 10, 20 ms
        frame = 120 << (configuration & 3)
    if code < 3:
        return frame * (1 if code == 0 else 2)
    count = payload[1] & 0x3F if len(payload) > 1 else 0
    return frame * count if frame * count <= _OPUS_MAX_SAMPLES else 0


def split_opus(payload: bytes) -> list[CodecFrame]:
    """The payload is one Opus packet, whose own framing its decoder reads (RFC 7587, section 4.2)."""
    samples = opus_samples(payload)
    return [CodecFrame(payload, samples)] if samples else []
