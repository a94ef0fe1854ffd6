"""Distances against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ks_2samp

from espalier.monitoring.distances import kolmogorov_smirnov, psi, wasserstein


def test_psi_by_hand() -> None:
    before = np.arange(1.0, 11.0)
    now = np.array([1.0] * 5 + [11.0] * 5)
    # Each reference value is a bin; of now 0.5 lie in the first and 0.5 above all.
    least = 1e-4
    expected = (0.1 - 0.5) * math.log(0.1 / 0.5)
    expected += 9 * (0.1 - least) * math.log(0.1 / least)
    expected += (least - 0.5) * math.log(least / 0.5)
    assert psi(before, now) == pytest.approx(expected)
    assert psi(before, before) == 0


def test_psi_of_a_constant() -> None:
    constant = np.full(50, 7.0)
    assert psi(constant, constant) == 0
    assert psi(constant, constant + 1) > 1
    assert psi(constant, constant - 1) > 1


def test_psi_of_one_population_is_small_also_with_a_heavy_tail() -> None:
    random = np.random.default_rng(0)
    one, other = random.lognormal(3, 2, 3000), random.lognormal(3, 2, 3000)
    assert psi(one, other) < 0.02
    assert psi(one, other * 2) > 0.1


def test_kolmogorov_smirnov_is_that_of_scipy() -> None:
    random = np.random.default_rng(0)
    one = random.poisson(2, 500).astype(float)
    other = random.poisson(3, 700).astype(float)
    assert kolmogorov_smirnov(one, other) == pytest.approx(ks_2samp(one, other).statistic)


def test_wasserstein_of_a_shift_is_its_size_in_spreads() -> None:
    values = np.random.default_rng(0).normal(0, 2, 1000)
    assert wasserstein(values, values + 3, 2.0) == pytest.approx(1.5)
    assert wasserstein(np.ones(5), np.ones(5), 0.0) == 0
