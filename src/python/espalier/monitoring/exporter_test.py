"""The exporter over HTTP, on a real database and without one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from espalier.errors import ConfigurationError
from espalier.monitoring import exporter
from espalier.monitoring.exported import METRICS, Metric
from espalier.monitoring.exporter import DatabaseCollector, exporting
from espalier.monitoring.flow_runs import record_flow
from espalier.postgres import embedded
from espalier.postgres.connect import connect
from espalier.postgres.migrate import migrate

_STORED = """
INSERT INTO espalier.snapshots
    (project, as_of, revision, digest, files, row_counts, validation, created_by)
    VALUES ('shop', current_date - 2, 1, '', '{}', '{}', '{}', 'test');
INSERT INTO espalier.ledger (project, to_version, who, why, evidence)
    VALUES ('shop', '4', 'me', 'better', '{}');
INSERT INTO espalier.drift (run_id, project, as_of, comparison, kind, column_name, method, score,
    threshold, drifted, trend, verdict)
SELECT run::uuid, 'shop', as_of, 'training', kind, name, method, score, 0.2, drifted, trend, verdict
FROM (VALUES
    ('10000000-0000-0000-0000-000000000000', date '1997-05-31', 'feature', 'amount', 'ks', 0.9,
     true, false, null::bool),
    ('10000000-0000-0000-0000-000000000000', '1997-05-31', 'overall', null, 'share', 1, true,
     false, true),
    ('20000000-0000-0000-0000-000000000000', '1997-06-30', 'feature', 'amount', 'wasserstein', 0.1,
     false, false, null),
    ('20000000-0000-0000-0000-000000000000', '1997-06-30', 'feature', 'tenure', 'wasserstein', 7,
     true, true, null),
    ('20000000-0000-0000-0000-000000000000', '1997-06-30', 'overall', null, 'share', 0, false,
     false, true)
) AS rows(run, as_of, kind, name, method, score, drifted, trend, verdict);
INSERT INTO espalier.live_performance (run_id, project, label_time, model_version, role, metric,
    value, low, high, rows, positives, unserved)
    SELECT gen_random_uuid(), 'shop', day, '4', 'champion', 'roc_auc', value, 0.6, 0.8, 90, 40, 10
    FROM (VALUES (date '1997-03-31', 0.5), ('1997-04-30', 0.7)) AS rows(day, value);
INSERT INTO espalier.online_offline (run_id, project, as_of, column_name, rows, mismatches,
    unknown, stale)
    VALUES ('30000000-0000-0000-0000-000000000000', 'shop', '1997-06-30', 'amount', 200, 3, null,
            null),
           ('30000000-0000-0000-0000-000000000000', 'shop', '1997-06-30', null, 200, 5, 1, 10);
INSERT INTO espalier.actions (project, as_of, snapshot_id, decision, why, live_shortfall)
    SELECT 'shop', day, (SELECT max(id) FROM espalier.snapshots), 'none', 'for a test', worse
    FROM (VALUES (date '1997-05-31', 0), ('1997-06-30', 0.03)) AS rows(day, worse);
