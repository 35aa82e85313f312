"""The golden values are those of the standards and of the plain formulas, worked out apart from this code."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.quality import (
    Measure,
    Scale,
    burst_gap,
    burst_ratio,
    delay_impairment,
    effective_impairment,
    impairment,
    mos_of_r,
    score,
    simplified_delay_impairment,
)

R_TO_MOS = [
    (0, 1.000),
    (6.5, 1.000),
    (10, 1.035),
    (20, 1.252),
    (30, 1.609),
    (40, 2.064),
    (50, 2.575),
    (60, 3.100),
    (70, 3.597),
    (80, 4.024),
    (90, 4.339),
    (93.2, 4.409),
    (100, 4.500),
]

LOSS_TABLE = [
    # loss in 1/1000, then (R, MOS) of G.711 with PLC, without, G.729A, G.722 with Bpl 4.3 and with 25.1
    (0, (93.20, 4.409), (93.20, 4.409), (82.20, 4.104), (116.00, 4.337), (116.00, 4.337)),
    (5, (91.34, 4.371), (83.30, 4.143), (80.05, 4.026), (107.46, 4.142), (114.40, 4.305)),
    (10, (89.56, 4.328), (75.28, 3.834), (78.00, 3.946), (100.53, 3.943), (112.86, 4.273)),
    (20, (86.19, 4.235), (63.04, 3.256), (74.20, 3.787), (89.97, 3.585), (109.95, 4.205)),
    (50, (77.42, 3.923), (42.12, 2.169), (64.70, 3.340), (71.91, 2.878), (102.38, 4.000)),
    (100, (66.13, 3.411), (26.77, 1.481), (53.23, 2.745), (58.66, 2.339), (92.64, 3.681)),
    (200, (51.07, 2.631), (15.01, 1.124), (39.12, 2.021), (48.51, 1.948), (79.64, 3.189)),
]

DELAY_TABLE = [
    (20, 0.480, 0, 4.400),
    (100, 2.400, 0, 4.358),
    (150, 3.600, 0.164, 4.329),
    (200, 7.297, 3.044, 4.226),
    (300, 20.697, 14.761, 3.712),
    (400, 34.097, 24.070, 3.053),
]


@pytest.mark.parametrize(("r", "mos"), R_TO_MOS)
def test_r_gives_the_mos_of_g107_annex_b(r, mos):
    assert mos_of_r(r) == pytest.approx(mos, abs=0.0005)


@pytest.mark.parametrize("row", LOSS_TABLE, ids=lambda row: f"{row[0] / 10}%")
def test_loss_costs_what_the_e_model_says(row):
    lost, plc, no_plc, g729, g722_pessimistic, g722 = row
    for codec, bpl, (r, mos) in [
        ("PCMU/8000", None, plc),
        ("PCMA", None, plc),
        ("PCMA", 4.3, no_plc),
        ("G729/8000", None, g729),
        ("G722/8000", 4.3, g722_pessimistic),
        ("G722/8000/1", None, g722),
    ]:
        quality = score(codec, expected=1000, lost=lost, bpl=bpl)
        assert quality.r == pytest.approx(r, abs=0.005)
        assert quality.mos == pytest.approx(mos, abs=0.0005)


@pytest.mark.parametrize(("ms", "simplified", "full", "mos"), DELAY_TABLE)
def test_delay_costs_what_either_formula_says(ms, simplified, full, mos):
    assert simplified_delay_impairment(ms) == pytest.approx(simplified, abs=0.0005)
    assert delay_impairment(ms) == pytest.approx(full, abs=0.0005)
    assert mos_of_r(93.2 - simplified_delay_impairment(ms)) == pytest.approx(mos, abs=0.0005)


@pytest.mark.parametrize(("ratio", "r"), [(1, 86.19), (2, 85.92), (4, 85.78)])
def test_bursty_loss_costs_more_than_random_loss(ratio, r):
    assert 93.2 - effective_impairment(0, 25.1, 2.0, ratio) == pytest.approx(r, abs=0.005)


def test_burst_ratio_is_one_for_random_loss_and_grows_with_the_runs():
    assert burst_ratio(1000, 100, 90) == pytest.approx(1.0)
    assert burst_ratio(1000, 100, 45) == pytest.approx(2.0)
    assert burst_ratio(1000, 100, 100) == 1.0
    assert burst_ratio(1000, 0, 0) is None
    assert burst_ratio(10, 10, 1) is None


def test_discarded_packets_count_like_lost_ones():
    lost = score("PCMA", expected=1000, lost=20)
    discarded = score("PCMA", expected=1000, lost=5, discarded=15)
    assert lost.r == discarded.r
    assert discarded.loss_percent == 2.0


def test_wideband_codecs_are_marked_as_such_and_their_assumptions_said():
    quality = score("G722/8000", expected=100, lost=1)
    assert quality.scale is Scale.WIDEBAND
    assert "assumed Bpl 25.1" in quality.assumptions[0]
    assert "losses taken as random" in quality.assumptions
    amr = score("AMR-WB/16000", expected=100, lost=0)
    assert amr.scale is Scale.WIDEBAND
    assert amr.r == pytest.approx(109)
    assert "mode 12.65 kbit/s assumed" in amr.assumptions
    assert score("AMR-WB", expected=100, lost=0, bit_rate=23_050).r == pytest.approx(121)


def test_a_figure_without_delay_is_a_listening_quality():
    assert score("PCMU", expected=50, lost=0).measure is Measure.LISTENING
    assert "delay unknown" in score("PCMU", expected=50, lost=0).assumptions
    conversational = score("PCMU", expected=50, lost=0, one_way_ms=200)
    assert conversational.measure is Measure.CONVERSATIONAL
    assert conversational.r == pytest.approx(93.2 - 3.044, abs=0.001)
    assert score("G722", expected=50, lost=0, one_way_ms=200).r == pytest.approx(116 - 1.29 * 3.044, abs=0.001)


@pytest.mark.parametrize("codec", ["opus/48000/2", "speex/8000", "L16/44100", "PCMU/16000", "AMR/8000", "", "/8000"])
def test_codecs_without_published_values_have_no_figure(codec):
    assert score(codec, expected=100, lost=0) is None
    assert impairment(codec) is None


def test_a_codec_without_published_robustness_is_rated_only_without_loss():
    assert score("G726-32/8000", expected=100, lost=0).r == pytest.approx(86.2)
    assert score("G726-32/8000", expected=100, lost=1) is None
    assert score("AMR-WB", expected=100, lost=0, bit_rate=6600) is None


def test_a_stream_of_which_nothing_was_expected_has_no_figure():
    assert score("PCMU", expected=0, lost=0) is None


def test_what_the_model_was_not_validated_for_is_said():
    assert "extrapolated" in score("PCMU", expected=100, lost=30).assumptions[-1]
    assert "extrapolated" in score("PCMU", expected=1000, lost=50, loss_bursts=10).assumptions[-1]
    assert "extrapolated" not in score("PCMU", expected=1000, lost=50, loss_bursts=48).assumptions[-1]


@given(
    codec=st.sampled_from(["PCMU", "G729", "G722", "AMR-WB", "G723", "iLBC", "GSM-EFR"]),
    expected=st.integers(1, 10**7),
    lost=st.integers(-100, 10**7),
    discarded=st.integers(0, 1000),
    runs=st.one_of(st.none(), st.integers(0, 10**6)),
    delay=st.one_of(st.none(), st.floats(0, 5000)),
)
def test_every_figure_lies_on_its_scale(codec, expected, lost, discarded, runs, delay):
    quality = score(codec, expected=expected, lost=lost, discarded=discarded, loss_bursts=runs, one_way_ms=delay)
    assert 1.0 <= quality.mos <= 4.5
    assert 0.0 <= quality.r <= (129 if quality.scale is Scale.WIDEBAND else 93.2)
    assert quality.burst_ratio is None or quality.burst_ratio >= 1


def test_the_example_of_rfc3611_is_one_burst_of_twelve_packets():
    printed = "11110111111111111111111X111X1011110111111111111111111X111111111"
    bad = [i for i, c in enumerate(printed) if c != "1"]
    found = burst_gap(bad, len(printed))
    assert (found.bursts, found.burst_packets, found.burst_bad) == (1, 12, 4)
    assert found.burst_density == pytest.approx(0.33, abs=0.005)
    assert (found.gap_packets, found.gap_bad) == (51, 2)
    assert found.gap_density == pytest.approx(0.04, abs=0.005)
    assert found.mean_burst * 10 == 120


def test_two_losses_in_a_row_are_a_burst_and_one_alone_is_not():
    assert burst_gap([10, 11], 100).bursts == 1
    assert burst_gap([10], 100).bursts == 0
    assert burst_gap([10, 27], 100).bursts == 0
    assert burst_gap([10, 26], 100).burst_packets == 17
    assert burst_gap([], 0).mean_gap == 0


def bursts_by_definition(bad, gmin):
    """Maximal runs that start and end bad and hold no `gmin` good ones in a row, longer than one packet."""
    found = []
    for position, is_bad in enumerate(bad):
        if not is_bad:
            continue
        if found and not any(all(not b for b in bad[i : i + gmin]) for i in range(found[-1][1], position - gmin + 1)):
            found[-1][1] = position
        else:
            found.append([position, position])
    return [(first, last) for first, last in found if last > first]


@given(st.lists(st.booleans(), max_size=80), st.integers(1, 20))
def test_bursts_are_those_of_the_definition(bad, gmin):
    expected = bursts_by_definition(bad, gmin)
    found = burst_gap([i for i, b in enumerate(bad) if b], len(bad), gmin)
    assert found.bursts == len(expected)
    assert found.burst_packets == sum(last - first + 1 for first, last in expected)
    assert found.burst_bad + found.gap_bad == sum(bad)
