"""Dashboards and alerts on a live Prometheus, which looks at live servers under traffic.

Prometheus looks each second, and the declared times are divided by 60: an alert for two minutes is
one for two seconds here. All else is what is committed.
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

import grpc
import httpx
import psycopg
import pytest

from espalier.prediction.v1 import prediction_pb2 as pb
from espalier.prediction.v1 import prediction_pb2_grpc as pb_grpc
from espalier.serving.testing import ENTITIES, STALE
from observability.testing_stack import Stack, running, until

BOARDS = sorted(Path("deploy/grafana/dashboards").glob("*.json"))
TABLE = "online.churn_customer_monthly"
# Nothing is shed here, and whether an alert fires at that moment is another test's business.
MAY_BE_EMPTY = {"Sheds", "Firing, by name"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    with running(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture
def client(stack):
    with (
        grpc.insecure_channel(stack.grpc_address) as channel,
        httpx.Client(base_url=f"http://{stack.http_address}", timeout=10) as http,
    ):
        yield Client(pb_grpc.PredictionServiceStub(channel), http)


@dataclass
class Client:
    """Sends requests, and keeps what it saw of each."""

    stub: pb_grpc.PredictionServiceStub
    http: httpx.Client
    seconds: list[float] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)

    def predict(self, entity="u0001"):
        began = time.perf_counter()
        try:
            self.stub.Predict(pb.PredictRequest(entity_id=entity), timeout=10)
            code = "OK"
        except grpc.RpcError as error:
            code = error.code().name
        self.seconds.append(time.perf_counter() - began)
        self.codes.append(code)
        return code

    def post(self):
        began = time.perf_counter()
        answer = self.http.post("/predict", json={"user_id": "u0002"})
        self.seconds.append(time.perf_counter() - began)
        self.codes.append(str(answer.status_code))

    def predict_at_once(self, count):
        # Different ones: what several ask for at once is read, and counted, once.
        asked = [(entity,) for entity in ENTITIES[:count]]
        threads = [threading.Thread(target=self.predict, args=one) for one in asked]
        for thread in threads:
            thread.start()
        return threads

    def forget(self):
        self.seconds.clear()
        self.codes.clear()


def break_features(stack, *, is_broken):
    """Take the online table away from the server, or give it back."""
    names = (TABLE, "hidden") if is_broken else ("online.hidden", TABLE.partition(".")[2])
    with psycopg.connect(stack.dsn) as connection:
        connection.execute(f"ALTER TABLE {names[0]} RENAME TO {names[1]}")


def send_errors(stack, client, count):
    break_features(stack, is_broken=True)
    try:
        for _ in range(count):
            assert client.predict() not in {"OK", "NOT_FOUND"}
    finally:
        break_features(stack, is_broken=False)
    until(stack.is_ready)


def send_all_kinds(stack, client, times):
    """Known numbers of answers, errors, faults of the caller, stale rows, and slow answers."""
    for _ in range(20 * times):
        assert client.predict() == "OK"
    for _ in range(4 * times):
        client.post()
        assert client.predict("nobody") == "NOT_FOUND"
    for _ in range(times):
        assert client.predict(STALE) == "OK"
    send_errors(stack, client, 2 * times)
    with psycopg.connect(stack.dsn) as blocker:
        blocker.execute(f"LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE")
        threads = client.predict_at_once(5 * times)
        # How slow the slow ones are.
        blocker.execute("SELECT pg_sleep(0.4)")
    for thread in threads:
        thread.join()
    # The last one that the feature age is measured on.
    assert client.predict() == "OK"


def scraped(stack, expr, value):
    until(lambda: stack.value(expr) == value, seconds=20)


@dataclass
class Shown:
    """What Grafana would show of a window of time."""

    stack: Stack
    began: float
    ended: float

    @property
    def window(self):
        return math.ceil(self.ended - self.began)

    def query(self, expr):
        """The expression with Grafana's variables filled in."""
        for name, value in (
            ("$__rate_interval", f"{self.window}s"),
            ("$instance", ".*"),
            ("$project", ".*"),
        ):
            expr = expr.replace(name, value)
        assert "$" not in expr, expr
        return expr

    def target(self, target):
        """The series of a panel's query, each by its legend, with its newest value."""
        expr = self.query(target["expr"])
        if target["instant"]:
            found = [(s["metric"], s["value"][1]) for s in self.stack.ask(expr, self.ended)]
        else:
            found = [
                (s["metric"], s["values"][-1][1])
                for s in self.stack.ask_range(expr, self.ended - 2, self.ended)
            ]
        return {self.legend(target, metric): float(value) for metric, value in found}

    @staticmethod
    def legend(target, metric):
        form = target.get("legendFormat", "")
        return re.sub(r"\{\{(\w+)\}\}", lambda label: metric.get(label[1], ""), form)


