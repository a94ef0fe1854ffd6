"""Makes a version champion, or goes back to the one before: in the ledger, then by MLflow's aliases.

The two stores cannot share a transaction, so the ledger goes first and the aliases follow. A crash
in between leaves aliases that are one entry behind; the next call of any function here moves them
on. An alias `champion` that fits neither end of the last entry was moved by hand: `champion` and
`promote` report it, `rollback` and `repair` overwrite it. `previous` is where a rollback would go.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espalier.errors import CheckRefused, DependencyUnreachable, UsageError
from espalier.postgres.connect import Connection
from espalier.registry import download, ledger, loadable
from espalier.registry.ledger import Entry
from espalier.registry.manifest import CHAMPION, MANIFEST, PREVIOUS
from espalier.registry.rest import MlflowRest


def champion(connection: Connection, tracking_uri: str, project: str) -> str | None:
    """The version on which ledger and alias agree, or None when nothing was promoted yet.

    A promotion that was interrupted is completed first. Ends the connection's open transaction.

    Raises:
        CheckRefused: the alias was moved by something else than a promotion.
        DependencyUnreachable: PostgreSQL or MLflow does not answer.
    """
    with MlflowRest(tracking_uri) as mlflow, ledger.exclusive(connection, project):
        entries = ledger.history(connection, project)
        _settle(mlflow, project, entries)
    return entries[-1].to_version if entries else None


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
        evidence: What the decision rests on, as JSON values; the manifest's digest is added.

    Raises:
        CheckRefused: the champion is another one than `expected`, or the alias was moved by hand.
        UsageError: the version is not registered, or is champion already.
        ModelNotReady, BadData: a file of the version is gone, was changed, or cannot be loaded.
        DependencyUnreachable: PostgreSQL or MLflow does not answer; when the promotion is already
            in the ledger, the message says so.
    """
    with MlflowRest(tracking_uri) as mlflow, ledger.exclusive(connection, project):
        entries = ledger.history(connection, project)
        _settle(mlflow, project, entries)
        current = entries[-1].to_version if entries else None
        if current == version:
            raise UsageError(f"version {version} of {project} is champion already")
        if current != expected:
            raise CheckRefused(
                f"the champion of {project} is {_named(current)}, not {_named(expected)}",
                fix="compare with the new champion: run the training flow again",
            )
        if mlflow.version(project, version) is None:
            raise UsageError(f"MLflow has no version {version} of model {project}")
        digest = _checked(tracking_uri, project, version)
        entry = ledger.append(
            connection,
            project,
            after=entries[-1] if entries else None,
            to_version=version,
            who=who,
            why=why,
            evidence={**evidence, "manifest_digest": digest},
        )
        _commit(connection, mlflow, [*entries, entry])
    return entry


def rollback(
    connection: Connection,
    tracking_uri: str,
    project: str,
    *,
    expected: str | None,
    who: str,
    why: str,
    to: str | None = None,
) -> Entry:
    """Make the champion before `expected` champion again, and give the ledger's entry.

    Like an undo: a second rollback goes one further back, to the champion before that one. A
    promotion after it starts from there, so what was rolled back is not come back to.

    Args:
        connection: To the database with the ledger; its open transaction is ended.
        tracking_uri: The MLflow server.
        project: The project.
        expected: The champion that is to go; of two rollbacks at once one is refused by it.
        who: Who rolls back.
        why: The reason, for people.
        to: One of the earlier champions, instead of the one before.

    Raises:
        CheckRefused: the champion is another one than `expected`, or there is no earlier one.
        UsageError: `to` is no earlier champion.
        ModelNotReady, BadData: a file of the earlier champion is gone, is not the one that was
            promoted, or cannot be loaded; the champion stays.
        DependencyUnreachable: as for `promote`.
    """
    with MlflowRest(tracking_uri) as mlflow, ledger.exclusive(connection, project):
        entries = ledger.history(connection, project)
        current = entries[-1].to_version if entries else None
        if current != expected:
            raise CheckRefused(
                f"the champion of {project} is {_named(current)}, not {_named(expected)}",
                fix="see espalier models ledger: somebody else promoted or rolled back",
            )
        if not entries:
            raise CheckRefused(
                f"nothing of {project} was promoted yet", fix="run the training flow"
            )
        target = _earlier(ledger.champions(entries), project, to)
        digest = _checked(tracking_uri, project, target.to_version)
        promoted = target.evidence.get("manifest_digest", digest)
        if digest != promoted:
            raise CheckRefused(
                f"{MANIFEST} of {project} version {target.to_version} is not the one that was "
                f"promoted (sha256 {digest[:12]}, the ledger says {promoted[:12]})",
                fix="go further back with --to, or train again",
            )
        entry = ledger.append(
            connection,
            project,
            after=entries[-1],
            to_version=target.to_version,
            who=who,
            why=why,
            evidence={"promotion": target.id, "manifest_digest": digest},
            kind="rollback",
        )
        _commit(connection, mlflow, [*entries, entry])
    return entry


