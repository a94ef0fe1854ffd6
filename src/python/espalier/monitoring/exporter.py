"""Exports what monitoring stored in PostgreSQL to Prometheus.

Each scrape asks the database anew, in one read-only transaction whose statements may take a
declared time. A database that does not answer, or hangs, is `espalier_exporter_up 0`; a query that
fails or takes too long leaves its metric out and counts, the others are told.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from wsgiref.simple_server import WSGIServer

import psycopg
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from psycopg import sql

from espalier.errors import ConfigurationError, DependencyUnreachable
from espalier.monitoring.exported import METRICS, PREFIX, Metric
from espalier.postgres.connect import Connection, connect, cut_off, only_read

DEFAULT_ADDRESS = "127.0.0.1:9108"
# So many combinations of labels each metric may have, and characters each value.
MAXIMUM_SERIES = 500
_LONGEST_LABEL = 100
_CONNECT_SECONDS = 3
Family = GaugeMetricFamily | CounterMetricFamily


class DatabaseCollector(Collector):
    """Asks PostgreSQL when Prometheus asks."""

    def __init__(
        self,
        dsn: str,
        *,
        metrics: tuple[Metric, ...] = METRICS,
        statement_timeout_ms: int = 2000,
        scrape_seconds: float = 8.0,
    ) -> None:
        """Describe the collector; nothing is opened.

        Args:
            dsn: PostgreSQL.
            metrics: What is asked.
            statement_timeout_ms: After which PostgreSQL gives up one query.
            scrape_seconds: After which the remaining metrics are left out, to answer before
                Prometheus gives up; its default is 10 s. A database that says nothing by then is
                left.
        """
        self._dsn, self._metrics = dsn, metrics
        self._timeout_ms, self._scrape_seconds = statement_timeout_ms, scrape_seconds
        # Scrapes that overlap would only make a slow database slower.
        self._one_at_a_time = threading.Lock()

    def collect(self) -> Iterator[Family]:
        """All families; the exporter's own ones come always."""
        with self._one_at_a_time:
            yield from self._collect()

    def _collect(self) -> Iterator[Family]:
        began = time.monotonic()
        failed, cut = 0, 0
        up = GaugeMetricFamily(f"{PREFIX}exporter_up", "1 when the database answers.")
        families: list[Family] = []
        try:
            with (
                connect(self._dsn, autocommit=True, timeout_seconds=_CONNECT_SECONDS) as connection,
                _bounded(connection, self._scrape_seconds - (time.monotonic() - began) + 0.5),
            ):
                only_read(connection, milliseconds=self._timeout_ms)
                for metric in (*self._metrics, *_online_stores(connection)):
                    if time.monotonic() - began > self._scrape_seconds:
                        failed += 1
                        continue
                    try:
                        family, was_cut = _ask(connection, metric)
                    except psycopg.OperationalError as error:
                        if connection.broken:
                            raise
                        del error  # A statement that took too long; the next one may not.
                        failed += 1
                    except psycopg.Error:
                        failed += 1
                    else:
                        cut += was_cut
                        families += [family] if family is not None else []
            up.add_metric([], 1)
        except (DependencyUnreachable, psycopg.Error):
            # Half of an answer could be taken for all of it.
            families, failed = [], len(self._metrics)
            up.add_metric([], 0)
        yield from families
        yield up
        for name, text, value in (
            (
                "exporter_failed_metrics",
                "Metrics left out: their query failed or was slow.",
                failed,
            ),
            ("exporter_cut_metrics", f"Metrics cut to {MAXIMUM_SERIES} series.", cut),
            ("exporter_scrape_seconds", "What this scrape took.", time.monotonic() - began),
        ):
            family = GaugeMetricFamily(PREFIX + name, text)
            family.add_metric([], value)
            yield family


@contextmanager
def _bounded(connection: Connection, seconds: float) -> Iterator[None]:
    """End what waits for the server after so long: one that hangs keeps no time limit of ours."""
    timer = threading.Timer(seconds, cut_off, [connection])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _ask(connection: Connection, metric: Metric) -> tuple[Family | None, bool]:
    """The metric's family, None where its table is missing; and whether it was cut."""
    if metric.table is not None:
        there = connection.execute("SELECT to_regclass(%s)", [metric.table]).fetchone()
        if there == (None,):
            return None, False
    bounded = sql.SQL("SELECT * FROM ({}) AS asked LIMIT {}").format(
        sql.SQL(metric.query), sql.Literal(MAXIMUM_SERIES + 1)
    )
    rows = connection.execute(bounded).fetchall()
    kind = CounterMetricFamily if metric.name.endswith("_total") else GaugeMetricFamily
    family = kind(PREFIX + metric.name, metric.help, labels=metric.labels)
    for *labels, value in rows[:MAXIMUM_SERIES]:
        if value is not None:
            family.add_metric([str(label)[:_LONGEST_LABEL] for label in labels], float(value))
    return family, len(rows) > MAXIMUM_SERIES


def _online_stores(connection: Connection) -> list[Metric]:
    """The feature age of each online store's table, which are made by declarations."""
    tables = connection.execute(
        "SELECT table_name FROM information_schema.columns WHERE table_schema = 'online' "
        "AND column_name = 'event_timestamp' ORDER BY table_name LIMIT %s",
        [MAXIMUM_SERIES],
    ).fetchall()
    if not tables:
        return []
    ages = sql.SQL(" UNION ALL ").join(
        sql.SQL(
            "SELECT {name}, extract(epoch FROM clock_timestamp() - max(event_timestamp)) FROM {table}"
        ).format(name=sql.Literal(name), table=sql.Identifier("online", name))
        for (name,) in tables
    )
    return [
        Metric(
            "feature_age_seconds",
            "The time since the newest features in an online store's table happened.",
            ("table",),
            # Names of tables, quoted by psycopg.
            ages.as_string(connection),
        )
    ]


@dataclass(frozen=True)
class Exporting:
    """An exporter that answers on `address`."""

    address: str


@contextmanager
def exporting(dsn: str, address: str = DEFAULT_ADDRESS) -> Iterator[Exporting]:
    """Answer `GET /metrics` on `address` (HOST:PORT, port 0 for a free one) in a thread.

    Raises:
        ConfigurationError: the address is malformed, or cannot be listened on.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal():
        raise ConfigurationError(
            f"{address!r} is not an address to listen on", fix=f"write HOST:PORT, {DEFAULT_ADDRESS}"
        )
    registry = CollectorRegistry(auto_describe=False)
    registry.register(DatabaseCollector(dsn))
    server: WSGIServer
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"cannot listen on {address}: {error}",
            fix="choose another with --address or ESPALIER_EXPORTER_ADDRESS",
        ) from error
    try:
        yield Exporting(f"{host}:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
