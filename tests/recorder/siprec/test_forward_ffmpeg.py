"""ffmpeg as the recording server: it hears, decrypts and decodes what a leg sends."""

import base64
import shutil
import subprocess
import time
import wave

import numpy as np
import pytest

from capture.address import parse_endpoint
from decoders.sdp_values import CryptoKey
from pcaps.make.sources import decode, encode, speech_like
from recorder.siprec.legs import LegId, RemoteMedia
from tests.forwarding import PCMU, VOICE, Bench, Rtp, bound

KEY = CryptoKey(1, "AES_CM_128_HMAC_SHA1_80", bytes(range(30)))
PACKETS = 100


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("key", [None, KEY])
def test_ffmpeg_hears_every_sample(tmp_path, key):
    speech = encode("PCMU", speech_like(1, PACKETS * 0.02))
    spoken = [Rtp(20 * k, k, 160 * k, speech[160 * k : 160 * k + 160].tobytes()) for k in range(PACKETS)]
    with Bench() as bench:
        free, where = bound(bench.opened)
        free.close()
        crypto = "" if key is None else f"a=crypto:1 {key.suite} inline:{base64.b64encode(key.key).decode()}\n"
        profile = "RTP/AVP" if key is None else "RTP/SAVP"
        offer = tmp_path / "leg.sdp"
        offer.write_text(
            "v=0\no=- 1 1 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\n"
            f"m=audio {where.port} {profile} 0\na=rtpmap:0 PCMU/8000\n{crypto}"
        )
        out = tmp_path / "heard.wav"
        command = ["ffmpeg", "-v", "error", "-protocol_whitelist", "file,udp,rtp,srtp,crypto", "-f", "sdp"]
        command += ["-i", str(offer), "-t", str(PACKETS * 0.02), "-f", "wav", "-y", str(out)]
        listener = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            _wait_for(where.port)
            rtcp = parse_endpoint("127.0.0.1", where.port + 1)
            assert rtcp is not None
            bench.feed(spoken[:1])
            bench.place_all(VOICE)
            leg = LegId(VOICE, 1)
            bench.forwarder.open(leg, "127.0.0.1", 0)
            bench.forwarder.connect(leg, RemoteMedia(where, rtcp, {PCMU: 0}, encrypt=key))
            for packet in spoken[1:]:
                bench.feed([packet])
                time.sleep(0.004)
            bench.forwarder.close(leg)
            bench.pass_time(5)
            _, said = listener.communicate(timeout=20)
        finally:
            listener.kill()
            listener.communicate()
    with wave.open(str(out)) as file:
        heard = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert np.array_equal(heard[: PACKETS * 160], decode("PCMU", speech)[: len(heard)]), said
    assert len(heard) >= (PACKETS - 1) * 160


def _wait_for(port: int) -> None:
    """Until somebody is bound to a UDP port."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with open("/proc/net/udp") as file:
            if any(line.split()[1].endswith(f":{port:04X}") for line in file.readlines()[1:]):
                return
        time.sleep(0.02)
    pytest.fail(f"nobody listens at port {port}")
