"""Call quality of a stream: the E-model (ITU-T G.107, G.107.1, G.113) and bursts of loss (RFC 3611).

In: counts of one stream. Out: `Quality`, or None where no published value lets it be computed. A figure always comes
with its scale and with the assumptions that it stands on; narrowband and wideband figures are not comparable.

The figures hold at the tap: loss behind it is not seen. Without a delay, which a tap does not know, the figure is a
listening quality (MOS-LQ); with one, a conversational quality (MOS-CQ).
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

NARROWBAND_BASE = 93.2
"""Ro - Is with all other parameters at their defaults (G.107)."""
WIDEBAND_BASE = 129.0
"""Ro,WB (G.107.1, equation 7-2)."""
WIDEBAND_FACTOR = 1.29
"""Of the wideband scale over the narrowband one (G.107.1, equation 7-13 and annex A)."""
GMIN = 16
"""Good packets that end a burst (RFC 3611, section 4.7.2, recommended)."""


class Scale(StrEnum):
    """Which E-model a figure comes from."""

    NARROWBAND = "narrowband"
    WIDEBAND = "wideband"


class Measure(StrEnum):
    """What a MOS tells of."""

    LISTENING = "MOS-LQ"
    CONVERSATIONAL = "MOS-CQ"


@dataclass(frozen=True, slots=True)
class Impairment:
    """What a codec costs (G.113, appendices I and IV)."""

    scale: Scale
    ie: float
    """Equipment impairment factor without loss."""
    bpl: float | None
    """Packet-loss robustness factor, None where no value is published or assumed."""
    clock_rate: int
    """RTP clock that the value holds for."""
    assumption: str


_IMPAIRMENTS = {
    "PCMU": Impairment(Scale.NARROWBAND, 0, 25.1, 8000, "loss is concealed as in G.711 appendix I (Bpl 25.1)"),
    "PCMA": Impairment(Scale.NARROWBAND, 0, 25.1, 8000, "loss is concealed as in G.711 appendix I (Bpl 25.1)"),
    "G729": Impairment(Scale.NARROWBAND, 11, 19.0, 8000, "values of G.729A with VAD (Ie 11, Bpl 19.0)"),
    "G723": Impairment(Scale.NARROWBAND, 15, 16.1, 8000, "values of G.723.1 at 6.3 kbit/s with VAD (Ie 15, Bpl 16.1)"),
    "GSM-EFR": Impairment(Scale.NARROWBAND, 5, 10.0, 8000, "values of GSM-EFR (Ie 5, Bpl 10.0)"),
    "G726-32": Impairment(Scale.NARROWBAND, 7, None, 8000, "value of G.726 at 32 kbit/s (Ie 7, no Bpl published)"),
    "ILBC": Impairment(Scale.NARROWBAND, 11, 32.0, 8000, "values of iLBC at 15.2 kbit/s (Ie 11, Bpl 32.0)"),
    "G722": Impairment(
        Scale.WIDEBAND, 13, 25.1, 8000, "G.722 at 64 kbit/s (Ie 13); assumed Bpl 25.1 (loss concealed), none published"
    ),
}

_AMR_WB = {
    12_650: Impairment(Scale.WIDEBAND, 20, 4.3, 16000, "AMR-WB at 12.65 kbit/s, diotic (Ie 20, Bpl 4.3)"),
    23_050: Impairment(Scale.WIDEBAND, 8, 4.6, 16000, "AMR-WB at 23.05 kbit/s, diotic (Ie 8, Bpl 4.6)"),
    23_850: Impairment(Scale.WIDEBAND, 10, 4.9, 16000, "AMR-WB at 23.85 kbit/s, diotic (Ie 10, Bpl 4.9)"),
}


@dataclass(frozen=True, slots=True)
class Quality:
    """The E-model's verdict on a stream."""

    r: float
    """Transmission rating, 0..93.2 (narrowband) or 0..129 (wideband)."""
    mos: float
    """1..4.5."""
    scale: Scale
    measure: Measure
    loss_percent: float
    """Lost and discarded packets of those expected."""
    burst_ratio: float | None
    """BurstR: 1 where losses are random, larger where they cluster; None without loss or without their runs."""
    assumptions: tuple[str, ...]


