"""The forwarder on a wire: `python -m bench.forward --calls 100 500 1000 --seconds 20`, with `--engine` beside one.

Calls are sent over a veth pair in real time by `bench.wire`. The forwarder reads them at the other end and sends each
direction to a server on the loopback interface, from a port of its own. Said is for how long packets were under way
from the tap (the kernel's stamp there) to the server (the kernel's stamp there), what was lost, and what it cost.
With `--engine` the process also runs the whole recorder on the same wire. Needs root and iproute2.
"""

import argparse
import json
import resource
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from bench.measure import ROOT, machine, scratch, table
from bench.veth import Wire, wire

SETTLE = 3.0
"""Seconds after the last call has begun before packets count."""
SLACK = 0.5
RECEIVE_BUFFER_FORCE = 33
MOST_ROWS = 1 << 23
LOW_PORT, HIGH_PORT = 20_000, 39_999


@dataclass(frozen=True, slots=True)
class Round:
    """What one run showed."""

    calls: int
    engine: bool
    sent: dict[str, float]
    told: dict[str, float]
    expected: int
    """Packets that were to come to the server in the time that counts."""
    lost: int
    delays: "np.ndarray"
    """ms."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the forwarder.")
    parser.add_argument("--calls", type=int, nargs="+", default=[500], help="at once: 100 packets a second each (500)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of media of each call (20)")
    parser.add_argument("--ramp", type=float, default=4.0, help="seconds in which all calls begin (4)")
    parser.add_argument("--engine", action="store_true", help="with the recorder in the same process")
    parser.add_argument("--retire", type=int, default=2, help="ms after which a block is handed over (2)")
    parser.add_argument("--dir", type=Path, help="for what is written (in memory, if there is room)")
    parser.add_argument("--forward", metavar="FILE", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--hear", metavar="FILE", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def asked() -> threading.Event:
    """Set when a line comes in."""
    event = threading.Event()

    def listen() -> None:
        sys.stdin.readline()
        event.set()

    threading.Thread(target=listen, daemon=True).start()
    return event


def hear(interface: str, out: Path) -> None:
    """The server, and the tap on the wire: note SSRC, sequence number and time of all that comes."""
    from capture.datagram_slots import DatagramSlots, ask_for_times

    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.setsockopt(socket.SOL_SOCKET, RECEIVE_BUFFER_FORCE, 64 << 20)
    ask_for_times(opened)
    opened.bind(("127.0.0.1", 0))
    slots = DatagramSlots(4096, 0, 64)
    kept = np.zeros((MOST_ROWS, 3), np.int64)
    count = 0
    tap = Tap(interface)
    stop = asked()
    print(opened.getsockname()[1], flush=True)
    while not stop.is_set():
        select.select([opened], [], [], 0.1)
        got = slots.receive(opened, 0)
        got = min(got, MOST_ROWS - count)
        words = slots.rows[:got, :12].copy().view(">u4")
        kept[count : count + got, 0] = words[:, 2]
        kept[count : count + got, 1] = words[:, 0] & 0xFFFF
        kept[count : count + got, 2] = slots.times[:got]
        count += got
        time.sleep(0.005)
    wire, missed = tap.end()
    np.savez(out, heard=kept[:count], wire=wire, missed=missed)
    opened.close()


class Tap:
    """A ring of its own on the wire, read in a thread: it must not depend on what is measured."""

    def __init__(self, interface: str) -> None:
        from capture.ring import RingOptions, RingSource

        ring = RingOptions(
            expression="udp", promiscuous=True, ring_size=128 << 20, block_size=1 << 20, retire_ms=60, pace=0.1
        )
        self._source = RingSource([interface], ring)
        self._rows: list[np.ndarray] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def end(self) -> tuple["np.ndarray", int]:
        """SSRC, sequence number and time of each packet, and how many frames the tap lost."""
        self._over.set()
        self._thread.join()
        missed = self._source.counters().dropped
        self._source.close()
        return np.concatenate(self._rows), missed

    def _read(self) -> None:
        while True:
            over = self._over.is_set()
            batch = self._source.poll(0.2)
            if batch is not None:
                rtp = np.flatnonzero(batch.wire == 214)
                at = batch.offset[rtp][:, None]
                octets = batch.buffer[at + np.array([50, 51, 52, 53, 44, 45])].astype(np.int64)
                ssrc = octets[:, 0] << 24 | octets[:, 1] << 16 | octets[:, 2] << 8 | octets[:, 3]
                self._rows.append(np.stack([ssrc, octets[:, 4] << 8 | octets[:, 5], batch.time[rtp]], axis=1))
            elif over:
                return


class Legs:
    """Opens a leg for every source that is placed, and connects it at once."""

    def __init__(self, forwarder: "object", port: int) -> None:
        from capture.address import parse_endpoint
        from decoders.sdp import STATIC_FORMATS
        from recorder.siprec.legs import RemoteMedia

        self._forwarder = forwarder
        where = parse_endpoint("127.0.0.1", port)
        assert where is not None
        self._remote = RemoteMedia(where, where, {STATIC_FORMATS[0]: 0, STATIC_FORMATS[8]: 8})
        self.opened: dict[object, tuple[int, int]] = {}
        """Source -> (SSRC on the wire, SSRC of the leg)."""
        self.take_new_flows = forwarder.take_new_flows  # type: ignore[attr-defined]
        self.take_gone_flows = forwarder.take_gone_flows  # type: ignore[attr-defined]
        self.pass_over = forwarder.pass_over  # type: ignore[attr-defined]

    def place(self, flow: "object", source: "object", formats: Mapping, crypto: Sequence = ()) -> None:
        from recorder.siprec.legs import LegId

        forwarder = self._forwarder
        forwarder.place(flow, source, formats, crypto)  # type: ignore[attr-defined]
        if source not in self.opened:
            leg = LegId(source, len(self.opened))  # type: ignore[arg-type]
            local = forwarder.open(leg, "127.0.0.1", 0)  # type: ignore[attr-defined]
            self.opened[source] = (flow.ssrc, local.ssrc)  # type: ignore[attr-defined]
            forwarder.connect(leg, self._remote)  # type: ignore[attr-defined]

    def place_all(self) -> None:
        """Every flow is the source of a call of its own."""
        from decoders.sdp import STATIC_FORMATS
        from recorder.model import Side
        from recorder.siprec.legs import Source

        for flow in self.take_new_flows():
            self.place(flow, Source(len(self.opened), Side.CALLER, 0), {0: STATIC_FORMATS[0]})


class Following:
    """The forwarder as the recorder's follower."""

    def __init__(self, legs: Legs) -> None:
        self._legs = legs
        self._claims: object = None

    def attach(self, engine: "object", *_: object) -> None:
        from recorder.siprec.forward_claims import ForwardClaims

        self._claims = ForwardClaims(engine.registry, self._legs)  # type: ignore[attr-defined]

    def turn(self, now: int) -> None:
        self._claims.turn(now)  # type: ignore[attr-defined]

    def begun(self, call: "object") -> None: ...

    def dropped(self, call: "object") -> None: ...

    def heard(self, message: "object") -> None: ...

    def finished(self, call: "object", flows: Sequence) -> None: ...


