"""Checks of the data: database, migrations, Feast's registry, the online store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from espalier.cli.doctor.finding import Finding, Subject, fail, ok, warn
from espalier.errors import DependencyUnreachable
from espalier.features import history, layout
from espalier.postgres.connect import Connection, connect, only_read, unreachable
from espalier.postgres.migrate import packaged

_OLDEST_POSTGRES = 16
_STATEMENT_MILLISECONDS = 8000
_MATERIALIZE = "run the materialize flow, which applies the definitions first"


@contextmanager
def _reading(subject: Subject) -> Iterator[Connection]:
    """A connection that changes nothing and waits for no lock for long."""
    with connect(subject.settings.dsn, autocommit=True) as connection:
        try:
            only_read(connection, milliseconds=_STATEMENT_MILLISECONDS)
            yield connection
        except psycopg.OperationalError as error:
            raise unreachable(error) from error


def _one(connection: Connection, query: sql.SQL, *values: Any) -> Any:
    """The first value of a query's one row."""
    row = connection.execute(query, values).fetchone()
    assert row is not None, "a query of one row"
    return row[0]


def database(subject: Subject) -> Finding:
    """PostgreSQL answers, lets our role in, and is new enough."""
    try:
        with _reading(subject) as connection:
            version = connection.info.server_version
            name = connection.info.dbname
    except DependencyUnreachable as error:
        configured = subject.settings
        at = f"{configured.postgres_host}:{configured.postgres_port}"
        return fail(f"{error.message} ({at})", error.fix)
    told = f"PostgreSQL {version // 10_000}.{version % 10_000}, database {name}"
    if version // 10_000 < _OLDEST_POSTGRES:
        return warn(told, f"use PostgreSQL {_OLDEST_POSTGRES}, for which our tests speak")
    return ok(told)


def migrations(subject: Subject) -> Finding:
    """The database's schema is this release's."""
    wanted = {migration.number: migration for migration in packaged()}
    applied: dict[int, str] = {}
    with _reading(subject) as connection:
        if _one(connection, sql.SQL("SELECT to_regclass('espalier.migrations')::text")):
            applied = dict(
                connection.execute("SELECT number, checksum FROM espalier.migrations").fetchall()
            )
    if newer := sorted(set(applied) - set(wanted)):
        return fail(
            f"the database has migration {newer[0]}, which this release lacks",
            "use the release that made it, or a newer one",
        )
    for number, checksum in sorted(applied.items()):
        if wanted[number].checksum != checksum:
            return fail(
                f"migration {number:04}_{wanted[number].name}.sql was changed after it was applied",
                "use the release that applied it, or restore the file",
            )
    if missing := len(set(wanted) - set(applied)):
        return fail(
            f"{missing} of this release's {len(wanted)} migrations are not applied",
            "espalier.pex migrate",
        )
    return ok(f"all {len(wanted)} applied")


def feast(subject: Subject) -> Finding:
    """Feast's registry and the online table are as the project declares."""
    from espalier.features import feast_store

    wanted = feast_store.definitions(subject.project)
    with _reading(subject) as connection:
        # Asked first, for Feast makes its tables where there are none.
        there = _one(connection, sql.SQL("SELECT to_regclass('feast.feature_views')::text"))
        registered = there and _one(
            connection,
            sql.SQL(
                "SELECT count(*) FROM feast.feature_views"
                " WHERE project_id = %s AND feature_view_name = %s"
            ),
            subject.project.name,
            subject.project.view.name,
        )
        if not registered:
            return fail(f"feature view {subject.project.view.name} is not registered", _MATERIALIZE)
        columns = _columns(connection, subject)
    if changed := _changed(subject, wanted):
        return fail(
            f"{' and '.join(changed)} in Feast's registry differ from the declaration", _MATERIALIZE
        )
    from espalier.features.wide_row_table import table_of

    table = table_of(subject.project.name, wanted.view)
    differing = sorted(
        name
        for name, kind in {**columns, **table.types()}.items()
        if (columns.get(name), table.types().get(name)) != (kind, kind)
    )
    if differing:
        return fail(
            f"table {layout.SCHEMA}.{table.name} differs in {', '.join(differing)}", _MATERIALIZE
        )
    return ok(f"{len(subject.project.view.features)} features registered as declared")


def _columns(connection: Connection, subject: Subject) -> dict[str, str]:
    """The online table's columns and their types; none without a table."""
    table = layout.table_name(subject.project.name, subject.project.view.name)
    return dict(
        connection.execute(
            "SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute"
            " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
            [sql.Identifier(layout.SCHEMA, table).as_string(connection)],
        ).fetchall()
    )


def _changed(subject: Subject, wanted: Any) -> list[str]:
    """What the registry has otherwise than declared."""
    from espalier.features import feast_store

    store = feast_store.open_store(subject.project, dsn=subject.settings.dsn)
    try:
        found = {
            "entity": _named(store.list_entities(), wanted.entity.name),
            "source": _named(store.list_data_sources(), wanted.source.name),
            "view": _named(store.list_feature_views(), wanted.view.name),
        }
    finally:
        feast_store.close(store)
    return [
        kind
        for kind, declared in (
            ("entity", wanted.entity),
            ("source", wanted.source),
            ("view", wanted.view),
        )
        if found[kind] is None or not _same(found[kind], declared)
    ]


def _named(things: list[Any], name: str) -> Any:
    return next((thing for thing in things if thing.name == name), None)


def _same(registered: Any, declared: Any) -> bool:
    """Whether both are declared alike: but for what Feast adds, as when something was applied."""
    return bool(_declaration(registered) == _declaration(declared))


def _declaration(thing: Any) -> Any:
    proto = thing.to_proto()
    spec = getattr(proto, "spec", proto)
    for added in ("project", "meta"):
        if added in spec.DESCRIPTOR.fields_by_name:
            spec.ClearField(added)
    if "batch_source" in spec.DESCRIPTOR.fields_by_name:
        spec.batch_source.ClearField("project")
        spec.batch_source.ClearField("meta")
    return spec


def online_store(subject: Subject) -> Finding:
    """The online store holds the newest features that are known, and they are fresh."""
    project = subject.project
    table = project.table(project.view.table)
    online = sql.Identifier(layout.SCHEMA, layout.table_name(project.name, project.view.name))
    with _reading(subject) as connection:
        rows, newest = _extent(connection, online, sql.Identifier("event_timestamp"))
        _, known = _extent(
            connection,
            history.relation(project, table.name),
            history.as_instant(table, project.event_time),
        )
    if not rows or newest is None:
        return fail("the online store is empty", _MATERIALIZE)
    told = f"{rows:,} entities, the newest features of {newest:%Y-%m-%d}"
    if known is not None and known > newest:
        return fail(f"{told}; those of {known:%Y-%m-%d} are known and not online", _MATERIALIZE)
    if newest + project.view.ttl < subject.as_of:
        return warn(
            f"{told}: older than {project.view.ttl.days} days on {subject.as_of:%Y-%m-%d}",
            "ingest the newest batch and materialize; for data of the past give --as-of DATE",
        )
    return ok(told)


def _extent(
    connection: Connection, relation: sql.Composable, instant: sql.Composable
) -> tuple[int, datetime | None]:
    """How many rows a table has and the newest instant; (0, None) without a table."""
    named = relation.as_string(connection)
    if connection.execute("SELECT to_regclass(%s)", [named]).fetchone() == (None,):
        return 0, None
    row = connection.execute(
        sql.SQL("SELECT count(*), max({}) FROM {}").format(instant, relation)
    ).fetchone()
    assert row is not None, "an aggregate has one row"
    return row[0], row[1]
