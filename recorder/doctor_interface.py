"""`spanrec doctor -i`: what spoils a mirror port.

In: an interface's name. Out: its settings, what a few seconds of it show, and findings with what to type, as text or
JSON. Changes no setting; watching takes packets as a recorder would and keeps none.
"""

import json
from contextlib import closing
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from capture.adapter import Adapter, ReceiveCounters, read_adapter, read_counters
from capture.live import LiveCaptureError
from recorder.console import printable
from recorder.mirror_findings import MirrorFinding, examine
from recorder.mirror_sample import MirrorFigures, watch

_RING = 64 << 20
_INDENT = " " * 11


def examine_interface(name: str, seconds: float, as_json: bool) -> bool:
    """Print all about an interface; whether anything needs attention. Raises `LiveCaptureError` if there is none."""
    adapter = read_adapter(name)
    figures, counted, hindrance = _watch(adapter, seconds)
    findings = examine(adapter, figures, counted)
    if as_json:
        print(json.dumps(_document(adapter, figures, hindrance, findings), indent=2))
    else:
        _print(adapter, figures, hindrance, findings)
    return bool(findings)


def _watch(adapter: Adapter, seconds: float) -> tuple[MirrorFigures | None, ReceiveCounters | None, str | None]:
    """Figures and how the adapter's counters grew; or why there are none."""
    if seconds == 0:
        return None, None, "not watched, as told"
    if not adapter.interface.up:
        return None, None, "not watched: it is switched off"
    from capture.early_drops import EarlyDrops
    from capture.ring import RingOptions, RingSource

    name = adapter.interface.name
    options = RingOptions(expression="", promiscuous=True, outgoing=False, ring_size=_RING, hardware_time=False)
    before = read_counters(name)
    try:
        with closing(EarlyDrops([])) as early, closing(RingSource([name], options)) as source:
            figures = watch(source, seconds, adapter.interface.mtu, adapter.hardware_address)
            in_queue = early.count()
    except LiveCaptureError as error:
        return None, None, f"not watched: {error}"
    after = read_counters(name)
    grown = ReceiveCounters(
        packets=after.packets - before.packets,
        missed=after.missed - before.missed,
        length=after.length - before.length,
        damaged=after.damaged - before.damaged,
        queue=in_queue,
    )
    return figures, grown, None


def _document(
    adapter: Adapter, figures: MirrorFigures | None, hindrance: str | None, findings: list[MirrorFinding]
) -> dict[str, Any]:
    settings = asdict(adapter) | {"hardware_address": adapter.hardware_address.hex(":")}
    watched = None
    if figures is not None:
        watched = asdict(figures) | {"one_way": [[str(end) for end in direction] for direction in figures.one_way]}
    return {
        "version": version("spanrec"),
        "settings": settings,
        "watched": watched,
        "not_watched": hindrance,
        "findings": [asdict(finding) for finding in findings],
    }


def _print(
    adapter: Adapter, figures: MirrorFigures | None, hindrance: str | None, findings: list[MirrorFinding]
) -> None:
    print(printable(_settings(adapter)))
    print(printable(hindrance or "") if figures is None else _seen(figures))
    for finding in findings:
        print(printable(f"{'ATTENTION':<{len(_INDENT)}}{finding.check}: {finding.seen}"))
        print(f"{_INDENT}{finding.spoils}")
        for command in finding.commands:
            print(printable(f"{_INDENT}  {command}"))
    if not findings:
        print("Nothing needs attention." if figures is not None else "Nothing in its settings needs attention.")


def _settings(adapter: Adapter) -> str:
    interface = adapter.interface
    parts = [
        adapter.driver or "no driver name",
        "up" if interface.running else "no carrier" if interface.up else "switched off",
        f"{adapter.speed} Mbit/s" if adapter.speed else "speed unknown",
        f"MTU {interface.mtu}",
        f"receive ring {adapter.ring} of {adapter.ring_limit}" if adapter.ring else "receive ring unknown",
        f"receive queues {adapter.queues}" if adapter.queues else "receive queues unknown",
    ]
    if interface.promiscuity:
        parts.append("promiscuous already")
    return f"{interface.name}: {', '.join(parts)}"


def _seen(figures: MirrorFigures) -> str:
    seconds = figures.seconds
    parts = [
        f"{figures.packets} packets in {seconds:.1f} s ({figures.packets / seconds:.0f}/s,"
        f" {figures.octets * 8 / seconds / 1e6:.1f} Mbit/s), {figures.dropped} dropped",
        f"SIP: {figures.sip_requests} requests, {figures.sip_responses} responses",
        f"RTP: {figures.conversations} conversations, {len(figures.one_way)} of them one-way",
        f"copies: {figures.copies} of {figures.datagrams} datagrams",
        f"IP fragments: {figures.fragments}",
    ]
    if figures.vlans:
        parts.append(f"VLANs: {', '.join(map(str, figures.vlans[:20]))}{' …' if len(figures.vlans) > 20 else ''}")
    if figures.tunnels:
        parts.append(f"tunnels: {', '.join(f'{name} {frames}' for name, frames in figures.tunnels.items())}")
    return "\n".join(parts)
