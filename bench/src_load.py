"""Recording sessions of `spanrec src` under load: `python -m bench.src_load failover|rate|soak`, as root.

Calls come over a wire in real time (`bench.wire`); the servers are `spanrec srs`, or for `rate` sipp with sockets that
nobody reads. `failover`: the first server is killed under calls in progress. `rate`: short calls, so many a second, and
whether anything is left afterwards. `soak`: servers that are killed, stopped and away at random. Exit status 1 where a
call was lost or came too late, or something was left.
"""

import argparse
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.faults_check import nanoseconds
from bench.measure import machine, scratch
from bench.src_accounts import At, at
from bench.src_programs import PORT, SERVERS, Lab, Program, lab, programs, uri
from bench.src_report import Report
from bench.src_soak import soak
from bench.veth import entered

MS = 1_000_000
RAMP = 8.0
KILL_AT = 14.0
"""s after the first call."""
SETTLE = 10.0
"""s after the last call in which recordings are written."""
WITHIN = 5.0
"""s in which a call must be at the other server."""
SIDES = ("caller", "callee")
ANSWER = """<send retrans="500"><![CDATA[
SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:];tag=srs[call_number]
[last_Call-ID:]
[last_CSeq:]
Contact: <sip:srs@[local_ip]:[local_port];transport=[transport]>;+sip.srs
Allow: INVITE, ACK, BYE, CANCEL, OPTIONS
Content-Type: application/sdp
Content-Length: [len]

v=0
o=srs 1 [cseq] IN IP4 [local_ip]
s=-
c=IN IP4 [local_ip]
t=0 0
m=audio 31000 RTP/AVP 0
a=rtpmap:0 PCMU/8000
a=recvonly
m=audio 31002 RTP/AVP 0
a=rtpmap:0 PCMU/8000
a=recvonly
]]></send>
<recv request="ACK"/>
"""
SCENARIO = f"""<?xml version="1.0" encoding="ISO-8859-1"?>
<scenario name="srs">
<recv request="INVITE"/>
{ANSWER}
<label id="1"/>
<recv request="INVITE" optional="true" next="2"/>
<recv request="BYE" next="3"/>
<label id="2"/>
{ANSWER.replace(";tag=srs[call_number]", "")}
<nop next="1"/>
<label id="3"/>
<send><![CDATA[
SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:]
[last_Call-ID:]
[last_CSeq:]
Content-Length: 0

]]></send>
</scenario>
"""


def percentiles(values: Sequence[float], unit: str) -> str:
    """Least, median, 99th percentile and most."""
    if not values:
        return "none"
    ordered = sorted(values)
    median, late = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"least {ordered[0]:.1f}, median {median:.1f}, 99 % {late:.1f}, most {ordered[-1]:.1f} {unit}"


def failover(options: argparse.Namespace, place: Path, report: Report) -> None:
    """Kill the first server under calls in progress."""
    with lab(place) as made, ExitStack() as stack:
        one, two = made.server("A"), made.server("B")
        client = made.client(f"{uri('A')}, {uri('B')}")
        stack.enter_context(programs(stack, one, two, client))
        sender = made.sender("--calls", str(options.calls), "--seconds", str(options.seconds), "--ramp", str(RAMP))
        while len(client.events("session-start")) < options.calls and sender.poll() is None:
            time.sleep(0.1)
        time.sleep(KILL_AT - RAMP)
        report.say(f"killed with {len(client.sessions())} sessions in progress")
        killed = time.time_ns()
        one.end(signal.SIGKILL)
        sender.wait()
        time.sleep(SETTLE)
        one.start()
        one.ready()
        time.sleep(SETTLE)
        for each in (client, one, two):
            each.end()
    judge_failover(options, place, killed, client, report)


