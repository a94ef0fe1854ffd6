"""Distances between two samples that Evidently measures otherwise than drift needs them.

Evidently's own `wasserstein` takes the standard deviation from the sample at hand, which of a
heavy-tailed column is too small in a sketch. Its `psi` cuts a column with many values into equally wide bins, where nearly all rows
of a heavy-tailed column share one; its `ks` gives a p-value, which among thousands of rows is small
for any difference at all.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_BINS = 10
# An empty bin counts as if it held so much, or the index would be infinite.
_LEAST_SHARE = 1e-4


# So that a constant reference has a finite distance; Evidently's own floor.
_LEAST_SPREAD = 1e-3


def wasserstein(reference: Floats, current: Floats, spread: float) -> float:
    """The first Wasserstein distance in units of `spread`, the reference's standard deviation.

    It is the area between both quantile functions: how far the average unit of mass moved.
    """
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(reference, current)) / max(spread, _LEAST_SPREAD)


def psi(reference: Floats, current: Floats) -> float:
    """The population stability index over the reference's tenths: sum (p - q) ln(p / q).

    By its users' convention 0.1 is a small shift and 0.2 a large one (Siddiqi, "Credit Risk
    Scorecards", 2006). Equal values are never cut apart, so there are fewer bins when a value is
    frequent. A constant reference has the bins "up to it" and "above it", and one "below it".
    """
    inner = np.quantile(reference, np.arange(1, _BINS) / _BINS, method="inverted_cdf")
    # Below the least reference value lies a bin of its own: nothing was there before.
    edges = np.unique(np.append(inner, [np.nextafter(reference.min(), -np.inf), reference.max()]))
    shares = []
    for values in (reference, current):
        counts = np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1)
        shares.append(np.maximum(counts / len(values), _LEAST_SHARE))
    before, now = shares
    return float(np.sum((before - now) * np.log(before / now)))


def kolmogorov_smirnov(reference: Floats, current: Floats) -> float:
    """The largest difference between both empirical distribution functions, 0 to 1."""
    values = np.concatenate([reference, current])
    before = np.searchsorted(np.sort(reference), values, side="right") / len(reference)
    now = np.searchsorted(np.sort(current), values, side="right") / len(current)
    return float(np.abs(before - now).max())
