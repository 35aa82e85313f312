"""An attended transfer between sipp instances: three dialogs, tied by REFER and Replaces (RFC 3515, RFC 3891)."""

import time
from typing import Any
from urllib.parse import quote

from pcaps.make.media import Talker
from pcaps.make.network import Lab, address
from pcaps.make.scenario import Person, Script, sdp
from pcaps.make.sipp_calls import sipp

OFFER = ("PCMU", "events")
SIPFRAG = "message/sipfrag;version=2.0"
CALL_IDS = {name: f"attended-{name}-7d2e@lab.example" for name in ("first", "consult", "final")}


def people() -> dict[str, Person]:
    """Each dialog's two ends; one sipp each, so one port each."""
    a, b, c = (address(host) for host in "abc")
    return {
        "a1": Person("alice", "Alice Transferor", "a1-attended", a, 5060),
        "b1": Person("bob", "Bob Transferee", "b1-attended", b, 5060),
        "a2": Person("alice", "Alice Transferor", "a2-attended", a, 5062),
        "c2": Person("carol", "Carol Target", "c2-attended", c, 5060),
        "b3": Person("bob", "Bob Transferee", "b3-attended", b, 5062),
        "c3": Person("carol", "Carol Target", "c3-attended", c, 5062),
    }


def voices(lab: Lab, names: list[str]) -> dict[str, Talker]:
    """One voice per end of a dialog; a person keeps the seed, not the SSRC."""
    seeds = {"a": 61, "b": 72, "c": 83}
    found = {}
    for index, name in enumerate(names):
        ssrc = 0xA77E0000 | index << 8 | seeds[name[0]]
        found[name] = Talker(seeds[name[0]], "PCMU", ssrc, 100 * index + 1, 80000 * index + 160)
        found[name].speak(1.5).cut(lab.work / f"attended-{name}.pcap")
    return found


def scripts(lab: Lab, who: dict[str, Person]) -> dict[str, Script]:
    """What each end of each dialog does."""

    def media(name: str) -> str:
        return str(lab.work / f"attended-{name}.pcap")

    replaces = f"{CALL_IDS['consult']};to-tag={who['c2'].tag};from-tag={who['a2'].tag}"
    refer_to = f"Refer-To: <{who['c3'].contact}?Replaces={quote(replaces, safe='')}>"
    referred_by = f"Referred-By: <{who['a1'].uri}>"
    pairs = {"a1": "b1", "b1": "a1", "a2": "c2", "c2": "a2", "b3": "c3", "c3": "b3"}
    act = {name: Script(who[name], who[other]) for name, other in pairs.items()}

    act["a1"].invite(sdp("alice", *OFFER)).answered().play(media("a1")).wait(1600)
    act["a1"].request("INVITE", sdp("alice", *OFFER, direction="sendonly", version=2)).answered().wait(2700)
    act["a1"].request("REFER", extra=f"{refer_to}\n{referred_by}").expect("202")
    act["a1"].expect("NOTIFY").reply("200 OK", tag=False).expect("NOTIFY").reply("200 OK", tag=False)
    act["a1"].request("BYE").expect("200")

    notify = "Event: refer\nSubscription-State: "
    act["b1"].expect("INVITE").reply("180 Ringing").wait(200).reply("200 OK", sdp("bob", *OFFER)).expect("ACK")
    act["b1"].play(media("b1")).expect("INVITE")
    act["b1"].reply("200 OK", sdp("bob", *OFFER, direction="recvonly", version=2), tag=False).expect("ACK")
    act["b1"].expect("REFER").reply("202 Accepted", tag=False)
    act["b1"].request("NOTIFY", "SIP/2.0 100 Trying\n", f"{notify}active;expires=60", SIPFRAG).expect("200").wait(900)
    act["b1"].request("NOTIFY", "SIP/2.0 200 OK\n", f"{notify}terminated;reason=noresource", SIPFRAG).expect("200")
    act["b1"].expect("BYE").reply("200 OK", tag=False).wait(200)

    act["a2"].invite(sdp("alice", *OFFER)).answered().play(media("a2"))
    act["a2"].expect("BYE").reply("200 OK", tag=False).wait(200)
    act["c2"].expect("INVITE").reply("180 Ringing").wait(100).reply("200 OK", sdp("carol", *OFFER)).expect("ACK")
    act["c2"].play(media("c2")).wait(2800).request("BYE").expect("200")

    act["b3"].invite(sdp("bob", *OFFER), extra=f"Replaces: {replaces}\n{referred_by}\nRequire: replaces")
    act["b3"].answered().play(media("b3")).wait(2000).request("BYE").expect("200")
    act["c3"].expect("INVITE").reply("200 OK", sdp("carol", *OFFER)).expect("ACK").play(media("c3"))
    act["c3"].expect("BYE").reply("200 OK", tag=False).wait(200)
    return act


def transfer_attended(lab: Lab) -> dict[str, Any]:
    """Alice holds Bob, calls Carol, and transfers Bob to her: REFER with Replaces, three calls of one group."""
    who = people()
    ports = {"a1": 21000, "b1": 22000, "a2": 21010, "c2": 23000, "b3": 22010, "c3": 23010}
    said = voices(lab, list(who))
    act = scripts(lab, who)

    def start(name: str, peer: str = "", call: str = "") -> Any:
        remote = f"{who[peer].host}:{who[peer].port}" if peer else ""
        call_id = CALL_IDS[call] if call else ""
        return sipp(lab, name[0], act[name], remote, call_id, ports[name], port=who[name].port)

    for name in ("b1", "c2", "c3"):
        start(name)
    first = start("a1", "b1", "first")
    time.sleep(2.3)
    start("a2", "c2", "consult")
    time.sleep(2.6)
    final = start("b3", "c3", "final")
    if first.wait(20) or final.wait(20):
        raise RuntimeError(f"transfer_attended: sipp failed; see {lab.work}")

    def call(name: str, one: str, two: str, **more: Any) -> dict[str, Any]:
        ends = [f"{who[end].host}:{ports[end]}" for end in (one, two)]
        streams = [said[one].facts("caller", *ends), said[two].facts("callee", *reversed(ends))]
        known: dict[str, Any] = {
            "call_id": CALL_IDS[name],
            "state": "completed",
            "sip_status": 200,
            "ended_by": "caller",
        }
        for side, end in (("caller", one), ("callee", two)):
            person = who[end]
            known[side] = {"uri": person.uri, "name": person.name, "address": f"{person.host}:{person.port}"}
        return known | {"streams": streams, "dtmf": [], "holds": []} | more

    calls = [
        call("first", "a1", "b1", holds=[{"by": "caller"}]), call("consult", "a2", "c2", ended_by="callee"),
        call("final", "b3", "c3"),
    ]  # fmt: skip
    return {"calls": calls, "groups": [list(CALL_IDS.values())]}
