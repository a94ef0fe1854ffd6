"""Decides whether a challenger may replace the champion.

Every check has a value, a limit and a verdict, and all are made even when one refuses: whoever
reads a refusal sees all of its reasons.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from espalier.errors import EspalierError
from espalier.policies import Gate
from espalier.project import Project, Task
from espalier.registry.manifest import TOLERANCE, ModelManifest
from espalier.training import evaluate, schema, served
from espalier.training.comparison import Comparison
from espalier.training.evaluate import Floats
from espalier.training.latency import one_row_milliseconds
from espalier.training.online_parity import OnlineParity
from espalier.training.served import ServedModel
from espalier.training.slices import SliceResult

PASSED, REFUSED, SKIPPED = "passed", "refused", "skipped"


@dataclass(frozen=True)
class Check:
    """One check: what it found, where the limit is, and in words why the verdict is what it is."""

    name: str
    verdict: str
    reason: str
    value: float | None = None
    limit: float | None = None

    def told(self) -> str:
        """Verdict and reason on one line."""
        return f"{self.verdict}; {self.reason}"


@dataclass(frozen=True)
class Verdict:
    """The gate's decision and what it rests on. `opponent` says who the challenger had to beat."""

    opponent: str
    comparison: Comparison
    checks: tuple[Check, ...]

    @property
    def accepted(self) -> bool:
        """Whether no check refuses."""
        return all(check.verdict != REFUSED for check in self.checks)

    @property
    def reason(self) -> str:
        """The decision on one line: what refuses it, or the comparison that it passed."""
        refusals = [f"{c.name}: {c.reason}" for c in self.checks if c.verdict == REFUSED]
        return "; ".join(refusals) if refusals else self.checks[0].reason

    def evidence(self) -> dict[str, Any]:
        """The decision as JSON values, for the ledger and for `gate.json`."""
        return {
            "accepted": self.accepted,
            "opponent": self.opponent,
            "reason": self.reason,
            "comparison": asdict(self.comparison),
            "checks": [asdict(check) for check in self.checks],
        }


def comparison(found: Comparison, against: str, gate: Gate) -> Check:
    """Refuse when the lower end of the difference's interval is below minus the margin.

    A non-inferiority test: a challenger that may be worse by more than the margin is not let in,
    also when it looks a little better.
    """
    passed = found.low >= -gate.margin
    told = f"{found.told(against)}, {'not below' if passed else 'below'} the margin of "
    return Check(
        name="comparison",
        verdict=PASSED if passed else REFUSED,
        reason=f"{told}{-gate.margin:+.4f}",
        value=found.low,
        limit=-gate.margin,
    )


def slices(results: Sequence[SliceResult], against: str, gate: Gate) -> list[Check]:
    """Refuse when the challenger is worse on a slice by more than `slice_margin`, and surely worse.

    Slices are small: the difference must be beyond the margin, and its whole interval below 0, so
    that chance alone refuses few models.
    """
    checks = []
    for one in results:
        if gate.slices is not None and one.name not in gate.slices:
            continue
        name, found = f"slice {one.name}", one.comparison
        if found is None:
            checks.append(Check(name, SKIPPED, one.skipped, limit=-gate.slice_margin))
            continue
        collapsed = found.difference < -gate.slice_margin and found.high < 0
        told = f"{found.told(against)}, {'a collapse' if collapsed else 'no collapse'} by the "
        checks.append(
            Check(
                name=name,
                verdict=REFUSED if collapsed else PASSED,
                reason=f"{told}slice margin of {-gate.slice_margin:+.4f}",
                value=found.difference,
                limit=-gate.slice_margin,
            )
        )
    return checks


def leakage(
    value: float, importance: Mapping[str, float], gate: Gate, task: Task = Task.BINARY
) -> Check:
    """Refuse what is too good: then a feature most likely knows the label.

    The value is the ROC-AUC, of a number R². The feature that it rests on most is named (see
    `permutation_importance`).
    """
    name = evaluate.title(evaluate.main_metric(task))
    passed = value <= gate.suspicious
    reason = f"{name} {value:.4f}, {gate.suspicious:g} would be suspicious"
    if not passed:
        feature, fall = next(iter(importance.items()))
        reason = (
            f"{name} {value:.4f} is above {gate.suspicious:g}, which suggests that a feature "
            f"knows the label: first look at {feature}, without which it falls by {fall:.4f}"
        )
    return Check("leakage", PASSED if passed else REFUSED, reason, value, gate.suspicious)


def parity(model: ServedModel) -> Check:
    """Refuse an ONNX file that scores or labels any row otherwise than scikit-learn."""
    name, found = "ONNX parity", model.parity
    if found is None:
        reason = f"served by skops as {model.file}, there is no ONNX form: {model.why_not_onnx}"
        return Check(name, SKIPPED, reason, limit=TOLERANCE)
    reason = f"{found.rows} rows, NaN and infinities among them, differ by {found.largest:.2g}"
    if not found.holds:
        reason = (
            f"of {found.rows} rows {found.scores} have another score and {found.labels} another "
            f"label in ONNX than in scikit-learn; {found.example}"
        )
    verdict = PASSED if found.holds else REFUSED
    return Check(name, verdict, reason, found.largest, found.limit)


def golden_rows(model: ServedModel, manifest: ModelManifest) -> Check:
    """Refuse when the file, opened anew, does not give its golden scores again."""
    name = "golden rows"
    try:
        found = served.open_score(model.file, model.content)(schema.golden_matrix(manifest))
    except EspalierError as error:
        return Check(name, REFUSED, error.message, limit=manifest.golden_tolerance)
    golden, limit = np.array(manifest.golden_scores), manifest.golden_tolerance
    # Without golden rows nothing is proven.
    worst = float(np.abs(found - golden).max()) if len(golden) else math.nan
    passed = worst <= limit
    reason = f"{len(found)} rows differ by {worst:.2g} from the scores in the manifest"
    return Check(name, PASSED if passed else REFUSED, reason, _finite(worst), limit)


def latency(model: ServedModel, rows: Floats, gate: Gate) -> Check:
    """Refuse a file that takes longer for one row than the declared budget."""
    spent = one_row_milliseconds(served.open_score(model.file, model.content), rows)
    passed = spent <= gate.max_latency_ms
    reason = (
        f"one row takes {spent:.3f} ms (median) by {model.file}, "
        f"{'within' if passed else 'over'} the budget of {gate.max_latency_ms:g} ms"
    )
    return Check("latency", PASSED if passed else REFUSED, reason, spent, gate.max_latency_ms)


def online(found: OnlineParity) -> Check:
    """Refuse when an entity's features online are not those of the history."""
    name = "online features"
    if found.skipped:
        return Check(name, SKIPPED, found.skipped, limit=0)
    reason = f"{found.compared} entities' features are equal online and in the history"
    if found.differing:
        reason = f"{found.differing} of {found.compared} entities differ: {found.example}"
    verdict = REFUSED if found.differing else PASSED
    return Check(name, verdict, reason, found.differing, 0)


def server_schema(
    project: Project, manifest: ModelManifest, model: ServedModel, found: OnlineParity
) -> Check:
    """Refuse a model whose inputs are not what the server would read and hand it."""
    wrong = schema.differences(project, manifest, model, dict(found.types))
    reason = "; ".join(wrong) or f"{len(manifest.features)} features as declared"
    return Check("schema", REFUSED if wrong else PASSED, reason, len(wrong), 0)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
