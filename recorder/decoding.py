"""What the kernels leave to decoders: codecs other than G.711, encrypted media, redundancy, comfort noise, key presses.

In: the entries of one stream in one window. Out: samples in the call's tracks, digits in the stream's collector, and
what could not be decrypted or decoded, with the reason. Python runs per packet here; see `shard` for the rest.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from decoders import _stream_columns as cols
from decoders.codecs.base import Decoder
from decoders.codecs.registry import make_decoder, why_undecodable
from decoders.comfortnoise import ComfortNoise
from decoders.dtmf import EventPacket, TelephoneEvents
from decoders.red import unpack_red
from decoders.rtp import Window
from decoders.timeline import TICKS, Entries
from recorder.streams import CallMedia, MediaStream

if TYPE_CHECKING:
    from recorder.shard import Shard

LONGEST_NOISE = 10 * TICKS
"""Comfort noise sounds no longer than this without word from the sender."""


class Payload(NamedTuple):
    """A payload with its place."""

    uts: int
    position: int
    type: int
    data: bytes


def decode_window(
    shard: "Shard", media: CallMedia, stream: MediaStream, entries: Entries, x: int, window: Window
) -> None:
    """Decode one stream's entries of a window and write what sounds."""
    begin = int(entries.bounds[x])
    end = begin + int(entries.taken[x])
    kinds = entries.kind[begin:end]
    wanted = begin + np.flatnonzero(kinds != cols.DROPPED)
    if not stream.encrypted:
        _feed_events(stream, entries, wanted[entries.kind[wanted] == cols.KIND_EVENT], window)
    if stream.channel < 0:
        return
    noisy = bool((kinds == cols.KIND_NOISE).any()) or stream.noise is not None
    if not noisy:
        slow = entries.kind[wanted]
        wanted = wanted[(slow == cols.KIND_CODEC) | (slow == cols.KIND_REDUNDANT) | (slow == cols.KIND_SILENT)]
    wanted = wanted[np.argsort(entries.uts[wanted], kind="stable")]
    payloads = list(_payloads(stream, entries, wanted, window))
    if noisy:
        _sound_noise(shard, media, stream, entries, wanted, payloads)
    payloads = [p for p, e in zip(payloads, wanted, strict=True) if entries.kind[e] not in _FAST and p.data]
    _sound(shard, media, stream, list(_unfold(stream, payloads)))


_FAST = (cols.KIND_ULAW, cols.KIND_ALAW, cols.KIND_NOISE, cols.KIND_EVENT)


def _payloads(stream: MediaStream, entries: Entries, wanted: NDArray[np.int64], window: Window) -> Iterator[Payload]:
    """Clear payloads of entries; empty where a packet cannot be decrypted."""
    for e in wanted.tolist():
        index = int(entries.order[e])
        kind = int(window.type[index]) & 127
        if not stream.encrypted:
            data = window.payload(index)
        else:
            clear = stream.srtp.unprotect(window.packet(index)) if stream.srtp else None
            if clear is None:
                stream.undecrypted += 1
                data = b""
            else:
                stream.decrypted += 1
                padding = clear[-1] if clear[0] & 0x20 else 0
                data = clear[int(window.header[index]) : len(clear) - padding]
                if entries.kind[e] == cols.KIND_EVENT:
                    _press(stream, index, data, window)
                    data = b""
        yield Payload(int(entries.uts[e]), int(entries.position[e]), kind, data)


def _feed_events(stream: MediaStream, entries: Entries, events: NDArray[np.int64], window: Window) -> None:
    for e in events.tolist():
        index = int(entries.order[e])
        _press(stream, index, window.payload(index), window)


def _press(stream: MediaStream, index: int, data: bytes, window: Window) -> None:
    """Hand a telephone-event packet to the stream's collector."""
    if stream.events is None:
        stream.events = TelephoneEvents()
    kind = int(window.type[index])
    known = stream.formats.get(kind & 127)
    rate = known.clock_rate if known else 8000
    stream.events.feed([EventPacket(int(window.time[index]), int(window.stamp[index]), data, kind >= 128, rate)])


