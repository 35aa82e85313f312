"""Comfort noise (RFC 3389)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.comfortnoise import ComfortNoise


def level_of(samples: np.ndarray) -> float:
    """RMS in dBov, against a square wave of full scale."""
    return 10 * np.log10(np.mean((samples / 32768.0) ** 2))


def quantised(*reflections: float) -> bytes:
    return bytes(round(k * 32768 / 258) + 127 for k in reflections)


@pytest.mark.parametrize("level", [10, 30, 45, 60, 70])
@pytest.mark.parametrize("spectrum", [b"", quantised(0.5), quantised(-0.7, 0.3, 0.1), bytes([127] * 10)])
@pytest.mark.parametrize("rate", [8000, 16000])
def test_level_is_within_a_decibel(level, spectrum, rate):
    noise = ComfortNoise(rate).generate(bytes([level]) + spectrum, rate)
    assert abs(level_of(noise) + level) < 1


def test_twenty_milliseconds_already_have_the_level():
    levels = [level_of(ComfortNoise(8000, seed).generate(b"\x28", 160)) for seed in range(50)]
    assert max(abs(level + 40) for level in levels) < 1.5


def test_first_reflection_coefficient_is_the_correlation_of_neighbours():
    # An all-pole filter of order 1 with k1 has the lag-1 autocorrelation -k1.
    for k in (-0.8, 0.5, 0.9):
        noise = ComfortNoise(8000).generate(b"\x1e" + quantised(k), 40000).astype(float)
        assert np.corrcoef(noise[1:], noise[:-1])[0, 1] == pytest.approx(-k, abs=0.03)


@given(st.lists(st.integers(0, 400), max_size=8), st.binary(min_size=1, max_size=12))
def test_noise_does_not_depend_on_how_a_run_is_cut(cuts, payload):
    whole = ComfortNoise(8000).generate(payload, sum(cuts))
    source = ComfortNoise(8000)
    pieces = [source.generate(payload, cut) for cut in cuts]
    assert np.array_equal(np.concatenate([whole[:0], *pieces]), whole)


def test_the_same_payload_gives_the_same_noise_and_another_seed_another():
    first, second, other = ComfortNoise(8000), ComfortNoise(8000), ComfortNoise(8000, seed=7)
    assert np.array_equal(first.generate(b"\x32", 800), second.generate(b"\x32", 800))
    assert not np.array_equal(first.generate(b"\x32", 800), other.generate(b"\x32", 800))


def test_reset_starts_again():
    source = ComfortNoise(8000)
    before = source.generate(b"\x32\x60", 800)
    source.reset()
    assert np.array_equal(source.generate(b"\x32\x60", 800), before)


@given(st.binary(max_size=60), st.integers(-5, 500))
def test_any_payload_gives_the_samples_asked_for(payload, samples):
    assert len(ComfortNoise(8000).generate(payload, samples)) == max(samples, 0)


def test_no_level_and_the_lowest_level_are_silent():
    assert not ComfortNoise(8000).generate(b"", 160).any()
    assert not ComfortNoise(8000).generate(b"\x7f", 160).any()
