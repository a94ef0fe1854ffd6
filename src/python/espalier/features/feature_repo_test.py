"""Feast's own command line, over feature_repo/ and a real database."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from feast.repo_config import load_repo_config
from psycopg.conninfo import make_conninfo

from churn.project import PROJECT
from espalier.features import feast_store
from espalier.features.conftest import add_versions, make_tables
from espalier.features.point_in_time import features_at
from espalier.postgres.connect import Connection
from espalier.postgres.testing import variables
from espalier.processes import python_environment


def repository() -> Path:
    """The folder feature_repo, above this file or, in a sandbox, above where the tests run."""
    for start in (Path.cwd(), Path(__file__).resolve()):
        for folder in (start, *start.parents):
            if (folder / "feature_repo" / "feature_store.yaml").is_file():
                return folder / "feature_repo"
    raise AssertionError("feature_repo is not among the test's files")


@pytest.fixture
def environment(dsn: str) -> dict[str, str]:
    return variables(dsn)


@pytest.fixture
def churn(database: Connection, environment: dict[str, str]) -> Connection:
    make_tables(database, PROJECT)
    return database


def feast(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "feast.cli.cli", *arguments],
        cwd=repository(),
        env={**os.environ, **python_environment(), **environment, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_feasts_command_line_applies_and_materializes(
    dsn: str, churn: Connection, environment: dict[str, str]
) -> None:
    feature_columns = len(PROJECT.view.features)
    known = datetime(1997, 6, 30, tzinfo=UTC)
    late = datetime(1997, 7, 2, tzinfo=UTC)
    rows = [
        (f"{n:05}", known.date(), *[n + i for i in range(feature_columns)], known, 1)
        for n in range(50)
    ]
    corrected = ("00000", known.date(), *[666] * feature_columns, late, 2)
    add_versions(churn, PROJECT, "features", [*rows, corrected])

    applied = feast(environment, "apply")
    assert "customer_monthly" in applied
    feast(environment, "materialize", "1997-05-17T00:00:00", "1997-07-01T00:00:00")
    online = churn.execute(
        'SELECT * FROM online.churn_customer_monthly ORDER BY user_id COLLATE "C"'
    ).fetchall()
    expected = features_at(churn, PROJECT, when=date(1997, 7, 1))
    assert [(r[0], r[1], *r[3:]) for r in online] == [
        (r[0], r[1].to_pydatetime(), *r[2:]) for r in expected.itertuples(index=False)
    ]
    assert len(online) == 50

    # Ours goes on where Feast's left off, over the same registry.
    assert feast_store.materialize(PROJECT, dsn=dsn, end=late).rows == 50
    newest = churn.execute("SELECT max(recency_days) FROM online.churn_customer_monthly")
    assert newest.fetchone() == (666,)


def test_the_file_says_what_the_code_says(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**environment, "POSTGRES_PASSWORD": "p@ss: #/word%20\\"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    read = load_repo_config(repository(), repository() / "feature_store.yaml")
    made = feast_store.repo_config(
        PROJECT,
        dsn=make_conninfo(
            host=environment["POSTGRES_HOST"],
            port=environment["POSTGRES_PORT"],
            user=environment["POSTGRES_USER"],
            password=environment["POSTGRES_PASSWORD"],
            dbname=environment["POSTGRES_DB"],
        ),
    )
    for part in (
        "project",
        "provider",
        "materialization_config",
        "entity_key_serialization_version",
    ):
        assert getattr(read, part) == getattr(made, part), part
    for part in ("registry", "offline_store", "online_store"):
        assert getattr(read, part).model_dump() == getattr(made, part).model_dump(), part
    assert read.batch_engine_config == made.batch_engine_config