def _unfold(stream: MediaStream, payloads: list[Payload]) -> Iterator[Payload]:
    """Replace redundant payloads (RFC 2198) by what they carry; a block repeated later fills a loss."""
    if all(stream.formats[p.type].encoding.upper() != "RED" for p in payloads if p.type in stream.formats):
        yield from payloads
        return
    blocks: dict[int, Payload] = {}
    repeats: list[Payload] = []
    for p in payloads:
        if p.type not in stream.formats or stream.formats[p.type].encoding.upper() != "RED":
            blocks[p.uts] = p
            continue
        unpacked = unpack_red(p.data)
        if unpacked is None:
            continue
        blocks[p.uts] = Payload(p.uts, p.position, *unpacked.primary)
        clock = stream.formats[p.type].clock_rate
        for block in unpacked.redundant:
            back = block.timestamp_offset * TICKS // clock
            repeats.append(Payload(p.uts - block.timestamp_offset, p.position - back, block.payload_type, block.data))
    earliest = min(blocks, default=0)
    for repeat in repeats:
        if repeat.uts > earliest and repeat.data:
            blocks.setdefault(repeat.uts, repeat)
    yield from (blocks[uts] for uts in sorted(blocks))


def decoder_for(stream: MediaStream, payload_type: int) -> Decoder | None:
    """The stream's decoder of a payload type; why there is none is noted once."""
    if payload_type in stream.decoders:
        return stream.decoders[payload_type]
    known = stream.formats.get(payload_type)
    decoder = make_decoder(known) if known is not None else None
    if decoder is not None and TICKS % decoder.sample_rate:
        decoder = None
    if decoder is None and known is not None:
        why = why_undecodable(known) or f"a sample rate of {known.clock_rate} Hz is not supported"
        stream.undecodable.setdefault(known.rtpmap, why)
    stream.decoders[payload_type] = decoder
    return decoder


def _sound(shard: "Shard", media: CallMedia, stream: MediaStream, payloads: list[Payload]) -> None:
    """Decode payloads in order and write each where it sounds, contiguous ones in one piece."""
    first = 0
    while first < len(payloads):
        last = first
        while last < len(payloads) and payloads[last].type == payloads[first].type:
            last += 1
        decoder = decoder_for(stream, payloads[first].type)
        if decoder is not None and media.zero is not None:
            pieces = decoder.decode([p.data for p in payloads[first:last]])
            _write(shard, media, stream, decoder.sample_rate, payloads[first:last], pieces)
        first = last


def _write(
    shard: "Shard",
    media: CallMedia,
    stream: MediaStream,
    rate: int,
    payloads: list[Payload],
    pieces: list[NDArray[np.int16]],
) -> None:
    """Write decoded pieces at their positions."""
    track = shard.track(media, rate, stream.layer)
    run: list[NDArray[np.int16]] = []
    start = behind = 0
    for payload, piece in zip(payloads, pieces, strict=True):
        at = track.sample_at(payload.position)
        if run and at != behind:
            track.write_channel(shard.pool, stream.channel, start, np.concatenate(run))
            run = []
        if not run:
            start = at
        run.append(piece)
        behind = at + len(piece)
        stream.high = max(stream.high, payload.position + len(piece) * track.step)
    if run:
        track.write_channel(shard.pool, stream.channel, start, np.concatenate(run))


def _sound_noise(
    shard: "Shard",
    media: CallMedia,
    stream: MediaStream,
    entries: Entries,
    wanted: NDArray[np.int64],
    payloads: list[Payload],
) -> None:
    """Comfort noise sounds from its packet to the next one (RFC 3389, section 4)."""
    for e, payload in zip(wanted.tolist(), payloads, strict=True):
        kind = int(entries.kind[e])
        if kind == cols.KIND_EVENT:
            continue
        if stream.noise is not None and media.zero is not None:
            data, since = stream.noise
            until = min(payload.position, since + LONGEST_NOISE)
            rate = next((t.rate for t in media.tracks if t.layer == stream.layer), 8000)
            track = shard.track(media, rate, stream.layer)
            count = track.sample_at(until) - track.sample_at(since)
            if count > 0:
                if stream.noise_source is None or stream.noise_source.sample_rate != rate:
                    stream.noise_source = ComfortNoise(rate, stream.ssrc)
                samples = stream.noise_source.generate(data, count)
                track.write_channel(shard.pool, stream.channel, track.sample_at(since), samples)
        stream.noise = (payload.data, payload.position) if kind == cols.KIND_NOISE and payload.data else None
