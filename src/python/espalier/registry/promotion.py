"""Makes a version champion: first in the ledger, then by MLflow's alias.

The two stores cannot share a transaction, so the ledger goes first and the alias follows. A crash
in between leaves an alias that is one promotion behind; the next call of either function moves it
on. An alias that fits neither end of the last promotion was moved by hand, which is reported and
not overwritten.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from espalier.errors import CheckRefused, DependencyUnreachable, UsageError
from espalier.postgres.connect import Connection
from espalier.registry import ledger
from espalier.registry.ledger import Entry
from espalier.registry.manifest import CHAMPION
from espalier.registry.rest import MlflowRest


def champion(connection: Connection, tracking_uri: str, project: str) -> str | None:
    """The version on which ledger and alias agree, or None when nothing was promoted yet.

    A promotion that was interrupted is completed first. Ends the connection's open transaction.

    Raises:
        CheckRefused: the alias was moved by something else than a promotion.
        DependencyUnreachable: PostgreSQL or MLflow does not answer.
    """
    with MlflowRest(tracking_uri) as mlflow, ledger.exclusive(connection, project):
        entry = _settle(connection, mlflow, project)
    return None if entry is None else entry.to_version


def promote(
    connection: Connection,
    tracking_uri: str,
    project: str,
    version: str,
    *,
    expected: str | None,
    who: str,
    why: str,
    evidence: Mapping[str, Any],
) -> Entry:
    """Make `version` champion in place of `expected`, and give the ledger's entry.

    Ends the connection's open transaction. Promotions of one project take turns.

    Args:
        connection: To the database with the ledger.
        tracking_uri: The MLflow server.
        project: The project, which is also the registered model's name.
        version: The version to promote.
        expected: The champion that it was compared with; None when there was none.
        who: Who promotes.
        why: The reason, for people.
        evidence: What the decision rests on, as JSON values.

    Raises:
        CheckRefused: the champion is another one than `expected`, or the alias was moved by hand.
        UsageError: the version is not registered, or is champion already.
        DependencyUnreachable: PostgreSQL or MLflow does not answer; when the promotion is already
            in the ledger, the message says so.
    """
    with MlflowRest(tracking_uri) as mlflow, ledger.exclusive(connection, project):
        before = _settle(connection, mlflow, project)
        current = None if before is None else before.to_version
        if current == version:
            raise UsageError(f"version {version} of {project} is champion already")
        if current != expected:
            raise CheckRefused(
                f"the champion of {project} is version {current}, not {expected}",
                fix="compare with the new champion: run the training flow again",
            )
        if mlflow.get("model-versions/get", {"name": project, "version": version}) is None:
            raise UsageError(f"MLflow has no version {version} of model {project}")
        entry = ledger.append(
            connection,
            project,
            after=before,
            to_version=version,
            who=who,
            why=why,
            evidence=evidence,
        )
        connection.commit()
        _follow(mlflow, entry)
    return entry


def _settle(connection: Connection, mlflow: MlflowRest, project: str) -> Entry | None:
    """The last promotion, once the alias agrees with it."""
    entry = ledger.last(connection, project)
    alias = mlflow.alias(project)
    if entry is None:
        if alias is not None:
            raise CheckRefused(
                f"MLflow's alias {CHAMPION} of {project} is version {alias}, but the ledger has "
                "no promotion",
                fix="delete the alias, or connect to the database that belongs to this MLflow",
            )
    elif alias == entry.from_version:
        _follow(mlflow, entry)
    elif alias != entry.to_version:
        raise CheckRefused(
            f"MLflow's alias {CHAMPION} of {project} is {f'version {alias}' if alias else 'gone'}, "
            f"but the ledger's last promotion made version {entry.to_version} champion",
            fix=f"set the alias back to version {entry.to_version} in MLflow",
        )
    return entry


def _follow(mlflow: MlflowRest, entry: Entry) -> None:
    """Point the alias to the version that the ledger says."""
    pending = f"ledger entry {entry.id} made version {entry.to_version} champion of {entry.project}"
    try:
        moved = mlflow.set_alias(entry.project, entry.to_version)
    except DependencyUnreachable as error:
        raise DependencyUnreachable(
            f"{pending}, but the alias is not set yet ({error.message})",
            fix="start MLflow and run the training flow again: it completes the promotion",
        ) from error
    if not moved:
        raise CheckRefused(
            f"{pending}, but MLflow has no such version",
            fix="connect to the MLflow that belongs to this database",
        )
