"""Asks a person at a terminal what the files do not tell."""

from __future__ import annotations

from collections.abc import Sequence

from espalier.authoring.answers import Answers
from espalier.authoring.roles import Question
from espalier.cli.tables import wrapped
from espalier.commandline import OneLineParser
from espalier.errors import UsageError

_PLACES = ("A,B", "COLUMN")


def for_text(what: str, option: str, *, asking: bool) -> str:
    """A text that was not given.

    Raises:
        UsageError: nobody can be asked, or says nothing.
    """
    said = _said(f"{what}: ") if asking else ""
    if not said:
        raise UsageError(f"no {what}", fix=f"give {option}; see espalier new --help")
    return said


def agreed(text: str) -> bool:
    """Whether a person says yes."""
    return _said(f"{text} [Y/n] ").lower() in ("", "y", "yes")


def ask(questions: Sequence[Question], given: Answers) -> Answers:
    """Ask the first of the questions, again until the answer is one; the answers with it."""
    question = questions[0]
    print()
    print(wrapped(f"{question.text}?".replace("??", "?")))
    # What has a word to be replaced is typed.
    whole = [choice for choice in question.choices if not choice.endswith(_PLACES)]
    for number, choice in enumerate(whole, 1):
        print(f"  {number}  {choice}")
    for choice in question.choices:
        if choice not in whole:
            print(f"     {choice}")
    while True:
        said = _said("number or option: " if question.choices else f"{question.option}: ")
        if said.isdecimal() and 0 < int(said) <= len(whole):
            said = whole[int(said) - 1]
        try:
            return _parsed(question, said).over(given)
        except UsageError as error:
            print(wrapped(error.message))


def _parsed(question: Question, said: str) -> Answers:
    """What was said, as an option with its value or as the value alone."""
    from espalier.cli import new

    parser = OneLineParser("answer", add_help=False)
    new.add_answers(parser)
    option, _, value = said.partition(" ")
    words = [option, *([value] if value else [])]
    if not said.startswith("--"):
        words = [question.option.split(" ", maxsplit=1)[0], said]
    return new.given_by(parser.parse_args(words))


def _said(prompt: str) -> str:
    try:
        return input(prompt).strip()
    except EOFError as error:
        raise UsageError("no answer") from error
