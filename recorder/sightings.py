"""What was seen of a call on the wire: every flow of its media, those that are only counted included.

In: the media of a call that has just ended, before its state is given back. Out: `FlowSighting`s, for whoever keeps the
call's packets or compares its figures with another program's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from capture.address import Endpoint
from decoders import _stream_columns as cols
from recorder.media import MediaEngine
from recorder.messages import Message
from recorder.model import Call
from recorder.reports import expected_packets
from recorder.streams import CallMedia, MediaStream


@dataclass(frozen=True, slots=True)
class FlowSighting:
    """One RTP source on one way through the network, as a call sees it."""

    source: Endpoint
    destination: Endpoint
    realm: int
    ssrc: int
    media: str
    since: int
    """Capture time of the session description that it was claimed by, ns."""
    first: int
    """Capture time of its first packet, ns."""
    last: int
    packets: int
    """Distinct ones."""
    expected: int
    """By sequence numbers (RFC 3550, appendix A.3)."""
    duplicates: int
    strays: int
    """Packets that fit nowhere in the stream."""
    copy: bool
    """Its packets are another's, seen at another place, or it is the same direction at another hop."""
    rule: str
    rtcp: tuple[Endpoint, Endpoint] | None
    """Source and destination of its RTCP where the session descriptions told other ones than the next ports."""


class Observer(Protocol):
    """Who is told what the engine hears."""

    def heard(self, message: Message) -> None:
        """A SIP message, in packet order."""

    def finished(self, call: Call, flows: Sequence[FlowSighting]) -> None:
        """A call is over."""


def sightings(media: CallMedia, engine: MediaEngine) -> list[FlowSighting]:
    """All flows of a call that had packets, in order of their first packet."""
    found = [_sighting(stream, engine) for stream in media.streams]
    return sorted((flow for flow in found if flow.packets), key=lambda flow: (flow.first, flow.source, flow.ssrc))


def _sighting(stream: MediaStream, engine: MediaEngine) -> FlowSighting:
    state = engine.table.state[stream.row].tolist()
    return FlowSighting(
        source=stream.source,
        destination=stream.destination,
        realm=engine.stager.flows.realms.item(stream.flow),
        ssrc=stream.ssrc,
        media=stream.media,
        since=stream.since,
        first=state[cols.FIRST_TIME],
        last=state[cols.LAST_TIME],
        packets=state[cols.RECEIVED] if state[cols.STARTED] else 0,
        expected=expected_packets(state),
        duplicates=state[cols.DUPLICATES],
        strays=state[cols.STRAYS],
        copy=stream.primary is not None or stream.alternate,
        rule=stream.rule.value,
        rtcp=_rtcp(stream),
    )


def _rtcp(stream: MediaStream) -> tuple[Endpoint, Endpoint] | None:
    claim = stream.claim
    if claim is None or claim.sender is None or claim.receiver is None:
        return None
    sender, receiver = claim.sender.rtcp, claim.receiver.rtcp
    return None if sender is None or receiver is None else (sender, receiver)
