"""Marks of payloads, plainly: the twin of `decoders._identity_kernels`."""

from itertools import pairwise

from decoders._identity_kernels import ONE_IN, SHORTEST, STRIDE

MASK = (1 << 64) - 1


def mark_of(payload):
    """Mark of a payload, None where it is not chosen."""
    if len(payload) < SHORTEST:
        return None
    step = STRIDE if len(payload) >= SHORTEST * STRIDE else 1
    octets = payload[::step]
    mark = 0xCBF29CE484222325
    for octet in octets:
        mark = (mark ^ octet) * 0x100000001B3 & MASK
    changes = sum(one != other for one, other in pairwise(octets))
    if changes * step * 4 < len(payload) or (mark ^ mark >> 29) % ONE_IN:
        return None
    return mark
