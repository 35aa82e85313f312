"""What the lab's speakers said, and whether a recording holds it.

In: the facts of a stream that the lab's scripts know (`pcaps.make`), or what tcpdump saw of a phone that picks its own
SSRC; a channel of a recording. Out: samples that must be there, and how many of them are. Nothing of spanrec decodes
here: G.711 by the lab's tables, G.722 by ffmpeg.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcaps.make import baresip_calls, observe
from pcaps.make.media import SOURCE_SECONDS, encode_source
from pcaps.make.network import HOSTS, address
from pcaps.make.sources import speech_like, through

Samples = NDArray[np.int16]
PHONES = tuple(f"{address(host)}:" for host in HOSTS if host != "p")


@dataclass(frozen=True, slots=True)
class Said:
    """What one stream carries."""

    ssrc: str
    codec: str
    packets: int
    exact: bool
    """Whether every sample is known; else a right decoder comes close to it."""
    pieces: tuple[tuple[int, Samples], ...]
    """(RTP timestamp of its first packet, samples)."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A piece of audio in a recording."""

    at: int
    """Its first sample's place in the channel."""
    samples: int
    equal: int
    snr_db: float
    """Of the recording, what is known taken as the signal; infinite where all are equal."""


def said_by_script(facts: dict[str, Any]) -> Said:
    """Of a stream whose RTP the lab made itself."""
    codec = facts["codec"]
    pieces = []
    for segment in facts["audio"]:
        first, end = segment["first_sample"], segment["first_sample"] + segment["samples"]
        if codec == "G722":
            whole = baresip_calls.heard(codec, [encode_source(codec, segment["seed"]).tobytes()])
        else:
            whole = through(codec, speech_like(segment["seed"], SOURCE_SECONDS, segment["rate"]))
        pieces.append((segment["timestamp"], whole[first:end]))
    return Said(facts["ssrc"], codec, facts["packets"], bool(facts["exact"]), tuple(pieces))


def said_by_phones(capture: Path, codec: str) -> list[Said]:
    """Of the streams that phones sent, as they left them: hops behind a relay and copies are left out."""
    streams: dict[str, dict[int, observe.Rtp]] = {}
    for packet in observe.rtp_packets(capture):
        if packet.source.startswith(PHONES):
            streams.setdefault(packet.ssrc, {}).setdefault(packet.sequence, packet)
    found = []
    for ssrc, packets in streams.items():
        payloads = [packet.payload for packet in packets.values()]
        host = baresip_calls.phone_of(next(iter(packets.values())).source)
        first, count, exact = baresip_calls.said(codec, payloads, host)
        samples = baresip_calls.heard(codec, payloads)
        if exact:
            samples = baresip_calls.source(codec, host)[first : first + count]
        timestamp = next(iter(packets.values())).timestamp
        found.append(Said(ssrc, codec, len(packets), exact, ((timestamp, samples),)))
    return found


def arrivals(capture: Path) -> dict[tuple[str, int], float]:
    """When each RTP packet was first seen: (SSRC, timestamp) to seconds since the epoch."""
    rows = observe.tshark_fields(
        capture, "rtp and not rtcp", "frame.time_epoch", "rtp.ssrc", "rtp.timestamp",
        options=("--enable-heuristic", "rtp_udp"),
    )  # fmt: skip
    return {(ssrc, int(timestamp)): float(when) for when, ssrc, timestamp in reversed(rows)}


def judge(heard: Samples, said: Said) -> list[Judged]:
    """Each piece of a stream in the channel that should hold it."""
    return [judge_piece(heard, piece) for _, piece in said.pieces]


def judge_piece(heard: Samples, piece: Samples) -> Judged:
    """Where a piece fits best, by correlation, and how well it does there."""
    size = 1 << (len(heard) + len(piece)).bit_length()
    product = np.fft.rfft(heard.astype(np.float64), size) * np.conj(np.fft.rfft(piece.astype(np.float64), size))
    at = int(np.argmax(np.fft.irfft(product, size)[: max(len(heard), 1)]))
    there = np.zeros(len(piece), np.int16)
    part = heard[at : at + len(piece)]
    there[: len(part)] = part
    error = float(np.square(there.astype(np.float64) - piece).sum())
    signal = float(np.square(piece.astype(np.float64)).sum())
    ratio = float("inf") if error == 0 else 10 * float(np.log10(max(signal, 1.0) / error))
    return Judged(at, len(piece), int(np.count_nonzero(there == piece)), ratio)


def unheard(heard: Samples, judged: Iterable[Judged]) -> int:
    """Samples that sound in a channel beside the known pieces."""
    beside = heard != 0
    for each in judged:
        beside[each.at : each.at + each.samples] = False
    return int(np.count_nonzero(beside))
