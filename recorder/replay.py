"""Replay: captures in, recordings out.

In: `ReplayOptions`. Out: recordings in the store, a catalogue, calls on the reporter, and a `ReplaySummary`. Runs the
one engine over the captures as fast as it can; nothing in the result depends on how fast that was.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial

from capture.batch import PacketBatch
from capture.errors import CaptureError
from capture.source import CaptureFile, link_type_name
from capture.tshark import find_tshark
from recorder.ahead import run_ahead
from recorder.catalogue import Catalogue
from recorder.collection import rare_collections
from recorder.engine import Engine, FinishedCall, Prepared, prepare
from recorder.inputs import Inputs, Source
from recorder.model import CaptureReport
from recorder.packet_index import Index
from recorder.packets import write_packets
from recorder.publish import Publisher, write_documents
from recorder.replay_types import ReplayCounts, ReplayOptions, ReplaySummary, Reporter
from recorder.selection import selects
from recorder.store import RecordingStore
from recorder.verify import Findings, verify
from recorder.warmup import note_kernels_cached


def replay(options: ReplayOptions, reporter: Reporter) -> ReplaySummary:
    """Record every call in the captures. Raises SpanrecError where nothing can be read or written."""
    workers = options.workers or len(os.sched_getaffinity(0))
    with ExitStack() as stack:
        stack.enter_context(rare_collections())
        store = stack.enter_context(RecordingStore(options.out))
        for note in store.notes:
            reporter.warning(note)
        executor = stack.enter_context(ThreadPoolExecutor(workers)) if workers > 1 else None
        inputs = Inputs.prepare(options, store.partial)
        source: Source = inputs.originals(hash_files=True)
        publisher = Publisher(
            spool=store.partial / "waiting",
            form=options.audio_format.value,
            mono=options.mono,
            executor=executor,
            wanted=lambda finished: selects(options.selection, finished),
            discard=store.discard,
        )
        stack.callback(publisher.close)
        index = stack.enter_context(closing(Index(store.partial))) if options.keep_packets else None
        findings = Findings() if options.verify and find_tshark() else None
        engine = Engine(
            directory_of=lambda call: store.begin(call.id) if call.id else store.partial,
            sink=partial(_take, publisher, index),
            observers=tuple(observer for observer in (index, findings) if observer is not None),
            workers=workers,
            executor=executor,
        )
        if inputs.dissected_by_tshark:
            source = dissected = stack.enter_context(closing(inputs.tshark()))
            engine.messages.secure = dissected.secure
        failure = _run(engine, source, workers, reporter)
        if failure is None and source.files and not any(file.readable for file in source.files):
            raise CaptureError("; ".join(f"{f.name}: {d.text}" for f in source.files for d in f.damage))
        note_kernels_cached()
        captures = [_report(file) for file in source.files]
        if index is not None:
            write_packets(index, inputs, store.begin, store.partial, reporter.warning)
        summary = _publish(engine, publisher, store, captures, options, reporter)
        if failure is not None:
            raise failure
        if findings is not None:
            summary = replace(summary, differences=verify(findings, inputs, store.partial))
        return summary


def _take(publisher: Publisher, index: Index | None, finished: FinishedCall) -> None:
    """A call is over."""
    if publisher.take(finished) and index is not None:
        index.keep(finished.call)


def _run(engine: Engine, source: Source, workers: int, reporter: Reporter) -> BaseException | None:
    """Read to the end, or to what stops it: that is given back, so that what was recorded so far can be kept.

    The layers of the next batch are stripped while this one is at work, where a core is free.
    """
    failure: BaseException | None = None
    batches: Iterator[PacketBatch] = iter(source)
    prepared: Iterator[Prepared] = run_ahead(prepare, batches) if workers > 1 else map(prepare, batches)
    try:
        for batch in prepared:
            engine.ingest(batch)
            done, total = source.progress
            reporter.progress(engine.counts.packets, engine.calls, done, total)
    except (Exception, KeyboardInterrupt) as error:
        failure = error
        reporter.warning("stopped before the end; what was recorded until then is kept")
    engine.finish()
    return failure


def _report(file: CaptureFile) -> CaptureReport:
    return CaptureReport(
        file=file.name,
        sha256=file.sha256 or "",
        bytes=file.bytes,
        packets=file.packets,
        link_types=tuple(link_type_name(link) for link in file.link_types),
        started=file.started,
        ended=file.ended,
        damage=tuple(damage.text for damage in file.damage),
    )


def _publish(
    engine: Engine,
    publisher: Publisher,
    store: RecordingStore,
    captures: list[CaptureReport],
    options: ReplayOptions,
    reporter: Reporter,
) -> ReplaySummary:
    """Write the documents of all calls and enter them in the catalogue, in the order in which the calls ended."""
    calls = media_only = streams = 0
    with Catalogue(options.out / "catalogue.sqlite", store.partial) as catalogue:
        for waiting in publisher.waiting():
            call = waiting.call
            assert call.id is not None
            document, _ = write_documents(waiting, store.working(call.id), captures, publisher.ids)
            directory = store.publish(document)
            catalogue.add_recording(document, directory)
            catalogue.add_trace(call, waiting.streams, recorded=True)
            reporter.call_done(document, directory)
            calls += 1
            media_only += call.call_id is None
            streams += len(waiting.streams)
        for call in publisher.untaken:
            catalogue.add_trace(call, (), recorded=False)
        for superseded in catalogue.finish():
            store.remove(superseded)
    counts = engine.counts
    unclaimed = engine.media.unclaimed.packets if engine.media is not None else 0
    if engine.messages.incomplete:
        lost = f"{engine.messages.incomplete} of the datagrams that may be SIP"
        reporter.warning(f"not whole, for IP fragments are missing from the captures: {lost}")
    for capture in captures:
        for text in capture.damage:
            reporter.warning(f"{capture.file}: {text}")
    return ReplaySummary(
        captures=captures,
        counts=ReplayCounts(
            packets=sum(capture.packets for capture in captures),
            sip_messages=counts.sip_messages,
            sip_ignored=counts.sip_ignored,
            rtp_packets=counts.rtp,
            rtcp_packets=counts.rtcp,
            rtp_unclaimed=unclaimed,
            calls=calls,
            media_only=media_only,
            streams=streams,
            recording_sessions=publisher.recording_sessions,
            not_selected=publisher.not_wanted,
        ),
        damaged=any(capture.damage for capture in captures),
    )
