"""Redundant audio data (RFC 2198): one RTP payload that carries a primary block and older ones again.

In: the payload of a packet of encoding `red`. Out: its blocks, or None where their headers do not fit. Never raises.
"""

from typing import NamedTuple

_MAX_BLOCKS = 32


class RedundantBlock(NamedTuple):
    """Data sent before, repeated."""

    payload_type: int
    timestamp_offset: int
    """RTP ticks that the block is older than the packet's timestamp, 0 to 16383."""
    data: bytes


class RedundantPayload(NamedTuple):
    """Blocks of one packet."""

    primary: tuple[int, bytes]
    """Payload type and data for the packet's own timestamp."""
    redundant: list[RedundantBlock]
    """In wire order, the oldest first as a rule."""


def unpack_red(payload: bytes) -> RedundantPayload | None:
    """Blocks of `payload` (RFC 2198, section 3); None where a header or a block is cut off."""
    headers: list[tuple[int, int, int]] = []
    position = 0
    while position < len(payload) and payload[position] & 0x80:
        if position + 4 > len(payload) or len(headers) == _MAX_BLOCKS:
            return None
        word = int.from_bytes(payload[position : position + 4], "big")
        headers.append((word >> 24 & 0x7F, word >> 10 & 0x3FFF, word & 0x3FF))
        position += 4
    if position >= len(payload):
        return None
    primary_type = payload[position]
    position += 1
    redundant = []
    for payload_type, offset, length in headers:
        if position + length > len(payload):
            return None
        redundant.append(RedundantBlock(payload_type, offset, payload[position : position + length]))
        position += length
    return RedundantPayload((primary_type, payload[position:]), redundant)