def impairment(codec: str, bit_rate: int | None = None) -> Impairment | None:
    """Published values for a codec named as in an rtpmap (`PCMU/8000`, `g722`), None where there are none.

    `bit_rate` (bit/s) tells the modes of AMR-WB apart; without it 12.65 kbit/s is assumed and said.
    """
    name, _, rest = codec.upper().partition("/")
    if name == "AMR-WB":
        found = _AMR_WB.get(12_650 if bit_rate is None else bit_rate)
    else:
        found = _IMPAIRMENTS.get(name)
    clock = rest.partition("/")[0]
    if found is None or (clock and clock != str(found.clock_rate)):
        return None
    return found


def burst_ratio(expected: int, bad: int, runs: int) -> float | None:
    """BurstR of a two-state Markov chain: 1 / (p + q), not below 1 (G.107, clause 3).

    `bad` of `expected` packets were lost or discarded, in `runs` unbroken runs; p = P(good -> lost) is runs by good
    packets, q = P(lost -> good) runs by bad ones. None where there is nothing to tell it from.
    """
    good = expected - bad
    if bad <= 0 or good <= 0 or runs <= 0:
        return None
    return max(1.0, 1 / (runs / good + min(runs, bad) / bad))


def effective_impairment(ie: float, bpl: float | None, loss_percent: float, ratio: float = 1.0) -> float | None:
    """Ie,eff (G.107, equation 7-29; G.107.1, equation 7-15 with `ratio` 1), None where loss needs a Bpl unknown.

    The constant is 95 on both scales.
    """
    if loss_percent == 0:
        return ie
    if bpl is None:
        return None
    return ie + (95 - ie) * loss_percent / (loss_percent / ratio + bpl)


def delay_impairment(one_way_ms: float) -> float:
    """Idd of an absolute one-way delay (G.107, equation 7-27, default class: sT = 1, mT = 100 ms)."""
    if one_way_ms <= 100:
        return 0.0
    x = math.log2(one_way_ms / 100)
    return 25 * ((1 + x**6) ** (1 / 6) - 3 * (1 + (x / 3) ** 6) ** (1 / 6) + 2)


def simplified_delay_impairment(one_way_ms: float) -> float:
    """Id as simplified by Cole and Rosenbluth (SIGCOMM CCR 2001), for comparison with tools that use it."""
    return 0.024 * one_way_ms + 0.11 * max(0.0, one_way_ms - 177.3)


def mos_of_r(r: float) -> float:
    """MOS of a narrowband R (G.107, annex B), never below 1."""
    if r <= 0:
        return 1.0
    if r >= 100:
        return 4.5
    return max(1.0, 1 + 0.035 * r + r * (r - 60) * (100 - r) * 7e-6)


def mos_of_wideband_r(r: float) -> float:
    """MOS of a wideband R (G.107.1, annex A)."""
    return mos_of_r(r / WIDEBAND_FACTOR)


def score(
    codec: str,
    *,
    expected: int,
    lost: int,
    discarded: int = 0,
    loss_bursts: int | None = None,
    one_way_ms: float | None = None,
    bit_rate: int | None = None,
    bpl: float | None = None,
) -> Quality | None:
    """Rate a stream, None where nothing was expected or no published value covers the codec (as for Opus).

    Args:
        codec: Encoding name with or without clock rate, as in the rtpmap.
        expected: Packets that should have come.
        lost: Of those, distinct packets that did not (negative counts as 0).
        discarded: Packets that came too late for the listener's jitter buffer.
        loss_bursts: Unbroken runs of lost or discarded packets; without it losses are taken as random.
        one_way_ms: Mouth-to-ear delay where known.
        bit_rate: Of AMR-WB, bit/s.
        bpl: Another packet-loss robustness than the published or assumed one.
    """
    values = impairment(codec, bit_rate)
    if values is None or expected <= 0:
        return None
    bad = min(expected, max(0, lost) + max(0, discarded))
    percent = 100 * bad / expected
    ratio = burst_ratio(expected, bad, loss_bursts) if loss_bursts is not None else None
    wideband = values.scale is Scale.WIDEBAND
    # G.107.1 has no BurstR: the wideband figure takes losses as random.
    applied = 1.0 if wideband or ratio is None else ratio
    loss = effective_impairment(values.ie, values.bpl if bpl is None else bpl, percent, applied)
    if loss is None:
        return None
    delay = delay_impairment(one_way_ms) if one_way_ms is not None else 0.0
    r = WIDEBAND_BASE - WIDEBAND_FACTOR * delay - loss if wideband else NARROWBAND_BASE - delay - loss
    return Quality(
        r=max(0.0, r),
        mos=mos_of_wideband_r(r) if wideband else mos_of_r(r),
        scale=values.scale,
        measure=Measure.LISTENING if one_way_ms is None else Measure.CONVERSATIONAL,
        loss_percent=percent,
        burst_ratio=ratio,
        assumptions=_assumptions(values, bit_rate, bpl, one_way_ms, percent, ratio),
    )


