"""Whether the service is well.

In: a snapshot and its age. Out: three verdicts and what they stand on. `live`: the loop turns; where it does not, only
a restart helps. `ready`: calls that begin now are recorded. `ok`: nothing that is lost or cut: no critical alarm.
"""

from dataclasses import dataclass

from recorder.status import Alarm, DiskDelay, Severity, Snapshot

STALE = 15.0
"""s without a new snapshot after which the loop counts as stuck."""


@dataclass(frozen=True, slots=True)
class Health:
    """The verdicts. Ages and delays in s."""

    ok: bool
    live: bool
    ready: bool
    version: str
    uptime: float
    state_age: float
    last_packet_age: float | None
    delay: DiskDelay | None
    alarms: tuple[Alarm, ...]


def examine(snapshot: Snapshot, age: float) -> Health:
    """Judge a snapshot that is `age` s old."""
    live = age < STALE
    recording = not any(alarm.code.stops_recording for alarm in snapshot.alarms)
    ready = live and recording and any(source.up for source in snapshot.sources)
    critical = any(alarm.code.severity is Severity.CRITICAL for alarm in snapshot.alarms)
    return Health(
        ok=ready and not critical,
        live=live,
        ready=ready,
        version=snapshot.version,
        uptime=max(0.0, (snapshot.time - snapshot.started) / 1e9 + age),
        state_age=age,
        last_packet_age=None if snapshot.last_packet_age is None else snapshot.last_packet_age + age,
        delay=snapshot.delay,
        alarms=snapshot.alarms,
    )
