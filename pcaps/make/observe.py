"""What tshark sees in a capture: the second witness beside what the scripts say they sent.

In: a capture. Out: times of each call's dialog, packets per SSRC, link type. Nothing of spanrec is used.
"""

import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def tshark_fields(capture: Path, display: str, *fields: str, options: tuple[str, ...] = ()) -> list[list[str]]:
    """One row per matching packet, one text per field. A key log beside the capture decrypts its TLS."""
    keys = capture.with_suffix(".keys")
    options += ("-o", f"tls.keylog_file:{keys}") if keys.exists() else ()
    command = ["tshark", "-r", str(capture), *options, "-Y", display, "-T", "fields"]
    for name in fields:
        command += ["-e", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.split("\t") for line in done.stdout.split("\n") if line]


@dataclass(frozen=True, slots=True)
class Rtp:
    """One RTP packet; SSRC as "0x...", endpoints as "ip:port"."""

    frame: int
    ssrc: str
    source: str
    destination: str
    sequence: int
    timestamp: int
    kind: int
    payload: bytes


def rtp_packets(capture: Path) -> list[Rtp]:
    """RTP in order of capture, by tshark's heuristic alone: no SDP, no port decides."""
    rows = tshark_fields(
        capture, "rtp and not rtcp", "frame.number", "rtp.ssrc", "ip.src", "ipv6.src", "udp.srcport", "ip.dst",
        "ipv6.dst", "udp.dstport", "rtp.seq", "rtp.timestamp", "rtp.p_type", "rtp.payload",
        options=("--enable-heuristic", "rtp_udp"),
    )  # fmt: skip
    found = []
    for frame, ssrc, src4, src6, sport, dst4, dst6, dport, seq, stamp, kind, payload in rows:
        source = f"{src4 or f'[{src6}]'}:{sport}"
        destination = f"{dst4 or f'[{dst6}]'}:{dport}"
        packet = Rtp(
            int(frame), ssrc, source, destination, int(seq), int(stamp), int(kind), bytes.fromhex(payload)
        )  # fmt: skip
        found.append(packet)
    return found


def invitations(capture: Path) -> list[tuple[str, str, str]]:
    """(Call-ID, source, destination address) of the first INVITE of each call."""
    rows = tshark_fields(capture, 'sip.Method == "INVITE"', "sip.Call-ID", "ip.src", "ip.dst")
    first = {row[0]: row for row in reversed(rows)}
    return [(call_id, source, destination) for call_id, source, destination in reversed(first.values())]


def packets_per_ssrc(capture: Path) -> dict[str, int]:
    """RTP packets of each SSRC, copies at other hops and duplicates too."""
    return dict(Counter(packet.ssrc for packet in rtp_packets(capture)))


def link_type(capture: Path) -> str:
    done = subprocess.run(["capinfos", "-E", "-T", "-r", str(capture)], capture_output=True, text=True, check=True)
    return done.stdout.strip().split("\t")[-1]


def packet_count(capture: Path) -> int:
    done = subprocess.run(
        ["capinfos", "-c", "-M", "-T", "-r", str(capture)], capture_output=True, text=True, check=True
    )
    return int(done.stdout.strip().split("\t")[-1])


def dialog_times(capture: Path) -> dict[str, dict[str, Any]]:
    """Per Call-ID: the address its first INVITE came from, and times (s since the epoch, as text) of its first INVITE,
    ringing, answer, CANCEL, BYE and refusal, and of every re-INVITE."""
    rows = tshark_fields(
        capture, "sip", "frame.time_epoch", "sip.Call-ID", "sip.Method", "sip.Status-Code", "sip.CSeq.method",
        "ip.src", "ipv6.src", "udp.srcport", "tcp.srcport",
        "sip.to.tag",
    )  # fmt: skip
    calls: dict[str, dict[str, Any]] = {}
    for when, call_id, method, status, cseq, v4, v6, udp, tcp, to_tag in rows:
        if not when or not call_id or "," in call_id:
            continue
        seen = calls.setdefault(call_id, {})
        if method == "INVITE":
            if to_tag:
                seen.setdefault("reinvites", []).append(when)
            seen.setdefault("caller_address", f"{v4 or f'[{v6}]'}:{udp or tcp}")
        for event in events(method, status, cseq):
            seen.setdefault(event, when)
    return calls


def events(method: str, status: str, cseq: str) -> list[str]:
    """Names of what a message is the first sign of."""
    if method in ("INVITE", "CANCEL", "BYE", "REFER"):
        return [method.lower()]
    if not status or cseq != "INVITE":
        return []
    code = int(status)
    if 180 <= code <= 183:
        return ["ringing"]
    if 200 <= code < 300:
        return ["answered"]
    return ["refused"] if code >= 300 else []
