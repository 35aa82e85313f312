"""Captures through our SRC into our SRS, held against their replay: `python -m tests.src_to_srs [CAPTURE...]`.

Each capture is played at its own pace to an SRC of its own; all of them send to one SRS over loopback, at the same
time. Out: a table of what the SRS recorded beside what a replay of the same capture makes. Ends with 1 where they
differ by more than the way through two programs explains.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import soundfile

from bench.measure import table
from capture.paced_source import Pace, PacedSource
from recorder.document import CallDocument
from recorder.policy import Policy, without_audio
from recorder.sip_ua.listen import parse_listen
from recorder.siprec.sip_settings import Ports
from recorder.siprec.src_decision import Insecure, Instance, Server, SrcDecision
from recorder.siprec.src_service import SrcService, SrcTold
from recorder.siprec.src_settings import SrcSettings
from recorder.siprec.srs_service import SrsService, SrsTold
from recorder.siprec.srs_settings import SrsSettings
from tests.capture_builder import record
from tests.live import recordings, service
from tests.same_recording import instant

PCAPS = Path(__file__).resolve().parents[1] / "pcaps"
NAMES = ("pcmu.pcap", "hold.pcap", "g722.pcapng", "dtmf.pcap", "relayed.pcap", "codec_change.pcap", "srtp_sdes.pcap")
PORTS = Ports(42000, 42999)
SETTLE = 8.0
"""s in which the SRS must have written what has ended."""
ENOUGH_MS = 60.0
"""By which times may differ: the SRS knows when media came to it, not when it crossed the tap."""
FRAME = 160
FAR = 480
"""Samples by which a packet may stand elsewhere."""


@dataclass
class Served:
    """A running SRS."""

    out: Path
    uri: str
    failures: list[BaseException] = field(default_factory=list)


@contextmanager
def serving(work: Path, **options: object) -> Iterator[Served]:
    """Our SRS, until the block ends; then its recordings are complete."""
    served = Served(work / "store", "")
    settings = SrsSettings(listen=(parse_listen("udp:127.0.0.1:0"), parse_listen("tcp:127.0.0.1:0")), ports=PORTS)
    srs = SrsService(replace(settings, **options), told=SrsTold(failed=served.failures.append))  # type: ignore[arg-type]
    running = service(served.out, workers=1, followers=[srs.follower])
    srs.full, srs.correction = running.why_full, running.correction
    thread = threading.Thread(target=running.run, args=([srs.source], lambda: None, lambda _: None))
    try:
        srs.start()
        served.uri = f"sip:rec@{srs.listening[0].removeprefix('udp:')}"
        thread.start()
        yield served
    finally:
        srs.settings = replace(srs.settings, drain=SETTLE)
        srs.leave()
        running.stopping = True
        thread.join()
        srs.close()


def send(capture: Path, work: Path, uri: str, failed: Callable[[BaseException], None], ports: Ports) -> None:
    """Play a capture to an SRC that sends to `uri`, until all its sessions have ended."""
    usual = Instance((Server(uri),), insecure=Insecure.WARN)
    settings = SrcSettings(usual=usual, ports=ports)
    pace = Pace()
    decision = SrcDecision(True, (usual,), reason="every call")
    src = SrcService(settings, lambda _: decision, SrcTold(failed=failed), lambda: pace.now() or time.time_ns())
    running = service(work, without_audio(Policy()), workers=1, followers=[src.follower])
    src.start(PacedSource([capture], pace, lead=0.5))
    try:
        running.run([PacedSource([capture], pace, lead=0.5)], lambda: None, lambda _: None)
        src.wait(20.0)
    finally:
        src.close()


@dataclass(frozen=True, slots=True)
class Compared:
    """A call as the SRS has it, beside its replay."""

    capture: str
    call: str
    samples: str
    shifts: str
    instants_ms: float
    differences: tuple[str, ...]

    def row(self) -> tuple[str, ...]:
        return (
            self.capture, self.call, self.samples, self.shifts, f"{self.instants_ms:.1f}",
            "; ".join(self.differences) or "nothing",
        )  # fmt: skip


HEADS = ("capture", "call", "samples equal", "channels shifted by", "times off, ms", "differs")


def through_sessions(captures: Sequence[Path], work: Path) -> list[Compared]:
    """Send all captures at the same time, and compare."""
    with serving(work / "srs") as served, ExitStack() as stack:
        threads = []
        for number, capture in enumerate(captures):
            ports = Ports(36000 + 200 * number, 36199 + 200 * number)
            arguments = (capture, work / f"src-{number}", served.uri, served.failures.append, ports)
            threads.append(threading.Thread(target=send, args=arguments))
            stack.callback(threads[-1].join)
        for thread in threads:
            thread.start()
    if served.failures:
        raise served.failures[0]
    received = {document.call_id: (document, place) for document, place in recordings(served.out)}
    found = []
    for number, capture in enumerate(captures):
        record([capture], work / f"replay-{number}")
        for document, place in recordings(work / f"replay-{number}"):
            there = received.get(document.call_id)
            if there is not None:
                found.append(compare(capture.name, there, (document, place)))
            elif document.audio is not None:
                found.append(Compared(capture.name, document.call_id or "", "none", "", 0.0, ("it was not recorded",)))
    return found


def compare(name: str, ours: tuple[CallDocument, Path], theirs: tuple[CallDocument, Path]) -> Compared:
    """The SRS's recording (document, directory) beside the replay's."""
    one, other = ours[0], theirs[0]
    differences = [
        f"{part} {getattr(one, part)!r}, replay {getattr(other, part)!r}"
        for part in ("call_id", "caller", "callee", "state")
        if getattr(one, part) != getattr(other, part)
    ]
    codecs = [sorted((s.participant, s.codec, s.lost) for s in each.streams) for each in (one, other)]
    if codecs[0] != codecs[1]:
        differences.append(f"streams {codecs[0]}, replay {codecs[1]}")
    # Digits by SIP INFO are no part of a recording session.
    digits = [sorted((d.participant, d.digit) for d in each.dtmf if d.via == "rfc4733") for each in (one, other)]
    if digits[0] != digits[1]:
        differences.append(f"digits {digits[0]}, replay {digits[1]}")
    # Metadata do not tell who it is that holds where neither side receives: both do then, at the same time.
    holds = [len({hold.from_ for hold in each.holds}) for each in (one, other)]
    if holds[0] != holds[1]:
        differences.append(f"{holds[0]} holds, replay {holds[1]}")
    times = [
        abs(instant(a) - instant(b)) * 1000
        for a, b in ((one.started, other.started), (one.answered, other.answered), (one.ended, other.ended))
        if a is not None and b is not None
    ]
    equal, total, shifts = _audio(ours[1], theirs[1])
    if equal != total:
        differences.append(f"{total - equal} samples")
    if max(times) > ENOUGH_MS:
        differences.append(f"times off by {max(times):.0f} ms")
    return Compared(name, one.call_id or "", f"{equal} of {total}", shifts, max(times), tuple(differences))


def _audio(ours: Path, theirs: Path) -> tuple[int, int, str]:
    """(equal samples, samples, shifts): packets of the replay, found in the SRS's recording."""
    if not (theirs / "audio.wav").exists() or not (ours / "audio.wav").exists():
        return 0, 1 if (theirs / "audio.wav").exists() else 0, ""
    heard = soundfile.read(ours / "audio.wav", dtype="int16", always_2d=True)[0]
    wanted = soundfile.read(theirs / "audio.wav", dtype="int16", always_2d=True)[0]
    equal = total = 0
    shifts = set()
    for channel in range(wanted.shape[1]):
        shift = 0
        for begin, end in _pieces(wanted[:, channel]):
            total += end - begin
            at = _find(heard[:, channel], wanted[begin:end, channel], begin + shift)
            if at is not None:
                equal += end - begin
                shift = at - begin
                shifts.add(shift)
    told = f"{min(shifts)} to {max(shifts)}" if shifts else ""
    return equal, total, told