def repair(connection: Connection, tracking_uri: str, project: str) -> str | None:
    """Point the aliases to what the ledger says, wherever they are; give the champion.

    Raises:
        CheckRefused: MLflow does not have the version that the ledger names.
        DependencyUnreachable: PostgreSQL or MLflow does not answer.
    """
    with MlflowRest(tracking_uri) as mlflow, ledger.exclusive(connection, project):
        entries = ledger.history(connection, project)
        if entries:
            _follow(mlflow, entries)
            ledger.tell(connection, entries[-1])
            connection.commit()
        else:
            for alias in mlflow.aliases(project).keys() & {CHAMPION, PREVIOUS}:
                mlflow.delete_alias(project, alias)
    return entries[-1].to_version if entries else None


def _earlier(champions: list[Entry], project: str, to: str | None) -> Entry:
    """The promotion of the champion to go back to."""
    *earlier, current = champions
    if not earlier:
        raise CheckRefused(
            f"version {current.to_version} of {project} has no champion before it",
            fix="promote another version",
        )
    if to is None:
        return earlier[-1]
    for entry in reversed(earlier):
        if entry.to_version == to:
            return entry
    raise UsageError(
        f"version {to} of {project} is no champion before version {current.to_version}",
        fix=f"one of {', '.join(dict.fromkeys(e.to_version for e in earlier))}, or promote it",
    )


def _checked(tracking_uri: str, project: str, version: str) -> str:
    """Fetch a version and load it; give the sha256 of its manifest."""
    with tempfile.TemporaryDirectory() as scratch:
        fetched = download.fetch_version(tracking_uri, project, version, Path(scratch))
        loadable.check(fetched)
        return hashlib.sha256((fetched.folder / MANIFEST).read_bytes()).hexdigest()


def _settle(mlflow: MlflowRest, project: str, entries: list[Entry]) -> None:
    """Let aliases that are behind follow, and refuse a champion that was moved by hand."""
    aliases = mlflow.aliases(project)
    alias = aliases.get(CHAMPION)
    if not entries:
        if alias is not None:
            raise CheckRefused(
                f"MLflow's alias {CHAMPION} of {project} is version {alias}, but the ledger has "
                "no promotion",
                fix="delete it by espalier models ledger --repair, or connect to the database "
                "that belongs to this MLflow",
            )
    elif alias not in (entries[-1].to_version, entries[-1].from_version):
        raise CheckRefused(
            f"MLflow's alias {CHAMPION} of {project} is {f'version {alias}' if alias else 'gone'}, "
            f"but the ledger's last {_KINDS[entries[-1].kind]} made version "
            f"{entries[-1].to_version} champion",
            fix="set it back by espalier models ledger --repair",
        )
    elif (alias, aliases.get(PREVIOUS)) != (entries[-1].to_version, _previous(entries)):
        _follow(mlflow, entries)


_KINDS = {"promote": "promotion", "rollback": "rollback"}


def _commit(connection: Connection, mlflow: MlflowRest, entries: list[Entry]) -> None:
    """Commit the newest entry, let the aliases follow, and say so to who listens."""
    connection.commit()
    _follow(mlflow, entries)
    ledger.tell(connection, entries[-1])
    connection.commit()


def _previous(entries: list[Entry]) -> str | None:
    """The version of the champion below the top."""
    champions = ledger.champions(entries)
    return champions[-2].to_version if len(champions) > 1 else None


def _follow(mlflow: MlflowRest, entries: list[Entry]) -> None:
    """Point the aliases to the versions that the ledger says."""
    entry, previous = entries[-1], _previous(entries)
    pending = f"ledger entry {entry.id} made version {entry.to_version} champion of {entry.project}"
    try:
        moved = mlflow.set_alias(entry.project, entry.to_version)
        if not moved:
            raise CheckRefused(
                f"{pending}, but MLflow has no such version",
                fix="connect to the MLflow that belongs to this database",
            )
        if previous is None:
            mlflow.delete_alias(entry.project, PREVIOUS)
        else:
            # One that MLflow has no more is no reason to fail: a rollback would say so.
            mlflow.set_alias(entry.project, previous, PREVIOUS)
    except DependencyUnreachable as error:
        raise DependencyUnreachable(
            f"{pending}, but MLflow's aliases do not say so yet ({error.message})",
            fix="start MLflow, then run espalier models ledger --repair or the training flow",
        ) from error


def _named(version: str | None) -> str:
    return "none" if version is None else f"version {version}"
