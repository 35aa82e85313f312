"""Calls between baresip and baresip: G.722, SRTP with SDES keys, a blind transfer.

baresip picks SSRCs and Call-IDs itself, and its audio file runs from where its call begins, so the facts of these
streams are read from the capture and, for G.711, the source's samples are found in it.
"""

import base64
import subprocess
import sys
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
from pylibsrtp import Policy, Session

from pcaps.make import observe
from pcaps.make.network import Lab, address
from pcaps.make.sources import Samples, decode, speech_like, through

SEEDS = {"a": 204, "b": 211, "c": 218}
PEOPLE = {"a": ("alice", "Alice Caller"), "b": ("bob", "Bob Callee"), "c": ("carol", "Carol Target")}
PORTS = {"a": 21000, "b": 22000, "c": 23000}
CONTROL = Path(__file__).with_name("control.py")
RATES = {"PCMU": 8000, "PCMA": 8000, "G722": 16000}

CONFIG = """\
poll_method epoll
sip_listen {address}:5060
audio_player aubridge,{host}
audio_source aufile,{wav}
audio_alert aubridge,alert
rtp_ports {port}-{last}
rtcp_mux no
jitter_buffer_delay 5-10
module_path /usr/lib/baresip/modules
module g711.so
module g722.so
module aufile.so
module aubridge.so
module srtp.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen 127.0.0.1:4444
"""


def source(codec: str, host: str) -> Samples:
    """What a phone's microphone hears. For G.711 it has been through the codec once, so that every encoder, whichever
    way it rounds, gives the same samples."""
    samples = speech_like(SEEDS[host], 20, RATES[codec])
    return samples if codec == "G722" else through(codec, samples)


def phone(lab: Lab, host: str, codec: str, encryption: str = "", answers: bool = True) -> "subprocess.Popen[bytes]":
    """Start a baresip that speaks its own source, at the codec's own rate, so that nothing is resampled."""
    home = lab.work / f"baresip-{host}"
    home.mkdir()
    wav = home / "source.wav"
    with wave.open(str(wav), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATES[codec])
        out.writeframes(source(codec, host).tobytes())
    port = PORTS[host]
    (home / "config").write_text(
        CONFIG.format(address=address(host), host=host, wav=wav, port=port, last=port + 20)
    )  # fmt: skip
    user, name = PEOPLE[host]
    options = [f"audio_codecs={codec.lower()}/{RATES[codec]}/1", "regint=0"]
    options += [f"mediaenc={encryption}"] if encryption else []
    options += ["answermode=auto"] if answers else []
    (home / "accounts").write_text(f'"{name}" <sip:{user}@{address(host)}>;{";".join(options)}\n')
    (home / "contacts").write_text("")
    return lab.start(host, "baresip", "-f", str(home), log=f"baresip-{host}")


def control(lab: Lab, host: str, command: str, parameters: str = "") -> None:
    """Tell a phone what to do, as its user would."""
    lab.start(host, sys.executable, str(CONTROL), command, parameters, log="control").wait(10)


def baresip_g722(lab: Lab) -> dict[str, Any]:
    """baresip calls baresip in G.722, with RTCP."""
    phone(lab, "b", "G722")
    phone(lab, "a", "G722")
    time.sleep(1.5)
    control(lab, "a", "dial", f"sip:bob@{address('b')}")
    time.sleep(4.5)
    control(lab, "a", "hangup")
    time.sleep(0.5)
    return {"calls": [], "observe_phones": "G722"}


def srtp_sdes(lab: Lab) -> dict[str, Any]:
    """baresip calls baresip, PCMA in SRTP; the SDP carries the keys (SDES, RFC 4568)."""
    phone(lab, "b", "PCMA", "srtp-mand")
    phone(lab, "a", "PCMA", "srtp-mand")
    time.sleep(1.5)
    control(lab, "a", "dial", f"sip:bob@{address('b')}")
    time.sleep(4.0)
    control(lab, "a", "hangup")
    time.sleep(0.5)
    return {"calls": [], "observe_phones": "PCMA"}


def transfer_blind(lab: Lab) -> dict[str, Any]:
    """Alice calls Bob and sends him on to Carol with REFER; baresip on all three sides."""
    for host in "cba":
        phone(lab, host, "PCMU")
    time.sleep(1.5)
    control(lab, "a", "dial", f"sip:bob@{address('b')}")
    time.sleep(2.5)
    control(lab, "a", "transfer", f"sip:carol@{address('c')}")
    time.sleep(3.0)
    control(lab, "b", "hangup")
    time.sleep(0.5)
    return {"calls": [], "observe_phones": "PCMU"}


def phone_of(endpoint: str) -> str:
    """The host whose address an endpoint has."""
    return next(host for host in PEOPLE if endpoint.startswith(f"{address(host)}:"))


