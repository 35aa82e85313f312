"""Which formats have a decoder, and what every decoder keeps to."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoders.codecs import make_decoder, why_undecodable
from decoders.sdp_values import STATIC_FORMATS, PayloadFormat


def dynamic(encoding: str, clock_rate: int = 8000, channels: int = 1, fmtp: str = "") -> PayloadFormat:
    return PayloadFormat(96, encoding, clock_rate, channels, fmtp)


# Format, octets of a payload of 20 ms (30 for G.723.1 and iLBC), its samples, their rate.
DECODABLE = [
    (STATIC_FORMATS[0], 160, 160, 8000),
    (STATIC_FORMATS[2], 80, 160, 8000),
    (STATIC_FORMATS[3], 33, 160, 8000),
    (STATIC_FORMATS[4], 24, 240, 8000),
    (STATIC_FORMATS[5], 84, 160, 8000),
    (STATIC_FORMATS[8], 160, 160, 8000),
    (STATIC_FORMATS[9], 160, 320, 16000),
    (STATIC_FORMATS[18], 20, 160, 8000),
    (STATIC_FORMATS[18], 22, 240, 8000),
    (STATIC_FORMATS[18], 2, 80, 8000),
    (dynamic("g729"), 20, 160, 8000),
    (dynamic("G721"), 80, 160, 8000),
    (dynamic("G726-24"), 60, 160, 8000),
    (dynamic("AAL2-G726-40"), 100, 160, 8000),
    (dynamic("iLBC"), 50, 240, 8000),
    (dynamic("iLBC", fmtp="mode=20"), 38, 160, 8000),
    (dynamic("iLBC", fmtp="mode=20"), 100, 480, 8000),
    (dynamic("MS-GSM"), 65, 320, 8000),
    (dynamic("opus", 48000, 2), 1, 480, 48000),
    (dynamic("L16", 16000), 640, 320, 16000),
]


@pytest.mark.parametrize(
    ("fmt", "octets", "samples", "rate"), DECODABLE, ids=lambda value: getattr(value, "rtpmap", None)
)
def test_a_payload_gives_its_samples_at_once(fmt, octets, samples, rate):
    assert why_undecodable(fmt) == ""
    decoder = make_decoder(fmt)
    assert decoder.sample_rate == rate
    assert [len(decoded) for decoded in decoder.decode([bytes(octets)] * 3)] == [samples] * 3
    assert len(decoder.decode([bytes(octets)])[0]) == samples


@pytest.mark.parametrize(
    ("fmt", "word"),
    [
        (dynamic("SILK", 16000), "SILK"),
        (dynamic("isac", 16000), "iSAC"),
        (dynamic("BV32", 16000), "BroadVoice"),
        (dynamic("CLEARMODE"), "data"),
        (dynamic("EVS", 16000), "EVS"),
        (dynamic("wibble"), "wibble"),
        (dynamic("G726-48"), "G726-48"),
        (dynamic("telephone-event"), "no speech"),
        (STATIC_FORMATS[7], "LPC"),
        (STATIC_FORMATS[13], "no speech"),
        (dynamic("AMR", fmtp="interleaving=4"), "interleaving"),
        (dynamic("speex", 11025), "11025"),
        (dynamic("PCMU", 8000, channels=100), "100 channels"),
        (dynamic("L16", 10**9), "clock rate"),
    ],
)
def test_what_cannot_be_decoded_says_why(fmt, word):
    assert make_decoder(fmt) is None
    assert word in why_undecodable(fmt)


EVERY = [
    *{row[0].rtpmap + row[0].fmtp: row[0] for row in DECODABLE}.values(),
    dynamic("speex", 16000),
    dynamic("AMR-WB", 16000),
]


@pytest.mark.parametrize("fmt", EVERY, ids=lambda fmt: fmt.rtpmap)
@settings(max_examples=30, deadline=None)
@given(
    payloads=st.lists(
        st.one_of(st.binary(max_size=120), st.sampled_from([bytes(20), bytes(33), bytes(50)])), max_size=4
    )
)
def test_no_payload_raises(fmt, payloads):
    decoded = make_decoder(fmt).decode(payloads)
    assert len(decoded) == len(payloads)
    assert all(samples.dtype == np.int16 and samples.ndim == 1 for samples in decoded)


@pytest.mark.parametrize("fmt", EVERY, ids=lambda fmt: fmt.rtpmap)
def test_reset_forgets_what_was_heard(fmt):
    payloads = [np.random.default_rng(n).bytes(100 if "L16" in fmt.rtpmap else 60) for n in range(4)]
    decoder = make_decoder(fmt)
    first = decoder.decode(payloads)
    decoder.reset()
    again = decoder.decode(payloads)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
