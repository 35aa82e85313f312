"""Calls of real programs, recorded live from a mirror: `python -m tests.live_lab`, as root.

baresip and sipp call through Kamailio and rtpengine in the lab's network (`pcaps.make.network`). tc mirrors ports of
its bridge to interfaces on which `spanrec capture` records (`tests.live_mirror`). Out: tables of what was called and
what was recorded, held against the audio that the programs were given, and against the replay of what tcpdump wrote
beside it. Ends with 1 where something falls short.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import soundfile

from bench.measure import table
from pcaps.make import baresip_calls, observe, proxy_calls, sipp_calls
from pcaps.make.network import Lab, address, network
from recorder.document import CallDocument, StreamEntry
from recorder.replay_types import Dissector
from tests.capture_builder import record
from tests.known_audio import Judged, Said, arrivals, judge, said_by_phones, said_by_script, unheard
from tests.live import recordings
from tests.live_mirror import BOTH, RECORDER, alone, cable, erspan, far, mirror, recorder_host, vlan, vxlan, witness
from tests.live_recorder import LiveRecorder, recording
from tests.same_recording import compare, instant

PROGRAMS = ("tc", "tcpdump", "tshark", "sipp", "baresip", "kamailio", "rtpengine", "ffmpeg")
PROXY = f"{address('p')}:5060"
ENOUGH_DB = 40.0
"""A codec that is no table is decoded right where it comes as near as this to what ffmpeg decodes."""
ENOUGH_MS = 20.0
"""A piece of audio stands where its first packet was on the wire, as near as this."""
SETTLE = 1.0
"""Seconds between two calls: sipp keeps its port for a moment."""

WAYS = "ways"
"""The name of what `other_ways` does."""

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scenario:
    """Something that is called."""

    name: str
    about: str
    make: Callable[[Lab], Facts | None]
    """The facts of the scripts' calls; None where phones pick what is sent."""
    codec: str = "PCMU"
    states: tuple[str, ...] = ("completed",)


def spoken(codec: str, name: str, remote: str = PROXY, seconds: float = 3.0) -> Callable[[Lab], Facts]:
    """A plain call from sipp to sipp."""

    def make(lab: Lab) -> Facts:
        pair = sipp_calls.Pair(lab, name, remote=remote)
        one, two = sipp_calls.talkers(pair, codec)
        sipp_calls.plain(pair, codec, seconds, one.speak(seconds), two.speak(seconds))
        return {"calls": [pair.call("completed", pair.streams(one, two))]}

    return make


def phoned(codec: str, *steps: tuple[float, str, str, str], hosts: str = "ba", mute: str = "") -> Callable[[Lab], None]:
    """A call between phones: (seconds to wait, who does, what, to whom) after Alice has dialled Bob."""

    def make(lab: Lab) -> None:
        phones = [baresip_calls.phone(lab, host, codec, answers=host not in mute) for host in hosts]
        time.sleep(1.5)
        baresip_calls.control(lab, "a", "dial", f"sip:bob@{address('p')}")
        for wait, host, command, parameters in steps:
            time.sleep(wait)
            baresip_calls.control(lab, host, command, parameters)
        time.sleep(0.7)
        for phone in phones:
            lab.stop(phone)

    return make


SCENARIOS = (
    Scenario("lab_pcmu", "sipp to sipp, PCMU", spoken("PCMU", "lab_pcmu")),
    Scenario("lab_pcma", "sipp to sipp, PCMA", spoken("PCMA", "lab_pcma"), "PCMA"),
    Scenario("lab_g722", "sipp to sipp, G.722", spoken("G722", "lab_g722"), "G722"),
    Scenario("tcp", "sipp to sipp, SIP over TCP", lambda lab: sipp_calls.tcp(lab, PROXY)),
    Scenario("hold", "sipp to sipp, two holds", lambda lab: sipp_calls.hold(lab, PROXY)),
    Scenario("phones_g722", "baresip to baresip, G.722", phoned("G722", (4.0, "a", "hangup", "")), "G722"),
    Scenario("phones_pcma", "baresip to baresip, PCMA", phoned("PCMA", (4.0, "b", "hangup", "")), "PCMA"),
    Scenario(
        "phones_cancelled", "baresip to baresip, cancelled while it rings",
        phoned("PCMU", (2.0, "a", "hangup", ""), mute="b"), states=("cancelled",),
    ),
    Scenario(
        "phones_transfer", "baresip, blind transfer from Bob to Carol",
        phoned("PCMU", (2.5, "a", "transfer", f"sip:carol@{address('p')}"), (3.0, "b", "hangup", ""), hosts="cba"),
        states=("completed", "completed"),
    ),
)  # fmt: skip