def _pieces(channel: "np.ndarray") -> list[tuple[int, int]]:
    """Packets of 20 ms within what sounds: (begin, end)."""
    loud = np.flatnonzero(channel)
    if not len(loud):
        return []
    begins = range(int(loud[0]), int(loud[-1]) + 1, FRAME)
    return [(begin, min(begin + FRAME, int(loud[-1]) + 1)) for begin in begins]


def _find(channel: "np.ndarray", piece: "np.ndarray", near: int) -> int | None:
    """Where a piece stands, as near as can be; None where it does not stand within FAR."""
    low = max(near - FAR, 0)
    window = channel[low : near + FAR + len(piece)]
    if len(window) < len(piece):
        return None
    found = np.flatnonzero((np.lib.stride_tricks.sliding_window_view(window, len(piece)) == piece).all(axis=1))
    return int(found[np.argmin(np.abs(found + low - near))]) + low if len(found) else None


def main() -> None:
    parser = argparse.ArgumentParser(description="Send captures through our SRC to our SRS, and compare with replay.")
    parser.add_argument("captures", nargs="*", type=Path, help="(those of pcaps/ that show most)")
    parser.add_argument("--dir", type=Path, help="a new directory; it is kept")
    options = parser.parse_args()
    captures = options.captures or [PCAPS / name for name in NAMES]
    with tempfile.TemporaryDirectory(prefix="src-to-srs-") as directory:
        found = through_sessions(captures, options.dir or Path(directory))
    print(table(HEADS, [each.row() for each in found]))
    sys.exit(any(each.differences for each in found))


if __name__ == "__main__":
    main()
