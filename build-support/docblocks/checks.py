"""What must be so of every shell block, whether it is run or not. Python's standard library alone."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from docblocks import programs
from docblocks.blocks import Block, Command, Setting
from docblocks.session import PREPARATIONS

CI = Path(".ci/run")


def faults(checkout: Path, found: Mapping[str, Sequence[Block]]) -> list[str]:
    """What is wrong with the blocks, a line each; none when all is well.

    Args:
        checkout: Whose `.ci/run` it is that blocks of the setting `ci` are compared with.
        found: The blocks of each page.
    """
    ci = ci_commands(checkout)
    every = [(block, _calls(block)) for blocks in found.values() for block in blocks]
    # A page may use what another one has the reader define.
    defined = [name for _block, calls in every for name in programs.functions(calls)]
    said = [
        f"{block.place}: nothing provides {name}, see docblocks/programs.py"
        for block, calls in every
        for name in programs.nobodys(calls, defined)
    ]
    return said + [wrong for block, _ in every for wrong in _of_mark(block, found, ci)]


def _calls(block: Block) -> list[programs.Call]:
    return [call for command in block.commands for call in programs.calls(command.text)]


def ci_commands(checkout: Path) -> list[list[str]]:
    """The words of each line of `.ci/run`, and of the test command that it takes from README."""
    lines = (checkout / CI).read_text().splitlines()
    taken = next(line for line in lines if line.startswith("tests="))
    done = subprocess.run(
        ["bash", "-c", f'{taken}; echo "$tests"'],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.split() for line in [*lines, done.stdout]]


def _of_mark(
    block: Block, found: Mapping[str, Sequence[Block]], ci: Sequence[Sequence[str]]
) -> list[str]:
    if not block.marked:
        return [f"{block.place}: no mark; docblocks/blocks.py tells how to write one"]
    if block.before and not (PREPARATIONS / f"{block.before}.sh").exists():
        return [f"{block.place}: there is no docblocks/before/{block.before}.sh"]
    if block.setting is Setting.CI:
        return _strangers(block, lambda words: any(words == one[: len(words)] for one in ci), CI)
    if block.same_as:
        there = [
            _words(command)
            for other in found.get(block.same_as, ())
            if other.setting
            for command in other.commands
        ]
        return _strangers(block, there.__contains__, block.same_as)
    return []


def _strangers(
    block: Block, known: Callable[[Sequence[str]], bool], where: str | Path
) -> list[str]:
    return [
        f"{block.page}:{command.line}: {where} does not run {command.text}"
        for command in block.commands
        if not known(_words(command))
    ]


def _words(command: Command) -> list[str]:
    return shlex.split(command.text, comments=True)
