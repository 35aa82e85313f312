"""Codecs, changes of codec, encryption and cut packets: what of them is heard, and where."""

import subprocess
from base64 import b64encode
from dataclasses import replace

import numpy as np
import pylibsrtp

from pcaps.make.sources import decode, speech_like
from tests.capture_builder import (
    ALICE_RTP,
    AUDIO,
    BOB_RTP,
    Capture,
    SipCall,
    both,
    hears,
    record_one,
    sdp,
    talk,
)


def ffmpeg(arguments, data):
    """What ffmpeg makes of raw octets on its standard input."""
    command = ["ffmpeg", "-loglevel", "error", *arguments.split(), "-"]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def g722(samples):
    """Payloads of 20 ms of G.722, made by ffmpeg."""
    octets = ffmpeg("-f s16le -ar 16000 -ac 1 -i - -c:a g722 -f g722", samples.tobytes())
    return [octets[k : k + 160] for k in range(0, len(octets) - 159, 160)]


def ffmpeg_g722(octets):
    """Samples at 16 kHz, decoded by ffmpeg."""
    return np.frombuffer(ffmpeg("-f g722 -i - -f s16le", octets), np.int16)


def snr(heard, wanted):
    """Signal to noise ratio in dB."""
    noise = heard.astype(float) - wanted
    return 10 * np.log10(np.sum(wanted.astype(float) ** 2) / max(np.sum(noise**2), 1e-9))


def lag(heard, wanted):
    """By how many samples what is heard comes too late, to the best fit."""
    size = 1 << (2 * len(wanted)).bit_length()
    product = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(wanted, size)))
    best = int(np.argmax(product))
    return best if best < size // 2 else best - size


def heard_at_8000(packets):
    """Samples of G.711 packets without gaps."""
    names = {0: "PCMU", 8: "PCMA"}
    return np.concatenate([decode(names[p.payload_type], np.frombuffer(p.payload, np.uint8)) for p in packets])


def test_a_codec_that_changes_within_a_stream_keeps_its_place_at_the_highest_rate(tmp_path):
    bob = talk(speech_like(2, 9), BOB_RTP, ALICE_RTP, at=1.0125, ssrc=0xB0B)
    source = speech_like(1, 9)
    parts = [talk(source, codec="PCMU")[:150], talk(source, codec="PCMA")[150:300]]
    wide = [
        replace(p, payload=octets, payload_type=9)
        for p, octets in zip(talk(source)[300:], g722(speech_like(1, 3, 16000)), strict=True)
    ]
    capture = Capture().rtp(*parts, wide, bob)
    capture.call(end=11)
    call = record_one(capture, tmp_path)
    assert call.rate == 16000
    assert lag(call.caller[: 2 * 6 * 8000], np.repeat(heard_at_8000(parts[0] + parts[1]), 2)) in (-1, 0, 1)
    assert lag(call.callee[200:], np.repeat(heard_at_8000(bob), 2)) in (-1, 0, 1)
    heard = call.caller[2 * 6 * 8000 :]
    assert not call.caller[2 * 9 * 8000 :].any()
    assert snr(heard[: 3 * 16000], ffmpeg_g722(b"".join(p.payload for p in wide))) > 40


def test_a_reinvite_that_changes_the_codec_keeps_the_channels_in_step(tmp_path):
    alice, bob = both(8)
    after = [
        replace(p, at=a.at, timestamp=a.timestamp, sequence=a.sequence)
        for p, a in zip(talk(speech_like(1, 8), codec="PCMA")[200:], alice[200:], strict=True)
    ]
    capture = Capture().rtp(alice[:200], after, bob)
    call = capture.call(end=None)
    call.request(4.9, "INVITE", sdp(ALICE_RTP, ("8 PCMA/8000",)))
    call.response(4.95, 200, "OK", sdp(BOB_RTP, ("8 PCMA/8000",)))
    call.request(4.96, "ACK")
    call.hang_up(10)
    recorded = record_one(capture, tmp_path)
    hears(recorded, [alice[:200] + after], [bob])


