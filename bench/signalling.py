"""The SIP of generated captures: dialogs of calls, and REGISTER and OPTIONS that pass by.

In: when calls begin. Out: pcap records in time order, made one by one when they are asked for.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.calls import CallPlan, Leg, mix, plan
from pcaps.make.sources import uniform

Int64 = NDArray[np.int64]

EPOCH_NS = 1_767_225_600 * 10**9
"""Capture time 0: 2026-01-01T00:00:00Z."""
ETHERNET = bytes.fromhex("0200000000020200000000010800")
PROXIES = ("10.64.0.1", "10.64.0.2")
RINGING_NS, ANSWER_NS, MEDIA_NS = 50_000_000, 300_000_000, 340_000_000
"""When a call rings, is answered and its media starts, after its INVITE."""
PAYLOAD_TYPES = {"PCMU": 0, "PCMA": 8}


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071); arithmetic modulo 65535 is ones' complement arithmetic."""
    total = int.from_bytes(data + b"\0" * (len(data) & 1), "big") % 0xFFFF
    return 0xFFFF - total


def address_octets(address: str) -> bytes:
    return bytes(int(part) for part in address.split("."))


def record(when: int, source: tuple[str, int], destination: tuple[str, int], payload: bytes, ident: int = 0) -> bytes:
    """A whole pcap record of one UDP datagram. `when` in ns since the epoch."""
    ends = address_octets(source[0]) + address_octets(destination[0])
    size = 8 + len(payload)
    ports = source[1].to_bytes(2, "big") + destination[1].to_bytes(2, "big")
    pseudo = ends + b"\0\x11" + size.to_bytes(2, "big") + ports + size.to_bytes(2, "big")
    udp_sum = checksum(pseudo + payload) or 0xFFFF
    start = b"\x45\0" + (20 + size).to_bytes(2, "big") + (ident & 0xFFFF).to_bytes(2, "big") + b"\x40\0\x40\x11"
    ip = start + checksum(start + b"\0\0" + ends).to_bytes(2, "big") + ends
    frame = ETHERNET + ip + ports + size.to_bytes(2, "big") + udp_sum.to_bytes(2, "big") + payload
    seconds, rest = divmod(when, 10**9)
    head = b"".join(value.to_bytes(4, "little") for value in (seconds, rest // 1000, len(frame), len(frame)))
    return head + frame


STATUS = {"100": "Trying", "180": "Ringing", "200": "OK"}


def sdp(side: Leg, user: str, formats: str) -> str:
    maps = {"0": "PCMU/8000", "8": "PCMA/8000", "101": "telephone-event/8000"}
    lines = [f"a=rtpmap:{name} {maps[name]}" for name in formats.split()]
    return "\r\n".join([
        "v=0", f"o={user} {side.ssrc} 1 IN IP4 {side.address}", "s=-", f"c=IN IP4 {side.address}", "t=0 0",
        f"m=audio {side.port} RTP/AVP {formats}", *lines, "a=fmtp:101 0-16", "a=ptime:20", "a=sendrecv", "",
    ])  # fmt: skip


def message(first: str, call: CallPlan, cseq: str, *, answered: bool, contact: str = "", body: str = "") -> bytes:
    """One SIP message of a call's dialog, all with the headers a real proxy forwards."""
    tag = f";tag=b{call.callee.ssrc:08x}" if answered else ""
    branch = f"z9hG4bK{call.caller.ssrc:08x}{cseq.replace(' ', '')}"
    lines = [
        first, f"Via: SIP/2.0/UDP {PROXIES[0]}:5060;branch={branch};rport", "Max-Forwards: 69",
        f'From: "Caller {call.number}" <{call.caller_uri}>;tag=a{call.caller.ssrc:08x}',
        f"To: <{call.callee_uri}>{tag}", f"Call-ID: {call.call_id}", f"CSeq: {cseq}",
    ]  # fmt: skip
    if contact:
        lines += [f"Contact: <sip:{contact}:5060>", "Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, UPDATE, INFO, REFER"]
    lines += ["User-Agent: bench", *(["Content-Type: application/sdp"] if body else []), f"Content-Length: {len(body)}"]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def dialog_message(call: CallPlan, step: int) -> tuple[int, bytes]:
    """(sending side, octets) of the `step`-th message of a call: INVITE, 100, 180, 200, ACK, BYE, 200."""
    offered = "0 8 101" if call.codec == "PCMU" else "8 0 101"
    one, two = PROXIES
    if step == 0:
        body = sdp(call.caller, "caller", offered)
        return 0, message(f"INVITE {call.callee_uri} SIP/2.0", call, "1 INVITE", answered=False, contact=one, body=body)
    if step in (1, 2):
        code = ("100", "180")[step - 1]
        return 1, message(f"SIP/2.0 {code} {STATUS[code]}", call, "1 INVITE", answered=step == 2)
    if step == 3:
        body = sdp(call.callee, "callee", f"{PAYLOAD_TYPES[call.codec]} 101")
        return 1, message("SIP/2.0 200 OK", call, "1 INVITE", answered=True, contact=two, body=body)
    if step == 4:
        return 0, message(f"ACK sip:{two}:5060 SIP/2.0", call, "1 ACK", answered=True)
    if step == 5:
        return 0, message(f"BYE sip:{two}:5060 SIP/2.0", call, "2 BYE", answered=True)
    return 1, message("SIP/2.0 200 OK", call, "2 BYE", answered=True)


def passing_message(number: int, answer: bool) -> tuple[int, bytes]:
    """(sending side, octets) of a REGISTER or OPTIONS, by turns, or of the answer to it."""
    method = ("REGISTER", "OPTIONS")[number & 1]
    user = f"sip:user{number % 50_000}@one.example"
    first = "SIP/2.0 200 OK" if answer else f"{method} sip:one.example SIP/2.0"
    lines = [
        first, f"Via: SIP/2.0/UDP {PROXIES[0]}:5060;branch=z9hG4bK{mix(number, 7):08x};rport", "Max-Forwards: 70",
        f"From: <{user}>;tag={mix(number, 8):08x}", f"To: <{user}>{';tag=reg' if answer else ''}",
        f"Call-ID: {mix(number, 9):08x}-{number}@{PROXIES[0]}", f"CSeq: {number % 1000 + 1} {method}",
        f"Contact: <sip:user{number % 50_000}@{PROXIES[0]}:5060>;expires=300", "User-Agent: bench",
        "Content-Length: 0", "", "",
    ]  # fmt: skip
    return 1 if answer else 0, "\r\n".join(lines).encode()


@dataclass(slots=True)
class Signalling:
    """Every SIP message to come, as columns in time order. `step` 0-6 is of a call, 8 and 9 a passing pair."""

    time: Int64
    number: Int64
    step: Int64
    call_packets: int
    codec: str

    def between(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """(time, record) of each message sent in [start, end)."""
        first, last = np.searchsorted(self.time, [start, end])
        for index in range(int(first), int(last)):
            when, number, step = int(self.time[index]), int(self.number[index]), int(self.step[index])
            if step < 8:
                side, octets = dialog_message(plan(number, self.call_packets, self.codec), step)
            else:
                side, octets = passing_message(number, step == 9)
            ends = [(PROXIES[0], 5060), (PROXIES[1], 5060)]
            yield when, record(EPOCH_NS + when, ends[side], ends[1 - side], octets, index)


def signalling(starts: Int64, talk_ns: int, packets: int, codec: str, passing: Int64 | None = None) -> Signalling:
    """The messages of calls that begin at `starts`, and of passing pairs at `passing`."""
    end = MEDIA_NS + talk_ns + 30_000_000
    steps = np.array([0, 2_000_000, RINGING_NS, ANSWER_NS, ANSWER_NS + 8_000_000, end, end + 5_000_000])
    when = [(starts[:, None] + steps).ravel()]
    number = [np.repeat(np.arange(len(starts)), 7)]
    step = [np.tile(np.arange(7), len(starts))]
    if passing is not None:
        when.append((passing[:, None] + np.array([0, 1_500_000])).ravel())
        number.append(np.repeat(np.arange(len(passing)), 2))
        step.append(np.tile(np.array([8, 9]), len(passing)))
    times = np.concatenate(when)
    order = np.argsort(times, kind="stable")
    return Signalling(times[order], np.concatenate(number)[order], np.concatenate(step)[order], packets, codec)


def call_starts(calls: int, gap_ns: int) -> Int64:
    """INVITE times: one every `gap_ns`, each moved a little within its gap."""
    return np.arange(calls) * gap_ns + (uniform(99, calls) * gap_ns).astype(np.int64)


def sip_only(messages: int, call_share: float, per_second: int) -> Signalling:
    """A mix of passing pairs and, `call_share` of the messages, calls of 10 s that the capture shows no media of."""
    calls = max(1, round(messages * call_share / 7))
    pairs = (messages - 7 * calls) // 2
    span = messages * 10**9 // per_second
    starts = np.sort((uniform(98, calls) * span).astype(np.int64))
    passing = (np.arange(pairs) + 0.5) * (span / max(pairs, 1))
    return signalling(starts, 10 * 10**9, 500, "PCMU", passing.astype(np.int64))
