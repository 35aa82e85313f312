"""Audio codecs: RTP payloads in, 16-bit samples out."""

from decoders.codecs.base import Decoder, Samples
from decoders.codecs.registry import make_decoder, why_undecodable

__all__ = ["Decoder", "Samples", "make_decoder", "why_undecodable"]
