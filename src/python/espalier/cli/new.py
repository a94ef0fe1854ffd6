"""`espalier new` and `espalier add-batch`: a person's own files become an ML product."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

from espalier import commandline
from espalier.authoring import answers as answering
from espalier.authoring import author, checkout, names, source
from espalier.authoring.answers import Answers
from espalier.authoring.author import Looked, Staged
from espalier.authoring.first_look import NEAR_PERFECT
from espalier.authoring.roles import Question
from espalier.authoring.source import Sheet
from espalier.cli import new_text, questions
from espalier.cli.tables import wrapped
from espalier.errors import EspalierError, UsageError
from espalier.project import load_project


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """New's options; those of `add_answers` say what the files hold."""
    parser.add_argument("name", nargs="?", help="the product's name, as wine")
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="PATH",
        help="a CSV or Parquet file, or a folder",
    )
    add_answers(parser)
    parser.add_argument(
        "--answers", type=Path, metavar="FILE", help="answers.toml of an earlier run"
    )
    parser.add_argument("--yes", action="store_true", help="ask nothing; refuse what is open")
    _add_root(parser)
    parser.set_defaults(run=run)


def add_answers(parser: argparse._ActionsContainer) -> None:
    """The options that say what the files hold."""
    add = parser.add_argument
    add("--key", type=_columns, metavar="A[,B]", help="what identifies a row; row numbers them")
    add("--time", metavar="COLUMN", help="the day a row was so; none for files of one day")
    add("--label", metavar="COLUMN", help="what is predicted")
    add("--task", help="binary, multiclass or regression")
    add("--positive", metavar="VALUE", help="the label's value that is looked for")
    add(
        "--as-of",
        type=commandline.day,
        metavar="DAY",
        help="the month's end that one day's files are of",
    )
    add("--horizon-days", type=int, metavar="N", help="days from the time until the label is known")
    add("--unlabelled", choices=("keep", "drop"), help="what becomes of rows without a label")
    add("--drop", action="append", metavar="COLUMN", help="leave a column out; may be repeated")
    add("--text", action="append", metavar="COLUMN", help="take a column for categories")
    add("--date-format", action="append", metavar="COLUMN=FORMAT", help="as day=%%d.%%m.%%Y")
    add("--near-perfect", action="store_true", default=None, help="a model may tell nearly all")
    add("--description", metavar="TEXT", help="what is predicted, in a sentence")


def add_batch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add-batch's options."""
    parser.add_argument("name", help="the product")
    parser.add_argument("--from", dest="source", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--as-of", type=commandline.day, required=True, metavar="DAY", help="a month's end"
    )
    _add_root(parser)
    parser.set_defaults(run=run_add_batch)


def _add_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--root", type=Path, default=Path(), metavar="FOLDER", help="the checkout; default: here"
    )


def _columns(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def given_by(options: argparse.Namespace) -> Answers:
    """The answers that options give."""
    formats = {}
    for text in options.date_format or ():
        column, is_there, form = text.rpartition("=")
        if not is_there:
            raise UsageError(f"--date-format {text} names no column", fix="say COLUMN=%d.%m.%Y")
        formats[column] = form
    return Answers(
        key=options.key,
        time=options.time,
        label=options.label,
        task=options.task,
        positive=options.positive,
        as_of=options.as_of,
        horizon_days=options.horizon_days,
        unlabelled=options.unlabelled,
        drop=tuple(options.drop) if options.drop else None,
        text=tuple(options.text) if options.text else None,
        date_formats=formats or None,
        near_perfect=options.near_perfect,
        description=options.description,
    )


def run(options: argparse.Namespace) -> int:
    """Look at the files, ask what is open, and write the product.

    Raises:
        EspalierError: the name, an option or the files are not as they must be; nothing was
            written.
    """
    today = datetime.now(tz=UTC).date()
    asking = sys.stdin.isatty() and not options.yes
    root = options.root.absolute()
    there = checkout.products(root)
    name = options.name or questions.for_text("name of the product", "NAME", asking=asking)
    names.check_product(name, root, there)
    path = options.source or Path(questions.for_text("file or folder", "--from", asking=asking))
    sheets = source.read(path)
    given = given_by(options)
    if options.answers is not None:
        given = given.over(replace(answering.read(options.answers), features=None, classes=None))
    _check_as_of(given, today)
    while True:
        given, looked = _settled(sheets, given, today=today, asking=asking)
        if looked.found.questions:
            return _refused([UsageError(question.told()) for question in looked.found.questions])
        if looked.problems:
            return _refused(looked.problems)
        with checkout.workplace(root) as place:
            staged = author.stage(place, name, looked, _files(path, sheets))
            print(new_text.first_look(staged.first))
            if (question := _near_perfect(staged, looked)) is None:
                return _move_in(root, name, staged, looked, asking=asking)
        if not asking:
            return _refused([UsageError(question.told())])
        given = questions.ask([question], given)


def _settled(
    sheets: Sequence[Sheet], given: Answers, *, today: date, asking: bool
) -> tuple[Answers, Looked]:
    """Show what was inferred, and ask until nothing is open; nobody may be there to be asked."""
    before = given
    while True:
        try:
            looked = author.look(sheets, given, today=today)
        except UsageError as error:
            # What was just said does not fit the file, so it is asked again.
            if given == before:
                raise
            print(f"\n{wrapped(str(error))}")
            given = before
            continue
        print(new_text.inferred(sheets, looked))
        if not looked.found.questions or not asking:
            return given, looked
        before = given
        given = questions.ask(looked.found.questions, given)


def _move_in(root: Path, name: str, staged: Staged, looked: Looked, *, asking: bool) -> int:
    if asking and not questions.agreed(f"Write src/python/{name}?"):
        print("nothing was written")
        return 1
    shared = checkout.with_product(root, name)
    checkout.move_in(staged.folder, root, list(staged.paths), shared)
    print(new_text.next_steps(name, staged, list(shared), looked))
    return 0


def _check_as_of(given: Answers, today: date) -> None:
    from espalier.authoring.days import last_month_end, month_end

    if given.as_of is None:
        return
    if given.as_of > today or month_end(given.as_of) != given.as_of:
        raise UsageError(
            f"--as-of {given.as_of} is no month's end up to today",
            fix=f"batches are known at a month's end, such as {last_month_end(today)}",
        )


def _near_perfect(staged: Staged, looked: Looked) -> Question | None:
    """What to ask of a label that can be told nearly without error."""
    if looked.found.answers.near_perfect or not staged.first.suspicious > NEAR_PERFECT:
        return None
    return Question(
        "--near-perfect",
        f"{staged.first.suspicious:.4f} is suspiciously good: may the label really be told so "
        "well, or is a column known only afterwards?",
        ("--near-perfect", "--drop COLUMN"),
    )


def _files(path: Path, sheets: Sequence[Sheet]) -> str:
    return path.name if len(sheets) == 1 else f"{len(sheets)} files of {path.name}"


def _refused(problems: Sequence[EspalierError]) -> int:
    """Say each on a line of standard error; the gravest exit code."""
    for problem in problems:
        print(f"espalier: {problem}", file=sys.stderr)
    return max(problem.exit_code for problem in problems)


def run_add_batch(options: argparse.Namespace) -> int:
    """Convert a later file by the product's own answers into its next batch folder.

    Raises:
        EspalierError: the file is not as the first one was; nothing was written.
    """
    root = options.root.absolute()
    checkout.products(root)
    added = author.add_batch(
        root, load_project(options.name), source.read(options.source), options.as_of
    )
    print(new_text.added(added, root, options.name, options.as_of))
    return 0
