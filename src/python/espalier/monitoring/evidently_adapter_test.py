"""The contract with the pinned Evidently."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance

from espalier.contract import Column, ColumnType
from espalier.errors import BadData
from espalier.monitoring import distances, sketch
from espalier.monitoring import evidently_adapter as adapter
from espalier.monitoring.evidently_adapter import (
    MINIMUM_ROWS,
    ColumnDrift,
    Comparison,
    Rule,
    quality,
)
from espalier.monitoring.target import ClassLabels, Labels, TargetLabels
from espalier.processes import python_environment

COLUMNS = ("amount", "count", "gap", "constant")


def compare(
    before: pd.DataFrame,
    now: pd.DataFrame,
    *,
    columns: Sequence[str],
    labels: tuple[TargetLabels, TargetLabels] | None = None,
    method: str = "wasserstein",
    threshold: float = 0.2,
) -> Comparison:
    """The adapter on frames."""
    rule = Rule(method=method, threshold=threshold, null_share=0.1)
    sketches = [
        {name: sketch.of_values(frame[name].to_numpy(float)) for name in columns if name in frame}
        for frame in (before, now)
    ]
    return adapter.compare(*sketches, rules=dict.fromkeys(columns, rule), labels=labels)


def rows(seed: int, n: int = 1500) -> pd.DataFrame:
    """Rows of one population: heavy-tailed, discrete, half null, constant."""
    random = np.random.default_rng(seed)
    gap = pd.Series(random.exponential(30, n))
    return pd.DataFrame(
        {
            "amount": random.lognormal(3, 1, n),
            "count": random.poisson(2, n).astype("float64"),
            "gap": gap.where(random.random(n) < 0.5),
            "constant": np.full(n, 7.0),
        }
    )


def labels(seed: int, share: float, n: int = 1500) -> Labels:
    drawn = np.random.default_rng(seed).random(n) < share
    return Labels(rows=n, positives=int(drawn.sum()))


DECLARED = (
    Column(name="amount", type=ColumnType.DOUBLE, description="amount", minimum=0, maximum=100),
    Column(name="count", type=ColumnType.INTEGER, description="count", minimum=1),
    Column(name="gap", type=ColumnType.DOUBLE, description="gap", nullable=True),
    Column(name="constant", type=ColumnType.DOUBLE, description="constant"),
)


def strict(text: str) -> object:
    def refuse(name: str) -> object:
        raise ValueError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def drifted(found: Comparison) -> set[str]:
    return {name for name, column in found.columns.items() if column.drifted}


def test_the_pinned_version() -> None:
    # The adapter relies on this release's classes, JSON and HTML: look at them before a change.
    assert version("evidently") == "0.7.23"


def test_samples_of_one_population_do_not_drift() -> None:
    found = compare(rows(1), rows(2), columns=COLUMNS, labels=(labels(3, 0.8), labels(4, 0.8)))
    assert drifted(found) == set()
    assert found.target is not None
    assert not found.target.drifted
    assert list(found.columns) == list(COLUMNS)


def test_scores_are_the_named_distances() -> None:
    before, now = rows(1), rows(2)
    now["amount"] += now["amount"].std()
    found = compare(before, now, columns=COLUMNS, labels=(labels(3, 0.8), labels(4, 0.6, 900)))
    spread = before["amount"].std(ddof=0)
    expected = wasserstein_distance(before["amount"], now["amount"]) / spread
    assert found.columns["amount"].score == pytest.approx(expected)
    assert found.columns["amount"].method == "wasserstein"
    assert drifted(found) == {"amount"}
    p, q = labels(3, 0.8).share, labels(4, 0.6, 900).share
    assert found.target is not None
    assert found.target.drifted
    assert found.target.score == pytest.approx(jensenshannon([p, 1 - p], [q, 1 - q]))
    assert found.target.method == "jensenshannon"


def test_labels_of_several_classes() -> None:
    before = ClassLabels(counts={"a": 500, "b": 300, "c": 200})
    now = ClassLabels(counts={"a": 900, "c": 600, "new": 500})
    found = compare(rows(1), rows(2), columns=COLUMNS, labels=(before, now))
    assert found.target is not None
    expected = jensenshannon([0.5, 0.3, 0.2, 0], [0.45, 0, 0.3, 0.25])
    assert found.target.score == pytest.approx(expected)
    assert found.target.threshold == pytest.approx(
        (0.05**2 + (2 + 4) / 8 * (1 / 1000 + 1 / 2000)) ** 0.5
    )
    assert (found.target.method, found.target.drifted) == ("jensenshannon", True)
    same = compare(rows(1), rows(2), columns=COLUMNS, labels=(before, before)).target
    assert same is not None
    assert (same.score, same.drifted) == (0, False)


def test_labels_that_are_numbers() -> None:
    numbers = rows(1)["amount"].to_numpy()
    before, now = sketch.of_values(numbers), sketch.of_values(numbers + 0.3 * numbers.std())
    found = compare(rows(1), rows(2), columns=COLUMNS, labels=(before, now))
    assert found.target is not None
    assert found.target.score == pytest.approx(0.3)
    assert found.target.method == "wasserstein"
    assert (found.target.threshold, found.target.drifted) == (0.2, True)
    assert drifted(found) == set(), "a label is no feature"
    few = sketch.of_values(numbers[:199])
    with pytest.raises(BadData, match="199 reference labels are too few"):
        compare(rows(1), rows(2), columns=COLUMNS, labels=(few, now))


def test_the_verdicts_are_those_of_evidently() -> None:
    now = rows(2)
    now["count"] += 1
    found = compare(rows(1), now, columns=COLUMNS, labels=(labels(3, 0.8), labels(4, 0.6)))
    states = {
        test["metric_config"]["params"]["column"]: test["status"] == "FAIL"
        for test in found.report["tests"]
    }
    assert found.target is not None
    assert states.pop("target label") == found.target.drifted
    assert states == {name: column.drifted for name, column in found.columns.items()}
    values = {m["config"]["column"]: m["value"] for m in found.report["metrics"]}
    assert values["count"] == found.columns["count"].score


def test_nulls_infinities_and_constants() -> None:
    before, now = rows(1), rows(2)
    before["never"] = now["never"] = np.nan
    before["lost"], now["lost"] = 1.0, np.nan
    now["constant"] = 8.0
    now["gap"] = now["gap"].where(np.arange(len(now)) % 3 > 0, np.inf)
    found = compare(before, now, columns=[*COLUMNS, "never", "lost"])
    assert drifted(found) == {"constant", "gap", "lost"}
    assert found.columns["never"].score == 0
    assert found.columns["lost"] == ColumnDrift(
        method="null share", score=1.0, threshold=0.1, drifted=True
    )
    assert found.columns["gap"].method == "null share"
    assert found.target is None
    strict(json.dumps(found.report, allow_nan=False))


@pytest.mark.parametrize("method", ["psi", "ks"])
def test_our_distances_are_evidentlys_scores(method: str) -> None:
    before, now = rows(1), rows(2)
    now["amount"] *= 2
    measure = {"psi": distances.psi, "ks": distances.kolmogorov_smirnov}[method]
    expected = measure(before["amount"].to_numpy(), now["amount"].to_numpy())
    found = compare(before, now, columns=COLUMNS, method=method, threshold=expected)
    assert found.columns["amount"].score == pytest.approx(expected)
    assert drifted(found) == {"amount"}, "the threshold is part of it"
    assert found.report["metrics"][0]["config"]["method"] == f"espalier_{method}"


def test_a_million_rows_score_as_their_sketch() -> None:
    """Within the width of a step, also where values are many and unequal."""
    before, now = rows(1, 300_000), rows(2, 300_000)
    now["amount"] *= 1.5
    found = compare(before, now, columns=COLUMNS)
    spread = before["amount"].std(ddof=0)
    whole = wasserstein_distance(before["amount"], now["amount"]) / spread
    assert found.columns["amount"].score == pytest.approx(whole, rel=0.005)
    assert found.columns["count"].score == pytest.approx(0, abs=0.01)
    kept = sketch.of_values(before["amount"].to_numpy())
    assert len(kept.quantiles) == sketch.POINTS
    distance = distances.kolmogorov_smirnov(kept.quantiles, before["amount"].to_numpy())
    assert distance <= 1 / (2 * sketch.POINTS) + 1e-5


def test_quality_counts() -> None:
    frame = rows(1)
    frame.loc[:2, "constant"] = np.nan
    found = quality(frame, DECLARED)
    amount, gap = found.columns["amount"], found.columns["gap"]
    assert amount.out_of_range == int((frame["amount"] > 100).sum()) > 0
    assert (amount.rows, amount.missing, amount.failed) == (1500, 0, True)
    assert found.columns["count"].out_of_range == int((frame["count"] < 1).sum()) > 0
    assert (gap.missing, gap.failed) == (int(frame["gap"].isna().sum()), False)
    assert (found.columns["constant"].missing, found.columns["constant"].failed) == (3, True)
    strict(json.dumps(found.report, allow_nan=False))
    assert "<body>" in found.html


def test_only_nulls() -> None:
    nothing = pd.DataFrame({"a": [np.nan] * MINIMUM_ROWS})
    found = compare(nothing, nothing, columns=["a"])
    assert drifted(found) == set()
    assert found.report["metrics"] == []
    assert "<body>" in found.html


def test_the_page_stands_alone_and_takes_a_head() -> None:
    html = compare(rows(1), rows(2), columns=COLUMNS).html
    assert html.count("<body>") == 1, "the report writer puts the verdict there"
    assert "<script src" not in html, "nothing is loaded from elsewhere"
    assert "<link" not in html, "nothing is loaded from elsewhere"


@pytest.mark.parametrize(
    ("before", "now", "columns", "message"),
    [
        (rows(1), rows(2, MINIMUM_ROWS - 1), COLUMNS, "199 current rows are too few"),
        (rows(1, 0), rows(2), COLUMNS, "0 reference rows are too few"),
        (rows(1), rows(2).drop(columns="gap"), COLUMNS, "the current rows lack the columns gap"),
    ],
)
def test_unusable_rows(
    before: pd.DataFrame, now: pd.DataFrame, columns: tuple[str, ...], message: str
) -> None:
    with pytest.raises(BadData, match=message):
        compare(before, now, columns=columns)


def test_few_labels() -> None:
    with pytest.raises(BadData, match="7 current labels are too few"):
        compare(rows(1), rows(2), columns=COLUMNS, labels=(labels(1, 0.5), labels(2, 0.5, 7)))


# Watches a whole process, import included: connections, and files opened for writing.
_WATCHED = """
import os, sys
log = []
def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo"):
        log.append(f"{event} {arguments[1:]}")
    if event == "open" and isinstance(arguments[0], str) and (
        isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    ):
        log.append(f"write {arguments[0]}")
    if event in ("os.mkdir", "os.rename"):
        log.append(f"{event} {arguments[0]}")
sys.dont_write_bytecode = True
sys.addaudithook(watch)
from espalier.monitoring.evidently_adapter_test import COLUMNS, DECLARED, compare, labels, rows
from espalier.monitoring.evidently_adapter import quality
quality(rows(1), DECLARED)
compare(rows(1), rows(2), columns=COLUMNS, labels=(labels(3, 0.8), labels(4, 0.8)))
seen = [line for line in log if "/dev/null" not in line]
import socket
try:
    socket.create_connection(("127.0.0.1", 9), timeout=1).close()
except OSError:
    pass
open("control", "w").close()
print("\\n".join(f"SEEN {line}" for line in seen))
print("\\n".join(f"LATER {line}" for line in log[len(seen):]))
"""


def test_no_telemetry_and_no_files(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WATCHED],
        cwd=tmp_path,
        env={**python_environment(), "HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    print(done.stdout)
    assert "LATER socket.connect" in done.stdout
    assert "LATER write control" in done.stdout
    assert [line for line in done.stdout.splitlines() if line.startswith("SEEN")] == []
    assert [path.name for path in tmp_path.iterdir()] == ["control"]
