"""What the forwarder is told once, and what it tells.

In: nothing. Out: values.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from capture.address import Endpoint
from recorder.siprec._forward_columns import Capacity
from recorder.siprec.forward_ports import HIGH_PORT, LOW_PORT


class NewFlow(NamedTuple):
    """RTP that nobody has spoken for yet."""

    number: int
    """Of its row, until it is said to be gone."""
    source: Endpoint
    destination: Endpoint
    ssrc: int
    realm: int
    first: int
    """Capture time of its first packet, ns."""


START = 64_000_000
"""Octets that the history has at the start, at most."""


def growing(most: int) -> Capacity:
    """The usual room, with a history of `most` octets once it has grown."""
    begin = most
    while begin > START:
        begin //= 2
    return Capacity(history=begin, most_history=most)


@dataclass(frozen=True, slots=True)
class ForwardOptions:
    """How media is sent."""

    low_port: int = LOW_PORT
    high_port: int = HIGH_PORT
    capacity: Capacity = field(default_factory=Capacity)
    niceness: int = -10
    """Of the forwarder's threads, where the system allows it: packets must not wait for the machine's other work."""
    patience: float = 0.02
    """s that it waits for packets at a time, where it takes them batch by batch."""


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What the forwarder as a whole has done."""

    packets: int
    """Sent, RTCP not counted."""
    octets: int
    """Of payload."""
    unsent: int
    """Of legs that had a server: see `LegReport`."""
    cut: int
    """Packets of the wire that were not all there."""
    refused: int
    """Packets of flows for which there was no room."""
    flows: int
    """Now, known or not."""
    legs: int
    """Now."""
    no_room: int
    """Legs that were refused, and streams of calls that were not taken in, because the tables were full."""
