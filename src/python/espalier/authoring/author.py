"""From a person's files to a product in the checkout, and later files to its next batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pandas as pd

from espalier.authoring import answers as answering
from espalier.authoring import (
    batches,
    checkout,
    checks,
    convert,
    estimator_code,
    first_look,
    infer,
    project_code,
    tests_code,
)
from espalier.authoring.answers import NONE, ROW, Answers
from espalier.authoring.batches import FILE_MONTH, Batches
from espalier.authoring.first_look import FirstLook
from espalier.authoring.infer import Inference
from espalier.authoring.project_code import Product
from espalier.authoring.source import Sheet, check_columns
from espalier.errors import EspalierError, UsageError
from espalier.project import Project, batch_folder

ANSWERS = "answers.toml"


@dataclass(frozen=True)
class Looked:
    """What the files hold. `cut` is there when nothing is open and nothing stands against it."""

    found: Inference
    problems: tuple[EspalierError, ...]
    cut: Batches | None = None


def look(sheets: Sequence[Sheet], given: Answers, *, today: date) -> Looked:
    """Infer what the files hold, and check whether it can be trained on.

    Args:
        sheets: The files as read.
        given: What a person said.
        today: The day on which this is asked.

    Raises:
        EspalierError: an answer does not fit the files, or they cannot be used at all.
    """
    rows = batches.all_rows(sheets)
    found = infer.infer(rows, given, today=today)
    if found.questions or found.problems:
        return Looked(found, found.problems)
    answers = infer.with_codes(found, rows)
    if answers.time == NONE and answers.horizon_days:
        raise UsageError("--horizon-days needs a column of days", fix="name it by --time COLUMN")
    answers = batches.counted_by_month(answers, rows)
    made = convert.convert(rows, answers, as_of=answers.as_of)
    problems: list[EspalierError] = [*checks.problems(made, rows, today=today)]
    if not answers.features:
        problems.append(UsageError("no column is left to predict from"))
    found = replace(found, answers=answers)
    if problems:
        return Looked(found, tuple(problems))
    cut = batches.of_one_day(made) if answers.time == NONE else batches.by_month(made, today=today)
    return Looked(found, (), cut)


@dataclass(frozen=True)
class Staged:
    """A product that lies in a folder, ready to be moved in: `paths` within it."""

    folder: Path
    product: Product
    first: FirstLook
    paths: tuple[str, ...]


def stage(folder: Path, name: str, looked: Looked, files: str) -> Staged:
    """Write the product into an empty folder, and try it there.

    Args:
        folder: The folder, laid out as a checkout.
        name: The product.
        looked: Without questions and problems.
        files: What it was made from, in words.
    """
    cut = looked.cut
    assert cut is not None, "nothing is open"
    product = Product(
        name=name,
        answers=looked.found.answers,
        files=files,
        first=cut.first,
        ttl_days=cut.ttl_days,
        batches=len(cut.tables),
    )
    package = f"src/python/{name}"
    seeds = f"data/seeds/{name}"
    for month, tables in cut.folders().items():
        checkout.write_tables(folder / seeds / month, tables)
    feast = f"feature_repo/{name}_features.py"
    checkout.write(
        folder,
        {
            f"{package}/BUILD": tests_code.build(product),
            f"{package}/{ANSWERS}": answering.text(product.answers, product=name),
            f"{package}/project.py": project_code.project(product),
            f"{package}/estimator.py": estimator_code.estimator(product),
            f"{package}/project_test.py": tests_code.project_test(product),
            feast: tests_code.feast(product),
        },
    )
    first = first_look.look(folder, name)
    test = tests_code.estimator_test(product, better=first.better)
    checkout.write(folder, {f"{package}/estimator_test.py": test})
    return Staged(folder, product, first, (package, seeds, feast))


@dataclass(frozen=True)
class Added:
    """A later batch: where it lies, its rows by table, and values that are no declared category."""

    folder: Path
    rows: Mapping[str, int]
    unknown: Mapping[str, int]


def add_batch(root: Path, project: Project, sheets: Sequence[Sheet], as_of: date) -> Added:
    """Convert a later file by the product's own answers into the batch of a month's end.

    Args:
        root: The checkout.
        project: The product.
        sheets: The one file.
        as_of: The day on which it is known.

    Raises:
        EspalierError: the file is not as the first one was, or the batch is there already.
    """
    if len(sheets) != 1:
        raise UsageError(
            f"{len(sheets)} files are more than one batch", fix="add one after another"
        )
    [sheet] = sheets
    path = root / "src" / "python" / project.name / ANSWERS
    answers = answering.read(path)
    month = project.calendar.month(as_of)
    seeds = root / "data" / "seeds" / project.name
    target = seeds / batch_folder(month)
    if target.exists():
        raise UsageError(
            f"{target.relative_to(root)} is there already",
            fix="a corrected batch is ingested with --revision from a folder of its own",
        )
    before = sorted(seeds.glob("month_*"))
    if answers.time == FILE_MONTH:
        sheet = replace(sheet, rows=batches.with_month(sheet.rows, as_of))
    expected = [f.source for f in answers.features or ()]
    expected += [n for n in (*(answers.key or ()), answers.time or NONE) if n not in (ROW, NONE)]
    # Others were left out at first, and the label may not be known yet.
    more = {answers.label, *(answers.drop or ())}
    wanted = [n for n in sheet.rows.columns if n in expected or n in more]
    missing = Sheet(sheet.path, sheet.rows[wanted], ())
    check_columns(missing, list(dict.fromkeys([*expected, *[n for n in wanted if n in more]])))
    rows_before = _rows_in(before) if answers.key == (ROW,) else 0
    made = convert.convert(sheet.rows, answers, as_of=as_of, before=rows_before)
    newest = project.calendar.as_of(int(before[-1].name[-3:])) if before else date.min
    tables = batches.later(made, as_of, after=newest)
    with checkout.workplace(root) as place:
        checkout.write_tables(place / target.name, tables)
        (place / target.name).rename(target)
    return Added(target, {name: len(rows) for name, rows in tables.items()}, made.unknown)


def _rows_in(folders: Sequence[Path]) -> int:
    return sum(len(pd.read_csv(f / "features.csv", usecols=[0], dtype=str)) for f in folders)
