"""What spoils a mirror port: the rules of `spanrec doctor -i`.

In: an `Adapter`, and where the port was watched, `MirrorFigures` and what the adapter counted meanwhile. Out:
`MirrorFinding`s, each with what was seen, what it does to recordings, and what to type. Nothing to see here is no
finding: a port that is in order has none. Pure: asks nobody.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from capture.adapter import Adapter, ReceiveCounters
from recorder.mirror_sample import MirrorFigures

MERGING = {
    "rx-gro": "gro",
    "rx-lro": "lro",
    "rx-gro-hw": "rx-gro-hw",
    "rx-gro-list": "rx-gro-list",
    "rx-udp-gro-forwarding": "rx-udp-gro-forwarding",
}
"""Features that make one frame of several: the kernel's name, and ethtool's."""
VLAN = {
    "rx-vlan-hw-parse": "rxvlan",
    "rx-vlan-stag-hw-parse": "rx-vlan-stag-hw-parse",
    "rx-vlan-filter": "rx-vlan-filter",
}
"""Features that take tags off frames, or drop tagged ones."""
GOOD_RING = 4096
"""Frames; more waits longer without losing less."""
_COPIES, _ONE_WAY, _CUT, _FULL = 0.005, 0.25, 0.001, 0.8
"""Shares from which on something is wrong: of datagrams, of conversations, of packets, of the line rate."""
_FEW = 10
"""Packets, or SIP messages, from which on a share says something."""
_NAMED = 3


@dataclass(frozen=True, slots=True)
class MirrorFinding:
    """Something that needs attention."""

    check: str
    """One word, always the same for the same check."""
    seen: str
    spoils: str
    """What that does to recordings."""
    commands: tuple[str, ...]
    """To type on this machine; `# ` begins what has to be done at the switch."""


def examine(
    adapter: Adapter, figures: MirrorFigures | None = None, counted: ReceiveCounters | None = None
) -> list[MirrorFinding]:
    """All findings. `counted` is what the adapter's counters grew by while the port was watched."""
    found = [*_link(adapter), *_offloads(adapter), *_ring(adapter), *_others_on_the_port(adapter)]
    if figures is not None:
        found += [*_nothing(adapter, figures), *_losses(adapter, figures, counted or ReceiveCounters())]
        found += [*_frames(adapter, figures), *_copies(figures), *_directions(adapter, figures)]
    return found


def _link(adapter: Adapter) -> Iterator[MirrorFinding]:
    name = adapter.interface.name
    if not adapter.interface.up:
        yield MirrorFinding("link", f"{name} is switched off", "Nothing is received.", (f"ip link set {name} up",))
    elif not adapter.interface.running:
        yield MirrorFinding(
            "link",
            f"{name} has no carrier",
            "Nothing is received: the cable is out, or the switch has the port shut.",
            (f"ethtool {name}", "# no shutdown (of the mirror's destination port)"),
        )
    if adapter.full_duplex is False:
        yield MirrorFinding(
            "duplex",
            f"{name} runs at half duplex",
            "Frames collide and are lost.",
            (f"ethtool -s {name} autoneg on",),
        )


def _offloads(adapter: Adapter) -> Iterator[MirrorFinding]:
    name = adapter.interface.name
    for check, names, spoils in (
        (
            "merging",
            MERGING,
            "Several frames (of TCP, and of UDP in some tunnels) become one before a recorder sees them: their times,"
            " sizes and order are no longer those of the wire.",
        ),
        (
            "vlan",
            VLAN,
            "The adapter takes VLAN tags off, or drops frames of VLANs that this machine is not in. spanrec puts one"
            " tag back; of two (QinQ) one is lost, and calls of different customers mix.",
        ),
    ):
        on = [kernel for kernel in names if adapter.features.get(kernel)]
        if on:
            switches = " ".join(f"{names[kernel]} off" for kernel in on)
            yield MirrorFinding(check, f"{', '.join(on)} on", spoils, (f"ethtool -K {name} {switches}",))


