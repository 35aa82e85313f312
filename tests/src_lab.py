"""Calls of real programs, sent to a recording server by our client beside a proxy: `python -m tests.src_lab`, as root.

baresip and sipp call through Kamailio and rtpengine in the lab's network (`pcaps.make.network`). `spanrec src` runs on
the proxy's own host and watches its interface; the proxy knows nothing of it. The recording server is `spanrec srs` on
another host, where tcpdump sees what arrives. Out: a table of what was called and what the server recorded, held
against the audio that the programs were given; tshark looks for malformed frames. Ends with 1 where something falls
short.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile

from bench.measure import table
from pcaps.make import observe, proxy_calls, sipp_calls
from pcaps.make.network import Lab, address, network
from recorder.document import CallDocument
from tests.known_audio import Said, judge, said_by_phones, said_by_script
from tests.live import recordings
from tests.live_lab import PROXY, Facts, phoned, spoken
from tests.live_mirror import alone

PROGRAMS = ("tcpdump", "tshark", "sipp", "baresip", "kamailio", "rtpengine", "ffmpeg")
ROOT = Path(__file__).resolve().parents[1]
START = 240.0
"""s in which a service must be ready: kernels may have to be compiled."""
SETTLE = 9.0
"""s after a call in which the server writes it."""
SRS_PORT = 5090
ENOUGH_DB = 40.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """Something that is called."""

    name: str
    about: str
    make: Callable[[Lab], Facts | None]
    codec: str = "PCMU"


SCENARIOS = (
    Scenario("src_pcmu", "sipp to sipp, PCMU", spoken("PCMU", "src_pcmu")),
    Scenario("src_pcma", "sipp to sipp, PCMA", spoken("PCMA", "src_pcma"), "PCMA"),
    Scenario("src_g722", "sipp to sipp, G.722", spoken("G722", "src_g722"), "G722"),
    Scenario("src_hold", "sipp to sipp, two holds", lambda lab: sipp_calls.hold(lab, PROXY)),
    Scenario("src_tcp", "sipp to sipp, SIP over TCP", lambda lab: sipp_calls.tcp(lab, PROXY)),
    Scenario("src_phones", "baresip to baresip, PCMA", phoned("PCMA", (4.0, "a", "hangup", "")), "PCMA"),
    Scenario("src_phones_g722", "baresip to baresip, G.722", phoned("G722", (4.0, "b", "hangup", "")), "G722"),
)

HEADS = ("called", "state", "packets of sent", "audio", "warnings", "falls short")


@contextmanager
def running(namespace: str, work: Path, ready: str, *arguments: str) -> Iterator[Path]:
    """`spanrec` with these arguments in a namespace, until the block ends; gives its log."""
    work.mkdir(parents=True, exist_ok=True)
    log = work / "log"
    command = [
        "ip", "netns", "exec", namespace, sys.executable, "-c", "from recorder.cli import main; main()", *arguments,
    ]  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=work, stdout=out, stderr=out, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
    try:
        deadline = time.monotonic() + START
        while ready.encode() not in log.read_bytes():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"spanrec {arguments[0]} did not start: {log.read_text()}")
            time.sleep(0.05)
        yield log
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def called(
    lab: Lab, work: Path, scenarios: Sequence[Scenario]
) -> tuple[list[tuple[Scenario, Facts | None, Path]], Path]:
    """Have everything called with client and server running; gives (scenario, facts, capture at the bridge) of each,
    and the store of the server."""
    server, client = work / "srs", work / "src"
    uri = f"sip:rec@{address('c')}:{SRS_PORT}"
    found = []
    with ExitStack() as stack:
        listen = f"{address('c')}:{SRS_PORT}"
        stack.enter_context(
            running(
                "srlab-c", server, '"recording"', "srs", "--listen", f"udp:{listen}", "--listen", f"tcp:{listen}",
                "-o", str(server / "store"), "--status", "", "--socket", str(server / "status"), "--workers", "1",
            )
        )  # fmt: skip
        stack.enter_context(
            running(
                "srlab-p", client, '"recording"', "src", "-i", "eth0", "--srs", uri, "-o", str(client / "out"),
                "--listen", "", "--socket", str(client / "status"), "--ring-size", "16", "--workers", "1",
            )
        )  # fmt: skip
        proxy_calls.rtpengine(lab)
        proxy_calls.kamailio(lab, "WITH_RTPENGINE")
        for scenario in scenarios:
            lab.work = work / scenario.name
            lab.work.mkdir()
            capture = lab.work / "bridge.pcap"
            with lab.capture(capture):
                facts = scenario.make(lab)
                time.sleep(1.0)
            found.append((scenario, facts, capture))
        time.sleep(SETTLE)
        for process in list(lab.running):
            lab.stop(process)
    return found, server / "store"


def verdict(
    scenario: Scenario, facts: Facts | None, capture: Path, store: Sequence[tuple[CallDocument, Path]]
) -> tuple[str, ...]:
    """A row of the table."""
    ids = {call_id for call_id, _, _ in observe.invitations(capture)}
    mine = [each for each in store if each[0].call_id in ids]
    faults = [] if len(mine) == 1 else [f"{len(mine)} recordings"]
    if not mine:
        return scenario.about, "", "", "", "", "; ".join(faults)
    document, directory = mine[0]
    said = said_of(scenario, facts, capture)
    audio, packets = [], []
    heard = soundfile.read(directory / "audio.wav", dtype="int16", always_2d=True)[0]
    for side, each in said.items():
        streams = [stream for stream in document.streams if stream.participant == side]
        packets.append(f"{sum(stream.packets for stream in streams)} of {each.packets}")
        if sum(stream.packets for stream in streams) != each.packets or any(stream.lost for stream in streams):
            faults.append(f"{side}: {packets[-1]} packets")
        judged = judge(heard[:, 0 if side == "caller" else 1], each)
        equal, count = sum(piece.equal for piece in judged), sum(piece.samples for piece in judged)
        worst = min(piece.snr_db for piece in judged)
        audio.append(f"{equal} of {count} equal" + ("" if equal == count else f", {worst:.0f} dB"))
        if equal != count and (each.codec != "G722" or worst < ENOUGH_DB):
            faults.append(f"{side}: {audio[-1]}")
    warnings = ", ".join(warning.code for warning in document.warnings) or "none"
    return (
        scenario.about, document.state, ", ".join(packets), ", ".join(audio), warnings,
        "; ".join(faults) or "nothing",
    )  # fmt: skip


def said_of(scenario: Scenario, facts: Facts | None, capture: Path) -> dict[str, Said]:
    """What each side said."""
    if facts is not None:
        streams: list[dict[str, Any]] = [each for call in facts["calls"] for each in call["streams"]]
        return {each["participant"]: said_by_script(each) for each in streams}
    known = said_by_phones(capture, scenario.codec)
    caller = f"{address('a')}:"
    calling = {packet.ssrc for packet in observe.rtp_packets(capture) if packet.source.startswith(caller)}
    return {"caller" if each.ssrc in calling else "callee": each for each in known}


def malformed(captures: Sequence[Path]) -> list[str]:
    """What tshark finds wrong with frames between client and server."""
    found = []
    for capture in captures:
        shown = subprocess.run(
            ["tshark", "-r", str(capture), "-Y", f"_ws.malformed and ip.addr == {address('c')}", "-d",
             f"udp.port=={SRS_PORT},sip"],
            capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
        found += [f"{capture.parent.name}: {line}" for line in shown.stdout.splitlines()]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Send calls of real programs to a recording server, and judge them.")
    parser.add_argument("names", nargs="*", help=", ".join(each.name for each in SCENARIOS))
    parser.add_argument("--dir", type=Path, help="a new directory; it is kept")
    options = parser.parse_args()
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        raise SystemExit(f"not here: {', '.join(absent)}")
    chosen = [scenario for scenario in SCENARIOS if not options.names or scenario.name in options.names]
    with tempfile.TemporaryDirectory(prefix="src-lab-") as directory, ExitStack() as stack:
        work = options.dir or Path(directory)
        work.mkdir(exist_ok=True)
        stack.enter_context(alone())
        lab = stack.enter_context(network(work))
        made, store = called(lab, work, chosen)
        recorded = recordings(store)
        rows = [verdict(scenario, facts, capture, recorded) for scenario, facts, capture in made]
        wrong = malformed([capture for _, _, capture in made])
        log = (work / "src" / "log").read_text().splitlines()
    print(table(HEADS, rows))
    failures = [
        line for line in log if line.startswith("{") and json.loads(line)["event"] in ("session-failure", "src-failed")
    ]
    for line in [*wrong, *failures]:
        print(line)
    sys.exit(bool(wrong or failures) or any(row[-1] != "nothing" for row in rows))


if __name__ == "__main__":
    main()
