"""Calls between sipp and sipp, straight from host a to host b."""

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcaps.make.media import Talker
from pcaps.make.network import Lab, address
from pcaps.make.scenario import Person, Script, sdp

CALLER_MEDIA, CALLEE_MEDIA = 21000, 22000


@dataclass
class Pair:
    """Caller on host a, callee on host b, and the address family and transport between them."""

    lab: Lab
    name: str
    version: int = 4
    transport: str = "udp"
    remote: str = ""
    """Where the caller sends to, the callee itself where empty."""

    def __post_init__(self) -> None:
        suffix = ";transport=tcp" if self.transport == "tcp" else ""
        self.caller = Person("alice", "Alice Caller", f"a-{self.name}", self.host("a"), 5060, suffix)
        self.callee = Person("bob", "Bob Callee", f"b-{self.name}", self.host("b"), 5060, suffix)
        self.call_id = f"{self.name}-4f1c@lab.example"
        self.calling = Script(self.caller, self.callee)
        self.called = Script(self.callee, self.caller)

    def host(self, letter: str) -> str:
        text = address(letter, self.version)
        return f"[{text}]" if ":" in text else text

    def media(self, side: str) -> str:
        return f"{self.host('a')}:{CALLER_MEDIA}" if side == "caller" else f"{self.host('b')}:{CALLEE_MEDIA}"

    def run(self) -> None:
        """Both scripts, until the caller's ends."""
        sipp(self.lab, "b", self.called, media_port=CALLEE_MEDIA, version=self.version, transport=self.transport)
        remote = self.remote or f"{self.host('b')}:5060"
        caller = sipp(
            self.lab, "a", self.calling, remote, self.call_id, CALLER_MEDIA, self.version, self.transport
        )  # fmt: skip
        if caller.wait(40):
            raise RuntimeError(f"{self.name}: sipp ended with {caller.returncode}; see {self.lab.work}")

    def streams(self, calling: Talker | None, called: Talker | None) -> list[dict[str, Any]]:
        """Facts of the two streams of a call whose media did not move."""
        found = []
        if calling:
            found.append(calling.facts("caller", self.media("caller"), self.media("callee")))
        if called:
            found.append(called.facts("callee", self.media("callee"), self.media("caller")))
        return found

    def call(self, state: str, streams: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """Facts of the call for the index."""
        party = {"caller": self.caller, "callee": self.callee}
        known: dict[str, Any] = {"call_id": self.call_id, "state": state, "sip_status": 200, "ended_by": "caller"}
        known |= {
            side: {"uri": who.uri, "name": who.name, "address": f"{who.host}:{who.port}"} for side, who in party.items()
        }
        return known | {"streams": streams, "dtmf": [], "holds": []} | more


def sipp(
    lab: Lab, host: str, script: Script, remote: str = "", call_id: str = "", media_port: int = 20000, version: int = 4,
    transport: str = "udp", port: int = 5060,
) -> "subprocess.Popen[bytes]":  # fmt: skip
    """Start sipp with one side of a call; with `remote` it calls."""
    path = script.write(lab.work / f"{script.me.tag}.xml")
    here = address(host, version)
    command = ["sipp", *([remote] if remote else []), "-sf", str(path), "-i", here, "-p", str(port), "-mi", here]
    command += ["-mp", str(media_port), "-m", "1", "-nostdin", "-timeout", "35", "-timeout_error", "-trace_err"]
    command += ["-t", {"udp": "u1", "tcp": "t1"}[transport], "-error_file", str(lab.work / f"{script.me.tag}.err")]
    if call_id:
        command += ["-cid_str", call_id]
    process = lab.start(host, *command, log=script.me.tag)
    if not remote:
        time.sleep(0.5)
    return process


def talkers(
    pair: Pair,
    codec: str,
    caller_first: tuple[int, int] = (1000, 160000),
    callee_first: tuple[int, int] = (9000, 7200000),
) -> tuple[Talker, Talker]:
    """A caller's and a callee's voice; seeds and SSRCs follow from the capture's name."""
    base = sum(pair.name.encode())
    one = Talker(2 * base, codec, 0xCA110000 | base, *caller_first)
    return one, Talker(2 * base + 7, codec, 0xCEE00000 | base, *callee_first)


def plain(pair: Pair, codec: str, seconds: float, one: Talker, two: Talker, wait: float = 0.4) -> None:
    """Scripts of a call from INVITE to the caller's BYE, with media `one` and `two` that were said already."""
    paths = [pair.lab.work / f"{pair.name}-{side}.pcap" for side in ("caller", "callee")]
    one.cut(paths[0])
    two.cut(paths[1])
    pair.calling.invite(sdp("alice", codec, "events")).answered().play(str(paths[0]))
    pair.calling.wait(int((seconds + wait) * 1000)).request("BYE").expect("200")
    pair.called.expect("INVITE").reply("100 Trying", tag=False).reply("180 Ringing").wait(300)
    pair.called.reply("200 OK", sdp("bob", codec, "events")).expect("ACK").play(str(paths[1]))
    pair.called.expect("BYE").reply("200 OK", tag=False).wait(200)
    pair.run()


def pcmu(lab: Lab) -> dict[str, Any]:
    """A plain call in G.711 mu-law."""
    pair = Pair(lab, "pcmu")
    one, two = talkers(pair, "PCMU")
    plain(pair, "PCMU", 4, one.speak(4), two.speak(4))
    return {"calls": [pair.call("completed", pair.streams(one, two))]}


def pcma_wraps(lab: Lab) -> dict[str, Any]:
    """A-law; sequence numbers and RTP timestamps of both directions wrap within the call."""
    pair = Pair(lab, "pcma_wraps")
    one, two = talkers(pair, "PCMA", (65480, 0xFFFFFFFF - 15999), (65535, 0xFFFFFF00))
    plain(pair, "PCMA", 4, one.speak(4), two.speak(4))
    return {"calls": [pair.call("completed", pair.streams(one, two))]}


def g722(lab: Lab) -> dict[str, Any]:
    """G.722, its RTP clock 8000 for 16 kHz audio (RFC 3551, 4.5.2)."""
    pair = Pair(lab, "g722")
    one, two = talkers(pair, "G722")
    plain(pair, "G722", 4, one.speak(4), two.speak(4))
    return {"calls": [pair.call("completed", pair.streams(one, two))]}


def ipv6(lab: Lab) -> dict[str, Any]:
    """SIP and RTP over IPv6."""
    pair = Pair(lab, "ipv6", version=6)
    one, two = talkers(pair, "PCMU")
    plain(pair, "PCMU", 3, one.speak(3), two.speak(3))
    return {"calls": [pair.call("completed", pair.streams(one, two))]}


def tcp(lab: Lab, remote: str = "") -> dict[str, Any]:
    """SIP over TCP."""
    pair = Pair(lab, "tcp", transport="tcp", remote=remote)
    one, two = talkers(pair, "PCMU")
    plain(pair, "PCMU", 3, one.speak(3), two.speak(3))
    return {"calls": [pair.call("completed", pair.streams(one, two))]}


def loss(lab: Lab) -> dict[str, Any]:
    """One packet in 9 of the caller's media and, at random, one in 20 of the callee's are lost before the tap."""
    pair = Pair(lab, "loss")
    one, two = talkers(pair, "PCMU")
    lab.drop("a", f"udp dport {CALLEE_MEDIA} numgen inc mod 9 4")
    lab.drop("b", f"udp dport {CALLER_MEDIA} numgen random mod 100 < 5")
    plain(pair, "PCMU", 5, one.speak(5), two.speak(5))
    return {"calls": [pair.call("completed", pair.streams(one, two))], "observe_loss": True}


def impaired(lab: Lab) -> dict[str, Any]:
    """The caller sends packets twice, then out of order, then leaves some out; the callee pauses for a second."""
    pair = Pair(lab, "impaired")
    one, two = talkers(pair, "PCMU")
    one.speak(1).speak(1, "twice").speak(1, "late").speak(1, "lost").speak(1)
    two.speak(2).pause(1).speak(2)
    plain(pair, "PCMU", 5, one, two)
    return {"calls": [pair.call("completed", pair.streams(one, two))]}


def restart(lab: Lab) -> dict[str, Any]:
    """The callee's media goes on under another SSRC, sequence and timestamp, as when a gateway moves it."""
    pair = Pair(lab, "restart")
    one, two = talkers(pair, "PCMU")
    two.speak(2)
    first = two.facts("callee", pair.media("callee"), pair.media("caller")) | {"audio": list(two.segments)}
    two.restart(0xCEE0BEEF, 123, 0x12345678).speak(2)
    plain(pair, "PCMU", 4, one.speak(4), two)
    second = two.facts("callee", pair.media("callee"), pair.media("caller"))
    second |= {"packets": second["packets"] - first["packets"], "audio": two.segments[len(first["audio"]) :]}
    return {"calls": [pair.call("completed", [*pair.streams(one, None), first, second])]}


def dtmf(lab: Lab) -> dict[str, Any]:
    """Digits by RFC 4733 from the caller, and by INFO in both common bodies."""
    pair = Pair(lab, "dtmf")
    one, two = talkers(pair, "PCMU")
    one.speak(1).digit("1").speak(0.3).digit("9", 160).speak(0.3).digit("#", 240).speak(2)
    paths = [lab.work / f"{pair.name}-{side}.pcap" for side in ("caller", "callee")]
    one.cut(paths[0])
    two.speak(4).cut(paths[1])
    calling, called = pair.calling, pair.called
    calling.invite(sdp("alice", "PCMU", "events")).answered().play(str(paths[0])).wait(2800)
    calling.request("INFO", "Signal=5\nDuration=160\n", kind="application/dtmf-relay").expect("200").wait(300)
    calling.request("INFO", "*", kind="application/dtmf").expect("200").wait(1300).request("BYE").expect("200")
    called.expect("INVITE").reply("180 Ringing").wait(200).reply("200 OK", sdp("bob", "PCMU", "events")).expect("ACK")
    called.play(str(paths[1])).expect("INFO").reply("200 OK", tag=False).expect("INFO").reply("200 OK", tag=False)
    called.expect("BYE").reply("200 OK", tag=False).wait(200)
    pair.run()
    digits = [*one.digits, {"digit": "5", "duration_ms": 160, "via": "info"}]
    digits += [{"digit": "*", "duration_ms": None, "via": "info"}]
    digits = [{"participant": "caller", **digit} for digit in digits]
    return {"calls": [pair.call("completed", pair.streams(one, two), dtmf=digits)]}


def hold(lab: Lab, remote: str = "") -> dict[str, Any]:
    """The caller holds (sendonly, answered recvonly) and resumes; then the callee does (inactive). No media on hold."""
    pair = Pair(lab, "hold", remote=remote)
    one, two = talkers(pair, "PCMU")
    parts: list[Path] = []
    for talker, side in ((one, "caller"), (two, "callee")):
        for part in range(3):
            path = lab.work / f"hold-{side}-{part}.pcap"
            talker.speak(1.5).cut(path)
            parts.append(path)
            talker.pause(1.6)
            talker.part_start = talker.at
    calling, called = pair.calling, pair.called
    calling.invite(sdp("alice", "PCMU", "events")).answered().play(str(parts[0])).wait(1600)
    calling.request("INVITE", sdp("alice", "PCMU", "events", direction="sendonly", version=2)).answered().wait(1200)
    calling.request("INVITE", sdp("alice", "PCMU", "events", version=3)).answered().play(str(parts[1]))
    for direction in ("inactive", "sendrecv"):
        calling.expect("INVITE").reply(
            "200 OK", sdp("alice", "PCMU", "events", direction=direction, version=4), tag=False
        )
        calling.expect("ACK")
    calling.play(str(parts[2])).wait(1800).request("BYE").expect("200")

    called.expect("INVITE").reply("180 Ringing").wait(200).reply("200 OK", sdp("bob", "PCMU", "events")).expect("ACK")
    called.play(str(parts[3])).expect("INVITE")
    called.reply("200 OK", sdp("bob", "PCMU", "events", direction="recvonly", version=2), tag=False).expect("ACK")
    called.expect("INVITE").reply("200 OK", sdp("bob", "PCMU", "events", version=3), tag=False).expect("ACK")
    called.play(str(parts[4])).wait(1600)
    called.request("INVITE", sdp("bob", "PCMU", "events", direction="inactive", version=4)).answered().wait(1200)
    called.request("INVITE", sdp("bob", "PCMU", "events", version=5)).answered().play(str(parts[5]))
    called.expect("BYE").reply("200 OK", tag=False).wait(200)
    pair.run()
    holds = [{"by": "caller"}, {"by": "callee"}]
    return {"calls": [pair.call("completed", pair.streams(one, two), holds=holds)]}


def codec_change(lab: Lab) -> dict[str, Any]:
    """A re-INVITE changes the codec from PCMU to PCMA; SSRC, sequence and timestamp go on."""
    pair = Pair(lab, "codec_change")
    voices = talkers(pair, "PCMU")
    streams = []
    paths = []
    for talker, side, other in ((voices[0], "caller", "callee"), (voices[1], "callee", "caller")):
        paths.append(lab.work / f"{pair.name}-{side}-1.pcap")
        talker.speak(2).cut(paths[-1])
        talker.pause(0.2)
        then = Talker(
            talker.seed, "PCMA", talker.ssrc, talker.sequence, talker.timestamp, at=talker.at, part_start=talker.at
        )
        paths.append(lab.work / f"{pair.name}-{side}-2.pcap")
        then.speak(2).cut(paths[-1])
        first, second = (one.facts(side, pair.media(side), pair.media(other)) for one in (talker, then))
        audio = [{**part, "codec": facts["codec"]} for facts in (first, second) for part in facts["audio"]]
        streams.append(
            first | {"packets": first["packets"] + second["packets"], "codecs": ["PCMU", "PCMA"], "audio": audio}
        )
    calling, called = pair.calling, pair.called
    calling.invite(sdp("alice", "PCMU", "PCMA", "events")).answered().play(str(paths[0])).wait(2100)
    calling.request("INVITE", sdp("alice", "PCMA", "events", version=2)).answered().play(str(paths[1]))
    calling.wait(2400).request("BYE").expect("200")
    called.expect("INVITE").reply("180 Ringing").wait(200).reply("200 OK", sdp("bob", "PCMU", "events")).expect("ACK")
    called.play(str(paths[2])).expect("INVITE")
    called.reply("200 OK", sdp("bob", "PCMA", "events", version=2), tag=False).expect("ACK").play(str(paths[3]))
    called.expect("BYE").reply("200 OK", tag=False).wait(200)
    pair.run()
    return {"calls": [pair.call("completed", streams)]}


def cancelled(lab: Lab) -> dict[str, Any]:
    """The caller gives up while it rings; the callee already sends early media (183)."""
    pair = Pair(lab, "cancelled")
    _, two = talkers(pair, "PCMU")
    path = lab.work / "cancelled-callee.pcap"
    two.speak(1.5).cut(path)
    pair.calling.invite(sdp("alice", "PCMU", "events")).expect("100", True).expect("183").wait(2000).cancel()
    pair.calling.expect("200").expect("487").ack_refusal()
    pair.called.expect("INVITE").reply("100 Trying", tag=False).reply(
        "183 Session Progress", sdp("bob", "PCMU", "events")
    )
    pair.called.play(str(path)).expect("CANCEL").reply("200 OK")
    pair.called.reply_cancelled().expect("ACK").wait(200)
    pair.run()
    return {"calls": [pair.call("cancelled", pair.streams(None, two), sip_status=487)]}


def refused(lab: Lab) -> dict[str, Any]:
    """The callee is busy: 486, no media."""
    pair = Pair(lab, "refused")
    pair.calling.invite(sdp("alice", "PCMU", "events")).expect("100", True).expect("180", True).expect(
        "486"
    ).ack_refusal()
    pair.called.expect("INVITE").reply("100 Trying", tag=False).reply("180 Ringing").wait(700)
    pair.called.reply("486 Busy Here").expect("ACK").wait(200)
    pair.run()
    return {"calls": [pair.call("refused", [], sip_status=486, ended_by="callee")]}


def late_offer(lab: Lab) -> dict[str, Any]:
    """The INVITE has no SDP: the 200 offers, the ACK answers; then the callee hangs up."""
    pair = Pair(lab, "late_offer")
    one, two = talkers(pair, "PCMU")
    paths = [lab.work / f"{pair.name}-{side}.pcap" for side in ("caller", "callee")]
    one.speak(3).cut(paths[0])
    two.speak(3).cut(paths[1])
    calling, called = pair.calling, pair.called
    calling.invite().expect("100", True).expect("180", True).expect("200")
    calling.request("ACK", sdp("alice", "PCMU", "events")).play(str(paths[0]))
    calling.expect("BYE").reply("200 OK", tag=False).wait(200)
    called.expect("INVITE").reply("180 Ringing").wait(200).reply("200 OK", sdp("bob", "PCMU", "PCMA", "events"))
    called.expect("ACK").play(str(paths[1])).wait(3300).request("BYE").expect("200")
    pair.run()
    return {"calls": [pair.call("completed", pair.streams(one, two), ended_by="callee")]}
