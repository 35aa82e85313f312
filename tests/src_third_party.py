"""Recorders of others, each with a recording session of our client: `python -m tests.src_third_party`, as root.

`spanrec src` plays a capture at its own pace to each of them over loopback. Out: a table of what was answered, and how
much of what was said stands in what was recorded. Telephones know nothing of SIPREC and must refuse it (RFC 3261,
section 8.2.2.3), which is looked at; then a Kamailio in front of them takes Require away, as operators do who record
with a telephone. Ends with 1 where something falls short. What is not on this machine is left out, and said.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench.measure import table
from decoders.codecs.g711 import ULAW
from pcaps.make import observe
from tests.siprec_peers import set_aside
from tests.siprec_whole import PCMU, said
from tests.third_party_peers import PEERS, Peer, Samples, proxy_without_require

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 240.0
"""s for a client: kernels may have to be compiled."""
FAR = 8000
"""Samples within which the next packet of a track must stand."""
ENOUGH_OF_A_PHONE = 0.9
"""Of the packets: a telephone's jitter buffer goes by its own clock, and stretches or drops some."""
HEADS = ("recorder", "version", "way", "what became of it", "caller", "callee", "malformed", "falls short")


@contextmanager
def watched(capture: Path) -> Iterator[None]:
    """What goes over loopback meanwhile."""
    command = ["tcpdump", "-i", "lo", "-U", "-w", str(capture), "udp or tcp"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.7)
        yield
        time.sleep(0.7)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(10)


def send(work: Path, uri: str) -> list[dict[str, Any]]:
    """Have our client send the capture to `uri`; gives the events that it told of."""
    (work / "spanrec.toml").write_text('[src]\nspool = false\nmedia_address = "127.0.0.1"\n')
    command = [
        sys.executable, "-c", "from recorder.cli import main; main()", "src", "-r", str(PCMU), "--srs", uri,
        "-o", str(work / "out"), "--listen", "", "--socket", str(work / "socket"), "--workers", "1",
    ]  # fmt: skip
    with (work / "client.log").open("wb") as log:
        subprocess.run(
            command, cwd=work, stdout=log, stderr=log, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=PATIENCE,
            check=True,
        )  # fmt: skip
    lines = (work / "client.log").read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and '"session-' in line]


def found(track: Samples, packets: Sequence[Samples]) -> int:
    """How many packets stand in a track, sample by sample and in their order."""
    octets = track.astype("<i2").tobytes()
    place = count = 0
    for packet in packets:
        piece = packet.astype("<i2").tobytes()
        end = len(octets) if count == 0 else place + 2 * FAR
        at = octets.find(piece, place, end)
        while at > 0 and at % 2:
            at = octets.find(piece, at + 1, end)
        if at >= 0:
            place, count = at + len(piece), count + 1
    return count


def seen(capture: Path, ports: Sequence[int], display: str, field: str) -> list[str]:
    """A field of frames with SIP at these ports that tshark shows."""
    decode = tuple(part for port in ports for part in ("-d", f"udp.port=={port},sip", "-d", f"tcp.port=={port},sip"))
    mine = " or ".join(f"udp.port == {port} or tcp.port == {port}" for port in ports)
    rows = observe.tshark_fields(capture, f"({display}) and ({mine})", field, options=("-n", *decode))
    return list(dict.fromkeys(row[0] for row in rows))


def session(peer: Peer, work: Path, *, direct: bool) -> tuple[str, ...]:
    """One recorder, one way, one call: a row."""
    work.mkdir()
    port, front = set_aside(), set_aside()
    with ExitStack() as stack:
        stack.enter_context(peer.start(work, port))
        if peer.phone and not direct:
            stack.enter_context(proxy_without_require(work, front, port))
        stack.enter_context(watched(work / "lo.pcap"))
        way = front if peer.phone and not direct else port
        events = send(work, f"sip:rec@127.0.0.1:{way}")
    kinds = [event["event"].removeprefix("session-") for event in events]
    recorded = "start" in kinds and "stop" in kinds
    wanted = [[ULAW[np.frombuffer(row.payload, np.uint8)] for row in rows] for rows in said(PCMU)]
    tracks = peer.tracks(work) if recorded else []
    heard = [max((found(track, packets) for track in tracks), default=0) for packets in wanted]
    counts = [f"{n} of {len(packets)}" if recorded else "" for n, packets in zip(heard, wanted, strict=True)]
    ports = (port, front)
    odd = len(seen(work / "lo.pcap", ports, "_ws.malformed", "frame.number"))
    refusals = seen(
        work / "lo.pcap", ports, 'sip.Status-Code >= 300 and sip.CSeq.method == "INVITE"', "sip.Status-Line"
    )
    refused = ", ".join(line.removeprefix("SIP/2.0 ") for line in refusals)
    faults = []
    if recorded is (peer.phone and direct):
        faults.append("it was to refuse" if recorded else "not recorded")
    least = ENOUGH_OF_A_PHONE if peer.phone else 1.0
    if recorded and any(best < least * len(packets) for best, packets in zip(heard, wanted, strict=True)):
        faults.append("audio")
    if "failure" in kinds and not (peer.phone and direct):
        faults.append("failure told of")
    outcome = "recorded" if recorded else f"refused: {refused}"
    how = "direct" if direct else "through Kamailio, without Require"
    return (
        peer.name,
        peer.version(),
        how,
        outcome,
        *counts,
        str(odd),
        "; ".join([*faults, *["malformed"] * bool(odd)]) or "nothing",
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Send a call to recorders that are not ours, and judge what they kept."
    )
    parser.add_argument("--dir", type=Path, help="a new directory; it is kept")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="third-party-") as directory:
        work = options.dir or Path(directory)
        work.mkdir(exist_ok=True)
        for number, peer in enumerate(PEERS):
            missing = peer.absent()
            if missing:
                print(f"{peer.name}: left out, not here: {missing}")
                continue
            ways = (True, False) if peer.phone else (True,)
            rows += [session(peer, work / f"{number}-{direct:d}", direct=direct) for direct in ways]
    print(table(HEADS, rows))
    sys.exit(any(row[-1] != "nothing" for row in rows))


if __name__ == "__main__":
    main()
