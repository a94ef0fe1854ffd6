"""The types that a skops file may be made of, beyond those that skops trusts by itself.

Training writes no file that holds others, and whoever loads one builds no others, whatever the
file says of itself. skops itself trusts scikit-learn's public estimators, numpy's arrays and
functions, scipy's, and built-in types.
"""

from __future__ import annotations

# Classes of scikit-learn, numpy and scipy that hold data and run nothing when they are built. No
# functions, and no whole packages: a function of theirs could be given anything to do.
TRUSTED: tuple[str, ...] = (
    # An imputer's dtype.
    "numpy.dtype",
    # Splines.
    "scipy.interpolate._bsplines.BSpline",
    # Gradient boosting.
    "sklearn._loss._loss.CyHalfBinomialLoss",
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.loss.HalfBinomialLoss",
    # Calibration.
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    # Ensembles keep their parts in this dictionary by name.
    "sklearn.utils._bunch.Bunch",
)
