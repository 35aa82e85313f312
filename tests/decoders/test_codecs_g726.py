"""G.726 against a naive twin, against libavcodec where that is right, and against the same voice in G.711."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoders.codecs import make_decoder
from decoders.sdp_values import STATIC_FORMATS, PayloadFormat
from tests.naive_g726 import Naive

CAPTURE = "odedshimon__BruteShark/sip-rtp-g726.pcap"


def format_of(bits: int, prefix: str = "") -> PayloadFormat:
    return PayloadFormat(96, f"{prefix}G726-{8 * bits}", 8000)


def pack(codes: np.ndarray, bits: int, low_first: bool) -> bytes:
    order = "little" if low_first else "big"
    places = np.arange(bits) if low_first else np.arange(bits)[::-1]
    return np.packbits((codes[:, None] >> places & 1).reshape(-1), bitorder=order).tobytes()


@pytest.mark.parametrize("bits", [2, 3, 4, 5])
@pytest.mark.parametrize("low_first", [True, False])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_codes_decode_as_the_naive_twin_has_them(bits, low_first, data):
    # Runs of one code drive scale and predictor to their limits.
    runs = st.tuples(st.integers(0, (1 << bits) - 1), st.integers(1, 60))
    codes = np.concatenate([np.full(n, code) for code, n in data.draw(st.lists(runs, min_size=1, max_size=30))])
    codes = np.concatenate((codes, np.zeros(-len(codes) % 8, int)))
    twin = Naive(bits)
    decoder = make_decoder(format_of(bits, "" if low_first else "AAL2-"))
    (samples,) = decoder.decode([pack(codes, bits, low_first)])
    assert samples.tolist() == [twin.decode(int(code)) for code in codes]


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize(("prefix", "name"), [("", "g726le"), ("AAL2-", "g726")])
def test_other_rates_equal_ffmpeg(speech, ffmpeg, bits, prefix, name):
    codec = ["-c:a", name, "-code_size", str(bits), "-f", name, "-"]
    stream = ffmpeg(speech(8000, 3).tobytes(), "-f", "s16le", "-ar", "8000", "-i", "-", *codec)
    judged = ffmpeg(stream, "-f", name, "-code_size", str(bits), "-i", "-", "-f", "s16le", "-")
    payloads = [stream[at : at + 20 * bits] for at in range(0, len(stream) // bits * bits, 20 * bits)]
    samples = np.concatenate(make_decoder(format_of(bits, prefix)).decode(payloads))
    assert np.array_equal(samples, np.frombuffer(judged, np.int16)[: len(samples)])


@pytest.mark.parametrize("rank", range(8))
def test_a_real_call_sounds_as_in_g711(rtp_packets, rtp_payloads, rank):
    """Nine calls with the same voice: one in G.711, eight in both packings of the four rates."""
    original = np.concatenate(
        make_decoder(STATIC_FORMATS[0]).decode(rtp_payloads("odedshimon__BruteShark/sip-rtp-g711.pcap", 0))
    ).astype(float)
    packets = [packet for packet in rtp_packets(CAPTURE) if packet[1] & 0x7F == 99]
    ssrcs = list(dict.fromkeys(packet[8:12] for packet in packets))
    payloads = [packet[12:] for packet in packets if packet[8:12] == ssrcs[rank]]
    bits, prefix = 2 + rank % 4, "AAL2-" if rank >= 4 else ""
    samples = np.concatenate(make_decoder(format_of(bits, prefix)).decode(payloads)).astype(float)
    gain = samples @ original / (original @ original)
    noise = ((samples - original) ** 2).sum() / (original**2).sum()
    assert gain == pytest.approx(1, abs=0.01)
    assert -10 * np.log10(noise) > {2: 15, 3: 19, 4: 24, 5: 25}[bits]


def test_loud_samples_are_clipped():
    codes = np.tile([7] * 8 + [8] * 8, 100)
    (samples,) = make_decoder(format_of(4)).decode([pack(codes, 4, low_first=True)])
    assert samples.max() == 32767
    assert samples.min() == -32768