def forward(interface: str, port: int, out: Path, options: argparse.Namespace) -> None:
    """The forwarder, in a process of its own: until a line comes in."""
    from capture.ring import RingOptions, RingSource
    from recorder.collection import rare_collections
    from recorder.siprec import _forward_columns as columns
    from recorder.siprec.forward import Capacity, ForwardOptions, MediaForwarder

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 32_768)), hard))
    ring = RingOptions(
        expression="udp",
        promiscuous=True,
        ring_size=32 << 20,
        block_size=64 << 10,
        retire_ms=options.retire,
    )
    source = RingSource([interface], ring)
    forwarder = MediaForwarder(ForwardOptions(LOW_PORT, HIGH_PORT, Capacity(legs=1 << 14)))
    forwarder.prepare()
    legs = Legs(forwarder, port)
    thread = threading.Thread(target=forwarder.run, args=(source,))
    stop = asked()
    before = resource.getrusage(resource.RUSAGE_SELF)
    began = time.monotonic()
    thread.start()
    print("ready", flush=True)
    if options.engine:
        record(interface, out.parent, Following(legs), stop)
    with rare_collections():
        while not stop.is_set():
            legs.place_all()
            time.sleep(0.02)
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    wall = time.monotonic() - began
    time.sleep(SLACK)
    tables, rows = forwarder._tables, forwarder._rows
    offsets = []
    for leg_source, (wire_ssrc, leg_ssrc) in legs.opened.items():
        held = rows.sources[leg_source]  # type: ignore[index]
        row = tables.legs[next(iter(held.legs.values()))]
        offset = row[columns.OFFSET] + tables.sources[held.row, columns.SEQUENCE_OFFSET]
        offsets.append((wire_ssrc, leg_ssrc, int(offset) & 0xFFFF))
    totals = forwarder.forwarded()
    forwarder.stopping = True
    thread.join()
    dropped = source.counters().dropped
    source.close()
    np.save(out, np.array(offsets, np.int64))
    told = {"cpu": cpu, "wall": wall, "dropped": dropped, "packets": totals.packets, "unsent": totals.unsent}
    print(json.dumps(told), flush=True)


def record(interface: str, directory: Path, following: Following, stop: threading.Event) -> None:
    """The recorder on the same interface, until it is told to stop."""
    import io

    from capture.ring import RingOptions, RingSource
    from recorder.log import open_log
    from recorder.policy import Policy, PolicyHolder
    from recorder.service import CaptureService
    from recorder.service_types import ServiceOptions

    holder = PolicyHolder(Policy(), lambda _: None)
    service = CaptureService(
        ServiceOptions(directory / "recordings"),
        holder,
        open_log(io.StringIO()),
        [following],  # type: ignore[list-item]
    )
    source = RingSource([interface], RingOptions(promiscuous=True, ring_size=256 << 20))

    def end() -> None:
        stop.wait()
        service.stopping = True

    threading.Thread(target=end, daemon=True).start()
    service.run([source], lambda: None, lambda _: None)
    source.close()


