"""The service's state as Prometheus metrics.

In: a `StatusProvider`, and where there are recording sessions, their figures. Out: the text or OpenMetrics format, as
the client accepts. Every figure comes from one snapshot; nothing is counted here. Labels have few values, known
beforehand: names of sources, states, codes, recording servers. No number, name or Call-ID is ever one.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder

from capture.errors import SpanrecError
from decoders.quality import Scale
from recorder.console import printable
from recorder.model import CallState
from recorder.siprec.control import EventKind, SessionState
from recorder.siprec.figures import Figures
from recorder.status import (
    MOS_BOUNDS,
    AlarmCode,
    LiveState,
    MosHistogram,
    Snapshot,
    SourceStatus,
    StatusProvider,
)


class Exposition:
    """Metrics of one provider, and of this process, in a registry of their own."""

    def __init__(self, provider: StatusProvider, figures: Callable[[], Figures] | None = None) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collector(provider))
        if figures is not None:
            self._registry.register(_SessionCollector(figures))
        ProcessCollector(registry=self._registry)

    def expose(self, accept: str) -> tuple[str, bytes]:
        """Content type and body for a client with this Accept header."""
        try:
            encode, content_type = choose_encoder(accept)
        except (ValueError, TypeError):  # a version that is none
            encode, content_type = choose_encoder("")
        return content_type, encode(self._registry)


class _Collector:
    """What prometheus_client asks when the metrics are asked for."""

    def __init__(self, provider: StatusProvider) -> None:
        self._provider = provider

    def collect(self) -> Iterator[Metric]:
        snapshot = self._provider.snapshot()
        age = self._provider.age()
        yield InfoMetricFamily("spanrec_build", "Version that runs.", value={"version": snapshot.version})
        yield _gauge("spanrec_start_time_seconds", "When the service started, Unix time.", snapshot.started / 1e9)
        yield _gauge("spanrec_state_age_seconds", "Age of these figures; more than a few means that it hangs.", age)
        yield from _sources(snapshot, age)
        yield from _calls(snapshot)
        yield from _traffic(snapshot)
        yield from _disk(snapshot)
        yield _mos(snapshot.mos)
        yield _alarms(snapshot)


class _SessionCollector:
    """Likewise, of recording sessions. Where they do not answer there are no figures of them."""

    def __init__(self, figures: Callable[[], Figures]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        try:
            figures = self._figures()
        except SpanrecError:
            return
        sessions = GaugeMetricFamily(
            "spanrec_recording_sessions", "Recording sessions in progress.", labels=["role", "state"]
        )
        for role in sorted({role for role, _ in figures.sessions}):
            for state in SessionState:
                if state not in (SessionState.ENDED, SessionState.FAILED):
                    sessions.add_metric([role, state.value], figures.sessions.get((role, state), 0))
        events = CounterMetricFamily(
            "spanrec_session_events", "What happened to recording sessions, by kind.", labels=["kind"]
        )
        for kind in EventKind:
            events.add_metric([kind.value], figures.events.get(kind, 0))
        servers = GaugeMetricFamily(
            "spanrec_recording_server_up", "1 where a recording server that was down is up again.", labels=["server"]
        )
        for server, up in sorted(figures.servers.items()):
            servers.add_metric([printable(server)], float(up))
        yield from (sessions, events, servers)
        if figures.media is not None:
            yield _counter(
                "spanrec_forwarded_packets", "RTP packets sent to recording servers.", figures.media.forwarded
            )
            yield _counter(
                "spanrec_unsent_packets",
                "RTP packets that could not be sent to recording servers.",
                figures.media.unsent,
            )
            yield _counter(
                "spanrec_forward_dropped_packets",
                "Packets of all traffic that the system dropped before they could be forwarded.",
                figures.media.dropped,
            )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _sources(snapshot: Snapshot, age: float) -> Iterator[Metric]:
    up = GaugeMetricFamily(
        "spanrec_source_up", "1 where the source gives packets when there are any.", labels=["source"]
    )
    packets = CounterMetricFamily("spanrec_packets", "Packets taken from the source.", labels=["source"])
    octets = CounterMetricFamily("spanrec_bytes", "Octets taken from the source.", labels=["source"])
    drops = CounterMetricFamily("spanrec_kernel_drops", "Packets that the kernel dropped: lost.", labels=["source"])
    freezes = CounterMetricFamily("spanrec_ring_freezes", "How often the ring was full.", labels=["source"])
    for name, sources in _by_name(snapshot.sources).items():
        up.add_metric([name], float(all(source.up for source in sources)))
        packets.add_metric([name], sum(source.packets for source in sources))
        octets.add_metric([name], sum(source.octets for source in sources))
        drops.add_metric([name], sum(source.dropped for source in sources))
        freezes.add_metric([name], sum(source.frozen for source in sources))
    yield from (up, packets, octets, drops, freezes)
    if snapshot.last_packet_age is not None:
        yield _gauge("spanrec_last_packet_age_seconds", "Since the last packet.", snapshot.last_packet_age + age)


def _by_name(sources: tuple[SourceStatus, ...]) -> dict[str, list[SourceStatus]]:
    """Several threads may read one interface; the same labels twice would spoil the whole answer."""
    named: dict[str, list[SourceStatus]] = {}
    for source in sources:
        named.setdefault(printable(source.name), []).append(source)
    return named


def _calls(snapshot: Snapshot) -> Iterator[Metric]:
    calls = GaugeMetricFamily("spanrec_calls", "Calls in progress.", labels=["state"])
    for live in LiveState:
        calls.add_metric([live.value], snapshot.calls.get(live, 0))
    ended = CounterMetricFamily("spanrec_calls_ended", "Calls that have ended.", labels=["state"])
    for state in CallState:
        if state is not CallState.ACTIVE:
            ended.add_metric([state.value], snapshot.ended.get(state, 0))
    yield from (calls, ended)
    yield _counter("spanrec_calls_shed", "Calls given up, wholly or in part, under overload.", snapshot.shed)
    yield _counter("spanrec_recordings_published", "Recordings that are whole in the store.", snapshot.recordings)
    yield _gauge("spanrec_streams", "RTP streams of calls in progress.", snapshot.streams)


def _traffic(snapshot: Snapshot) -> Iterator[Metric]:
    traffic = snapshot.traffic
    yield _counter("spanrec_sip_messages", "SIP messages of calls.", traffic.sip)
    yield _counter(
        "spanrec_sip_ignored", "SIP messages of no call: REGISTER, OPTIONS and the like.", traffic.sip_ignored
    )
    yield _counter(
        "spanrec_sip_unsound", "SIP messages with faults; what is sound of them is used.", traffic.sip_unsound
    )
    yield _counter("spanrec_rtp_packets", "RTP packets.", traffic.rtp)
    yield _counter("spanrec_rtcp_packets", "RTCP packets.", traffic.rtcp)


def _disk(snapshot: Snapshot) -> Iterator[Metric]:
    if snapshot.delay is not None:
        yield _gauge("spanrec_disk_delay_seconds", "From the wire to the disk, latest write.", snapshot.delay.last)
        yield _gauge(
            "spanrec_disk_delay_max_seconds",
            "From the wire to the disk, worst of the last minute.",
            snapshot.delay.worst,
        )
    if snapshot.store is not None:
        yield _gauge("spanrec_store_free_bytes", "Free on the file system of the store.", snapshot.store.free)
        yield _gauge("spanrec_store_size_bytes", "Size of the file system of the store.", snapshot.store.total)


def _mos(histograms: Mapping[Scale, MosHistogram]) -> Metric:
    family = HistogramMetricFamily(
        "spanrec_stream_mos", "MOS of the streams that have ended, by scale.", labels=["scale"]
    )
    for scale in Scale:
        histogram = histograms.get(scale, MosHistogram())
        bounds = (*(str(bound) for bound in MOS_BOUNDS), "+Inf")
        family.add_metric(
            [scale.value], list(zip(bounds, accumulate(histogram.counts), strict=True)), sum_value=histogram.total
        )
    return family


def _alarms(snapshot: Snapshot) -> Metric:
    raised = {alarm.code for alarm in snapshot.alarms}
    family = GaugeMetricFamily("spanrec_alarm", "1 while the alarm is raised.", labels=["code", "severity"])
    for code in AlarmCode:
        family.add_metric([code.value, code.severity.value], float(code in raised))
    return family
