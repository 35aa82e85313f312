"""Which media is encrypted: by its description, and by the shape of its packets where no description says so.

In: claims, endpoints, staged packets. Out: whether a stream is SRTP and the keys that were announced for it.
"""

import numpy as np

from capture.batch import Int32
from decoders.rtp import Window
from decoders.sdp import CryptoKey, PayloadFormat
from recorder.endpoints import Claim, EndpointRegistry

TAGS = (4, 10)
"""Octets of the authentication tag of the usual SRTP suites (RFC 3711, section 5.2; RFC 4568, section 6.2)."""
ENOUGH = 8
"""Packets in sequence that are needed to tell."""
_ONE_OCTET_PER_TICK = frozenset({"PCMU", "PCMA", "G722"})


def protection(registry: EndpointRegistry, claim: Claim) -> tuple[bool, list[CryptoKey]]:
    """(whether the claimed flow is SRTP, the keys its speaker announced).

    It is where the profile says so, or where both sides gave keys under a plain profile.
    """
    call = claim.by.call
    keys = [key for endpoint in registry.of(call, claim.speaker) for key in endpoint.crypto]
    agreed = bool(keys) and any(endpoint.crypto for endpoint in registry.of(call, claim.speaker.other))
    return claim.by.encrypted or agreed, keys


def looks_encrypted(window: Window, mine: Int32, formats: dict[int, PayloadFormat]) -> bool:
    """Whether packets (indices in order of arrival) of a codec with one octet per tick all carry a tag's octets more.

    Played as they are, they would be noise at full level.
    """
    if len(mine) <= ENOUGH:
        return False
    kinds = window.type[mine] & 127
    kind = int(np.bincount(kinds).argmax())
    known = formats.get(kind)
    if known is None or known.encoding.upper() not in _ONE_OCTET_PER_TICK:
        return False
    mine = mine[kinds == kind]
    sequence, stamp = window.sequence[mine].astype(np.int64), window.stamp[mine].astype(np.int64)
    follows = (sequence[1:] - sequence[:-1]) & 0xFFFF == 1
    steps = (stamp[1:] - stamp[:-1]) & 0xFFFFFFFF
    excess = (window.size[mine[:-1]] - steps)[follows].tolist()
    return len(excess) >= ENOUGH and any(10 * excess.count(tag) >= 6 * len(excess) for tag in TAGS)
