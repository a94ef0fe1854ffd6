"""`espalier reproduce VERSION`: train a version again and compare."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from espalier.cli.products import add_project
from espalier.cli.tables import table, wrapped
from espalier.orchestration import context

if TYPE_CHECKING:
    from espalier.training.reproduce import Compared, Reproduction

_DIGEST_SHOWN = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("version", help="the version's number, or champion or previous")
    add_project(parser)
    parser.add_argument(
        "--strict", action="store_true", help="also another commit or machine is a difference"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Train again, print what is equal and what is not; 0 when all is, 1 otherwise.

    Raises:
        EspalierError: the version cannot be trained again at all.
    """
    with context.begin(options.project) as begun:
        # scikit-learn and what converts its models: seconds.
        from espalier.training.reproduce import reproduce

        configured = begun.settings
        found = reproduce(
            begun.project,
            options.version,
            dsn=configured.dsn,
            tracking_uri=configured.mlflow_tracking_uri,
            who=configured.who,
            program=begun.program(),
        )
    same = not found.differences if options.strict else found.equal
    print(_json(found, same=same) if options.json else _text(found))
    return 0 if same else 1


def _json(found: Reproduction, *, same: bool) -> str:
    told = {
        "project": found.project,
        "version": found.version,
        "as_of": found.as_of.isoformat(),
        "equal": same,
        "same_result": found.same_result,
        "compared": [{**asdict(one), "equal": one.equal} for one in found.compared],
    }
    return json.dumps(told, indent=2)


def _text(found: Reproduction) -> str:
    title = f"{found.project} version {found.version}, trained again as of {found.as_of}\n"
    rows = []
    for part, said in (("result", "results"), ("input", "inputs"), ("context", "context")):
        those = [one for one in found.compared if one.part == part]
        equal = [one for one in those if one.equal]
        rows += [
            [said, one.name, "DIFFERENT", f"{_short(one.recorded)}, now {_short(one.now)}"]
            for one in those
            if not one.equal
        ]
        rows.append([said, f"{len(equal)} of {len(those)}", "equal", _named(equal)])
    return "\n".join([title, table(["part", "what", "", "recorded"], rows), "", _verdict(found)])


def _named(equal: list[Compared]) -> str:
    """What is equal, values of many parts by their first word."""
    names = dict.fromkeys(one.name.split()[0].split(".")[0] for one in equal)
    return ", ".join(names)


def _verdict(found: Reproduction) -> str:
    result = (
        "The model is the same, bit for bit."
        if found.same_result
        else "Training gave another model."
    )
    reasons = [one.name for one in found.differences if one.part == "input"]
    others = [one.name for one in found.differences if one.part == "context"]
    if reasons:
        result += f" Changed since: {', '.join(reasons)}."
    elif not found.same_result:
        result += (
            f" No input was changed; of the context: {', '.join(others)}."
            if others
            else " Nothing that is recorded was changed, so it is not deterministic."
        )
    return wrapped(result)


def _short(value: str) -> str:
    """Digests are told by their start."""
    is_digest = len(value) in (40, 64) and not value.strip("0123456789abcdef")
    return value[:_DIGEST_SHOWN] if is_digest else value
