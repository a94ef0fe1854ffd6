"""Logged predictions against the history, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date

import pytest

from espalier.monitoring import consistency
from espalier.monitoring.testing import FEATURES, SHOP, insert, store
from espalier.postgres import embedded
from espalier.postgres.connect import connect
from espalier.postgres.migrate import migrate

APRIL = date(1997, 4, 30)
_SERVE = (
    "INSERT INTO espalier.predictions (served_at, project, model_version, entity_id, score, "
    "prediction, feature_time, features) "
    "SELECT %(at)s, 'shop', '1', shop_id, 0.5, 1, day, ARRAY[amount, visits, gap, constant] "
    "FROM shop.facts WHERE day = %(day)s AND shop_id < %(below)s"
)


@pytest.fixture
def dsn() -> Iterator[str]:
    with embedded.temporary() as server:
        with connect(server.dsn()) as connection:
            migrate(connection)
            store(connection, SHOP, 300)
        yield server.dsn()


def serve(
    dsn: str, *, at: str = "1997-04-30 09:00Z", day: str = "1997-04-30", n: int = 200
) -> None:
    with connect(dsn) as connection:
        connection.execute(_SERVE, {"at": at, "day": day, "below": f"s{n:04}"})


def test_what_was_served_is_what_is_known(dsn: str) -> None:
    serve(dsn)
    found = consistency.check(SHOP, as_of=APRIL, dsn=dsn)
    assert (found.rows, found.mismatched, found.unknown, found.stale) == (200, 0, 0, 0)
    assert found.columns == dict.fromkeys(FEATURES, 0)
    assert found.ratio == 0


def test_mismatches_are_counted_by_feature(dsn: str) -> None:
    serve(dsn)
    with connect(dsn) as connection:
        connection.execute(
            "UPDATE espalier.predictions SET features[1] = features[1] + 0.001 "
            "WHERE entity_id < 's0003'"
        )
        connection.execute(
            "UPDATE espalier.predictions SET features[3] = NULL WHERE entity_id = 's0002'"
        )
        lost = connection.execute(
            "SELECT gap IS NOT NULL FROM shop.facts WHERE shop_id = 's0002' AND day = '1997-04-30'"
        ).fetchone()
    assert lost is not None
    found = consistency.check(SHOP, as_of=APRIL, dsn=dsn)
    assert found.columns == {"amount": 3, "visits": 0, "gap": int(lost[0]), "constant": 0}
    assert found.mismatched == 3
    assert found.ratio == 3 / 200
    with connect(dsn) as connection:
        stored = connection.execute(
            "SELECT column_name, rows, mismatches, unknown, stale FROM espalier.online_offline "
            "WHERE run_id = %s ORDER BY id",
            [found.run_id],
        ).fetchall()
    assert stored[0] == ("amount", 200, 3, None, None)
    assert stored[-1] == (None, 200, 3, 0, 0)


def test_as_known_then(dsn: str) -> None:
    """A correction that came after the prediction does not make it wrong; one before does."""
    serve(dsn, at="1997-05-05 09:00Z")
    serve(dsn, at="1997-05-15 09:00Z")
    with connect(dsn) as connection:
        snapshot = connection.execute(
            "INSERT INTO espalier.snapshots (project, as_of, revision, digest, files, row_counts, "
            "validation, created_by) VALUES ('shop', '1997-05-10', 1, '', '{}', '{}', '{}', 't') "
            "RETURNING id"
        ).fetchone()
        assert snapshot is not None
        insert(
            connection,
            SHOP,
            "facts",
            day=APRIL,
            known=date(1997, 5, 10),
            snapshot=snapshot[0],
            rows=[("s0001", -5.0, 1, None, 1)],
        )
    found = consistency.check(SHOP, as_of=date(1997, 5, 20), dsn=dsn)
    assert found.rows == 400
    assert found.columns["amount"] == 1


def test_unknown_and_stale_rows(dsn: str) -> None:
    # May's features are known from the 31st on.
    serve(dsn, at="1997-05-31 09:00Z", n=50)
    serve(dsn, at="1997-05-30 09:00Z", day="1997-05-31", n=20)
    found = consistency.check(SHOP, as_of=date(1997, 5, 31), dsn=dsn)
    assert (found.rows, found.unknown, found.stale, found.mismatched) == (70, 20, 50, 20)
    assert set(found.columns.values()) == {20}


def test_a_sample_is_the_same_each_time(dsn: str) -> None:
    serve(dsn)
    project = replace(SHOP, monitoring=replace(SHOP.monitoring, sample=40))
    with connect(dsn) as connection:
        connection.execute(
            "UPDATE espalier.predictions SET features[2] = -1 WHERE entity_id < 's0100'"
        )
    one, other = (consistency.check(project, as_of=APRIL, dsn=dsn) for _ in range(2))
    assert one.rows == 40
    assert 5 < one.mismatched < 35
    assert one.columns == other.columns


def test_nothing_was_served(dsn: str) -> None:
    found = consistency.check(SHOP, as_of=APRIL, dsn=dsn)
    assert (found.rows, found.mismatched, found.ratio) == (0, 0, 0)
