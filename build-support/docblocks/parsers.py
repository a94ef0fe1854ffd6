"""Whether our own programs take what a page gives them, by their real parsers."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import tomllib
from pathlib import Path
from typing import Any

from docblocks.programs import GOALS, Call
from espalier.cli import main as cli
from espalier.errors import ConfigurationError, UsageError
from espalier.orchestration.options import parser_of
from espalier.project import load_function
from espalier.serving import main as serving

_PROGRAM = re.compile(r"(?P<product>[a-z]\w*)-(?P<kind>[a-z]+)\.pex")


def wrong(call: Call, *, whole: bool = True) -> str:
    """What one of our programs would say against a call; empty when it takes it, or is not ours.

    Args:
        call: The call.
        whole: Whether it is the whole command line, not only a part that is talked of.
    """
    if any(one.startswith("PEX_SCRIPT=") for one in call.assigned):
        return ""
    if call.program == "pants":
        return _wrong_goal(call, whole=whole)
    found = _PROGRAM.fullmatch(call.program)
    if call.program == "espalier.pex":
        parser = cli.command_line()
    elif found is None:
        return ""
    elif made := _program(found["product"], found["kind"]):
        parser = made
    else:
        return f"no product has a program {call.program}"
    # A server's PEX names its product by an argument.
    product = [f"--project={found['product']}"] if found and found["kind"] == "server" else []
    words = [*product, *call.words]
    said = _unknown(parser, words)
    return said if said or not whole or call.placeholders else _refused(parser, words)


def _wrong_goal(call: Call, *, whole: bool) -> str:
    goals = [word for word in call.words if not word.startswith("-")]
    if not goals or goals[0] in GOALS or Call("", (goals[0],)).placeholders:
        return ""
    aliases = tomllib.loads(Path("pants.toml").read_text())["cli"]["alias"]
    _run, _, command = aliases.get(goals[0], "").partition(" -- ")
    if not command:
        return f"pants has no goal {goals[0]}"
    rest = call.words[call.words.index(goals[0]) + 1 :]
    given = tuple(word for word in rest if word != "--")
    return wrong(Call("espalier.pex", (*command.split(), *given)), whole=whole)


def _program(product: str, kind: str) -> argparse.ArgumentParser | None:
    if kind == "server":
        return serving.command_line(product)
    try:
        flow: Any = load_function(f"espalier.orchestration.flows.{kind}:{kind}")
    except ConfigurationError:
        return None
    return parser_of(flow.fn, f"{product}-{kind}", project=product)


def _unknown(parser: argparse.ArgumentParser, words: list[str]) -> str:
    """The first subcommand or option that the parser does not know."""
    here, subcommands = parser, _subcommands(parser)
    for word in words:
        if word.startswith("-") and word != "--" and not word[1:].isdigit():
            option = word.partition("=")[0]
            if option not in here._option_string_actions:  # noqa: SLF001
                return f"{here.prog} has no {option}"
        elif subcommands:
            if word not in subcommands:
                return f"{here.prog} has no {word}"
            here = subcommands[word]
            subcommands = _subcommands(here)
    return ""


def _subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            return dict(action.choices)
    return {}


def _refused(parser: argparse.ArgumentParser, words: list[str]) -> str:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            parser.parse_args(words)
        except UsageError as error:
            return str(error)
        except SystemExit as end:
            # --help and --version.
            return "" if not end.code else f"ended with {end.code}"
    return ""