CREATE TABLE online.shop_monthly (shop_id text, event_timestamp timestamptz);
INSERT INTO online.shop_monthly VALUES ('s', clock_timestamp() - interval '3 days');
"""


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with embedded.temporary() as server:
        with connect(server.dsn()) as connection:
            migrate(connection)
            connection.execute(_STORED)
        began = datetime.now(UTC) - timedelta(seconds=30)
        for flow, state in (("train", "completed"), ("train", "failed"), ("monitor", "refused")):
            record_flow(server.dsn(), project="shop", flow=flow, state=state, started_at=began)
        yield server.dsn()


class Told(dict[tuple[str, ...], float]):
    """Samples by name and label values, in any order: the text has labels by their names."""

    def __getitem__(self, key: tuple[str, ...]) -> float:
        return super().__getitem__((key[0], *sorted(key[1:])))


def scrape(dsn: str) -> Told:
    """Each sample by its name and label values."""
    with exporting(dsn, "127.0.0.1:0") as running:
        answer = httpx.get(f"http://{running.address}/metrics", timeout=30)
    answer.raise_for_status()
    return Told(
        {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }
    )


def test_what_is_stored_is_told(dsn: str) -> None:
    told = scrape(dsn)
    assert told["espalier_exporter_up",] == 1
    assert told["espalier_exporter_failed_metrics",] == 0
    # The newest check alone.
    assert told["espalier_drift_score", "shop", "training", "amount", "wasserstein"] == 0.1
    assert not [name for name in told if "ks" in name]
    assert told["espalier_drift_column_drifted", "shop", "training", "tenure", "true"] == 1
    assert told["espalier_drift_share", "shop", "training"] == 0
    assert told["espalier_drift_window", "shop", "training"] == 0
    assert told["espalier_drift_verdict", "shop", "training"] == 1
    assert told["espalier_live_value", "shop", "4", "champion", "roc_auc"] == 0.7
    assert told["espalier_live_answers", "shop", "4", "champion"] == 90
    assert told["espalier_live_shortfall", "shop"] == 0.03
    assert told["espalier_online_offline_mismatch_ratio", "shop", "amount"] == 3 / 200
    assert told["espalier_online_offline_mismatched_ratio", "shop"] == 5 / 200
    assert told["espalier_online_offline_stale_ratio", "shop"] == 10 / 200
    day = 86_400
    assert 2 * day <= told["espalier_snapshot_age_seconds", "shop"] < 3 * day
    assert told["espalier_feature_age_seconds", "shop_monthly"] == pytest.approx(3 * day, abs=60)
    assert told["espalier_champion_info", "shop", "4"] == 1
    assert 0 <= told["espalier_champion_age_seconds", "shop"] < 600
    assert told["espalier_promotions_total", "shop", "promote"] == 1
    assert told["espalier_flow_runs_total", "shop", "train", "failed"] == 1
    assert told["espalier_flow_last_run_failed", "shop", "train"] == 1
    assert told["espalier_flow_last_run_failed", "shop", "monitor"] == 0
    assert 30 <= told["espalier_flow_duration_seconds", "shop", "train"] < 60
    succeeded = told["espalier_flow_last_success_timestamp_seconds", "shop", "monitor"]
    assert abs(succeeded - time.time()) < 600


def test_every_query_runs_on_an_empty_database() -> None:
    with embedded.temporary() as server:
        with connect(server.dsn()) as connection:
            migrate(connection)
        told = scrape(server.dsn())
    assert told["espalier_exporter_up",] == 1
    assert told["espalier_exporter_failed_metrics",] == 0


def test_a_dead_database_is_told_and_no_crash(tmp_path: Path) -> None:
    told = scrape(f"postgresql://nobody@/none?host={tmp_path}")
    assert told["espalier_exporter_up",] == 0
    assert told["espalier_exporter_failed_metrics",] == len(METRICS)
    assert all(name.startswith("espalier_exporter") for name, *_ in told)


def test_it_comes_back_with_the_database() -> None:
    with embedded.temporary() as server:
        dsn = server.dsn()
        with connect(dsn) as connection:
            migrate(connection)
        with exporting(dsn, "127.0.0.1:0") as running:
            address = f"http://{running.address}/metrics"
            assert "espalier_exporter_up 1.0" in httpx.get(address, timeout=30).text
            with connect(dsn, autocommit=True) as connection:
                name = connection.info.dbname
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = %s AND pid <> pg_backend_pid()",
                    [name],
                )
            assert "espalier_exporter_up 1.0" in httpx.get(address, timeout=30).text


def collected(dsn: str, *metrics: Metric, **options: float) -> dict[str, float]:
    registry = CollectorRegistry(auto_describe=False)
    collector = DatabaseCollector(dsn, metrics=metrics, **options)  # type: ignore[arg-type]
    registry.register(collector)
    return {
        sample.name + "".join(sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
    }


def test_a_slow_and_a_broken_query_leave_the_others(dsn: str) -> None:
    began = time.monotonic()
    told = collected(
        dsn,
        Metric("slow", "", (), "SELECT 1 FROM pg_sleep(60)"),
        Metric("broken", "", (), "SELECT 1 / 0"),
        Metric("absent", "", (), "SELECT 1 FROM nowhere", table="nowhere"),
        Metric("good", "", (), "SELECT 7"),
        statement_timeout_ms=200,
    )
    assert time.monotonic() - began < 20
    assert told["espalier_good"] == 7
    assert told["espalier_exporter_failed_metrics"] == 2
    assert told["espalier_exporter_up"] == 1
    assert not {"espalier_slow", "espalier_broken", "espalier_absent"} & set(told)


def test_labels_are_bounded(dsn: str) -> None:
    told = collected(
        dsn,
        Metric("many", "", ("n",), "SELECT n, 1 FROM generate_series(1, 10000) AS n"),
        Metric("long", "", ("n",), "SELECT repeat('x', 5000), 1"),
    )
    assert sum(name.startswith("espalier_many") for name in told) == exporter.MAXIMUM_SERIES
    assert told["espalier_exporter_cut_metrics"] == 1
    assert max(map(len, told)) < 200


def test_nothing_can_be_written_by_a_query(dsn: str) -> None:
    told = collected(dsn, Metric("evil", "", (), "SELECT 1 FROM setval('x', 1)"))
    assert told["espalier_exporter_failed_metrics"] == 1


def test_names_are_told_once() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("address", ["9108", ":1", "127.0.0.1:x", "127.0.0.1:99999"])
def test_a_wrong_address(dsn: str, address: str) -> None:
    with (
        pytest.raises(ConfigurationError, match="listen"),
        exporting(dsn, address),
    ):
        pytest.fail("it listens")


def test_an_address_in_use(dsn: str) -> None:
    with (
        exporting(dsn, "127.0.0.1:0") as running,
        pytest.raises(ConfigurationError, match="cannot listen on"),
        exporting(dsn, running.address),
    ):
        pytest.fail("it listens")
