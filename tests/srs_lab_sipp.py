"""Our recording server against sipp: `python -m tests.srs_lab_sipp [NAME...]`.

sipp plays recording clients to a running `spanrec srs`, a dozen at a time: OpenSIPS, as it was captured with its own
SIPREC (`tests.siprec_capture`; where the captures are), and the habits of clients in the field
(`tests.srs_lab_habits`). Out: a table of what was sent and what came of it, held against a replay of the capture and
against known audio; what tshark finds malformed in what our server sent. Ends with 1 where something falls short.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lxml import etree
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import wrpcap

from bench.measure import table
from recorder.model import Transport
from recorder.siprec.sip_settings import Ports
from tests.capture_builder import record
from tests.live import recordings
from tests.sipp_client import Client
from tests.siprec_capture import Recorded, sessions, traffic
from tests.srs_lab_habits import HABITS
from tests.srs_lab_replayed import Made, by_call, compare
from tests.srs_lab_stage import Habit, Stage, faults
from tests.srs_running import RunningServer, running

MEDIA = Ports(46000, 46999)
LOT = 12
"""Sessions that are played at the same time: on two processors more would come late."""
SETTLE = 30.0
"""s in which the server must have written what has ended."""
HEADS = ("scenario", "what was sent", "result", "falls short")
SIP, RTCP = 5060, 5005
"""Ports in the capture that tshark reads."""


@dataclass
class Played:
    """A session that sipp plays."""

    name: str
    about: str
    client: Client
    play: Callable[[], None]
    judge: Callable[[Sequence[Made], bool], tuple[str, Sequence[str]]]
    """Told the recordings of the session, and whether samples count: (result, what falls short)."""
    error: str = ""
    recorded: list[Made] = field(default_factory=list)


def third_party() -> list[Path]:
    """The captures of OpenSIPS; none where they are not here."""
    usual = Path(__file__).resolve().parents[2] / "shared" / "captures"
    there = Path(os.environ.get("SPANREC_CAPTURES", usual))
    return sorted(there.glob("lab/opensips_siprec_*.pcap"))


def habit_played(habit: Habit, work: Path, server: RunningServer) -> Played:
    """A habit, as a session of its own."""
    port = server.ports["tcp" if habit.transport == "t1" else "udp"]
    client = Client(work / habit.name, habit.transport, port, f"{habit.name}@sipp")
    stage = Stage(habit.name, client)

    def play() -> None:
        habit.script(stage)
        client.run(stage.steps, stage.packets)

    def judge(found: Sequence[Made], exact: bool) -> tuple[str, Sequence[str]]:
        streams = [each for document, _ in found for each in document.streams]
        packets = sum(each.packets for each in streams)
        return f"{len(found)} recorded, {len(streams)} streams, {packets} packets", faults(
            habit, stage, found, audio=exact
        )

    return Played(habit.name, habit.about, client, play, judge)


def session_played(session: Recorded, name: str, theirs: Made, work: Path, server: RunningServer) -> Played:
    """A session of OpenSIPS, said again."""
    tcp = session.transport is Transport.TCP
    port = server.ports["tcp" if tcp else "udp"]
    client = Client(work / session.call_id, "t1" if tcp else "u1", port, session.call_id)
    requests = " ".join(each.message.method or "" for each in session.said if each.message.method != "ACK")

    def judge(found: Sequence[Made], exact: bool) -> tuple[str, Sequence[str]]:
        if len(found) != 1:
            return f"{len(found)} recorded", [f"{len(found)} recordings"]
        alike = compare(session, found[0], theirs, exact=exact)
        result = f"{alike.sent} packets sent, {alike.replay} of the replay, shifted {alike.shifts}"
        unsent = [f"{client.unsent} packets could not be sent"] if client.unsent and exact else []
        return result, [*unsent, *alike.faults]

    about = f"OpenSIPS, {session.transport}: {requests}"
    return Played(name, about, client, lambda: client.run(list(session.steps()), session.packets), judge)


def of_captures(captures: Sequence[Path], work: Path, server: RunningServer) -> list[Played]:
    """All sessions of captures, with the replays that they are held against."""
    found = []
    for capture in captures:
        out = work / f"replay-{capture.stem}"
        record([capture], out)
        theirs = by_call(recordings(out))
        taken = sessions(traffic(capture))
        for number, session in enumerate(taken):
            own = _call_of(session)
            short = capture.stem.removeprefix("opensips_siprec_")
            name = short if len(taken) == 1 else f"{short} {number + 1}"
            found.append(session_played(session, name, theirs[own], work, server))
    return found


def _call_of(session: Recorded) -> str:
    """Call-ID of the call: OpenSIPS writes it as sipSessionID, and not always soundly."""
    text = session.said[0].octets.partition(b"<sipSessionID>")[2].partition(b"<")[0]
    return text.decode()


def play_all(played: Sequence[Played], server: RunningServer) -> None:
    """Play all of them, a lot at a time, and wait for their recordings."""

    def run(each: Played) -> None:
        try:
            each.play()
        except RuntimeError as error:
            each.error = str(error)

    for begin in range(0, len(played), LOT):
        threads = [threading.Thread(target=run, args=(each,)) for each in played[begin : begin + LOT]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    wanted = {each.client.call_id for each in played if not each.error}
    server.wait_for(lambda: wanted <= recorded(server).keys(), SETTLE)


def recorded(server: RunningServer) -> dict[str, list[Made]]:
    """Recordings by the Call-ID of the session that they came by."""
    found: dict[str, list[Made]] = {}
    for made in server.recordings():
        told = etree.parse(str(made[1] / "metadata.xml")).iterfind(".//{*}recorded-by")
        for call_id in {each.get("call-id", "") for each in told}:
            found.setdefault(call_id, []).append(made)
    return found


def malformed(played: Sequence[Played], work: Path) -> str:
    """What tshark finds wrong in all that our server sent: SIP, RTCP."""
    capture = work / "sent.pcap"
    frames = []
    for each in played:
        for port, messages in ((SIP, each.client.heard()), (RTCP, each.client.rtcp)):
            base = Ether() / IP(src="127.0.0.1", dst="127.0.0.1") / UDP(sport=port, dport=port)
            frames += [base / Raw(message) for message in messages]
    wrpcap(str(capture), frames)
    odd = f"_ws.malformed || _ws.expert.severity == error || (udp.port == {SIP} && !sip)"
    decode = [f"-dudp.port=={SIP},sip", f"-dudp.port=={RTCP},rtcp"]
    command = ["tshark", "-n", "-r", str(capture), *decode, "-Y", f"{odd} || (udp.port == {RTCP} && !rtcp)"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def run(
    names: Sequence[str], captures: Sequence[Path], work: Path, *, exact: bool = True
) -> tuple[list[tuple[str, ...]], str]:
    """Play the habits of these names and the captures; (rows, what is malformed). `exact`: samples count."""
    with running(work / "srs", MEDIA, "snapshot_after = 60") as server:
        played = [habit_played(each, work, server) for each in HABITS if each.name in names]
        played += of_captures(captures, work, server)
        play_all(played, server)
    rows = []
    found = recorded(server)
    for each in played:
        result, short = ("", [each.error]) if each.error else each.judge(found.get(each.client.call_id, []), exact)
        rows.append((each.name, each.about, result, "; ".join(short)))
    told = [line.get("text", "") for line in server.messages("srs-failed")]
    if told:
        rows.append(("server", "", "", "; ".join(told)))
    return rows, malformed(played, work)


def main() -> None:
    parser = argparse.ArgumentParser(description="Have sipp play recording clients to our recording server.")
    parser.add_argument("names", nargs="*", help="habits, or captures: udp, hold... (all)")
    parser.add_argument("--list", action="store_true", help="say what there is")
    parser.add_argument("--dir", type=Path, help="a new directory; it is kept")
    options = parser.parse_args()
    captures = third_party()
    known = {path.stem.removeprefix("opensips_siprec_"): path for path in captures}
    if options.list:
        print("\n".join([*(f"{each.name}: {each.about}" for each in HABITS), *(f"{name}: OpenSIPS" for name in known)]))
        return
    habits = [each.name for each in HABITS if not options.names or each.name in options.names]
    chosen = [path for name, path in known.items() if not options.names or name in options.names]
    if not captures:
        print("The captures of OpenSIPS are not here (SPANREC_CAPTURES): only the habits are played.", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="srs-lab-sipp-") as directory:
        rows, odd = run(habits, chosen, options.dir or Path(directory))
    print(table(HEADS, [(*row[:3], row[3] or "nothing") for row in rows]))
    print(f"\nMalformed in what our server sent, by tshark: {odd or 'nothing'}")
    sys.exit(bool(odd) or any(row[3] for row in rows))


if __name__ == "__main__":
    main()