@dataclass
class Called:
    """A scenario that has been, and what a witness saw of it."""

    scenario: Scenario
    facts: Facts | None
    capture: Path
    said: list[Said] = field(default_factory=list)

    def known(self) -> list[Said]:
        """What each stream carries; read once."""
        if not self.said and self.scenario.states != ("cancelled",):
            if self.facts is None:
                self.said = said_by_phones(self.capture, self.scenario.codec)
            else:
                self.said = [said_by_script(each) for call in self.facts["calls"] for each in call["streams"]]
        return self.said

    def call_ids(self) -> set[str]:
        return {call_id for call_id, _, _ in observe.invitations(self.capture)}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a recorder made of a scenario."""

    about: str
    mirror: str
    states: tuple[str, ...]
    packets: str
    copies: str
    audio: str
    warnings: tuple[str, ...]
    replay: str
    faults: tuple[str, ...]

    def row(self) -> tuple[str, ...]:
        return (
            self.about, self.mirror, ", ".join(self.states), self.packets, self.copies, self.audio,
            ", ".join(self.warnings) or "none", self.replay, "; ".join(self.faults) or "nothing",
        )  # fmt: skip


HEADS = (
    "called", "mirror", "recorded", "packets of sent", "copies / duplicates", "audio", "warnings",
    "replay of tcpdump's file", "falls short",
)  # fmt: skip


def verdict(called: Called, mirrored: str, live: LiveRecorder, work: Path | None) -> Verdict:
    """Hold the recordings of a scenario's calls against what was said. `work` is for the replay, where there is one."""
    ids = called.call_ids()
    found = [each for each in live.recordings() if each[0].call_id in ids]
    states = tuple(document.state for document, _ in found)
    faults = [] if states == called.scenario.states else [f"wanted {', '.join(called.scenario.states)}"]
    packets, copies, audio = [], [], []
    seen = arrivals(called.capture)
    for said in called.known():
        entry = find_stream(found, said.ssrc)
        if entry is None:
            faults.append(f"{said.ssrc} is in no recording")
            continue
        document, directory, stream = entry
        packets.append(f"{stream.packets} of {said.packets}")
        copies.append(f"{stream.copies} / {stream.duplicates}")
        if stream.packets != said.packets or stream.lost:
            faults.append(f"{said.ssrc}: {stream.packets} packets of {said.packets}, {stream.lost} lost")
        told, wrong = audio_of(directory, document, stream, said, seen)
        audio.append(told)
        faults += wrong
    streams = sum(len(document.streams) for document, _ in found)
    if streams != len(called.known()):
        faults.append(f"{streams} streams for {len(called.known())}")
    warnings = tuple(warning.code for document, _ in found for warning in document.warnings)
    replayed, unlike = ("", []) if work is None else against_replay(found, called, work)
    return Verdict(
        called.scenario.about, mirrored, states, ", ".join(packets), ", ".join(copies), ", ".join(audio), warnings,
        replayed, tuple(faults + unlike),
    )  # fmt: skip


def find_stream(found: Sequence[tuple[CallDocument, Path]], ssrc: str) -> tuple[CallDocument, Path, StreamEntry] | None:
    for document, directory in found:
        for stream in document.streams:
            if stream.ssrc == ssrc:
                return document, directory, stream
    return None


