"""Calls between sipp and sipp through Kamailio on host p: media relayed by rtpengine, forked, over WebSocket."""

import sys
import time
from pathlib import Path
from typing import Any

from pcaps.make.network import Lab, address
from pcaps.make.observe import rtp_packets
from pcaps.make.scenario import Person, Script
from pcaps.make.sipp_calls import Pair, plain, sipp, talkers

HERE = Path(__file__).resolve().parent


def kamailio(lab: Lab, *defines: str) -> None:
    """Start the proxy, and wait until it listens."""
    options = [part for name in defines for part in ("-A", name)]
    lab.start("p", "kamailio", "-f", str(HERE / "kamailio.cfg"), "-DD", "-E", "-Y", str(lab.work), *options)
    time.sleep(2.0)


def rtpengine(lab: Lab) -> None:
    """Start the media relay, in user space."""
    lab.start(
        "p", "rtpengine", f"--interface={address('p')}", "--listen-ng=127.0.0.1:2223", "--table=-1", "--foreground",
        "--log-stderr", "--port-min=30000", "--port-max=30100", f"--pidfile={lab.work}/rtpengine.pid",
    )  # fmt: skip
    time.sleep(1.0)


def relayed(lab: Lab) -> dict[str, Any]:
    """Through Kamailio and rtpengine: one Call-ID at two hops, and every packet of media at two hops."""
    rtpengine(lab)
    kamailio(lab, "WITH_RTPENGINE")
    pair = Pair(lab, "relayed", remote=f"{address('p')}:5060")
    one, two = talkers(pair, "PCMU")
    plain(pair, "PCMU", 3, one.speak(3), two.speak(3))
    streams = [stream | {"copies": 1} for stream in pair.streams(one, two)]
    return {"calls": [pair.call("completed", streams)], "observe_hops": True}


def hops(capture: Path, known: dict[str, Any]) -> None:
    """Put where each stream was seen into its facts; source and destination are one of these."""
    for call in known["calls"]:
        for stream in call["streams"]:
            packets = [packet for packet in rtp_packets(capture) if packet.ssrc == stream["ssrc"]]
            seen = [(packet.source, packet.destination) for packet in packets]
            stream["hops"] = [list(ends) for ends in dict.fromkeys(seen)]
            del stream["source"], stream["destination"]


def forked(lab: Lab) -> dict[str, Any]:
    """Kamailio rings two phones of the callee: one rings until it is cancelled, the other answers."""
    kamailio(lab, "WITH_FORK")
    pair = Pair(lab, "forked", remote=f"{address('p')}:5060")
    one, two = talkers(pair, "PCMU")
    other = Person("bob", "Bob Callee", "c-forked", address("c"))
    ringing = Script(other, pair.caller)
    ringing.expect("INVITE").reply("180 Ringing").expect("CANCEL").reply("200 OK")
    ringing.reply_cancelled().expect("ACK").wait(200)
    sipp(lab, "c", ringing, media_port=23000)
    plain(pair, "PCMU", 3, one.speak(3), two.speak(3))
    return {"calls": [pair.call("completed", pair.streams(one, two))]}


def websocket(lab: Lab) -> dict[str, Any]:
    """The caller's SIP comes over a WebSocket (plain, RFC 7118) to Kamailio, which calls on over UDP."""
    kamailio(lab)
    lab.start("a", sys.executable, str(HERE / "wsrelay.py"), "5070", address("p"), "8080", log="wsrelay")
    time.sleep(0.7)
    pair = Pair(lab, "websocket", remote="127.0.0.1:5070")
    nowhere = "df7jal23ls0d.invalid"
    pair.caller = Person("alice", "Alice Caller", "a-websocket", nowhere, 5060, ";transport=ws")
    pair.calling = Script(pair.caller, pair.callee, "WS", nowhere)
    pair.called = Script(pair.callee, pair.caller)
    one, two = talkers(pair, "PCMU")
    plain(pair, "PCMU", 3, one.speak(3), two.speak(3))
    return {"calls": [pair.call("completed", pair.streams(one, two))]}
