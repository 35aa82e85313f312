"""The header of a WAV file of 16-bit PCM.

In: rate, channels, octets of samples. Out: the 44 octets in front of them (RIFF, WAVE, `fmt `, `data`).
"""

import struct

FRAME = 4
"""Octets of a stereo frame."""
HEADER = 44
"""Octets in front of the samples."""
RIFF_LIMIT = 0xFFFFFFFF - HEADER
"""Octets of samples that a RIFF header can state; longer audio is RF64 (EBU Tech 3306)."""


def wav_header(rate: int, channels: int, octets: int) -> bytes:
    """The header; of more octets than it can state it states the most it can, which players take for the whole file."""
    octets = min(octets, RIFF_LIMIT)
    align = 2 * channels
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, rate * align, align, 16)
    return struct.pack("<4sI4s", b"RIFF", 36 + octets, b"WAVE") + form + struct.pack("<4sI", b"data", octets)