def audio_of(
    directory: Path, document: CallDocument, stream: StreamEntry, said: Said, seen: dict[tuple[str, int], float]
) -> tuple[str, list[str]]:
    """What a stream's channel holds of what was said, and what is wrong with it."""
    if document.audio is None or stream.channel is None:
        return "none", [f"{said.ssrc} has no audio"]
    heard = soundfile.read(directory / "audio.wav", dtype="int16", always_2d=True)[0][:, stream.channel]
    judged = judge(heard, said)
    equal, count = sum(each.equal for each in judged), sum(each.samples for each in judged)
    worst = min(each.snr_db for each in judged)
    beside = 0 if sum(each.channel == stream.channel for each in document.streams) > 1 else unheard(heard, judged)
    wrong = []
    if equal != count and (said.codec != "G722" or worst < ENOUGH_DB):
        wrong.append(f"{said.ssrc}: {count - equal} samples differ, {worst:.0f} dB")
    if beside:
        wrong.append(f"{said.ssrc}: {beside} samples beside it")
    off = off_arrival(document, said, judged, seen)
    if off > ENOUGH_MS:
        wrong.append(f"{said.ssrc}: {off:.0f} ms from its arrival")
    told = f"{said.codec} {equal} of {count} equal" + ("" if equal == count else f", {worst:.0f} dB")
    return f"{told}, {off:.1f} ms off", wrong


def off_arrival(
    document: CallDocument, said: Said, judged: Sequence[Judged], seen: dict[tuple[str, int], float]
) -> float:
    """ms between where a stream's pieces stand and when their first packets were on the wire, at most."""
    assert document.audio is not None
    began, rate = instant(document.audio.started), document.audio.sample_rate
    stands = [began + each.at / rate for each in judged]
    return max(
        abs(at - seen[said.ssrc, timestamp]) * 1000 for at, (timestamp, _) in zip(stands, said.pieces, strict=True)
    )


def against_replay(found: Sequence[tuple[CallDocument, Path]], called: Called, work: Path) -> tuple[str, list[str]]:
    """How the live recordings compare with a replay of what tcpdump wrote at the same interface."""
    record([called.capture], work, dissector=Dissector.NATIVE)
    other = {document.call_id: (document, where) for document, where in recordings(work)}
    told, unlike = [], []
    for one in found:
        if one[0].call_id not in other:
            unlike.append("a call is not in the replay")
            continue
        likeness = compare(one, other[one[0].call_id])
        unlike += [f"replay: {text}" for text in likeness.differences]
        shifts = {shift for channel in likeness.shifts for shift in channel}
        if likeness.unequal:
            unlike.append(f"replay: {likeness.unequal} samples differ")
        told.append("same" if likeness.same and shifts <= {0} else f"shifted by {sorted(shifts)}")
    return ", ".join(told), unlike


def call(lab: Lab, work: Path, scenario: Scenario, interface: str) -> Called:
    """Have a scenario called, with tcpdump at a recorder's interface as witness."""
    lab.work = work / scenario.name
    lab.work.mkdir()
    capture = lab.work / "witness.pcap"
    with witness(interface, capture):
        facts = scenario.make(lab)
        time.sleep(SETTLE)
    return Called(scenario, facts, capture)


def through_the_proxy(work: Path, scenarios: Sequence[Scenario] = SCENARIOS, every: bool = True) -> list[Verdict]:
    """All scenarios; one recorder sees the proxy's port both ways, with `every` another one all ports both ways."""
    work.mkdir()
    with ExitStack() as stack:
        stack.enter_context(alone())
        lab = stack.enter_context(network(work))
        stack.enter_context(recorder_host())
        proxy, all_ports = cable("one"), cable("two")
        copies = {(f"w{host}", way): [all_ports] for host in "abcp" for way in BOTH}
        mirror(copies | {("wp", way): [proxy, all_ports] for way in BOTH})
        watched = [("the proxy's port", stack.enter_context(recording(RECORDER, work / "one", "-i", "one")))]
        if every:
            watched.append(("every port", stack.enter_context(recording(RECORDER, work / "two", "-i", "two"))))
        proxy_calls.rtpengine(lab)
        proxy_calls.kamailio(lab, "WITH_RTPENGINE")
        called = [call(lab, work, scenario, "one") for scenario in scenarios]
        for process in list(lab.running):
            lab.stop(process)
    found = []
    for place, live in watched:
        for each in called:
            replayed = work / f"replay-{each.scenario.name}" if place == "the proxy's port" else None
            found.append(verdict(each, place, live, replayed))
        found += others(place, live, called)
    return found