def keys(capture: Path) -> dict[str, bytes]:
    """SDES key and salt of each host that offers one."""
    rows = observe.tshark_fields(capture, "sdp.media_attr", "ip.src", "sdp.media_attr")
    found = {}
    for source, attributes in rows:
        after = attributes.partition("inline:")[2]
        if after:
            # The first key offered is the one that both baresips take.
            found[phone_of(f"{source}:0")] = base64.b64decode(after[:40])
    return found


def clear_payloads(capture: Path, ssrc: str, key: bytes | None) -> list[bytes]:
    """A stream's payloads in order, decrypted by libsrtp where there is a key."""
    rows = observe.tshark_fields(
        capture, f"rtp.ssrc == {ssrc}", "udp.payload", "rtp.payload", options=("--enable-heuristic", "rtp_udp")
    )  # fmt: skip
    if key is None:
        return [bytes.fromhex(payload) for _, payload in rows]
    policy = Policy(key=key, ssrc_type=Policy.SSRC_ANY_INBOUND)
    session = Session(policy=policy)
    return [session.unprotect(bytes.fromhex(packet))[12:] for packet, _ in rows]


def heard(codec: str, payloads: list[bytes]) -> Samples:
    """Decoded payloads; G.722 by ffmpeg."""
    octets = np.frombuffer(b"".join(payloads), np.uint8)
    if codec != "G722":
        return decode(codec, octets)
    command = ["ffmpeg", "-loglevel", "error", "-f", "g722", "-i", "-", "-f", "s16le", "-ar", "16000", "-"]
    done = subprocess.run(command, input=octets.tobytes(), capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.int16)


def said(codec: str, payloads: list[bytes], host: str) -> tuple[int, int, bool]:
    """(first sample of the source, count, whether all are exact) of what a stream carries: where the two agree best."""
    # The filter banks of a G.722 encoder and decoder delay by 22 samples together.
    there = heard(codec, payloads)[22 if codec == "G722" else 0 :].astype(np.float64)
    known = source(codec, host).astype(np.float64)
    step = RATES[codec] // 50
    error = [np.square(there - known[first : first + len(there)]).sum() for first in range(0, 50 * step, step)]
    first = int(np.argmin(error)) * step
    if error[first // step] > 0.3 * np.square(there).sum():
        raise RuntimeError(f"{host}: what the phone sent is not its source")
    return first, sum(map(len, payloads)) * step // 160, bool(error[first // step] == 0)


def stream_facts(capture: Path, codec: str, packets: list[observe.Rtp], sides: dict[str, str]) -> dict[str, Any]:
    """The index's entry of one stream, from what the capture shows of it."""
    first = packets[0]
    host = phone_of(first.source)
    facts: dict[str, Any] = {
        "participant": sides[host], "codec": codec, "payload_type": first.kind, "clock_rate": 8000, "ssrc": first.ssrc,
        "first_sequence": first.sequence, "source": first.source, "destination": first.destination,
        "packets": len({packet.sequence for packet in packets}), "lost": 0, "duplicates": 0, "reordered": 0,
        "copies": 0, "exact": False, "audio": [],
    }  # fmt: skip
    secrets = keys(capture)
    if secrets:
        facts["encrypted"] = True
    payloads = clear_payloads(capture, first.ssrc, secrets.get(host))
    start, count, facts["exact"] = said(codec, payloads, host)
    segment = {"ssrc": first.ssrc, "timestamp": first.timestamp, "seed": SEEDS[host], "rate": RATES[codec]}
    facts["audio"] = [segment | {"first_sample": start, "samples": count}]
    return facts


def calls_of_phones(capture: Path, codec: str) -> list[dict[str, Any]]:
    """Facts of every call between phones in a capture."""
    streams: dict[str, list[observe.Rtp]] = {}
    for packet in observe.rtp_packets(capture):
        streams.setdefault(packet.ssrc, []).append(packet)
    calls = []
    for call_id, caller, callee in observe.invitations(capture):
        pair = {phone_of(f"{caller}:0"): "caller", phone_of(f"{callee}:0"): "callee"}
        mine = [
            packets for packets in streams.values()
            if {phone_of(packets[0].source), phone_of(packets[0].destination)} == set(pair)
        ]  # fmt: skip
        call: dict[str, Any] = {"call_id": call_id, "state": "completed", "sip_status": 200}
        call["ended_by"] = "caller"
        for host, side in pair.items():
            user, name = PEOPLE[host]
            # Whom baresip dials has no name in its SIP.
            call[side] = {
                "uri": f"sip:{user}@{address(host)}", "name": name if side == "caller" else None,
                "address": f"{address(host)}:5060",
            }  # fmt: skip
        call["streams"] = [stream_facts(capture, codec, packets, pair) for packets in mine]
        call["streams"].sort(key=lambda facts: facts["participant"] != "caller")
        calls.append(call | {"dtmf": [], "holds": []})
    return calls
