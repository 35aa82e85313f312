"""Mutation without a fuzzer: the same seed gives the same inputs.

In: octets, a random source, other inputs to take parts from. Out: other octets, at most `limit` of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from tests.fuzz.frames import Frame, pack, unpack

NUMBERS = (0, 1, 2, 3, 4, 7, 8, 15, 16, 20, 28, 40, 63, 64, 65, 127, 128, 160, 192, 200, 204, 252, 254, 255)
WIDE = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0x7FFF,
    0x8000,
    0xFFFE,
    0xFFFF,
    0x1_0000,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
)
STEPS = (0, 1, -1, 20_000_000, -20_000_000, 10**9, -(10**9), 60 * 10**9, 3600 * 10**9, 86_400 * 10**9, -(10**18), 2**62)

Mutator = Callable[[bytes, Random, Sequence[bytes], int], bytes]


def mutate_octets(data: bytes, random: Random, others: Sequence[bytes], limit: int) -> bytes:
    """Change some octets: flip, set, insert, delete, repeat, move, take from another input, cut."""
    octets = bytearray(data)
    for _ in range(1 + int(random.expovariate(0.5))):
        at = random.randrange(len(octets) + 1)
        size = 1 + int(random.expovariate(0.05))
        match random.randrange(11):
            case 0 | 1 if at < len(octets):
                octets[at] ^= 1 << random.randrange(8)
            case 2 | 3 if at < len(octets):
                octets[at] = random.choice(NUMBERS)
            case 4:
                width = random.choice((2, 4))
                octets[at : at + width] = (random.choice(WIDE) & (1 << 8 * width) - 1).to_bytes(
                    width, random.choice(("big", "little"))
                )
            case 5:
                octets[at:at] = random.randbytes(size)
            case 6:
                del octets[at : at + size]
            case 7:
                octets[at:at] = (octets[at : at + size] * random.choice((1, 1, 2, 50)))[:limit]
            case 8:
                end = random.randrange(len(octets) + 1)
                octets[end:end] = octets[at : at + size]
            case 9 if others:
                other = random.choice(others)
                begin = random.randrange(len(other) + 1)
                octets[at : at + random.choice((0, size))] = other[begin : begin + 8 * size]
            case 10 if random.random() < 0.3:
                del octets[at:]
    return bytes(octets[:limit])


def mutate_text(data: bytes, random: Random, others: Sequence[bytes], limit: int) -> bytes:
    """Change lines as often as octets."""
    if random.random() < 0.4:
        return mutate_octets(data, random, others, limit)
    lines = data.split(b"\n")
    for _ in range(1 + int(random.expovariate(0.7))):
        at = random.randrange(len(lines))
        match random.randrange(6):
            case 0:
                lines.insert(at, random.choice(lines))
            case 1 if len(lines) > 1:
                lines.pop(at)
            case 2 if others:
                lines[at] = random.choice(random.choice(others).split(b"\n"))
            case 3:
                lines[at] = mutate_octets(lines[at], random, others, 4096)
            case 4:
                words = lines[at].replace(b";", b"; ").split(b" ")
                random.shuffle(words)
                lines[at] = b" ".join(words)
            case 5:
                lines[at] = (lines[at] * random.choice((2, 100)))[:limit]
    return b"\n".join(lines)[:limit]


def mutate_frames(data: bytes, random: Random, others: Sequence[bytes], limit: int) -> bytes:
    """Change frames, their order, their times, or the octets within them."""
    frames = unpack(data) or [Frame(1, 0, 0, b"")]
    for _ in range(1 + int(random.expovariate(0.4))):
        at = random.randrange(len(frames))
        frame = frames[at]
        match random.randrange(12):
            case 0:
                frames.insert(random.randrange(len(frames) + 1), frame)
            case 1 if len(frames) > 1:
                frames.pop(at)
            case 2:
                other = random.randrange(len(frames))
                frames[at], frames[other] = frames[other], frame
            case 3:
                frames[at] = replace(frame, step=random.choice(STEPS))
            case 4:
                keep = random.randrange(len(frame.data) + 1)
                frames[at] = replace(frame, data=frame.data[:keep], cut=min(len(frame.data) - keep, 255))
            case 5 if others:
                found = unpack(random.choice(others))
                if found:
                    begin = random.randrange(len(found))
                    frames[at:at] = found[begin : begin + 1 + int(random.expovariate(0.1))]
            case 6:
                # Headers and the start of the payload decide most.
                head = mutate_octets(frame.data[:100], random, (), 200)
                frames[at] = replace(frame, data=head + frame.data[100:])
            case 7:
                at = min(random.choice((14, 24, 34, 42, 44, 46)), max(len(frame.data) - 1, 0))
                changed = bytearray(frame.data)
                changed[at : at + 4] = random.choice(WIDE).to_bytes(8, "big")[-4:]
                frames[frames.index(frame)] = replace(frame, data=bytes(changed))
            case 8 if random.random() < 0.1:
                frames[at] = replace(frame, link_type=random.choice((1, 113, 276, 101, 0, 9, 104)))
            case _:
                frames[at] = replace(frame, data=mutate_text(frame.data, random, (), 65535))
    return pack(frames)[:limit]
