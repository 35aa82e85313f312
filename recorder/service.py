"""The live service: sources in, recordings out, day and night.

In: open live sources, the recording policy, a store. Out: recordings as calls end, a status board, a log. One loop
polls the sources and runs the same engine as replay; a thread publishes (`recorder/live_publish.py`). What it knows of
calls in progress is on the disk within seconds, so that a kill costs what was not written yet and nothing else. Read
`CaptureService.run` first.
"""

import resource
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version

from capture.batch import PacketBatch
from capture.errors import SpanrecError
from capture.live import LiveSource
from recorder import clock_memory
from recorder.alarms import Alarms
from recorder.capture_clock import CaptureClock
from recorder.checkpointing import Checkpointing
from recorder.collection import rare_collections
from recorder.completion import complete
from recorder.disk_watch import DiskWatch
from recorder.document import CallDocument
from recorder.engine import WINDOW, Engine, FinishedCall, prepare
from recorder.live_calls import Interrupted, LiveCalls, Refusal
from recorder.live_catalogue import LiveCatalogue
from recorder.live_packets import LivePackets
from recorder.live_publish import LivePublisher
from recorder.live_status import CallLister, Tally, traffic
from recorder.log import ServiceLog
from recorder.model import Call
from recorder.overload import Overload
from recorder.policy import Action, PolicyHolder
from recorder.recent_media import RecentMedia
from recorder.recovery import Restorer, restore
from recorder.service_types import Follower, ServiceOptions
from recorder.source_watch import SourceWatch
from recorder.status import Alarm, AlarmCode, Severity, Snapshot
from recorder.status_board import StatusBoard
from recorder.store import RecordingStore
from recorder.streams import Listening
from recorder.trace import warn
from recorder.tracks import StoreError

WORKING = ".live"
"""Below OUT: a working directory for each call in progress."""
PATIENCE = 0.02
"""s that the loop waits for packets at a time."""
LATE = 300_000_000
"""ns after the end of a window for which its packets may still be on their way through the kernel."""
MOST_FILES = 16_384
LATEST = 5.0
"""s after the wire by which audio should be on the disk."""
ROOM = (1 << 18, 48 << 20)
"""Packets and octets of media that wait to be written: more would keep the loop from its sources for too long."""
PREEMPTED = 50_000_000
"""ns between two clocks that are read one after the other, from which on they are not compared."""
GONE = 60_000_000_000
"""ns of silence after a restart that end a call which was talking before: its end was missed."""
UPKEEP = 60.0
"""s between two looks at what retention would delete."""


