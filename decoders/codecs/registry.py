"""Which decoder an agreed payload format needs, and why there is none.

In: a `PayloadFormat` as SDP or RFC 3551 has it. Out: a new decoder for one stream. PyAV is loaded only for formats that
need it.
"""

import struct
from collections.abc import Callable

from decoders.codecs.base import Decoder
from decoders.codecs.g711 import ALAW, ULAW, G711Decoder
from decoders.codecs.linear import Dvi4Decoder, LinearDecoder
from decoders.payload import OPUS_RATE, Splitter, fixed_frames, split_g723, split_g729, split_opus
from decoders.payload_amr import amr_splitter, parse_parameters, why_amr_unsupported
from decoders.payload_speex import speex_splitter
from decoders.sdp_values import PayloadFormat

_MAX_CHANNELS = 8
_MAX_RATE = 192_000
_SPEEX_MODES = {8000: 0, 16000: 1, 32000: 2}

_NOT_AUDIO = {"TELEPHONE-EVENT", "CN", "RED", "ULPFEC", "PARITYFEC", "FLEXFEC", "RTX", "TONE"}
_NO_DECODER = {
    "SILK": "no free decoder of SILK is at hand",
    "ISAC": "no decoder of iSAC is at hand",
    "BV16": "no decoder of BroadVoice is at hand",
    "BV32": "no decoder of BroadVoice is at hand",
    "EVS": "no free decoder of EVS is at hand",
    "CLEARMODE": "CLEARMODE carries data, not audio (RFC 4040)",
    "G7221": "no decoder of G.722.1 is at hand",
    "LPC": "no decoder of LPC is at hand",
    "QCELP": "QCELP payloads are not supported",
    "MPA": "MPEG audio payloads are not supported",
}
_CodecName = str
_Fixed = tuple[_CodecName, int, int]
_FIXED_FRAMES: dict[str, _Fixed] = {
    "GSM": ("gsm", 33, 160),
    "MSGSM": ("gsm_ms", 65, 320),
    "MS-GSM": ("gsm_ms", 65, 320),
}
_FRAMES: dict[str, tuple[_CodecName, Splitter]] = {
    "G729": ("g729", split_g729),
    "G729A": ("g729", split_g729),
    "G729B": ("g729", split_g729),
    "G729AB": ("g729", split_g729),
    "G723": ("g723_1", split_g723),
}
_INTERLEAVED = {"PCMU", "PCMA", "L8", "L16", "OPUS"}
"""Codecs of which several channels are mixed."""
_G726_BITS = {"16": 2, "24": 3, "32": 4, "40": 5}


def make_decoder(fmt: PayloadFormat) -> Decoder | None:
    """Return a new decoder for one stream of `fmt`, or None where `why_undecodable` tells the reason."""
    if why_undecodable(fmt):
        return None
    name = fmt.encoding.upper()
    if name in _PLAIN:
        return _PLAIN[name](fmt)
    if bits := _g726_bits(name):
        # Compiled at its first use, which most never see.
        from decoders.codecs.g726 import G726Decoder

        return G726Decoder(fmt.clock_rate, bits, low_first=not name.startswith("AAL2-"))
    return _ffmpeg_decoder(name, fmt)


def why_undecodable(fmt: PayloadFormat) -> str:
    """Why streams of `fmt` cannot be decoded, as a sentence without its full stop; empty where they can."""
    name = fmt.encoding.upper()
    if name in _NOT_AUDIO:
        return f"{fmt.encoding} carries no speech of its own"
    if name in _NO_DECODER:
        return _NO_DECODER[name]
    if not 1 <= fmt.channels <= _MAX_CHANNELS:
        return f"{fmt.channels} channels are not supported"
    if not 1000 <= fmt.clock_rate <= _MAX_RATE:
        return f"a clock rate of {fmt.clock_rate} Hz is not supported"
    if fmt.channels > 1 and name not in _INTERLEAVED:
        return f"{fmt.encoding} with several channels is not supported"
    if name in _PLAIN or _g726_bits(name):
        return ""
    return _why_ffmpeg_cannot(name, fmt)


