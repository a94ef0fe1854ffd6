"""A flow's parameters as the options of a command line."""

from __future__ import annotations

import argparse
import inspect
import re
import types
import typing
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

from espalier import commandline
from espalier.commandline import OneLineParser


def parser_of(function: Callable[..., Any], program: str, **fixed: str) -> OneLineParser:
    """A parser with one option for each parameter of `function`.

    Types come from the annotations, help from the docstring's Args. `fixed` gives parameters that
    this program has decided; they stay options, hidden, with that default.
    """
    summary, described = _read_docstring(function)
    parser = OneLineParser(program, description=summary, allow_abbrev=False)
    hints = typing.get_type_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        option = f"--{name.replace('_', '-')}"
        required = parameter.default is inspect.Parameter.empty and name not in fixed
        default = fixed.get(name, None if required else parameter.default)
        # argparse formats help with %.
        text = argparse.SUPPRESS if name in fixed else described.get(name, "").replace("%", "%%")
        kind = _scalar(hints[name])
        if kind is bool:
            parser.add_argument(option, default=default, help=text, action="store_true")
        else:
            parser.add_argument(
                option,
                required=required,
                default=default,
                help=text,
                type=commandline.day if kind is date else kind,
                metavar={date: "YYYY-MM-DD", int: "N"}.get(kind, name.upper()),
            )
    return parser


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> dict[str, Any]:
    """The values of the options, by parameter name.

    Raises:
        UsageError: an option is unknown, missing or does not parse.
    """
    return vars(parser.parse_args(arguments))


def _scalar(hint: Any) -> Any:
    """The type itself of `T` and `T | None`."""
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def _read_docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """The first line and the Google-style Args of a docstring."""
    text = inspect.getdoc(function) or ""
    section = re.search(r"^Args:\n((?:(?: .*)?\n?)*)", text, re.MULTILINE)
    found = re.findall(r"^ +(\w+): (.*(?:\n {8,}.*)*)", section[1] if section else "", re.MULTILINE)
    return text.split("\n", 1)[0], {name: " ".join(said.split()) for name, said in found}
