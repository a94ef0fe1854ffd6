from __future__ import annotations

from datetime import date

import numpy as np
import pytest

import bg_nbd
from bg_nbd import BgNbd
from churn.cdnow import order_histories
from churn.cdnow_log import packaged_log, read_log


def test_the_parameters_are_those_of_the_paper() -> None:
    """Table 2 of the paper: the sample of a tenth, 39 weeks, time in weeks."""
    end = date(1997, 9, 30)
    x, t_x, age = [], [], []
    for orders in order_histories(read_log(packaged_log(sample=True))).values():
        days = [order.day for order in orders if order.day <= end]
        x.append(len(days) - 1)
        t_x.append((days[-1] - days[0]).days / 7)
        age.append((end - days[0]).days / 7)
    history = (np.array(x, dtype=float), np.array(t_x), np.array(age))
    assert len(x) == 2357
    found = bg_nbd.fit(*history)
    assert found.r == pytest.approx(0.243, abs=0.001)
    assert found.alpha == pytest.approx(4.414, abs=0.02)
    assert found.a == pytest.approx(0.793, abs=0.005)
    assert found.b == pytest.approx(2.426, abs=0.02)
    total = bg_nbd.log_likelihood(found, *history) * 2357
    assert total == pytest.approx(-9582.4, abs=0.1)


def test_probabilities_are_those_of_simulated_customers() -> None:
    model = BgNbd(r=0.8, alpha=4.0, a=0.8, b=2.4)
    generator = np.random.default_rng(0)
    count, age, ahead = 200_000, 40.0, 13.0
    rates = generator.gamma(model.r, 1 / model.alpha, count)
    leaves = generator.beta(model.a, model.b, count)
    now, x, t_x, later = np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count, bool)
    alive = np.ones(count, bool)
    while alive.any():
        now[alive] += generator.exponential(1 / rates[alive])
        before = alive & (now <= age)
        x[before] += 1
        t_x[before] = now[before]
        later |= alive & (now > age) & (now <= age + ahead)
        alive &= (now <= age) & (generator.random(count) >= leaves)
    scores = model.no_order(x, t_x, np.full(count, age), ahead)
    for low, high in ((0.0, 0.4), (0.4, 0.7), (0.7, 0.9), (0.9, 1.0)):
        group = (scores >= low) & (scores < high)
        assert group.sum() > 1000
        assert scores[group].mean() == pytest.approx((~later)[group].mean(), abs=0.015)