def judge_failover(options: argparse.Namespace, place: Path, killed: int, client: Program, report: Report) -> None:
    """Say what each call lost, and when it was at the second server."""
    first, second, sent = (at(place / name / "out") for name in ("A", "B", "src"))
    moves = {each["call_id"]: each for each in client.events("session-failover")}
    rows = []
    for number in range(options.calls):
        there, before, known = (found.get(number, At()) for found in (second, first, sent))
        move = moves.get(known.documents[0]["call_id"] if known.documents else "", {})
        row: dict[str, Any] = {
            "call": number,
            "INVITE at B, ms": (there.invited - killed) / MS if there.invited else None,
            "RTP at B, ms": (there.first - killed) / MS if there.first else None,
            "same ids": bool(before.sessions) and before.sessions == there.sessions
            and bool(before.participants) and before.participants == there.participants,
        }  # fmt: skip
        for side in SIDES:
            row[side] = direction(move, side, killed, there, known)
        rows.append(row)
    (options.table or place / "calls.json").write_text(json.dumps(rows, indent=1) + "\n")
    for name in ("INVITE at B, ms", "RTP at B, ms"):
        times = [each[name] for each in rows if each[name] is not None]
        good = len(times) == options.calls and max(times) <= WITHIN * 1000
        report.expect(good, f"{name} after the kill, {len(times)} calls: {percentiles(times, 'ms')}")
    same = sum(each["same ids"] for each in rows)
    report.expect(same == options.calls, f"{same} calls have the same session_id and participant_ids at B as at A")
    told = [each[side] for each in rows for side in SIDES if each[side] is not None]
    report.expect(len(told) == 2 * options.calls, f"{len(told)} directions told by session-failover")
    between = [each["between, packets"] for each in told]
    report.expect(not any(between), f"packets after the kill that are not at B, each direction: {Counter(between)}")
    unsent = [each["unsent"] for each in told]
    report.expect(not any(unsent), f"packets too old to be sent, as the events say: {Counter(unsent)}")
    absent = [each["absent at B"] for each in told]
    report.expect(
        not any(each > 0 for each in absent), f"packets sent to B, absent in its recording: {Counter(absent)}"
    )
    early = [each["sent again, ms"] for each in told]
    report.say(f"      media from before the kill sent to B again: {percentiles(early, 'ms')}")


def direction(move: dict[str, Any], side: str, killed: int, there: At, known: At) -> dict[str, Any] | None:
    """What lies between the two servers in one direction."""
    name = next((key for key in move if key.endswith(" first") and f" {side} " in key), None)
    streams = known.streams(side)
    if name is None or move.get(name) is None or not streams:
        return None
    begun, ended = int(move[name]), max(nanoseconds(each["ended"]) for each in streams)
    expected = round((ended - begun) / (20 * MS)) + 1
    return {
        "between, packets": max(0, round((begun - killed) / (20 * MS)) - 1),
        "sent again, ms": max(0.0, (killed - begun) / MS),
        "gap, ms": move.get(name.replace(" first", " gap ms")),
        "unsent": move.get(name.replace(" first", " lost"), 0),
        "absent at B": expected - there.packets(side),
    }


@contextmanager
def sipp_server(made: Lab, address: str) -> Iterator[None]:
    """sipp as a recording server over TCP, and sockets that nobody reads for its media."""
    place = made.place / "sipp"
    place.mkdir()
    (place / "srs.xml").write_text(SCENARIO)
    with ExitStack() as stack:
        with entered(made.servers):
            for port in range(31000, 31004):
                sink = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                sink.bind((address, port))
        command = ["ip", "netns", "exec", made.servers, "sipp", "-sf", str(place / "srs.xml"), "-t", "t1", "-aa"]
        command += ["-i", address, "-p", str(PORT), "-nostdin", "-trace_err", "-trace_stat", "-fd", "5"]
        with (place / "out").open("wb") as out:
            process = subprocess.Popen(command, cwd=place, stdout=out, stderr=out)
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)