def others(place: str, live: LiveRecorder, called: Sequence[Called]) -> list[Verdict]:
    """Recordings of what nobody called, and alarms."""
    ids = set().union(*(each.call_ids() for each in called))
    states = tuple(document.state for document, _ in live.recordings() if document.call_id not in ids)
    alarms = tuple(f"alarm: {line.get('text')}" for line in live.messages("alarm"))
    if not states and not alarms:
        return []
    return [Verdict("nothing more", place, states, "", "", "", (), "", (*states, *alarms))]


def other_ways(work: Path) -> list[Verdict]:
    """One call straight from sipp to sipp, recorded in each further way that a mirror comes."""
    work.mkdir()
    with ExitStack() as stack:
        stack.enter_context(alone())
        lab = stack.enter_context(network(work))
        stack.enter_context(recorder_host())
        caller, callee, twice = cable("out"), cable("in"), cable("twice")
        tag = stack.enter_context(vlan("tagged"))
        tunnel = vxlan("vxlan", 1)
        session = stack.enter_context(erspan("erspan", 2))
        mirror({
            ("wa", "ingress"): [caller, twice, tag, tunnel, session],
            ("wa", "egress"): [twice, tag, tunnel, session],
            ("wb", "ingress"): [callee, twice],
            ("wb", "egress"): [twice],
        })  # fmt: skip
        ways = {
            "caller's and callee's ingress, -i out -i in": ("-i", "out", "-i", "in"),
            "both ports, both directions": ("-i", "twice"),
            "VLAN tag": ("-i", "tagged"),
            f"VXLAN, --tunnel {far(1)}": ("--tunnel", far(1)),
            f"ERSPAN II, --tunnel {far(2)}": ("--tunnel", far(2)),
        }
        watched = [
            (about, stack.enter_context(recording(RECORDER, work / f"way-{number}", *sources)))
            for number, (about, sources) in enumerate(ways.items())
        ]
        scenario = Scenario(WAYS, "sipp to sipp, PCMU", spoken("PCMU", WAYS, ""))
        called = call(lab, work, scenario, "twice")
    found = [(verdict(called, about, live, None), *others(about, live, [called])) for about, live in watched]
    return [each for one in found for each in one]


def missing() -> list[str]:
    """Programs that are not here."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


def main() -> None:
    parser = argparse.ArgumentParser(description="Record calls of real programs from mirrors, and judge them.")
    parser.add_argument("names", nargs="*", help=", ".join([*(each.name for each in SCENARIOS), WAYS]))
    parser.add_argument("--dir", type=Path, help="a new directory; it is kept, with logs and what tcpdump wrote")
    options = parser.parse_args()
    if absent := missing():
        raise SystemExit(f"not here: {', '.join(absent)}")
    chosen = [scenario for scenario in SCENARIOS if not options.names or scenario.name in options.names]
    with tempfile.TemporaryDirectory(prefix="live-lab-") as directory:
        work = options.dir or Path(directory)
        work.mkdir(exist_ok=True)
        found = through_the_proxy(work / "proxy", chosen) if chosen else []
        if not options.names or WAYS in options.names:
            found += other_ways(work / WAYS)
    print(table(HEADS, [each.row() for each in found]))
    sys.exit(any(each.faults for each in found))


if __name__ == "__main__":
    main()
