"""The page of command lines, from the programs' own parsers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from docs.markup import code, page, table
from espalier.cli.main import command_line as platform
from espalier.orchestration.flows.ingest import ingest
from espalier.orchestration.flows.loop import loop
from espalier.orchestration.flows.materialize import materialize
from espalier.orchestration.flows.monitor import monitor
from espalier.orchestration.flows.score import score
from espalier.orchestration.flows.train import train
from espalier.orchestration.options import parser_of
from espalier.serving.main import command_line as server

_PRODUCT = "churn"
_FLOWS = (ingest, materialize, train, monitor, score, loop)
_INTRODUCTION = f"""
What `--help` tells, of every program in `dist/`. Programs of a product have its name before them,
here `{_PRODUCT}`, and their `--project` is set. Exit codes are in [errors](errors.md), what the
environment sets in [settings](settings.md).
"""


def rendered() -> str:
    """The page."""
    programs = [platform()]
    programs += [
        parser_of(flow.fn, f"{_PRODUCT}-{flow.name}.pex", project=_PRODUCT) for flow in _FLOWS
    ]
    programs.append(server(f"{_PRODUCT}-server.pex"))
    programs[0].prog = "espalier.pex"
    sections = [section for program in programs for section in _sections(program, program.prog, 2)]
    return page(
        "Command lines",
        "the programs' parsers",
        _INTRODUCTION,
        *sections,
    )


def _sections(parser: argparse.ArgumentParser, name: str, level: int) -> Iterator[str]:
    """A heading, a line and a table, and the same for each subcommand."""
    yield f"{'#' * level} {name}"
    told = _sentence(parser.description or "")
    yield told
    rows = [_row(parser, action) for action in parser._actions if _shown(action)]  # noqa: SLF001
    if rows:
        yield table(("argument", "meaning"), rows)
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            yield from _subcommands(action, name, level)


def _subcommands(
    action: argparse._SubParsersAction[argparse.ArgumentParser], name: str, level: int
) -> Iterator[str]:
    helps = {choice.dest: choice.help or "" for choice in action._choices_actions}  # noqa: SLF001
    for command, told in helps.items():
        parser = action.choices[command]
        if not parser.description:
            parser.description = told
        yield from _sections(parser, f"{name} {command}", min(level + 1, 4))


def _shown(action: argparse.Action) -> bool:
    return action.help != argparse.SUPPRESS and not isinstance(
        action,
        argparse._HelpAction | argparse._SubParsersAction,  # noqa: SLF001
    )


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> tuple[str, str]:
    formatter = parser._get_formatter()  # noqa: SLF001
    said = formatter._expand_help(action) if action.help else ""  # noqa: SLF001
    if not action.option_strings:
        name = str(action.metavar or action.dest)
        return code(name if action.required else f"[{name}]"), said
    value = ""
    if action.nargs != 0:
        value = " " + str(action.metavar or action.dest.upper())
    names = ", ".join(action.option_strings)
    return code(names + value), said + (" (required)" if action.required else "")


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    text = text[:1].upper() + text[1:]
    return text if text.endswith(".") or not text else f"{text}."
