"""Codecs of libavcodec against the programs of others: FFmpeg's own decode of the same stream, SoX, libspeex, bcg729.

Each test checks the samples where they stand, so that a shift of a single one would fail it.
"""

import ctypes
import ctypes.util
import io
import shutil
import subprocess
from collections.abc import Sequence

import av
import numpy as np
import pytest

from decoders.codecs import make_decoder
from decoders.payload_amr import amr_splitter
from decoders.sdp_values import STATIC_FORMATS, PayloadFormat

BRUTESHARK = "odedshimon__BruteShark"


def decode(fmt: PayloadFormat, payloads: Sequence[bytes]) -> np.ndarray:
    """Decode in calls of uneven size."""
    decoder = make_decoder(fmt)
    assert decoder is not None
    pieces, start, size = [], 0, 1
    while start < len(payloads):
        pieces += decoder.decode(payloads[start : start + size])
        start, size = start + size, size % 7 + 1
    return np.concatenate(pieces)


def cut(stream: bytes, octets: int) -> list[bytes]:
    return [stream[at : at + octets] for at in range(0, len(stream) // octets * octets, octets)]


def snr(samples: np.ndarray, judged: np.ndarray) -> float:
    """In dB, over what both have; infinite where they are equal."""
    shared = min(len(samples), len(judged))
    judged = judged[:shared].astype(float)
    error = ((samples[:shared] - judged) ** 2).sum()
    return 10 * np.log10((judged**2).sum() / error) if error else np.inf


def ogg_packets(stream: bytes) -> list[bytes]:
    with av.open(io.BytesIO(stream)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


@pytest.fixture
def judge(ffmpeg):
    def run(data: bytes, *arguments: str) -> np.ndarray:
        return np.frombuffer(ffmpeg(data, *arguments, "-i", "-", "-f", "s16le", "-"), np.int16)

    return run


@pytest.fixture
def encode(ffmpeg, speech):
    def run(rate: int, *arguments: str, seconds: float = 2.4, channels: int = 1) -> bytes:
        voices = np.stack([speech(rate, seconds, seed) for seed in range(1, channels + 1)], axis=1)
        source = ("-f", "s16le", "-ar", str(rate), "-ac", str(channels), "-i", "-")
        return ffmpeg(voices.tobytes(), *source, *arguments, "-")

    return run


@pytest.mark.parametrize("octets", [80, 160, 240, 1])
def test_g722_equals_ffmpeg(encode, judge, octets):
    stream = encode(16000, "-f", "g722", seconds=0.2 if octets == 1 else 2)
    samples = decode(STATIC_FORMATS[9], cut(stream, octets))
    assert np.array_equal(samples, judge(stream, "-f", "g722")[: len(samples)])
    assert len(samples) > len(stream)


def test_g723_equals_ffmpeg(encode, judge):
    stream = encode(8000, "-c:a", "g723_1", "-b:a", "6300", "-f", "g723_1")
    samples = decode(STATIC_FORMATS[4], cut(stream, 48))
    assert np.array_equal(samples, judge(stream, "-f", "g723_1")[: len(samples)])


@pytest.mark.parametrize("octets", [33, 66])
def test_gsm_equals_ffmpeg(encode, judge, octets):
    stream = encode(8000, "-c:a", "libgsm", "-f", "gsm")
    samples = decode(STATIC_FORMATS[3], cut(stream, octets))
    assert np.array_equal(samples, judge(stream, "-f", "gsm")[: len(samples)])


@pytest.mark.parametrize(
    ("name", "fmt", "magic", "form"),
    [
        ("sip-rtp-ilbc.pcap", PayloadFormat(99, "iLBC", 8000, fmtp="mode=30"), b"#!iLBC30\n", "ilbc"),
        ("sip-rtp-ilbc.pcap", PayloadFormat(99, "iLBC", 8000, fmtp="mode=20"), b"#!iLBC30\n", "ilbc"),
        ("sip-rtp-g729a.pcap", STATIC_FORMATS[18], b"", "g729"),
        ("sip-rtp-gsm.pcap", STATIC_FORMATS[3], b"", "gsm"),
    ],
)
def test_real_calls_equal_ffmpeg(rtp_payloads, judge, name, fmt, magic, form):
    payloads = rtp_payloads(f"{BRUTESHARK}/{name}", fmt.payload_type)
    samples = decode(fmt, payloads)
    assert np.array_equal(samples, judge(magic + b"".join(payloads), "-f", form))


@pytest.mark.parametrize("rate", [8000, 16000, 32000])
@pytest.mark.parametrize(
    "options",
    [(), ("-frames_per_packet", "3"), ("-vad", "1", "-dtx", "1", "-vbr", "1", "-frames_per_packet", "2")],
    ids=["one frame", "three frames", "dtx"],
)
def test_speex_equals_ffmpeg_and_stands_where_libspeex_has_it(encode, judge, rate, options):
    stream = encode(rate, "-c:a", "libspeex", *options, "-f", "ogg")
    samples = decode(PayloadFormat(96, "speex", rate), ogg_packets(stream))
    assert np.array_equal(samples, judge(stream, "-c:a", "speex"))
    # libavcodec's wideband differs from libspeex by some -19 dB; narrowband does not.
    assert snr(samples, judge(stream, "-c:a", "libspeex")) > (60 if rate == 8000 else 18)


def opus_payloads(stream: bytes) -> tuple[list[bytes], int]:
    """Packets, and samples at their start that an Ogg player leaves out (RFC 7845, section 5.1)."""
    return ogg_packets(stream), int.from_bytes(stream[stream.index(b"OpusHead") + 10 :][:2], "little")


@pytest.mark.parametrize(
    "options",
    [
        ("-b:a", "24k", "-application", "voip"),
        ("-b:a", "12k", "-application", "voip", "-frame_duration", "60"),
        ("-b:a", "64k", "-frame_duration", "5"),
        ("-b:a", "40k", "-frame_duration", "120"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("channels", [1, 2])
def test_opus_equals_libopus(encode, judge, options, channels):
    stream = encode(48000, "-c:a", "libopus", *options, "-f", "ogg", channels=channels)
    packets, skipped = opus_payloads(stream)
    samples = decode(PayloadFormat(96, "opus", 48000, 2), packets)[skipped:]
    judged = judge(stream, "-c:a", "libopus").reshape(-1, channels).mean(axis=1)
    # FFmpeg gives floats rounded once more, and mixes two decoded channels where libopus decodes their middle.
    assert snr(samples, judged) > (90 if channels == 1 else 30)


def test_opus_of_a_silent_speaker_lasts_as_long_as_it_should(rtp_payloads):
    payloads = rtp_payloads("goffinet__sip_captures/sip-flow-private.pcapng", 124)
    assert sum(len(payload) == 1 for payload in payloads) > 400
    assert len(decode(PayloadFormat(124, "opus", 48000, 2), payloads)) == 960 * len(payloads)


def amr_frames(rate: int, name: str, speech, bit_rate: int) -> list[bytes]:
    """Frames in storage format from an encoder of libavcodec."""
    try:
        encoder = av.CodecContext.create(name, "w")
    except ValueError:
        pytest.skip(f"libavcodec has no encoder {name}")
    encoder.sample_rate, encoder.layout, encoder.format, encoder.bit_rate = rate, "mono", "s16", bit_rate
    voice = speech(rate, 3)
    packets = []
    for piece in voice[: len(voice) // 160 * 160].reshape(-1, 160):
        frame = av.AudioFrame.from_ndarray(piece[None, :], format="s16", layout="mono")
        frame.sample_rate = rate
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    return packets


def sox_amr(kind: str, magic: bytes, frames: Sequence[bytes]) -> np.ndarray:
    if shutil.which("sox") is None:
        pytest.skip("sox is not installed")
    command = ["sox", "-D", "-t", kind, "-", "-t", "raw", "-e", "signed", "-b", "16", "-"]
    done = subprocess.run(command, input=magic + b"".join(frames), capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"this sox has no {kind}")
    return np.frombuffer(done.stdout, np.int16)


@pytest.mark.parametrize("bit_rate", [4750, 7400, 12200])
def test_amr_equals_the_reference_decoder(speech, judge, bit_rate):
    frames = amr_frames(8000, "libopencore_amrnb", speech, bit_rate)
    payloads = [b"\xf0" + frame[:1] + frame[1:] for frame in frames]
    samples = decode(PayloadFormat(96, "AMR", 8000, fmtp="octet-align=1"), payloads)
    assert np.array_equal(samples, sox_amr("amr-nb", b"#!AMR\n", frames))
    assert snr(samples, judge(b"#!AMR\n" + b"".join(frames), "-f", "amr")) > 20


@pytest.mark.parametrize(
    ("name", "fmt", "kind", "magic"),
    [
        ("hdiniz__rtpdump/sample2_vowifi_ipv4_esp_ipv4.pcap", PayloadFormat(99, "AMR", 8000), "amr-nb", b"#!AMR\n"),
        ("open5gs__open5gs/volte.pcapng", PayloadFormat(104, "AMR-WB", 16000), "amr-wb", b"#!AMR-WB\n"),
    ],
)
def test_amr_of_real_calls_with_silence_descriptors(captures, name, fmt, kind, magic):
    payloads = tshark_payloads(captures, name, fmt.payload_type)
    samples = decode(fmt, payloads)
    frames = [frame.data for payload in payloads for frame in amr_splitter("", kind == "amr-wb")(payload)]
    assert any(frame[0] >> 3 & 15 == (8 if kind == "amr-nb" else 9) for frame in frames)
    assert np.array_equal(samples, sox_amr(kind, magic, frames))


def tshark_payloads(captures, name: str, payload_type: int) -> list[bytes]:
    """Payloads of the largest stream, whatever tunnels it came through."""
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    path = next(iter(sorted(captures.glob(f"**/{name}"))), None)
    if path is None:
        pytest.skip(f"{name} is not among the captures")
    fields = [part for field in ("rtp.ssrc", "ip.src", "rtp.payload") for part in ("-e", field)]
    command = ["tshark", "-r", str(path), "--enable-heuristic", "rtp_udp", "-Y", f"rtp.p_type == {payload_type}"]
    command += ["-T", "fields", "-E", "occurrence=f", *fields]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    streams: dict[tuple[str, str], list[bytes]] = {}
    for ssrc, source, payload in (line.split("\t") for line in lines):
        streams.setdefault((ssrc, source), []).append(bytes.fromhex(payload.replace(":", "")))
    return max(streams.values(), key=len)


def library(name: str) -> ctypes.CDLL:
    found = ctypes.util.find_library(name)
    if found is None:
        pytest.skip(f"lib{name} is not installed")
    return ctypes.CDLL(found)


def test_amr_wb_of_an_independent_encoder(speech, judge):
    encoder = library("vo-amrwbenc")
    encoder.E_IF_init.restype = ctypes.c_void_p
    state = ctypes.c_void_p(encoder.E_IF_init())
    frames, buffer = [], ctypes.create_string_buffer(500)
    for piece in cut(speech(16000, 3).tobytes(), 640):
        size = encoder.E_IF_encode(state, 8, piece, buffer, 0)
        frames.append(buffer.raw[:size])
    encoder.E_IF_exit(state)
    samples = decode(PayloadFormat(96, "AMR-WB", 16000, fmtp="octet-align=1"), [b"\xf0" + frame for frame in frames])
    assert np.array_equal(samples, sox_amr("amr-wb", b"#!AMR-WB\n", frames))
    assert snr(samples, judge(b"#!AMR-WB\n" + b"".join(frames), "-f", "amr")) > 20


def test_g729_against_an_independent_codec(speech):
    codec = library("bcg729")
    codec.initBcg729EncoderChannel.restype = codec.initBcg729DecoderChannel.restype = ctypes.c_void_p
    encoder = ctypes.c_void_p(codec.initBcg729EncoderChannel(0))
    decoder = ctypes.c_void_p(codec.initBcg729DecoderChannel())
    frames, judged = [], []
    bits, size, signal = ctypes.create_string_buffer(10), ctypes.c_uint8(0), (ctypes.c_int16 * 80)()
    for piece in cut(speech(8000, 3).tobytes(), 160):
        codec.bcg729Encoder(encoder, piece, bits, ctypes.byref(size))
        frames.append(bits.raw[: size.value])
        codec.bcg729Decoder(decoder, frames[-1], 10, 0, 0, 0, signal)
        judged.append(np.array(signal, np.int16))
    samples = decode(STATIC_FORMATS[18], [b"".join(frames[n : n + 2]) for n in range(0, len(frames), 2)])
    assert snr(samples, np.concatenate(judged)) > 10
