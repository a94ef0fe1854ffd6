"""The shell blocks of a page: their commands, what they show, and the mark that each has.

A mark is an HTML comment directly before the block:

    <!-- run: SETTING -->                 it is run there, see Setting
    <!-- run: SETTING, after NAME -->     after before/NAME.sh, which prepares what a reader has
    <!-- run: as PAGE -->                 PAGE has the same commands and runs them
    <!-- not run: REASON -->

`# exit code N` at a command's end says that it shall end so; else it shall succeed. Of output that
is shown, `...` stands for anything, and how lines are broken does not count.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

_SHELLS = ("bash", "console", "sh", "shell", "shell-session", "zsh")
_FENCE = re.compile(r"^(?P<indent>\s*)(?P<ticks>`{3,}|~{3,})\s*(?P<language>[^\s`]*)[^`]*$")
_MARK = re.compile(r"<!--\s*(?P<kind>run|not run):\s*(?P<rest>.*?)\s*-->", re.DOTALL)
_RUN = re.compile(r"(?P<setting>\w+)(?:, after (?P<before>\w+))?")
_EXIT_CODE = re.compile(r"#.*\bexit code (\d+)")
_PROMPT = "$ "
_LISTED = re.compile(r"\s*(?:[-*+]|\d+[.)]|!!!|\?\?\?\+?|===|\[\^)\s?")
_INDENTED = " " * 4


class Fault(Exception):
    """A page is not as this needs it; the text says where and what to do."""


class Setting(Enum):
    """Where blocks are run."""

    FRESH = "fresh"
    """An empty folder with the programs at hand."""
    STACK = "stack"
    """The whole stack of build-support/stack/check.py; `process-compose up` and `down` are its own."""
    CLONE = "clone"
    """A clone of the repository, with ./pants."""
    CI = "ci"
    """CI itself: the command begins a line of .ci/run."""


@dataclass(frozen=True)
class Command:
    """One command, which may have several lines, and what the page shows of its output."""

    text: str
    shown: str
    line: int

    @property
    def exit_code(self) -> int:
        """What it shall end with."""
        found = _EXIT_CODE.search(self.text)
        return int(found[1]) if found else 0


@dataclass(frozen=True)
class Block:
    """A shell block; of setting, reason and `same_as` it has one, or none when it has no mark."""

    page: str
    line: int
    commands: tuple[Command, ...]
    setting: Setting | None = None
    before: str = ""
    reason: str = ""
    same_as: str = ""

    @property
    def place(self) -> str:
        """Where it stands, as PAGE:LINE."""
        return f"{self.page}:{self.line}"

    @property
    def marked(self) -> bool:
        """Whether it has a mark."""
        return bool(self.setting or self.reason or self.same_as)


def pages(checkout: Path) -> list[Path]:
    """README.md and all of docs/."""
    return [checkout / "README.md", *sorted((checkout / "docs").rglob("*.md"))]


def read(checkout: Path, page: Path) -> list[Block]:
    """The shell blocks of one page, in their order.

    Raises:
        Fault: a block or mark is not written as it should be.
    """
    return blocks(page.read_text(), page.relative_to(checkout).as_posix())


def blocks(text: str, page: str) -> list[Block]:
    """The shell blocks of a page's text.

    Raises:
        Fault: a block or mark is not written as it should be.
    """
    found = []
    for line, language, mark, body in _fenced(text.splitlines(), page):
        if not language:
            raise Fault(f"{page}:{line}: say the block's language: console, or text for output")
        if language not in _SHELLS:
            if mark:
                raise Fault(f"{page}:{line}: the mark is before a block that is no shell's")
            continue
        split = _console if body and body[0].startswith(_PROMPT) else _script
        block = Block(page, line, tuple(split(body, f"{page}:{line}", line + 1)))
        found.append(_marked(block, mark) if mark else block)
    return found


def _fenced(lines: Sequence[str], page: str) -> Iterator[tuple[int, str, str, list[str]]]:
    """Each fenced block: its line, language, mark and lines."""
    number, mark, listed = 0, "", False
    while number < len(lines):
        line, place = lines[number], f"{page}:{number + 1}"
        if opened := _FENCE.match(line):
            body = _body(lines[number + 1 :], opened, place)
            yield number + 1, opened["language"], mark, body
            mark, number = "", number + len(body) + 1
        elif line.lstrip().startswith("<!--"):
            comment = _comment(lines[number:], place)
            mark = comment if _MARK.fullmatch(comment.strip()) else ""
            number += comment.count("\n")
        elif line.strip():
            if mark:
                raise Fault(f"{place}: no block comes after the mark {mark}")
            listed = bool(_LISTED.match(line)) or (listed and line.startswith(" "))
            above = lines[number - 1].strip() if number else ""
            if line.startswith(_INDENTED) and not above and not listed:
                raise Fault(f"{place}: write ``` and a language around the block")
        number += 1


def _body(lines: Sequence[str], opened: re.Match[str], place: str) -> list[str]:
    ends = [number for number, line in enumerate(lines) if line.strip() == opened["ticks"]]
    if not ends:
        raise Fault(f"{place}: the block has no end")
    return [line.removeprefix(opened["indent"]) for line in lines[: ends[0]]]


def _comment(lines: Sequence[str], place: str) -> str:
    ends = [number for number, line in enumerate(lines) if "-->" in line]
    if not ends:
        raise Fault(f"{place}: the comment has no end")
    return "\n".join(lines[: ends[0] + 1])


def _console(lines: Sequence[str], place: str, first: int) -> Iterator[Command]:
    """Commands after `$ `, each with the output below it."""
    number = 0
    while number < len(lines):
        begun, text = number, lines[number].removeprefix(_PROMPT)
        number += 1
        while not _complete(text):
            if number == len(lines):
                raise Fault(f"{place}: a command is not complete: {text}")
            text += "\n" + lines[number].removeprefix("> ")
            number += 1
        output = number
        while number < len(lines) and not lines[number].startswith(_PROMPT):
            number += 1
        yield Command(text, "\n".join(lines[output:number]).strip(), first + begun)


def _script(lines: Sequence[str], place: str, first: int) -> Iterator[Command]:
    """Commands without a prompt, and so without output."""
    for number, line in enumerate(lines):
        if line.startswith(_PROMPT):
            raise Fault(f"{place}: begin with a command: line {first + number} has the first $")
    number = 0
    while number < len(lines):
        begun, text = number, lines[number]
        number += 1
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        while not _complete(text):
            if number == len(lines):
                raise Fault(f"{place}: a command is not complete: {text}")
            text += "\n" + lines[number]
            number += 1
        yield Command(text, "", first + begun)


def _complete(text: str) -> bool:
    if text.rstrip("\n").endswith("\\"):
        return False
    # Of a here-document without its end it only warns.
    done = subprocess.run(
        ["bash", "-n"], input=text + "\n", capture_output=True, text=True, check=False
    )
    return done.returncode == 0 and not done.stderr


def _marked(block: Block, comment: str) -> Block:
    found = _MARK.fullmatch(comment.strip())
    assert found
    kind, rest = found["kind"], " ".join(found["rest"].split())
    if kind == "not run":
        if not rest:
            raise Fault(f"{block.place}: say why it is not run")
        return replace(block, reason=rest)
    if rest.startswith("as "):
        return replace(block, same_as=rest.removeprefix("as "))
    run = _RUN.fullmatch(rest)
    settings = [one.value for one in Setting]
    if run is None or run["setting"] not in settings:
        raise Fault(f"{block.place}: {rest!r} is no setting: {', '.join(settings)}")
    return replace(block, setting=Setting(run["setting"]), before=run["before"] or "")
