"""BG/NBD: how often customers buy again, by Fader, Hardie and Lee.

P. S. Fader, B. G. S. Hardie, K. L. Lee, "Counting Your Customers" the Easy Way: An Alternative to
the Pareto/NBD Model, Marketing Science 24 (2005), 275-284. While a customer is alive orders come at
a rate that is gamma distributed over customers (shape r, rate alpha); after each repeat order a
customer leaves with a probability that is beta distributed (a, b).

`x` is the number of repeat orders, `t_x` the time of the last and `T` the time of observation, both
since the first order and in one unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import betaln, expit, gammaln

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class BgNbd:
    """The four parameters; `r` and `alpha` of the order rate, `a` and `b` of leaving."""

    r: float
    alpha: float
    a: float
    b: float

    def alive(self, x: Floats, t_x: Floats, T: Floats) -> Floats:  # noqa: N803  # the paper's name
        """The probability [n] that a customer has not left by `T`; 1 without a repeat order."""
        log_odds = (
            np.log(self.a)
            - np.log(self.b + np.maximum(x, 1) - 1)
            + (self.r + x) * (np.log(self.alpha + T) - np.log(self.alpha + t_x))
        )
        return np.where(x > 0, expit(-log_odds), 1.0)

    def no_order(self, x: Floats, t_x: Floats, T: Floats, ahead: float) -> Floats:  # noqa: N803
        """The probability [n] of no order in the time `ahead` after `T`.

        Who is alive at `T` has an order rate that is gamma distributed with r + x and alpha + T;
        no event of the Poisson process in `ahead` then has this probability.
        """
        if_alive = ((self.alpha + T) / (self.alpha + T + ahead)) ** (self.r + x)
        return 1 - self.alive(x, t_x, T) * (1 - if_alive)


def log_likelihood(
    model: BgNbd,
    x: Floats,
    t_x: Floats,
    T: Floats,  # noqa: N803
) -> float:
    """The mean log-likelihood of the customers (the paper's equation 6)."""
    r, alpha, a, b = model.r, model.alpha, model.a, model.b
    common = gammaln(r + x) - gammaln(r) + r * np.log(alpha)
    stayed = betaln(a, b + x) - betaln(a, b) - (r + x) * np.log(alpha + T)
    left = betaln(a + 1, b + np.maximum(x, 1) - 1) - betaln(a, b) - (r + x) * np.log(alpha + t_x)
    return float(np.mean(common + np.logaddexp(stayed, np.where(x > 0, left, -np.inf))))


def fit(x: Floats, t_x: Floats, T: Floats) -> BgNbd:  # noqa: N803
    """The parameters of greatest likelihood.

    Raises:
        ArithmeticError: the search for them does not converge.
    """

    def loss(logs: Floats) -> float:
        return -log_likelihood(BgNbd(*np.exp(logs)), x, t_x, T)

    found = minimize(loss, np.zeros(4), method="L-BFGS-B", bounds=[(-10, 10)] * 4)
    if not found.success:
        raise ArithmeticError(f"BG/NBD does not converge: {found.message}")
    return BgNbd(*np.exp(found.x).tolist())