class CaptureService:
    """One store, one engine, some sources."""

    def __init__(
        self, options: ServiceOptions, policy: PolicyHolder, log: ServiceLog, followers: Sequence[Follower] = ()
    ) -> None:
        """Take the store. Raises SpanrecError where it cannot be had."""
        self._followers = tuple(followers)
        self.allow_files()
        self._options = options
        self._policy = policy
        self._log = log.logger
        self._service_log = log
        self.stopping = False
        """Set by a signal handler: finish what is in flight."""
        self.stopped_by = ""
        """Name of the signal."""
        self.reload = False
        """Set by a signal handler: read the settings again."""
        self._wall, self._steady = options.wall_clock, options.steady_clock
        self._started = self._wall()
        self._clock = CaptureClock.begin(self._started, self._steady())
        self._version = version("spanrec")  # found in files: not once a second
        self.board = StatusBoard(Snapshot(self._started, self._version, self._started))
        self._store = RecordingStore(options.out)
        self._working = options.out / WORKING
        self._working.mkdir(exist_ok=True)
        self._catalogue = LiveCatalogue(options.out, options.out / "catalogue.sqlite")
        self._alarms = Alarms(self._say_alarm)
        self._disk = DiskWatch(options.out, self._alarms, options.disk_low, options.disk_scarce)
        self._publisher = LivePublisher(
            self._store,
            self._catalogue,
            self._working,
            form=options.form,
            mono=options.mono,
            published=self._published,
            trouble=self._disk.trouble,
        )
        self._live = LiveCalls(self._working, policy.decide, self._refusal, self._disk.trouble)
        self._checkpointing = Checkpointing(self._live, self._working, self._disk.trouble)
        self._packets = LivePackets(
            self._live,
            lambda: policy.policy.keeps_packets,
            self._disk.trouble,
            recent=RecentMedia() if options.recent_media else None,
        )
        self._watch = SourceWatch(self._alarms)
        self._tally = Tally()
        self._overload = Overload()
        self.certificate: str | None = None
        """Set by whoever shows a certificate of ours: why it cannot be renewed."""
        self._failures: deque[tuple[Call, StoreError]] = deque()
        self._behind = 0.0
        self._stamped_here = True
        self._next_upkeep = time.monotonic()

    @staticmethod
    def allow_files() -> None:
        """Let this process have a file open for every call."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))

    def run(self, sources: Sequence[LiveSource], ready: Callable[[], None], beat: Callable[[str], None]) -> None:
        """Record until told to stop. `ready` when calls are being recorded, `beat` once a second with a sentence."""
        with rare_collections(), ThreadPoolExecutor(self._options.workers) as executor:
            self._stamped_here = any(source.stamped_here for source in sources)
            self._begin(executor)
            self._publisher.start()
            ready()
            due = time.monotonic()
            while sources and not self.stopping:
                self._turn(sources)
                sources = [source for source in sources if not source.ended]
                now = time.monotonic()
                if now >= due:
                    due = now + 1.0
                    self._each_second(sources, now)
                    beat(self._sentence())
            self._finish(sources, beat)

    def _begin(self, executor: ThreadPoolExecutor) -> None:
        """Complete what an earlier run left, and go on with what it had in progress."""
        for directory in complete(self._working, self._store, self._catalogue):
            self._log.info("recording-completed", directory=directory)
        self._engine = Engine(
            directory_of=self._live.directory_of,
            sink=self._over,
            workers=self._options.workers,
            executor=executor if self._options.workers > 1 else None,
            observers=(self._live, self._packets, *self._followers),
            identify=self._live.identify,
            begun=self._begun,
            listening=self._live.listening,
            dropped=self._dropped,
            store_failed=lambda call, error: self._failures.append((call, error)),
            headed=True,
            room=ROOM,
        )
        self._packets.attach(self._engine)
        for follower in self._followers:
            follower.attach(self._engine, self._packets.begin_late)
        self._lister = CallLister(self._engine, self._live)
        base = clock_memory.recall(self._options.out) if self._stamped_here else None
        if base is not None and any(self._working.iterdir()):
            self._clock.go_on(base)
        self._keep_clock()
        now = self._now() if self._stamped_here else None
        taken_up = restore(self._engine, self._live, self._working, now, self._take_up)
        self._look_at_disk(self._wall())
        if taken_up:
            self._log.warning("calls-taken-up", count=taken_up, text="an earlier run was interrupted; its calls go on")

    def _take_up(self, left: Interrupted, now: int) -> Call | None:
        """A call of an earlier run of which there is no journal."""
        known = (each.take_up(left, now) for each in self._followers if isinstance(each, Restorer))
        return next((call for call in known if call is not None), None)

    @property
    def overloaded(self) -> bool:
        """Whether there is more traffic than can be recorded; in any thread."""
        return self._overload.active

    # The loop

    def _turn(self, sources: Sequence[LiveSource]) -> None:
        """Take what the sources have, and let time pass."""
        idle = True
        for place, source in enumerate(sources):
            # Only the last one is waited for, and only where none had anything.
            batch = source.poll(PATIENCE if idle and place == len(sources) - 1 else 0.0)
            if batch is not None and len(batch):
                idle = False
                self._take(batch, source)
        before = self._engine.window_end
        self._engine.tick(self._now() - LATE)
        self._packets.write_due()
        self._note_window(before)
        for follower in self._followers:
            follower.turn(self._now())
        self.board.answer(self._live.ladder)

    def _take(self, batch: PacketBatch, source: LiveSource) -> None:
        before, stamps, stamped_here = self._engine.window_end, batch.time, source.stamped_here
        # After the packets came: whatever the clock did to their stamps is seen before they are used.
        self._look_at_clocks()
        if stamped_here:
            batch = replace(batch, time=self._clock.capture_times(batch.time, self._steady()))
        elif self._correction:
            batch = replace(batch, time=batch.time + self._correction)
        prepared = prepare(batch, getattr(source, "realm", 0))
        self._packets.before(prepared, stamps)
        self._engine.ingest(prepared)
        self._packets.after()
        if stamped_here:
            self._behind = max((self._now() - int(batch.time[-1])) / 1e9, 0.0)
        self._watch.last_packet = time.monotonic()
        self._note_window(before)

    @property
    def _correction(self) -> int:
        """What is added to stamps, ns; nothing where none of them is by this machine's clock."""
        return self._clock.correction if self._stamped_here else 0

    def _now(self) -> int:
        """Capture time: this machine's, or where all stamps are another's, what that one must say by now."""
        if self._stamped_here:
            return self._clock.now(self._steady())
        if self._watch.last_packet is None:
            return self._engine.now
        return self._engine.now + int((time.monotonic() - self._watch.last_packet) * 1e9)

    def _note_window(self, before: int) -> None:
        """Where the window that ended at `before` has been written: how old was its oldest packet?"""
        if before and self._engine.window_end != before:
            delay = max((self._now() - before + WINDOW) / 1e9, 0.0)
            self._tally.note_delay(time.monotonic(), delay)
            if self._engine.media is not None:
                self._checkpointing.begun(self._engine.media, self._engine.now)

    def _each_second(self, sources: Sequence[LiveSource], now: float) -> None:
        self._look_at_clocks()
        wall = self._wall()
        if self.reload:
            self.reload = False
            self._reload(wall, now)
        self._publisher.check()
        self._look_at_disk(wall)
        dropped = self._look_at_sources(sources, wall, now)
        self._shed(now, dropped)
        if self._engine.media is not None:
            self._checkpointing.each_second(self._engine.media, self._engine.now)
        self._give_up()
        self._alarms.expire(wall, now)
        self._alarms.set(AlarmCode.CERTIFICATE, self.certificate, wall)
        delay = self._tally.delay(now)
        text = None if delay is None else f"Audio reaches the disk {delay.last:.1f} s after the wire."
        self._alarms.set(AlarmCode.DISK_DELAY, text if delay is not None and delay.last > LATEST else None, wall)
        if now >= self._next_upkeep:
            self._next_upkeep = now + UPKEEP
            self._keep_clock()
            if (upkeep := self._options.upkeep) is not None:
                self._publisher.call(lambda: self._keep_up(upkeep))
        watched = self._lister.calls(self._now()) if self.board.watched else None
        self.board.publish(self._snapshot(sources, wall), watched)
        self._service_log.report_repeats()

    def _keep_up(self, upkeep: Callable[[LiveCatalogue], None]) -> None:
        """Delete what is to go; in the publisher's thread."""
        try:
            upkeep(self._catalogue)
        except (SpanrecError, OSError) as error:
            self._catalogue.undo()
            self._disk.retention_failed(str(error))

    def _finish(self, sources: Sequence[LiveSource], beat: Callable[[str], None]) -> None:
        """Take what is in the rings, end every call, publish all."""
        if self.stopping:
            self._log.info("stopping", signal=self.stopped_by)
        deadline = time.monotonic() + 2.0
        for source in sources:
            while time.monotonic() < deadline and (batch := source.poll(0.0)) is not None:
                self._take(batch, source)
            source.close()
        for record in self._live.records.values():
            if self.stopping and record.call.ended is None:
                warn(record.call, "stopped", "The recorder was stopped while the call was in progress.")
        self._engine.finish()
        for follower in self._followers:
            follower.turn(self._engine.now)
        beat("finishing recordings")
        self._checkpointing.finish()
        left = self._publisher.close()
        if left:
            self._log.error("recordings-left", count=left, text="they are completed when the service starts again")
        self._catalogue.close()
        self._store.close()
        self._service_log.report_repeats(all_of_them=True)

    # What is looked at once a second

    def _look_at_sources(self, sources: Sequence[LiveSource], wall: int, now: float) -> int:
        """Packets that the kernel dropped since the last look; calls in progress are told of them."""
        lost = self._watch.look(sources, wall, now)
        for record in self._live.records.values() if self._watch.down else ():
            self._live.tell(record, "source-down", "A source gave nothing for a time while the call was in progress.")
        for record in self._live.records.values() if lost else ():
            self._live.tell(record, "kernel-drops", "The kernel dropped packets while the call was in progress.")
        return lost

    def _look_at_disk(self, wall: int) -> None:
        while self._failures:
            call, error = self._failures.popleft()
            if self._engine.media is not None:
                self._engine.media.listen_less(call, Listening.COUNTED)
            self._disk.trouble(str(error))
        self._disk.look(wall)

    def _shed(self, now: float, dropped: int) -> None:
        """Give up calls where there is more than can be recorded: whole ones, the newest first."""
        heard = [record for record in self._live.records.values() if record.listening is Listening.HEARD]
        count = self._overload.judge(now, self._behind, dropped, len(heard))
        for record in sorted(heard, key=lambda each: each.call.index)[len(heard) - count :] if count else ():
            record.listening = Listening.PASSED_OVER
            self._live.tell(record, "shed", "Recording was given up: there was more traffic than could be recorded.")
            if self._engine.media is not None:
                self._engine.media.listen_less(record.call, Listening.PASSED_OVER)
        text = f"More traffic than can be recorded, {self._behind:.1f} s behind; calls are given up."
        self._alarms.set(AlarmCode.OVERLOAD, text if self._overload.active else None, self._wall())

    def _give_up(self) -> None:
        """End calls that were talking when an earlier run was interrupted, and have been silent since it is over."""
        now = self._engine.now
        for record in list(self._live.records.values()):
            since, call = record.awaited_since, record.call
            if since is None:
                continue
            if call.ended is not None or call.last_seen > since:
                record.awaited_since = None
            elif now - since > GONE:
                self._engine.give_up(call)

    def _look_at_clocks(self) -> None:
        before, wall, after = self._steady(), self._wall(), self._steady()
        # Where this process was held up between the clocks, they tell nothing.
        if after - before < PREEMPTED and self._clock.look(wall, after):
            self._keep_clock()
            self._clock_was_set(wall, time.monotonic())

    def _keep_clock(self) -> None:
        """For the next process, where calls are in progress then."""
        if self._stamped_here:
            clock_memory.keep(self._options.out, self._clock.base)

    def _clock_was_set(self, wall: int, now: float) -> None:
        text = f"The system clock was set by {self._clock.last_step / 1e9:+.1f} s."
        self._alarms.happened(AlarmCode.CLOCK_STEPPED, text, wall, now)
        for record in self._live.records.values():
            self._live.tell(record, "clock-set", f"{text} The call's times are by the clock at its end.")

    def _reload(self, wall: int, now: float) -> None:
        settings = self._options.settings
        if settings is not None and not self._policy.reload(settings):
            text = f"{settings}: refused; the settings of before still hold."
            self._alarms.happened(AlarmCode.SETTINGS_REFUSED, text, wall, now)

    # What others ask

    def why_full(self) -> str | None:
        """A word why no recording can be begun now, None where it can; any thread may ask."""
        return "disk-full" if self._disk.full else "overload" if self._overload.active else None

    def note_certificate(self, trouble: str | None) -> None:
        """Why a certificate of ours cannot be renewed, None where it can; any thread may tell."""
        self.certificate = trouble

    def correction(self) -> int:
        """What is added to times of the system clock to have capture times, ns; any thread may ask."""
        return self._correction

    # What others tell

    def _begun(self, call: Call) -> None:
        """A call begins."""
        self._live.begun(call)
        self._packets.begun(call)
        for follower in self._followers:
            follower.begun(call)

    def _dropped(self, call: Call) -> None:
        """A call of media alone turned out to be part of another."""
        self._live.drop(call)
        for follower in self._followers:
            follower.dropped(call)

    def _over(self, finished: FinishedCall) -> None:
        """A call is over."""
        call = finished.call
        ended = self._live.end(finished, self._engine.tracker.group_identifier(call))
        if ended is None:
            return
        if ended.record.decision.action is Action.SKIP:
            self._log.info(
                "call-not-recorded", call=str(call.id), call_id=call.call_id, text=str(ended.record.decision)
            )
        if finished.media is not None and any(track.failed for track in finished.media.tracks):
            warn(call, "disk-failing", "The audio could not be written to its end: the disk refused.")
        counted = ended.record.listening is not Listening.PASSED_OVER
        self._tally.note_end(call, finished.streams if counted else ())
        self._publisher.take(ended, self._correction)

    def _refusal(self) -> Refusal | None:
        """Why no audio may be begun now."""
        if self._disk.full:
            return Refusal("disk-full", "No audio was recorded: there was too little space left on the disk.")
        if self._overload.active:
            self._overload.shed += 1
            return Refusal("shed", "No audio was recorded: there was more traffic than could be recorded.")
        return None

    def _published(self, document: CallDocument, directory: str) -> None:
        self._log.info(
            "call-recorded", call=document.id, call_id=document.call_id, directory=directory, state=document.state
        )
        self._options.published(document, self._options.out / directory)

    def _say_alarm(self, alarm: Alarm, begins: bool) -> None:
        if not begins:
            self._log.info("alarm-over", code=alarm.code.value)
        elif alarm.code.severity is Severity.CRITICAL:
            self._log.error("alarm", code=alarm.code.value, text=alarm.text)
        else:
            self._log.warning("alarm", code=alarm.code.value, text=alarm.text)

    # What is told

    def _snapshot(self, sources: Sequence[LiveSource], wall: int) -> Snapshot:
        now = time.monotonic()
        return Snapshot(
            time=wall,
            version=self._version,
            started=self._started,
            sources=self._watch.statuses(sources, now),
            calls=self._lister.states(),
            ended=dict(self._tally.ended),
            streams=self._lister.streams(),
            traffic=traffic(self._engine),
            recordings=self._publisher.recordings,
            shed=self._overload.shed,
            delay=self._tally.delay(now),
            store=self._disk.space(),
            last_packet_age=self._watch.silent_for,
            mos=dict(self._tally.mos),
            alarms=self._alarms.standing(),
        )

    def _sentence(self) -> str:
        shown = self.board.snapshot()
        alarms = f", {len(shown.alarms)} alarms" if shown.alarms else ""
        return f"{shown.in_progress} calls, {shown.packets_per_second:.0f} packets/s{alarms}"
