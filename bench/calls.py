"""What each call of a generated capture holds, as a function of its number alone.

In: a call's number. Out: addresses, SSRCs, first sequence numbers and timestamps (`plan`), and the audio of each
direction (`expected_samples`), for tests to compare with.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pcaps.make.sources import Octets, Samples, decode, encode, speech_like

FRAME = 160
"""Samples, and octets, of a packet."""
BANK = 1 << 20
"""Samples of speech that all calls read from, each direction from an offset of its own."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One direction of a call's media, and what its sender's SDP says."""

    address: str
    port: int
    ssrc: int
    sequence: int
    """Of the first packet."""
    timestamp: int
    """Of the first packet."""


@dataclass(frozen=True, slots=True)
class CallPlan:
    """All that is known of one call, from its number."""

    number: int
    call_id: str
    caller_uri: str
    callee_uri: str
    caller: Leg
    callee: Leg
    codec: str
    packets: int
    """Of each direction."""


def mix(number: int, salt: int) -> int:
    """A 32-bit hash of a call's number (the finaliser of SplitMix64)."""
    state = (number * 16 + salt + 1) * 0x9E3779B97F4A7C15 & 0xFFFF_FFFF_FFFF_FFFF
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFF_FFFF_FFFF_FFFF
    state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFF_FFFF_FFFF_FFFF
    return state >> 32


def leg(number: int, side: int) -> Leg:
    """The media that `side` (0 caller, 1 callee) of a call sends. Every fifth call wraps its sequence number early on,
    every seventh its timestamp; 50 hosts a side have 25,000 ports each before a port comes round again."""
    sequence = mix(number, side) & 0xFFFF if number % 5 else 0x10000 - 7 - side
    timestamp = mix(number, 2 + side) if number % 7 else 0x1_0000_0000 - 1300 - side
    port = 10_000 + 2 * (number // 50 % 25_000)
    # The low bits come from the number, so that no two streams of a capture share an SSRC.
    ssrc = (mix(number, 4 + side) & 0xFFC0_0000 | number << 1 | side) & 0xFFFF_FFFF
    return Leg(f"10.{65 + side}.0.{1 + number % 50}", port, ssrc, sequence, timestamp)


def plan(number: int, packets: int = 3000, codec: str = "PCMU") -> CallPlan:
    """What call `number` of a capture holds."""
    caller, callee = f"sip:+4930{number:07d}@one.example", f"sip:+4989{number:07d}@two.example"
    call_id = f"{mix(number, 6):08x}{number:08x}@one.example"
    return CallPlan(number, call_id, caller, callee, leg(number, 0), leg(number, 1), codec, packets)


@lru_cache(maxsize=2)
def bank(codec: str) -> Octets:
    """Encoded speech, BANK octets and one frame more that repeats the start."""
    octets = encode(codec, speech_like(1, BANK / 8000))
    return np.concatenate([octets, octets[:FRAME]])


def bank_offset(number: int, side: int) -> int:
    """Where a direction begins to read in the bank."""
    return (number * 2 + side) * 104_729 % BANK


def expected_samples(call: int, direction: str, seconds: float = 60.0, codec: str = "PCMU") -> Samples:
    """Audio of one direction ("caller" or "callee") of a call: the decoded payloads of its packets in order."""
    offset = bank_offset(call, ("caller", "callee").index(direction))
    where = (offset + np.arange(round(seconds * 50) * FRAME)) % BANK
    return decode(codec, bank(codec)[where])
