"""Session descriptions that change what a stream in progress carries: payload types of a new meaning, other keys.

In: the calls whose descriptions changed, and their streams. Out: streams with the formats and keys now in force. A
payload type that changed its meaning does so at the capture time of its description: what of a window came before is
decoded as before, the rest waits for the next window. Formats that are only added count at once.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from capture.batch import Int64
from decoders import _stream_columns as cols
from decoders.rtp import Stager
from decoders.sdp import CryptoKey, PayloadFormat
from decoders.srtp import SrtpStream
from decoders.timeline import FormatTable, StreamTable
from recorder.encryption import protection
from recorder.endpoints import Claim, EndpointRegistry
from recorder.streams import CallMedia, MediaStream


@dataclass(frozen=True, slots=True)
class _Change:
    """A stream whose payload types mean something else from a capture time on, ns."""

    stream: MediaStream
    formats: dict[int, PayloadFormat]
    at: int


@dataclass(slots=True)
class Renewals:
    """Applies changed descriptions to streams."""

    registry: EndpointRegistry
    table: StreamTable
    formats: FormatTable
    _changes: list[_Change] = field(default_factory=list)

    def begin(self, calls: Mapping[int, CallMedia]) -> None:
        """A window closes: take over the descriptions that were heard in it."""
        for call, at in self.registry.take_renewed().items():
            for stream in calls[call].streams if call in calls else ():
                if stream.claim is not None:
                    self._renew(stream, self.registry.renewed_claim(stream.claim), at)

    def _renew(self, stream: MediaStream, claim: Claim, at: int) -> None:
        stream.claim = claim
        encrypted, keys = protection(self.registry, claim)
        stream.encrypted = stream.encrypted or encrypted
        if stream.encrypted:
            stream.srtp = with_keys(stream.srtp, keys)
        formats = stream.formats | formats_of(claim)
        changed = [pt for pt, known in stream.formats.items() if not _alike(known, formats[pt])]
        if changed:
            self._changes.append(_Change(stream, formats, at))
        else:
            self._apply(stream, formats)

    def _apply(self, stream: MediaStream, formats: dict[int, PayloadFormat]) -> None:
        for payload_type in [pt for pt, known in stream.formats.items() if not _alike(known, formats[pt])]:
            stream.decoders.pop(payload_type, None)
        stream.formats = formats
        self.table.state[stream.row, cols.FORMATS] = self.formats.row(formats, stream.media, slow=stream.encrypted)

    def limit(self, streams: Iterable[MediaStream], begins: Int64, counts: Int64, stager: Stager) -> None:
        """Leave out of the window's packets those that came under new meanings."""
        if not self._changes:
            return
        place = {id(stream): x for x, stream in enumerate(streams)}
        for change in self._changes:
            x = place.get(id(change.stream))
            if x is not None:
                mine = stager.order[begins[x] : begins[x] + counts[x]]
                counts[x] = np.count_nonzero(np.maximum.accumulate(stager.window.time[mine]) < change.at)

    def finish(self, keep: NDArray[np.bool_], stager: Stager) -> None:
        """The window is done: mark what was left out in `keep`, and let the new meanings hold."""
        window = stager.window
        for change in self._changes:
            flow = change.stream.flow
            mine = stager.order[stager.starts[flow] : stager.starts[flow + 1]]
            keep[mine[np.maximum.accumulate(window.time[mine]) >= change.at]] = True
            self._apply(change.stream, change.formats)
        self._changes.clear()


def formats_of(claim: Claim) -> dict[int, PayloadFormat]:
    """Payload formats of a claimed flow: those that its sender announced, and before them its receiver's."""
    formats: dict[int, PayloadFormat] = {}
    for endpoint in (claim.sender, claim.receiver):
        if endpoint is not None:
            formats.update(endpoint.formats)
    return formats


def with_keys(srtp: SrtpStream | None, keys: list[CryptoKey]) -> SrtpStream | None:
    """An SRTP context that knows these keys too; None without any."""
    if srtp is not None:
        srtp.add_keys(keys)
        return srtp
    return SrtpStream(keys) if keys else None


def _alike(one: PayloadFormat, other: PayloadFormat) -> bool:
    return (one.encoding.upper(), one.clock_rate, one.channels, one.fmtp) == (
        other.encoding.upper(),
        other.clock_rate,
        other.channels,
        other.fmtp,
    )