def _ring(adapter: Adapter) -> Iterator[MirrorFinding]:
    if adapter.ring is None or adapter.ring_limit is None:
        return
    wanted = min(adapter.ring_limit, GOOD_RING)
    if adapter.ring < wanted:
        yield MirrorFinding(
            "ring",
            f"the adapter's receive ring holds {adapter.ring} frames and could hold {adapter.ring_limit}",
            "A burst fills it within a millisecond, and what comes then is lost before the kernel can count it.",
            (f"ethtool -G {adapter.interface.name} rx {wanted}",),
        )


def _others_on_the_port(adapter: Adapter) -> Iterator[MirrorFinding]:
    name = adapter.interface.name
    if adapter.addresses and not adapter.interface.is_loopback:
        commands = [f"ip addr flush dev {name}"]
        if any(":" in address for address in adapter.addresses):
            commands.append(f"sysctl -w net.ipv6.conf.{name}.disable_ipv6=1")
        yield MirrorFinding(
            "address",
            f"{name} has the address {', '.join(adapter.addresses)}",
            "This machine answers into the mirror, and its own traffic is recorded with the rest. A mirror port has no"
            " address, unless it is where a switch sends ERSPAN or VXLAN to.",
            tuple(commands),
        )
    if adapter.in_bridge:
        yield MirrorFinding(
            "bridge",
            f"{name} is a port of a bridge",
            "The bridge forwards what is mirrored, and it may come back: every packet many times.",
            (f"ip link set {name} nomaster",),
        )


def _nothing(adapter: Adapter, figures: MirrorFigures) -> Iterator[MirrorFinding]:
    name = adapter.interface.name
    if figures.packets == 0:
        if adapter.interface.running:
            yield MirrorFinding(
                "silence",
                f"no packet in {figures.seconds:.0f} s",
                "There is nothing to record: the mirror session is off, or ends at another port.",
                (f"tcpdump -ni {name} -c 10", "# show monitor session 1"),
            )
    elif figures.ethernet >= _FEW and figures.for_others == 0 and not adapter.interface.is_loopback:
        yield MirrorFinding(
            "no-mirror",
            f"all {figures.ethernet} frames are broadcast, multicast or for this machine",
            "This is an ordinary port: calls between others do not come here.",
            (f"tcpdump -eni {name} -c 10 not broadcast and not multicast", "# show monitor session 1"),
        )


def _losses(adapter: Adapter, figures: MirrorFigures, counted: ReceiveCounters) -> Iterator[MirrorFinding]:
    name = adapter.interface.name
    of_the_ring = figures.dropped - counted.missed - counted.queue
    if of_the_ring > 0:
        yield MirrorFinding(
            "drops",
            f"the kernel dropped {of_the_ring} of {figures.packets + of_the_ring} packets while watching",
            "This machine does not keep up; calls have gaps.",
            ("spanrec capture --ring-size 512 …", "spanrec capture --filter '…' (less traffic)"),
        )
    if counted.missed:
        yield MirrorFinding(
            "missed",
            f"the adapter lost {counted.missed} frames while watching",
            "They are missing from calls, and no recorder can see which.",
            (f"ethtool -G {name} rx {adapter.ring_limit or GOOD_RING}", f"ethtool -S {name}"),
        )
    if counted.queue:
        yield MirrorFinding(
            "queue",
            f"the kernel lost {counted.queue} frames, of this interface or another, before any program saw them",
            "They are missing from calls: bursts are longer than its queue.",
            ("sysctl -w net.core.netdev_max_backlog=20000",),
        )
    if counted.length:
        yield MirrorFinding(
            "length",
            f"the adapter threw {counted.length} frames away for their length while watching",
            "What the mirror adds (tags, ERSPAN, VXLAN) makes frames longer than the MTU allows.",
            (f"ip link set {name} mtu 9000",),
        )
    if counted.damaged:
        yield MirrorFinding(
            "damage",
            f"{counted.damaged} damaged frames while watching",
            "They are missing from calls: a bad cable, connector or transceiver.",
            (f"ethtool -S {name}",),
        )
    megabits = figures.octets * 8 / figures.seconds / 1e6
    if adapter.speed and megabits > _FULL * adapter.speed:
        yield MirrorFinding(
            "full",
            f"{megabits:.0f} of {adapter.speed} Mbit/s",
            "A mirror sends both directions of its sources in one; what does not fit, the switch drops unseen.",
            ("# mirror fewer ports, or to a faster one",),
        )