def _assumptions(
    values: Impairment,
    bit_rate: int | None,
    bpl: float | None,
    one_way_ms: float | None,
    percent: float,
    ratio: float | None,
) -> tuple[str, ...]:
    said = [values.assumption]
    if values.clock_rate == 16000 and bit_rate is None:
        said.append("mode 12.65 kbit/s assumed")
    if bpl is not None:
        said.append(f"Bpl {bpl:g} given")
    said.append("delay unknown" if one_way_ms is None else f"one-way delay {one_way_ms:g} ms (G.107 Idd)")
    if percent and (ratio is None or values.scale is Scale.WIDEBAND):
        said.append("losses taken as random")
    if percent > 20 or (ratio is not None and ratio > 2 and percent >= 2):
        said.append("extrapolated beyond the range for which the model was validated")
    return tuple(said)


@dataclass(frozen=True, slots=True)
class BurstGap:
    """Bursts and gaps of RFC 3611, section 4.7.2. Counts in packets."""

    bursts: int
    burst_packets: int
    """In all bursts together, good and bad."""
    burst_bad: int
    gap_packets: int
    gap_bad: int

    @property
    def burst_density(self) -> float:
        """Share of bad packets within bursts, 0..1."""
        return self.burst_bad / self.burst_packets if self.burst_packets else 0.0

    @property
    def gap_density(self) -> float:
        """Share of bad packets outside of bursts, 0..1."""
        return self.gap_bad / self.gap_packets if self.gap_packets else 0.0

    @property
    def mean_burst(self) -> float:
        """Mean length of a burst."""
        return self.burst_packets / self.bursts if self.bursts else 0.0

    @property
    def mean_gap(self) -> float:
        """Packets outside of bursts for each burst (for the whole stream where it has none)."""
        return self.gap_packets / max(1, self.bursts)


def burst_gap(bad: Iterable[int], expected: int, gmin: int = GMIN) -> BurstGap:
    """Divide a stream of `expected` packets into bursts and gaps.

    `bad` are the positions (from 0, ascending) of lost or discarded packets. A burst begins and ends with a bad one
    and holds no `gmin` good ones in a row; a bad packet that is alone at that distance belongs to the gap. The stream
    is taken as surrounded by good packets. Work and memory go with the number of bad packets only.
    """
    bursts = burst_packets = burst_bad = alone = 0
    for first, last, count in _clusters(bad, gmin):
        if count == 1:
            alone += 1
        else:
            bursts += 1
            burst_packets += last - first + 1
            burst_bad += count
    return BurstGap(bursts, burst_packets, burst_bad, max(0, expected - burst_packets), alone)


def _clusters(bad: Iterable[int], gmin: int) -> Iterator[tuple[int, int, int]]:
    """(first position, last position, bad packets) of each stretch without `gmin` good packets in a row."""
    first = last = count = 0
    for position in bad:
        if count and position - last - 1 < gmin:
            count += 1
        else:
            if count:
                yield first, last, count
            first, count = position, 1
        last = position
    if count:
        yield first, last, count
