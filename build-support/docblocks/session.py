"""Runs the blocks of a page as a reader does: one bash, one folder, one command after the other."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from docblocks.blocks import Block, Command
from docblocks.outputs import agree

PREPARATIONS = Path(__file__).resolve().parent / "before"
_LINES = 40
_GRACE_SECONDS = 20


class Failed(Exception):
    """A command did not do what its page says."""


@dataclass(frozen=True)
class Place:
    """Where blocks are run.

    Attributes:
        folder: The working directory at a page's beginning.
        environment: All variables of the commands.
        here: A page's text as it is in this place, as with the ports of this stack.
        without: Commands that whoever has the place does itself.
    """

    folder: Path
    environment: Mapping[str, str]
    here: Callable[[str], str] = str
    without: Sequence[str] = ()


@dataclass(frozen=True)
class _Step:
    text: str
    exit_code: int
    shown: str
    at: str


def run(blocks: Sequence[Block], place: Place, *, seconds: float) -> None:
    """Run blocks of one page; whatever they leave running is ended.

    Args:
        blocks: Each command has what the ones before it left: folder, variables, functions.
        place: Where.
        seconds: How long all of it may take.

    Raises:
        Failed: a command ended otherwise, or said something else, than its page tells.
    """
    steps = _steps(blocks, place)
    answers = Path(tempfile.mkdtemp(prefix="docblocks-"))
    try:
        _run(steps, place, answers, seconds)
    finally:
        shutil.rmtree(answers, ignore_errors=True)


def _run(steps: Sequence[_Step], place: Place, answers: Path, seconds: float) -> None:
    script = answers / "script"
    script.write_text("\n".join(_lines(steps, answers)))
    bash = subprocess.Popen(
        ["bash", "--noprofile", "--norc", str(script)],
        cwd=place.folder,
        env=dict(place.environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Its group is what a page may leave behind.
        start_new_session=True,
    )
    try:
        bash.wait(timeout=seconds)
        slow = ""
    except subprocess.TimeoutExpired:
        slow = f" within {seconds:.0f} s"
    finally:
        _end(bash)
    for number, step in enumerate(steps):
        said, code = _answer(answers, number)
        tail = "\n".join(said.rstrip().splitlines()[-_LINES:])
        if code is None:
            raise Failed(f"{step.at}: {step.text}\nhas not ended{slow}:\n{tail}")
        if code != step.exit_code:
            expected = f", not {step.exit_code}" if step.exit_code else ""
            raise Failed(f"{step.at}: {step.text}\nended with {code}{expected}:\n{tail}")
        if step.shown and not agree(step.shown, said):
            raise Failed(f"{step.at}: {step.text}\nsaid:\n{tail}\n--- shown:\n{step.shown}")


def _steps(blocks: Sequence[Block], place: Place) -> list[_Step]:
    steps = []
    for block in blocks:
        if block.before:
            file = PREPARATIONS / f"{block.before}.sh"
            steps.append(_Step(f". '{file}'", 0, "", block.place))
        steps += [_step(block, command, place) for command in block.commands]
    return [step for step in steps if step.text.partition("  #")[0].strip() not in place.without]


def _step(block: Block, command: Command, place: Place) -> _Step:
    at = f"{block.page}:{command.line}"
    return _Step(place.here(command.text), command.exit_code, place.here(command.shown), at)


def _lines(steps: Sequence[_Step], answers: Path) -> list[str]:
    # Braces, not parentheses: the folder, variables and functions stay.
    lines = []
    for number, step in enumerate(steps):
        lines += [
            "{",
            step.text,
            f"}} >'{answers}/{number}' 2>&1",
            f"code=$?; echo $code >'{answers}/{number}.code'",
            f"[ $code -eq {step.exit_code} ] || exit 1",
        ]
    return lines


def _answer(answers: Path, number: int) -> tuple[str, int | None]:
    said, code = answers / str(number), answers / f"{number}.code"
    text = said.read_text(errors="replace") if said.exists() else ""
    ended = code.read_text().strip() if code.exists() else ""
    return text, int(ended) if ended else None


def _end(bash: subprocess.Popen[bytes]) -> None:
    """End bash and all that it left running, in order where that takes no longer than a while."""
    deadline = time.monotonic() + _GRACE_SECONDS
    number = signal.SIGTERM
    while True:
        try:
            os.killpg(bash.pid, number)
        except ProcessLookupError:
            return
        # Reaped, or it would stay in its group.
        bash.poll()
        if time.monotonic() > deadline:
            number = signal.SIGKILL
        time.sleep(0.05)
