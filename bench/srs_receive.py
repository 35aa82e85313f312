"""One receiver of many streams, for `bench.srs_load`: `python -m bench.srs_receive ports 2000`.

In: which kind of receiver, and how many pairs of ports. Out: a line of JSON with the RTP ports; then, when standard
input ends, one with what came, what it cost and how late it was handed over. Kinds: `ports` (capture.media_ports),
`each` (the same, where the system does not let it have one socket for all ports),
`reception` (with the monitor and reports to the senders), `engine` (the same, and its packets prepared as the engine
does), `python` (a loop of epoll and recv, as a recorder in plain Python would have it).
"""

import json
import resource
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench._rtp_kernels import count_by_delay
from capture.batch import PacketBatch
from capture.media_ports import MediaPortOptions, MediaPorts
from recorder.engine import prepare
from recorder.service import CaptureService
from recorder.siprec.media_reception import MediaReception, PortTerms

HOST = "127.0.0.1"
TENTHS = 20_000
"""Delays of up to two seconds are told apart, in tenths of a millisecond."""
PATIENCE = 0.02


class Ours:
    """Our source, polled as the service does."""

    def __init__(self, kind: str, pairs: int, pace: float) -> None:
        CaptureService.allow_files()
        ports = MediaPorts(MediaPortOptions(pace=pace, steered=kind != "each"))
        self.after: Callable[[PacketBatch], object] = prepare if kind == "engine" else lambda batch: None
        if kind in ("ports", "each"):
            self.source: MediaPorts | MediaReception = ports
            self.numbers = [ports.open(HOST).rtp.port for _ in range(pairs)]
        else:
            self.source = reception = MediaReception(ports)
            opened = [reception.open(HOST) for _ in range(pairs)]
            for each in opened:
                reception.agree(each, PortTerms(mux=True))
            self.numbers = [each.rtp.port for each in opened]
        self.packets = self.batches = 0
        self.histogram = np.zeros(TENTHS, np.int64)
        count_by_delay(np.zeros(0, np.int64), 0, self.histogram)

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            batch = self.source.poll(PATIENCE)
            if batch is not None:
                count_by_delay(batch.time, time.time_ns(), self.histogram)
                self.after(batch)
                self.packets += len(batch)
                self.batches += 1

    def dropped(self) -> int:
        return self.source.counters().dropped


class Plain:
    """A socket a port, epoll, and recv of one datagram after the other."""

    def __init__(self, pairs: int) -> None:
        CaptureService.allow_files()
        self.sockets = {}
        self.epoll = select.epoll()
        self.numbers = []
        for _ in range(pairs):
            each = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 512 << 10)
            each.setblocking(False)
            each.bind((HOST, 0))
            self.sockets[each.fileno()] = each
            self.epoll.register(each.fileno(), select.EPOLLIN)
            self.numbers.append(each.getsockname()[1])
        self.packets = self.batches = 0
        self.octets = 0
        self.histogram = np.zeros(TENTHS, np.int64)

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            for descriptor, _ in self.epoll.poll(PATIENCE):
                try:
                    data, sender = self.sockets[descriptor].recvfrom(2048)
                except BlockingIOError:
                    continue
                self.packets += 1
                self.octets += len(data) + sender[1]
            self.batches += 1

    def dropped(self) -> int:
        from capture.listening import kernel_drops

        return sum(kernel_drops(each) for each in self.sockets.values())


def used() -> float:
    now = resource.getrusage(resource.RUSAGE_SELF)
    return now.ru_utime + now.ru_stime


def quantile(histogram: "np.ndarray", share: float) -> float:
    """ms."""
    counted = np.cumsum(histogram)
    return int(np.searchsorted(counted, share * counted[-1])) / 10 if counted[-1] else 0.0


def main() -> None:
    kind, pairs = sys.argv[1], int(sys.argv[2])
    pace = float(sys.argv[3]) if len(sys.argv) > 3 else 0.02
    receiver = Plain(pairs) if kind == "python" else Ours(kind, pairs, pace)
    print(json.dumps(receiver.numbers), flush=True)
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    before = used()
    receiver.run(stop)
    cpu = used() - before
    told = {
        "packets": receiver.packets,
        "dropped": receiver.dropped(),
        "cpu": round(cpu, 3),
        "batches": receiver.batches,
        "median_ms": quantile(receiver.histogram, 0.5),
        "late_ms": quantile(receiver.histogram, 0.99),
        "latest_ms": quantile(receiver.histogram, 1.0),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
