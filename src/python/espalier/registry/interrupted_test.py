"""A process that is killed at any moment leaves nothing promoted by half."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from typing import Any

import pytest

from espalier.processes import python_environment
from espalier.registry import ledger
from espalier.registry.download import current_version
from espalier.registry.promotion import champion, promote
from espalier.registry.rest import MlflowRest
from espalier.registry.versions import list_versions

# Registers and promotes, and is killed where it would call the named function.
RUN = """
import importlib, os, pickle, signal, sys
from espalier.postgres.connect import connect
from espalier.registry.mlflow_registry import log_and_register
from espalier.registry.promotion import promote

module, name = sys.argv[3:]
def killed(*_args, **_kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(importlib.import_module(module), name, killed)

dsn, uri = sys.argv[1:3]
candidate = pickle.load(sys.stdin.buffer)
made = log_and_register(uri, candidate)
project = candidate.manifest.project
with connect(dsn) as connection:
    promote(
        connection, uri, project, made.version, expected=None, who="w", why="y", evidence={}
    )
"""


@pytest.fixture
def killed_at(postgres, registry, candidate, project):
    def run(place: str) -> tuple[str, str]:
        """Give the registry's address and the project."""
        module, _, function = place.partition(".")
        module = f"espalier.registry.{module}"
        done = subprocess.run(
            [sys.executable, "-c", RUN, postgres.dsn(), registry.uri, module, function],
            input=pickle.dumps(candidate(1.0)),
            env=python_environment(),
            timeout=100,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL
        return registry.uri, project

    return run


@pytest.mark.parametrize(
    ("place", "versions"),
    [
        # The run is there, the model's files are being written.
        ("mlflow_registry._write_model", []),
        # The files are uploaded, no version points to them.
        ("mlflow_registry._register", []),
        # The version is there, nothing of its promotion.
        ("promotion._checked", ["1"]),
        ("ledger.append", ["1"]),
    ],
)
def test_what_was_killed_before_its_promotion_promotes_nothing_and_the_next_run_is_healthy(
    killed_at, database, register, place, versions
) -> None:
    uri, project = killed_at(place)
    assert [v.version for v in list_versions(uri, project)] == versions
    assert champion(database, uri, project) is None
    assert current_version(uri, project) is None
    assert ledger.history(database, project) == []

    version = register(2.0).version
    assert version == str(len(versions) + 1)
    because: dict[str, Any] = {"who": "tester", "why": "next run", "evidence": {}}
    promote(database, uri, project, version, expected=None, **because)
    assert champion(database, uri, project) == version
    assert current_version(uri, project) == version


def test_what_was_killed_between_ledger_and_alias_is_completed_by_the_next(
    killed_at, database
) -> None:
    uri, project = killed_at("promotion._follow")
    with MlflowRest(uri) as mlflow:
        assert mlflow.aliases(project) == {}
        assert [e.to_version for e in ledger.history(database, project)] == ["1"]
        assert champion(database, uri, project) == "1"
        assert mlflow.aliases(project) == {"champion": "1"}
