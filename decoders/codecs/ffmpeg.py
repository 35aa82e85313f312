"""Codecs that libavcodec decodes, through PyAV.

In: payloads of one stream. Out: samples, exactly as many for each payload as its frames stand for. One context per
stream; what libavcodec has to say about odd input is not printed. A frame that it refuses is silent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np

from decoders.codecs.base import EMPTY, Samples, split_samples
from decoders.payload import CodecFrame, Splitter


@dataclass(frozen=True, slots=True)
class CodecSetup:
    """How to open a decoder of libavcodec."""

    name: str
    sample_rate: int
    """Of the samples it gives, Hz."""
    options: Mapping[str, str] = field(default_factory=dict)
    extradata: bytes = b""


def is_available(name: str) -> bool:
    """Whether this build of libavcodec has the decoder."""
    try:
        av.Codec(name, "r")
    except ValueError:
        return False
    return True


def _open(setup: CodecSetup) -> Any:
    context = av.CodecContext.create(setup.name, "r")
    context.sample_rate = setup.sample_rate
    context.layout = "mono"
    context.thread_count = 1  # frame threads would hold packets back
    if setup.options:
        context.options = dict(setup.options)
    if setup.extradata:
        context.extradata = setup.extradata
    return context


def _samples_of(frame: Any) -> Samples:
    """16-bit samples of a decoded mono frame; floats are scaled, rounded half to even and clipped as FFmpeg does."""
    if frame.format.name in ("s16", "s16p"):
        return np.frombuffer(frame.planes[0], np.int16, frame.samples)
    floats = np.frombuffer(frame.planes[0], np.float32, frame.samples)
    return np.clip(np.rint(floats * 32768.0), -32768, 32767).astype(np.int16)


def _decode_packet(context: Any, data: bytes) -> Samples:
    """Samples of all frames that one packet gives; empty where libavcodec refuses it."""
    try:
        frames = context.decode(av.Packet(data))
    except av.FFmpegError:
        return EMPTY
    if len(frames) == 1:
        return _samples_of(frames[0]).copy()
    return np.concatenate([_samples_of(frame) for frame in frames]) if frames else EMPTY


class FrameDecoder:
    """A codec of frames: each goes to libavcodec by itself."""

    def __init__(self, setup: CodecSetup, split: Splitter) -> None:
        self.sample_rate = setup.sample_rate
        self._setup = setup
        self._split = split
        self._context = _open(setup)

    def decode(self, payloads: Sequence[bytes]) -> list[Samples]:
        """Samples of each payload; empty where no frame of it can be decoded."""
        return [self._decode_payload(self._split(payload)) for payload in payloads]

    def reset(self) -> None:
        """Open a new context: not every decoder of libavcodec can flush its state."""
        self._context = _open(self._setup)

    def _decode_payload(self, frames: Sequence[CodecFrame]) -> Samples:
        samples = np.zeros(sum(frame.samples for frame in frames), np.int16)
        position, refused = 0, 0
        for frame in frames:
            if frame.data:
                decoded = _decode_packet(self._context, frame.data)[: frame.samples]
                samples[position : position + len(decoded)] = decoded
                refused += not len(decoded)
            position += frame.samples
        return EMPTY if refused and refused == len(frames) else samples


class SampleDecoder:
    """A codec of single samples (ADPCM): payloads are joined, as it makes no difference where a packet ends.

    `bits` per sample of the payload; a payload that does not hold whole groups of octets is decoded by itself.
    """

    def __init__(self, setup: CodecSetup, bits: int) -> None:
        self.sample_rate = setup.sample_rate
        self._setup = setup
        self._bits = bits
        self._context = _open(setup)

    def decode(self, payloads: Sequence[bytes]) -> list[Samples]:
        """Samples of each payload; bits that do not make a sample are left out."""
        counts = [len(payload) * 8 // self._bits for payload in payloads]
        if all(len(payload) * 8 % self._bits == 0 for payload in payloads):
            joined = b"".join(payloads)
            samples = _decode_packet(self._context, joined) if joined else EMPTY
            if len(samples) == sum(counts):
                return split_samples(samples, counts)
        return [
            _decode_packet(self._context, payload) if count else EMPTY
            for payload, count in zip(payloads, counts, strict=True)
        ]

    def reset(self) -> None:
        """Open a new context."""
        self._context = _open(self._setup)
