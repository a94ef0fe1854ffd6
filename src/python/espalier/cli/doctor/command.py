"""`espalier doctor`: looks at every part, and says of each what is wrong and what to do."""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from espalier import commandline
from espalier import settings as configuration
from espalier.cli.doctor.catalog import CHECKS
from espalier.cli.doctor.examine import Examined, examine
from espalier.cli.doctor.finding import Check, Subject
from espalier.cli.products import add_project
from espalier.errors import ConfigurationError, UsageError
from espalier.project import load_project
from espalier.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    names = ", ".join(check.name for check in CHECKS)
    parser.description = f"Looks at: {names}."
    add_project(parser)
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="this check; may be repeated"
    )
    parser.add_argument(
        "--skip", action="append", default=[], metavar="NAME", help="not this one; may be repeated"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--as-of",
        type=commandline.midnight,
        metavar="DATE",
        help="judge the features' age as of this day; default: today",
    )
    parser.add_argument(
        "--deployments",
        type=Path,
        default=Path("deploy/prefect/deployments.toml"),
        metavar="FILE",
        help="the declared file; default: deploy/prefect/deployments.toml",
    )
    parser.add_argument(
        "--pexes", type=Path, default=Path("dist"), help="the folder of PEXes; default: dist"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Examine and tell; 0 when nothing failed, else 1.

    Raises:
        UsageError: there is no such check.
        ConfigurationError: there is no such project.
    """
    checks = _chosen(options.only, options.skip)
    began = time.monotonic()
    with _quiet():
        subject = Subject(
            settings=_settings(),
            project=load_project(options.project),
            environ=os.environ,
            env_file=Path(".env"),
            as_of=options.as_of or datetime.now(UTC),
            deployments=options.deployments,
            pexes=options.pexes,
        )
        width = max(len(check.name) for check in checks)
        found = []
        for one in examine(checks, subject):
            found.append(one)
            if not options.json:
                print(_line(one, width), flush=True)
    failed = [one.name for one in found if one.finding.state == "fail"]
    if options.json:
        print(json.dumps(_plain(found, green=not failed), indent=2))
    else:
        verdict = f"{len(failed)} failed: {', '.join(failed)}" if failed else "all is well"
        print(f"\n{verdict}; {len(found)} checks in {time.monotonic() - began:.1f} s", flush=True)
    return 1 if failed else 0


def _chosen(only: Sequence[str], skip: Sequence[str]) -> list[Check]:
    known = [check.name for check in CHECKS]
    for name in (*only, *skip):
        if name not in known:
            raise UsageError(f"there is no check {name!r}", fix=f"there are {', '.join(known)}")
    chosen = [c for c in CHECKS if (not only or c.name in only) and c.name not in skip]
    if not chosen:
        raise UsageError("no check is left", fix="--skip takes away what --only named")
    return chosen


def _settings() -> Settings:
    """The settings; the defaults where they are not valid, which the first checks then tell."""
    try:
        return configuration.load()
    except ConfigurationError:
        return Settings()


def _line(one: Examined, width: int) -> str:
    fix = f"; {one.finding.fix}" if one.finding.fix else ""
    return f"{one.finding.state:7} {one.name:{width}}  {one.finding.what}{fix}"


def _plain(found: Sequence[Examined], *, green: bool) -> dict[str, object]:
    return {
        "green": green,
        "checks": [
            {
                "check": one.name,
                "state": one.finding.state,
                "what": one.finding.what,
                "fix": one.finding.fix,
                "seconds": round(one.seconds, 3),
            }
            for one in found
        ],
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Libraries log and warn of what we tell in one line ourselves."""
    # gRPC's core reads it when it is first loaded.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