@pytest.fixture(scope="module")
def shown(stack):
    """Every panel's values after traffic, by dashboard, panel and series; and what was sent."""
    with (
        grpc.insecure_channel(stack.grpc_address) as channel,
        httpx.Client(base_url=f"http://{stack.http_address}", timeout=10) as http,
    ):
        client = Client(pb_grpc.PredictionServiceStub(channel), http)
        # Series begin with their first request, and Prometheus counts from what it sees first.
        send_all_kinds(stack, client, 1)
        until(lambda: len(stack.ask("job:slo_budget_left:ratio")) == 2, meanwhile=client.predict)
        total = len(client.codes)
        scraped(stack, "sum(espalier_requests_total)", total)
        began = time.time()
        client.forget()
        for _ in range(10):
            send_all_kinds(stack, client, 1)
            # So that the window holds ten scrapes, however fast the machine is.
            scraped(stack, "sum(espalier_requests_total)", total + len(client.codes))
        scraped(stack, "sum(espalier_predictions_logged_total) > bool 0", 1)
        # The window begins after a scrape before all of it and ends after one behind it.
        ended = time.time()
        at = Shown(stack, began - 1, ended)
        values: dict[tuple[str, str], dict[str, float]] = {}
        for board in map(json.loads, (path.read_text() for path in BOARDS)):
            for panel in board["panels"]:
                for target in panel.get("targets", ()):
                    series = values.setdefault((board["uid"], panel["title"]), {})
                    series.update(at.target(target))
        yield at, values, client


def test_no_panel_is_empty_or_not_a_number(shown):
    _, values, _ = shown
    assert len(values) > 50
    empty = {title for (_, title), series in values.items() if not series}
    assert empty <= MAY_BE_EMPTY
    for panel, series in values.items():
        assert all(map(math.isfinite, series.values())), (panel, series)
        assert len(series) == 1 or all(series), f"{panel}: a series without a name"


def test_annotations_and_variables_are_answered(shown):
    at, _, _ = shown
    for board in map(json.loads, (path.read_text() for path in BOARDS)):
        for mark in board["annotations"]["list"]:
            series = at.stack.ask_range(at.query(mark["expr"]), at.began - 60, at.ended)
            if mark["name"] == "Model versions":
                # It came up with version 1, and that is marked once.
                assert [s["metric"] for s in series] == [{"name": "churn", "version": "1"}]
        for variable in board["templating"]["list"][1:]:
            query = variable["query"]["query"]
            found = re.fullmatch(r"label_values\((.*), (\w+)\)", query)
            assert found is not None, query
            samples = at.stack.ask(found[1])
            assert samples
            assert all(sample["metric"][found[2]] for sample in samples)


def counted(at, counter):
    """How much a counter grew from before the traffic to after it."""
    before, after = (at.stack.value(counter, when) for when in (at.began + 1, at.ended))
    return after - before


def agrees(at, shown, sent):
    """Whether a panel tells what was sent.

    Prometheus extrapolates from the samples in a window to all of it, each series by itself: by a
    scrape's interval at both ends, and what a busy machine is late with.
    """
    slack = at.window / (at.window - 3)
    return 1 / slack <= shown / sent <= slack


def test_requests_are_counted(shown):
    at, values, client = shown
    sent, http = len(client.codes), client.codes.count("200")
    assert (sent, http) == (370, 40)
    assert counted(at, "sum(espalier_requests_total)") == sent
    assert counted(at, 'sum(espalier_requests_total{transport="http"})') == http
    (rate,) = values["espalier-serving", "Requests"].values()
    assert agrees(at, rate * at.window, sent)
    by_method = values["espalier-serving", "Requests by method"]
    assert agrees(at, by_method["http predict"] * at.window, http)
    entities = values["espalier-serving", "Entities"]
    assert counted(at, 'sum(espalier_predictions_total{status="STALE_FEATURES"})') == 10
    assert agrees(at, entities["STALE_FEATURES MODEL"] * at.window, 10)


def test_injected_errors_are_the_error_rate(shown):
    at, values, client = shown
    errors = len([code for code in client.codes if code not in {"OK", "200", "NOT_FOUND"}])
    assert errors == 20
    ours = 'sum(espalier_requests_total{code!~"OK|200|NOT_FOUND"})'
    assert counted(at, ours) == errors
    for title in ("Errors", "Share of errors"):
        (share,) = values["espalier-serving", title].values()
        # The caller's own faults do not count.
        assert agrees(at, share, errors / len(client.codes))