def _frames(adapter: Adapter, figures: MirrorFigures) -> Iterator[MirrorFinding]:
    name = adapter.interface.name
    if figures.oversized:
        switches = " ".join(f"{MERGING[kernel]} off" for kernel in MERGING if kernel in adapter.features)
        yield MirrorFinding(
            "oversized",
            f"{figures.oversized} frames are longer than the MTU of {adapter.interface.mtu}, up to {figures.longest}"
            " octets",
            "No wire carried them so: they were merged on the way here, or never cut by a virtual machine that sends.",
            (
                f"ethtool -K {name} {switches or 'gro off lro off'}",
                "ethtool -K … tso off gso off (where they are sent)",
            ),
        )
    if _many(figures.cut, figures.packets, _CUT):
        yield MirrorFinding(
            "cut",
            f"{figures.cut} of {figures.packets} packets are shorter than their headers say",
            "The mirror cuts frames: audio has holes and SIP bodies end in the middle.",
            ("# no truncate, no mtu (in the mirror session's settings)",),
        )


def _copies(figures: MirrorFigures) -> Iterator[MirrorFinding]:
    if not _many(figures.copies, figures.datagrams, _COPIES):
        return
    elsewhere = f", {figures.copies_elsewhere} of them in another VLAN or tunnel" if figures.copies_elsewhere else ""
    yield MirrorFinding(
        "copies",
        f"{figures.copies} of {figures.datagrams} datagrams ({figures.copies / figures.datagrams:.0%}) come more than"
        f" once{elsewhere}",
        "spanrec drops them, but they take the room and the time of other calls. The mirror sees packets going in and"
        " coming out, or has two source ports on one path.",
        ("# monitor session 1 source interface … rx (instead of both, where all ports are mirrored)",),
    )


def _directions(adapter: Adapter, figures: MirrorFigures) -> Iterator[MirrorFinding]:
    name = adapter.interface.name
    if figures.one_way and len(figures.one_way) >= _ONE_WAY * figures.conversations:
        named = ", ".join(f"{source} to {destination}" for source, destination in figures.one_way[:_NAMED])
        more = ", …" if len(figures.one_way) > _NAMED else ""
        source, destination = figures.one_way[0]
        yield MirrorFinding(
            "one-way",
            f"of {figures.conversations} RTP conversations, {len(figures.one_way)} are seen in one direction only:"
            f" {named}{more}",
            "One side of these calls will be silent. The other direction takes a path that is not mirrored (a hold or"
            " an announcement looks the same, but not in many calls).",
            (
                "# monitor session 1 source interface … both",
                f"tcpdump -ni {name} -c 10 src host {destination.host} and dst host {source.host}",
            ),
        )
    for some, none, what in (
        (figures.sip_requests, figures.sip_responses, "requests, but no response"),
        (figures.sip_responses, figures.sip_requests, "responses, but no request"),
    ):
        if some >= _FEW and none == 0:
            yield MirrorFinding(
                "sip",
                f"{some} SIP {what}",
                "Calls are seen from one side: without offers or answers, media cannot be told whose they are.",
                ("# monitor session 1 source interface … both", f"tcpdump -ni {name} -A -c 10 port 5060"),
            )


def _many(part: int, whole: int, share: float) -> bool:
    return part >= _FEW and part >= share * whole
