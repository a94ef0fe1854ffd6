"""What a check of the doctor is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from espalier.project import Project
from espalier.settings import Settings

# `note` is something optional that is not there; `skipped` waits for another check to be well.
State = Literal["ok", "note", "warn", "fail", "skipped"]


@dataclass(frozen=True)
class Finding:
    """What a check found, and what to do about it."""

    state: State
    what: str
    fix: str = ""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is looked at.

    Attributes:
        settings: Where the parts are.
        project: The ML product.
        environ: The environment variables.
        env_file: The `.env` that settings were read from, where there is one.
        as_of: The day by which the features' age is judged.
        deployments: The declared file of deployments.
        pexes: The folder of PEXes, whose recorded digests count.
    """

    settings: Settings
    project: Project
    environ: Mapping[str, str]
    env_file: Path
    as_of: datetime
    deployments: Path
    pexes: Path


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check.

    Attributes:
        name: As it is named on the command line and in docs/troubleshooting.md.
        run: Looks; it may raise EspalierError, which is a failure.
        needs: The checks that must be well first.
        seconds: After which it counts as hanging.
        imports: Modules of seconds, which are imported before the clock starts.
    """

    name: str
    run: Callable[[Subject], Finding]
    needs: tuple[str, ...] = ()
    seconds: float = 12.0
    imports: tuple[str, ...] = ()


def ok(what: str) -> Finding:
    """All is well."""
    return Finding("ok", what)


def fail(what: str, fix: str) -> Finding:
    """Something does not work."""
    return Finding("fail", what, fix)


def warn(what: str, fix: str) -> Finding:
    """It works, and somebody should look."""
    return Finding("warn", what, fix)


def note(what: str, fix: str) -> Finding:
    """Something optional is not there."""
    return Finding("note", what, fix)