_PLAIN: dict[str, Callable[[PayloadFormat], Decoder]] = {
    "PCMU": lambda fmt: G711Decoder(ULAW, fmt.clock_rate, fmt.channels),
    "PCMA": lambda fmt: G711Decoder(ALAW, fmt.clock_rate, fmt.channels),
    "L16": lambda fmt: LinearDecoder(2, fmt.clock_rate, fmt.channels),
    "L8": lambda fmt: LinearDecoder(1, fmt.clock_rate, fmt.channels),
    "DVI4": lambda fmt: Dvi4Decoder(fmt.clock_rate),
}


def _why_ffmpeg_cannot(name: str, fmt: PayloadFormat) -> str:
    from decoders.codecs.ffmpeg import is_available

    codec = _codec_name(name)
    if codec is None:
        return f"the codec {fmt.encoding} is not known"
    if not is_available(codec):
        return f"the installed libavcodec has no decoder {codec}"
    if name == "SPEEX" and fmt.clock_rate not in _SPEEX_MODES:
        return f"Speex has no rate of {fmt.clock_rate} Hz"
    if name in ("AMR", "AMR-WB"):
        return why_amr_unsupported(fmt.fmtp)
    return ""


def _codec_name(name: str) -> _CodecName | None:
    """Name of the decoder in libavcodec; None for an encoding name that is not known."""
    from decoders.codecs.ffmpeg import is_available

    if name in _FRAMES:
        return _FRAMES[name][0]
    if name in _FIXED_FRAMES:
        return _FIXED_FRAMES[name][0]
    if name in ("AMR", "AMR-WB"):
        # The reference fixed-point decoder reads SID frames; libavcodec's own does not.
        reference = "libopencore_amrnb" if name == "AMR" else "libopencore_amrwb"
        return reference if is_available(reference) else reference.removeprefix("libopencore_")
    return {"G722": "g722", "ILBC": "ilbc", "SPEEX": "speex", "OPUS": "libopus"}.get(name)


def _g726_bits(name: str) -> int:
    """Bits per sample of a G.726 encoding name, 0 for other names. G721 is G.726 at 32 kbit/s."""
    if name == "G721":
        return 4
    family, _, rate = name.removeprefix("AAL2-").partition("-")
    return _G726_BITS.get(rate, 0) if family == "G726" else 0


def _ffmpeg_decoder(name: str, fmt: PayloadFormat) -> Decoder:
    from decoders.codecs.ffmpeg import CodecSetup, FrameDecoder, SampleDecoder
    from decoders.codecs.ilbc import IlbcDecoder

    codec = _codec_name(name) or ""
    if name == "G722":
        return SampleDecoder(CodecSetup(codec, 16000), bits=4)
    if name == "ILBC":
        return IlbcDecoder(20 if parse_parameters(fmt.fmtp).get("mode") == "20" else 30)
    if name == "OPUS":
        return FrameDecoder(CodecSetup(codec, OPUS_RATE), split_opus)
    if name == "SPEEX":
        setup = CodecSetup(codec, fmt.clock_rate, extradata=_speex_header(fmt.clock_rate))
        return FrameDecoder(setup, speex_splitter(fmt.clock_rate))
    if name in ("AMR", "AMR-WB"):
        wide = name == "AMR-WB"
        return FrameDecoder(CodecSetup(codec, 16000 if wide else 8000), amr_splitter(fmt.fmtp, wide))
    if name in _FIXED_FRAMES:
        _, octets, samples = _FIXED_FRAMES[name]
        return FrameDecoder(CodecSetup(codec, 8000), fixed_frames(octets, samples))
    return FrameDecoder(CodecSetup(codec, 8000), _FRAMES[name][1])


def _speex_header(sample_rate: int) -> bytes:
    """Stream header that RTP leaves out and the decoder wants (Speex manual, table 8.1): mono, one frame a packet."""
    mode = _SPEEX_MODES[sample_rate]
    numbers = (1, 80, sample_rate, mode, 4, 1, -1, sample_rate // 50, 1, 1, 0, 0, 0)
    return struct.pack("<8s20s13i", b"Speex   ", b"1.2", *numbers)
