"""A service that only pretends: calls in progress that grow older, behind the real board and the real server.

`python -m tests.live_status SOCKET [CALLS]` serves it for ten minutes, to look at with `spanrec top --connect SOCKET`.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from decoders.quality import Scale
from recorder.model import CallState, Side
from recorder.policy import Action
from recorder.status import (
    Alarm,
    AlarmCode,
    DiskDelay,
    LadderStep,
    LiveCall,
    LiveState,
    LiveStream,
    MosHistogram,
    Snapshot,
    SourceStatus,
    StoreSpace,
    Traffic,
)
from recorder.status_address import Address
from recorder.status_board import StatusBoard
from recorder.status_server import Commands, StatusServer

SECOND = 1_000_000_000
NOW = 1_772_356_502_000_000_000
"""2026-03-01T09:15:02Z."""
ALARM = Alarm(AlarmCode.KERNEL_DROPS, NOW - 51 * SECOND, "123 packets were dropped on eth1: make the ring larger")
_CODECS = ("PCMA/8000", "PCMU/8000", "G722/8000", "opus/48000/2", "AMR-WB/16000", "G729/8000")
_STATES = (LiveState.ACTIVE,) * 12 + (LiveState.RINGING, LiveState.HELD, LiveState.CALLING, LiveState.ENDING)


def identifier(index: int) -> str:
    return str(UUID(int=0xC0FFEE << 96 | index, version=4))


def live_call(index: int, age: float = 0.0) -> LiveCall:
    """A call that has lasted `age` s longer than at NOW; every one is another, and always the same."""
    state = _STATES[index * 7 % len(_STATES)]
    begun = 5 + index * 13 % 400
    started = NOW - begun * SECOND
    answered = started + 3 * SECOND if state in (LiveState.ACTIVE, LiveState.HELD, LiveState.ENDING) else None
    return LiveCall(
        id=identifier(index),
        call_id=f"{index:04x}-a84b4c76e66710@192.0.2.{index % 250}",
        state=state,
        started=started,
        answered=answered,
        duration=begun + age,
        caller=f"sip:+4930{1_000_000 + index * 7919}@example.com",
        callee=f"sip:{200 + index}@pbx.example.com",
        action=(Action.RECORD, Action.RECORD, Action.RECORD, Action.METADATA, Action.SKIP)[index % 5],
        streams=() if answered is None else tuple(_streams(index, begun - 3 + age)),
        warnings=("one-way",) if index % 11 == 4 else (),
    )


def _streams(index: int, seconds: float) -> Iterator[LiveStream]:
    codec = _CODECS[index * 5 % len(_CODECS)]
    lost = (0, 0, 0, 1, 7, 0, 90)[index % 7]
    ends = (f"192.0.2.{index % 250}:{10_000 + 2 * index}", f"[2001:db8::{index:x}]:{20_000 + 2 * index}")
    for side, (source, destination) in ((Side.CALLER, ends), (Side.CALLEE, ends[::-1])):
        if side is Side.CALLEE and index % 11 == 4:
            return
        mos = None if codec.startswith("opus") else max(1.0, 4.41 - lost / 40 - (0.3 if side is Side.CALLEE else 0))
        yield LiveStream(side, codec, source, destination, int(seconds * 50), lost, 0.4 + lost / 3, mos, 50.0, 0.012)


def ladder(index: int) -> list[LadderStep]:
    """Caller, proxy and callee: a call with a provisional answer, a repetition and a hold."""
    start = live_call(index).started
    a, p, b = f"192.0.2.{index % 250}:5060", "198.51.100.1:5060", f"203.0.113.{index % 250}:5060"
    steps = [
        (0, a, p, "INVITE", True, False),
        (1, p, a, "100 Trying", False, False),
        (2, p, b, "INVITE", True, False),
        (502, p, b, "INVITE", True, True),
        (530, b, p, "180 Ringing", False, False),
        (531, p, a, "180 Ringing", False, False),
        (3000, b, p, "200 OK", True, False),
        (3001, p, a, "200 OK", True, False),
        (3040, a, p, "ACK", False, False),
        (3041, p, b, "ACK", False, False),
    ]
    return [LadderStep(start + ms * 1_000_000, *rest) for ms, *rest in steps]  # type: ignore[arg-type]


def snapshot(calls: int = 50, age: float = 0.0, alarms: tuple[Alarm, ...] = ()) -> Snapshot:
    states: dict[LiveState, int] = {}
    streams = 0
    for call in (live_call(index) for index in range(calls)):
        states[call.state] = states.get(call.state, 0) + 1
        streams += len(call.streams)
    packets = 4_211_000 + int(age * 50 * streams)
    return Snapshot(
        time=NOW + int(age * SECOND),
        version="0.1.0",
        started=NOW - 11_524 * SECOND,
        sources=(SourceStatus("eth1", packets, packets * 214, 123 if alarms else 0, 0, True, 50.0 * streams),),
        calls=states,
        ended={CallState.COMPLETED: 1203, CallState.CANCELLED: 71, CallState.REFUSED: 33, CallState.INCOMPLETE: 2},
        streams=streams,
        traffic=Traffic(18_211, 4_410, 3, packets - 25_000, 2_300),
        recordings=1309,
        delay=DiskDelay(1.21, 2.04),
        store=StoreSpace(120 * 10**9, 500 * 10**9),
        last_packet_age=0.011,
        mos={Scale.NARROWBAND: MosHistogram().with_value(4.41).with_value(3.02)},
        alarms=alarms,
    )


class Pretender:
    """The loop of a service: publishes each `interval` s and answers what is asked, in a thread of its own."""

    def __init__(self, calls: int = 50, alarms: tuple[Alarm, ...] = (), interval: float = 0.05) -> None:
        self.calls = calls
        self.alarms = alarms
        self.asked: list[str] = []
        self.board = StatusBoard(snapshot(calls, 0, alarms))
        self._interval = interval
        self._ended = threading.Event()
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Pretender":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._interval):
            age = time.monotonic() - self._began
            calls = [live_call(index, age) for index in range(self.calls)] if self.board.watched else None
            self.board.publish(snapshot(self.calls, age, self.alarms), calls)
            self.board.answer(self._find)

    def _find(self, call: str) -> list[LadderStep] | None:
        self.asked.append(call)
        return next((ladder(index) for index in range(self.calls) if identifier(index) == call), None)


@contextmanager
def serving(
    address: Address, pretender: Pretender, token: str | None = None, commands: Commands | None = None
) -> Iterator[Address]:
    """A running server; gives the address it has."""
    server = StatusServer(pretender.board, commands=commands)
    try:
        with pretender:
            at = server.listen(address, token)
            server.start()
            yield at
    finally:
        server.close()


if __name__ == "__main__":
    number = int(sys.argv[2]) if len(sys.argv) > 2 else 50
    with serving(Path(sys.argv[1]), Pretender(number, (ALARM,), 1.0)):
        time.sleep(600)