def rate(options: argparse.Namespace, place: Path, report: Report) -> None:
    """Short calls, so many a second."""
    at_once = round(options.rate * (options.hold + 0.34))
    with lab(place) as made, ExitStack() as stack:
        if options.srs == "sipp":
            stack.enter_context(sipp_server(made, SERVERS["A"][0]))
        else:
            stack.enter_context(programs(stack, made.server("A")))
        client = made.client(uri("A"), profile=options.profile)
        stack.enter_context(programs(stack, client))
        time.sleep(3.0)
        before, used, began = client.holds(), client.cpu(), time.monotonic()
        threads = client.cpu_of_threads()
        talk = () if options.talk is None else ("--talk", str(options.talk))
        sender = made.sender(
            "--calls", str(at_once), "--seconds", str(options.minutes * 60), "--hold", str(options.hold), *talk
        )
        peak = before
        busiest = 0
        while sender.poll() is None:
            time.sleep(5.0)
            peak = max(peak, client.holds(), key=lambda each: each.mb)
            busiest = max(busiest, client.holds().descriptors)
        wall, cpu = time.monotonic() - began, client.cpu() - used
        each_thread = [now - then for now, then in zip(client.cpu_of_threads(), threads, strict=False)]
        time.sleep(SETTLE + 8.0)
        left, after = client.sessions(), client.holds()
        told = json.loads(sender.communicate()[0])
        started, stopped = client.events("session-start"), client.events("session-stop")
        failures = client.events("session-failure", "session-spooled", "src-failed", "session-server-down")
        client.end()
    report.say(
        f"{told['calls']} calls in {wall:.0f} s, {told['rtp']} RTP packets; slots late {told['late_ms']} ms (99 %)"
    )
    begun, ended = (len({each["call_id"] for each in some}) for some in (started, stopped))
    report.expect(begun == told["calls"], f"{begun} calls with a recording session")
    report.expect(ended == told["calls"], f"{ended} of them ended")
    report.expect(not failures, f"failures: {Counter(each['event'] for each in failures)} {failures[:2]}")
    report.expect(not left, f"sessions left: {len(left)}")
    report.expect(after.descriptors <= before.descriptors + 4, f"descriptors {before} -> {after}, most {busiest}")
    report.say(f"      memory {before.mb} -> {after.mb} MB, most {peak.mb}; CPU {cpu:.0f} s = {cpu / wall:.2f} cores")
    report.say(f"      CPU of threads, s: {', '.join(f'{each:.0f}' for each in each_thread[:6])}")
    sent = [each.get("packets", 0) for each in stopped]
    report.say(
        f"      packets sent per session: {percentiles(sent, '')}; unsent {sum(e.get('unsent', 0) for e in stopped)}"
    )
    whole = round(2 * 50 * (options.hold if options.talk is None else options.talk))
    short = [count for count in sent if count < whole]
    report.expect(not short, f"{len(short)} sessions sent less than the {whole} packets of their calls: {short[:10]}")
    if options.profile:
        shutil.copy(place / "src" / "profile", options.profile_to)


def main() -> None:
    parser = argparse.ArgumentParser(description="Load recording sessions of spanrec src.")
    parser.add_argument("what", choices=["failover", "rate", "soak"])
    parser.add_argument("--calls", type=int, default=200, help="at once (200)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each call, failover (30)")
    parser.add_argument("--minutes", type=float, default=2.0, help="rate and soak (2)")
    parser.add_argument("--hold", type=float, default=10.0, help="s of each call, rate and soak (10)")
    parser.add_argument("--talk", type=float, help="s of media of each call, rate (all of it)")
    parser.add_argument("--rate", type=float, default=50.0, help="new calls a second (50)")
    parser.add_argument("--srs", choices=["sipp", "spanrec"], default="sipp", help="server for rate (sipp)")
    parser.add_argument("--seed", type=int, default=7, help="of what happens when, soak (7)")
    parser.add_argument("--grace", type=float, default=60.0, help="s for late deliveries at the end, soak (60)")
    parser.add_argument("--every", type=float, default=14.0, help="s between what happens to servers, soak (14)")
    parser.add_argument("--at-once", type=int, default=8, help="late deliveries at a time, soak (8)")
    parser.add_argument("--profile-to", type=Path, help="profile the sessions' thread into this file (rate)")
    parser.add_argument("--table", type=Path, help="JSON of all calls (failover)")
    parser.add_argument("--keep", type=Path, help="a new directory; everything stays there")
    options = parser.parse_args()
    options.profile = options.profile_to is not None
    print(f"On {machine()}.", flush=True)
    report = Report()
    with ExitStack() as stack:
        place = options.keep or stack.enter_context(scratch(None, 1_500_000_000))
        place.mkdir(exist_ok=True)
        {"failover": failover, "rate": rate, "soak": soak}[options.what](options, place.absolute(), report)
    sys.exit(bool(report.wrong))


if __name__ == "__main__":
    main()