def test_a_dynamic_payload_type_that_changes_its_meaning_is_heard_by_the_newest_description(tmp_path):
    source = speech_like(1, 8)
    first = [replace(p, payload_type=96) for p in talk(source, codec="PCMU")[:200]]
    second = [replace(p, payload_type=96) for p in talk(source, codec="PCMA")[200:]]
    capture = Capture().rtp(first, second)
    call = SipCall(capture)
    call.request(0.1, "INVITE", sdp(ALICE_RTP, ("96 PCMU/8000",)))
    call.response(0.5, 200, "OK", sdp(BOB_RTP, ("96 PCMU/8000",)))
    call.request(0.51, "ACK")
    call.request(4.985, "INVITE", sdp(ALICE_RTP, ("96 PCMA/8000",)))
    call.response(4.99, 200, "OK", sdp(BOB_RTP, ("96 PCMA/8000",)))
    call.request(4.995, "ACK")
    call.hang_up(10)
    recorded = record_one(capture, tmp_path)
    known = [replace(p, payload_type=0) for p in first] + [replace(p, payload_type=8) for p in second]
    np.testing.assert_array_equal(recorded.caller, recorded.expected(known))


def test_media_encrypted_with_keys_in_the_description_is_decrypted(tmp_path):
    keys = [b"A" * 30, b"B" * 30]
    lines = [f"crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{b64encode(key).decode()}" for key in keys]
    alice, bob = both(5)
    capture = Capture()
    for packets, key in ((alice, keys[0]), (bob, keys[1])):
        session = pylibsrtp.Session(pylibsrtp.Policy(key=key, ssrc_type=pylibsrtp.Policy.SSRC_ANY_OUTBOUND))
        for p in packets:
            capture.datagram(p.at, p.source, p.destination, session.protect(p.octets()))
    call = SipCall(capture)
    call.request(0.1, "INVITE", sdp(ALICE_RTP, AUDIO, lines[0], profile="RTP/SAVP"))
    call.response(0.5, 200, "OK", sdp(BOB_RTP, AUDIO, lines[1], profile="RTP/SAVP"))
    call.request(0.51, "ACK")
    call.hang_up(6.5)
    recorded = record_one(capture, tmp_path)
    hears(recorded, [alice], [bob])
    assert recorded.warnings == []
    assert [s["encrypted"] for s in recorded.document["streams"]] == [True, True]


def test_media_encrypted_with_unseen_keys_is_silence_with_a_warning(tmp_path):
    alice, bob = both(3)
    capture = Capture().rtp(alice, bob)
    call = SipCall(capture)
    call.request(0.1, "INVITE", sdp(ALICE_RTP, AUDIO, "fingerprint:sha-256 AA:BB", profile="UDP/TLS/RTP/SAVP"))
    call.response(0.5, 200, "OK", sdp(BOB_RTP, AUDIO, "fingerprint:sha-256 AA:BB", profile="UDP/TLS/RTP/SAVP"))
    call.request(0.51, "ACK")
    call.hang_up(4.5)
    recorded = record_one(capture, tmp_path)
    assert recorded.warnings == ["encrypted", "encrypted"]
    assert recorded.audio is None or not recorded.audio.any()


def test_a_codec_that_cannot_be_decoded_is_silence_with_a_warning(tmp_path):
    alice, bob = both(4)
    alice = [replace(p, payload_type=97) for p in alice]
    capture = Capture().rtp(alice, bob)
    call = SipCall(capture)
    call.request(0.1, "INVITE", sdp(ALICE_RTP, ("97 EVS/16000", "0 PCMU/8000")))
    call.response(0.5, 200, "OK", sdp(BOB_RTP, ("97 EVS/16000", "0 PCMU/8000")))
    call.request(0.51, "ACK")
    call.hang_up(5.5)
    recorded = record_one(capture, tmp_path)
    assert recorded.started == 1.0
    np.testing.assert_array_equal(recorded.callee, recorded.expected(bob))
    assert not recorded.caller.any()
    assert recorded.warnings == ["undecodable"]
    assert recorded.document["streams"][0]["codec"].startswith("EVS")


def test_packets_that_the_capture_cut_leave_silence_for_what_is_missing(tmp_path):
    alice = talk(speech_like(1, 4), ms=80)
    bob = talk(speech_like(2, 4), BOB_RTP, ALICE_RTP, ms=80, at=1.0125, ssrc=0xB0B)
    capture = Capture().rtp(alice, bob)
    call = SipCall(capture)
    call.request(0.1, "INVITE", sdp(ALICE_RTP, ("0 PCMU/8000",)))
    call.response(0.5, 200, "OK", sdp(BOB_RTP, ("0 PCMU/8000",)))
    call.request(0.51, "ACK")
    call.hang_up(5.5)
    headers = 14 + 20 + 8 + 12
    recorded = record_one(capture, tmp_path, snap=headers + 600)
    cut = [[replace(p, payload=p.payload[:600]) for p in side] for side in (alice, bob)]
    hears(recorded, [cut[0]], [cut[1]])
    assert recorded.warnings == ["snapped", "snapped"]
    assert len(recorded.audio) == 4 * 8000 + 100 - 40