def test_both_objectives_count_all_of_these_requests(shown):
    """All are for one entity, over gRPC and HTTP."""
    at, _, _ = shown
    window = f"[{at.window}s]"
    most = at.stack.ask(f"max_over_time(job:slo_requests:rate5m{window})", at.ended)
    rates = {sample["metric"]["slo"]: float(sample["value"][1]) for sample in most}
    assert rates["latency"] == pytest.approx(rates["availability"], rel=0.05)
    assert rates["latency"] > 1


def test_quantiles_are_the_clients(shown):
    """To a bucket: a factor of 2; below its own, by what the client adds."""
    _, values, client = shown
    mine = quantiles(client.seconds, n=100)
    latency = values["espalier-serving", "Latency"]
    for name, place in (("p50", 49), ("p90", 89), ("p99", 98)):
        assert latency[name] <= 2 * mine[place], name
    # More than one in ten waited for the lock.
    assert latency["p90"] >= 0.25
    assert latency["p90"] >= mine[89] / 3
    assert latency["p50"] < 0.1
    heat = values["espalier-serving", "Latency's distribution"]
    assert max(heat.values()) == heat["+Inf"]


def test_the_exporters_panels_are_what_is_stored(shown):
    _, values, _ = shown
    for board, title, series, value in (
        ("data", "Snapshots", "", 3),
        ("data", "Quarantine", "", 2),
        ("data", "Quality failed", "", 1),
        ("data", "Missing values", "mean_gap_days", 0.25),
        ("data", "Online against offline", "churn stale", 0.01),
        ("data", "Mismatches by feature", "orders_90d", 0.005),
        ("drift", "Verdict", "", 1),
        ("drift", "Features that moved", "", 0.25),
        ("drift", "Distance from the training set", "orders_90d (wasserstein)", 1.5),
        ("drift", "ROC-AUC, R²", "churn roc_auc v1 champion", 0.8),
        ("drift", "ROC-AUC, R²", "churn roc_auc v1 champion low", 0.75),
        ("drift", "Shadow less champion", "roc_auc: v2 less v1", -0.05),
        ("flows", "The last run failed", "churn train", 1),
        ("flows", "The last run failed", "churn monitor", 0),
        ("flows", "Duration", "churn ingest", 30),
        ("flows", "Runs that ended", "churn train failed", 1),
        ("serving", "Ready", "", 1),
        ("serving", "Model", "churn v1", 1),
        ("serving", "Feature age", "", 14 * 86_400),
        ("slo", "Target: availability", "", 0.999),
    ):
        panel = values[f"espalier-{board}", title]
        if (board, title) == ("serving", "Feature age"):
            (found,) = panel.values()
        else:
            found = panel[series]
        assert found == pytest.approx(value, rel=1e-6), (title, panel)


def fires_and_resolves(stack, alert, *, cause, cure, fault, health, **labels):
    """The alert comes with the fault and goes without it, here and at Alertmanager's receiver."""
    # What an earlier test broke on purpose passes.
    until(lambda: not stack.firing(alert, **labels), meanwhile=health)
    cause()
    try:
        until(lambda: stack.firing(alert, **labels), meanwhile=fault)
        until(lambda: stack.is_told("firing", alert, **labels), meanwhile=fault)
    finally:
        cure()
    until(lambda: not stack.firing(alert, **labels), meanwhile=health)
    until(lambda: stack.is_told("resolved", alert, **labels), meanwhile=health)


def test_injected_errors_burn_the_budget(stack, client):
    def cure():
        break_features(stack, is_broken=False)
        until(stack.is_ready)

    fires_and_resolves(
        stack,
        "EspalierAvailabilityBurn",
        # The fastest; the others' short windows are minutes even here.
        window="1h",
        cause=lambda: break_features(stack, is_broken=True),
        cure=cure,
        fault=client.predict,
        health=client.predict,
    )


def test_stale_features_are_told(stack, client):
    fires_and_resolves(
        stack,
        "EspalierStaleFeatures",
        cause=lambda: None,
        cure=lambda: None,
        fault=lambda: client.predict(STALE),
        health=client.predict,
    )


def test_a_server_that_is_gone_is_told(stack):
    fires_and_resolves(
        stack,
        "EspalierTargetDown",
        cause=stack.server.stop,
        cure=stack.start_server,
        fault=int,
        health=int,
    )