def child(over: Wire, *words: str) -> "subprocess.Popen[str]":
    command = over.inside(sys.executable, "-m", "bench.forward", *words)
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def one_round(calls: int, options: argparse.Namespace) -> Round:
    need = int(calls * (options.seconds + options.ramp + 8) * (33_000 if options.engine else 8_000)) + (64 << 20)
    with scratch(options.dir, need) as directory, wire("forward") as over:
        heard, placed = directory / "heard.npz", directory / "legs.npy"
        server = child(over, "--hear", str(heard))
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        words = [
            "--forward",
            str(placed),
            "--calls",
            port,
            "--retire",
            str(options.retire),
        ]
        forwarder = child(over, *words, *(["--engine"] if options.engine else []))
        assert forwarder.stdout is not None
        try:
            forwarder.stdout.readline()
            command = over.inside(sys.executable, "-m", "bench.wire", over.sender, "--realtime")
            command += ["--calls", str(calls), "--seconds", str(options.seconds), "--ramp", str(options.ramp)]
            said = subprocess.run(
                command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=options.seconds + 120
            )
            told, _ = forwarder.communicate("\n", timeout=60)
            server.communicate("\n", timeout=60)
        finally:
            forwarder.kill()
            server.kill()
        files = np.load(heard)
        if files["missed"]:
            raise SystemExit(f"The tap that measures missed {files['missed']} frames: nothing can be said.")
        return judged(calls, options, json.loads(said.stdout), json.loads(told), files, np.load(placed))


def judged(
    calls: int,
    options: argparse.Namespace,
    sent: dict[str, float],
    told: dict[str, float],
    files: Mapping[str, "np.ndarray"],
    legs: "np.ndarray",
) -> Round:
    """Find each packet of the wire at the server."""
    tapped, heard = files["wire"], files["heard"]
    begin = int(tapped[:, 2].min()) + int((options.ramp + SETTLE) * 1e9)
    end = int(tapped[:, 2].max()) - int(SLACK * 1e9)
    place = {int(wire_ssrc): number for number, (wire_ssrc, _, _) in enumerate(legs)}
    of_leg = {int(leg_ssrc): number for number, (_, leg_ssrc, _) in enumerate(legs)}
    number = np.array([place.get(ssrc, -1) for ssrc in tapped[:, 0].tolist()])
    counted = (number >= 0) & (tapped[:, 2] >= begin) & (tapped[:, 2] < end)
    keys = number[counted] << 16 | (tapped[counted, 1] + legs[number[counted], 2]) & 0xFFFF
    came = np.array([of_leg.get(ssrc, -1) for ssrc in heard[:, 0].tolist()])
    heard_keys = came << 16 | heard[:, 1]
    order = np.argsort(heard_keys, kind="stable")
    at = np.minimum(np.searchsorted(heard_keys[order], keys), len(order) - 1)
    found = heard_keys[order][at] == keys
    delays = (heard[order][at[found], 2] - tapped[counted][found, 2]) / 1e6
    missed = int(((number < 0) & (tapped[:, 2] >= begin) & (tapped[:, 2] < end)).sum())
    return Round(calls, options.engine, sent, told, int(counted.sum()), int((~found).sum()) + missed, delays)


def main() -> None:
    options = arguments()
    if options.hear:
        hear("rx0", options.hear)
        return
    if options.forward:
        forward("rx0", options.calls[0], options.forward, options)
        return
    print(f"On {machine()}. Calls of {options.seconds:g} s.\n", flush=True)
    rows = []
    for calls in options.calls:
        each = one_round(calls, options)
        middle, most, longest = (float(np.percentile(each.delays, share)) for share in (50, 99, 100))
        rows.append((
            each.calls, "yes" if each.engine else "no", each.expected, each.lost, each.told["dropped"],
            each.told["unsent"], f"{middle:.1f} / {most:.1f} / {longest:.1f}",
            f"{each.told['cpu']:.1f}", f"{each.told['cpu'] / each.told['wall'] * 100_000 / each.calls:.0f} %",
            f"{each.sent['late_ms']:.1f} / {each.sent['latest_ms']:.1f}",
        ))  # fmt: skip
        print(rows[-1], file=sys.stderr, flush=True)
    heads = (
        "calls", "engine", "packets", "lost", "dropped at the tap", "unsent", "delay, ms (median, 99 %, most)", "CPU s",
        "of a core per 1,000 calls", "slots late, ms (99 %, most)",
    )  # fmt: skip
    print(table(heads, rows))


if __name__ == "__main__":
    main()
