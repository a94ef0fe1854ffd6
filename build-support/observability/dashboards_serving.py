"""The dashboards of serving and of its objectives."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from observability.panels import (
    HALF,
    Panel,
    Query,
    bars,
    board,
    choice,
    heat_map,
    lines,
    mark,
    number,
    yes_no,
)
from observability.slo import Declared

_SERVER = 'job="espalier-server",instance=~"$instance"'
_WINDOW = "[$__rate_interval]"
_INSTANCE = choice("instance", "Server", 'label_values(up{job="espalier-server"}, instance)')
_VERSION = f"sum by (name, version) (espalier_model_info{{{_SERVER}}})"
_VERSION_BEFORE = f"sum by (name, version) (espalier_model_info{{{_SERVER}}} offset 2m)"


def _rate(metric: str, by: str = "", where: str = "") -> str:
    grouped = f"sum by ({by})" if by else "sum"
    return f"{grouped} (rate(espalier_{metric}{{{_SERVER}{where and ',' + where}}}{_WINDOW}))"


def _quantiles(metric: str, *quantiles: float, label: str = "") -> list[Query]:
    buckets = _rate(f"{metric}_bucket", "le")
    return [
        Query(f"histogram_quantile({q:g}, {buckets})", f"{label}p{100 * q:g}") for q in quantiles
    ]


def _mean(metric: str, label: str) -> Query:
    return Query(f"{_rate(metric + '_sum')} / {_rate(metric + '_count')}", label)


def serving(declared: Declared) -> Dashboard:
    """Requests, latency, the queue, the stages, and the model in force."""
    bad = next(o.bad for o in declared.objectives if o.bad)
    codes = bad.partition('code=~"')[2].partition('"')[0]
    failed = f'code=~"{codes}"'
    share = f"({_rate('requests_total', where=failed)} or vector(0)) / {_rate('requests_total')}"
    return board(
        "espalier-serving",
        "Espalier: serving",
        "What the prediction servers are asked, how fast they answer, and with which model.",
        variables=[_INSTANCE],
        marks=[mark("Model versions", f"{_VERSION} unless {_VERSION_BEFORE}", "blue")],
        rows=[
            (
                "Now",
                [
                    yes_no(
                        "Ready",
                        "Whether model and features of all servers can be used.",
                        Query(f"min(espalier_ready{{{_SERVER}}})"),
                    ),
                    number(
                        "Requests",
                        "Requests answered a second, gRPC and HTTP.",
                        "reqps",
                        Query(_rate("requests_total")),
                    ),
                    number(
                        "Errors",
                        "Share of requests that failed by our fault, as the availability "
                        "objective counts them.",
                        "percentunit",
                        Query(share),
                        limits=[(0.001, "orange"), (0.01, "red")],
                    ),
                    number(
                        "p99",
                        "99 of 100 requests were answered within this time.",
                        "s",
                        _quantiles("request_seconds", 0.99)[0],
                    ),
                    number(
                        "Model",
                        "The version in force.",
                        "none",
                        Query(_VERSION, "{{name}} v{{version}}"),
                        named=True,
                    ),
                    number(
                        "Workers",
                        "Server processes that run.",
                        "short",
                        Query(f"sum(espalier_workers{{{_SERVER}}})"),
                    ),
                ],
            ),
            ("Requests", _requests(share, failed)),
            ("Queue, batches, stages", _stages()),
            ("Predictions", _predictions()),
        ],
    )


def _requests(share: str, failed: str) -> list[Panel]:
    return [
        lines(
            "Requests by method",
            "Requests answered a second.",
            "reqps",
            Query(_rate("requests_total", "transport, method"), "{{transport}} {{method}}"),
            stacked=True,
        ),
        lines(
            "Share of errors",
            "Share of requests that failed by our fault.",
            "percentunit",
            Query(share, "errors"),
        ),
        lines(
            "Requests by code",
            "Requests a second that ended otherwise than OK: ours and the callers' faults.",
            "reqps",
            Query(_rate("requests_total", "code", 'code!~"OK|200"'), "{{code}}"),
            Query(f"{_rate('requests_total', where=failed)} or vector(0)", "our faults"),
        ),
        lines(
            "Latency",
            "Time from a request's arrival to its answer. A histogram's quantile is right to its "
            "bucket, a factor of 2.",
            "s",
            *_quantiles("request_seconds", 0.5, 0.9, 0.99),
            width=HALF,
        ),
        heat_map(
            "Latency's distribution",
            "How many requests took how long.",
            "s",
            Query(
                f"sum by (le) (increase(espalier_request_seconds_bucket{{{_SERVER}}}{_WINDOW}))",
                "{{le}}",
            ),
        ),
        lines(
            "p99 by method",
            "99 of 100 requests of the method were answered within this time.",
            "s",
            Query(
                f"histogram_quantile(0.99, {_rate('request_seconds_bucket', 'le, method')})",
                "{{method}}",
            ),
            width=HALF,
        ),
        lines(
            "In flight",
            "Requests under way when Prometheus looked.",
            "short",
            Query(
                f"sum by (transport) (espalier_requests_in_flight{{{_SERVER}}})", "{{transport}}"
            ),
            width=HALF,
        ),
    ]


def _stages() -> list[Panel]:
    waits, reads, runs = "queue_wait_seconds", "feature_read_seconds", "model_run_seconds"
    return [
        lines(
            "Stages, mean",
            "Where a request's time goes: waiting for its batch, reading features, the model. "
            "Read and run are of a batch.",
            "s",
            _mean(waits, "queue"),
            _mean(reads, "read"),
            _mean(runs, "model"),
            stacked=True,
        ),
        lines(
            "Stages, p99",
            "The slow end of each stage.",
            "s",
            *_quantiles(waits, 0.99, label="queue "),
            *_quantiles(reads, 0.99, label="read "),
            *_quantiles(runs, 0.99, label="model "),
        ),
        lines(
            "Batch",
            "Distinct entities a batch.",
            "short",
            _mean("batch_entities", "mean"),
            *_quantiles("batch_entities", 0.99),
        ),
        lines(
            "Queue",
            "Entities that wait for a batch; from 4,096 on requests are refused.",
            "short",
            Query(f"sum(espalier_queue_entities{{{_SERVER}}})", "waiting"),
        ),
        lines(
            "Sheds",
            "Requests refused or dropped unanswered, by reason.",
            "reqps",
            Query(_rate("sheds_total", "reason"), "{{reason}}"),
        ),
        lines(
            "Batches",
            "Runs of the model a second.",
            "ops",
            Query(_rate("model_run_seconds_count"), "runs"),
        ),
    ]


def _predictions() -> list[Panel]:
    return [
        lines(
            "Entities",
            "Entities answered a second, by the state of their features and the source of the "
            "score.",
            "ops",
            Query(_rate("predictions_total", "status, source"), "{{status}} {{source}}"),
            stacked=True,
        ),
        lines(
            "Feature age",
            "Age of the oldest feature row in the newest batch, by the server's clock (--as-of).",
            "s",
            Query(f"espalier_feature_age_seconds{{{_SERVER}}}", "{{model}} {{instance}}"),
        ),
        lines(
            "Prediction log",
            "Rows a second: written, dropped, and left out by the sampling rate.",
            "ops",
            Query(_rate("predictions_logged_total"), "logged"),
            Query(_rate("predictions_not_logged_total"), "dropped"),
            Query(_rate("predictions_not_sampled_total"), "not sampled"),
        ),
        lines(
            "Shadow",
            "Rows for the challenger a second, by outcome; nothing without a challenger.",
            "ops",
            Query(_rate("shadow_predictions_total", "outcome"), "{{outcome}}"),
        ),
        lines(
            "Failed model loads",
            "Tries to bring the champion into force that failed.",
            "short",
            Query(
                f"sum by (instance) "
                f"(increase(espalier_model_load_failures_total{{{_SERVER}}}{_WINDOW}))",
                "{{instance}}",
            ),
        ),
        lines(
            "Versions",
            "How many servers have which version in force.",
            "short",
            Query(_VERSION, "{{name}} v{{version}}"),
        ),
    ]


def objectives(declared: Declared) -> Dashboard:
    """The objectives: what was promised, what was kept, and what may still go wrong."""
    rows: list[tuple[str, list[Panel]]] = [
        (
            "Alerts",
            [
                number(
                    "Firing",
                    "Alerts that fire now.",
                    "short",
                    Query(
                        'count(ALERTS{alertname=~"Espalier.*",alertstate="firing"}) or vector(0)'
                    ),
                    limits=[(1, "red")],
                ),
                number(
                    "Pending",
                    "Alerts whose condition holds, not yet for long enough.",
                    "short",
                    Query(
                        'count(ALERTS{alertname=~"Espalier.*",alertstate="pending"}) or vector(0)'
                    ),
                    limits=[(1, "orange")],
                ),
                bars(
                    "Firing, by name",
                    "Alerts that fire now; nothing when all is well.",
                    "short",
                    Query(
                        "sum by (alertname, severity) "
                        '(ALERTS{alertname=~"Espalier.*",alertstate="firing"})',
                        "{{alertname}} ({{severity}})",
                    ),
                    limit=1,
                ),
            ],
        )
    ]
    for objective in declared.objectives:
        chosen = f'{{slo="{objective.name}"}}'
        rows.append(
            (
                f"{objective.what}: {100 * objective.target:.9g} % of them, over {objective.days} days",
                [
                    number(
                        f"Budget left: {objective.name}",
                        f"What is left of the {100 * objective.budget:.9g} % that may be bad; below 0 the "
                        "objective is missed. It wants Prometheus to keep that many days.",
                        "percentunit",
                        Query(f"job:slo_budget_left:ratio{chosen}"),
                    ),
                    number(
                        f"Bad now: {objective.name}",
                        "Share of bad requests in the last 5 minutes.",
                        "percentunit",
                        Query(f"job:slo_error_ratio:rate5m{chosen}"),
                    ),
                    number(
                        f"Target: {objective.name}",
                        "The share that is promised.",
                        "percentunit",
                        Query(f"job:slo_target:ratio{chosen}"),
                    ),
                    lines(
                        f"Burn rate: {objective.name}",
                        "How many times too fast the budget is used, over each window; 1 uses it "
                        "up exactly.",
                        "none",
                        *[
                            Query(
                                f"job:slo_error_ratio:rate{window}{chosen} / {objective.budget:.9g}",
                                window,
                            )
                            for window in declared.windows
                        ],
                        width=HALF,
                    ),
                    lines(
                        f"Requests: {objective.name}",
                        "Requests a second that count, and the bad ones.",
                        "reqps",
                        Query(f"job:slo_requests:rate5m{chosen}", "all"),
                        Query(f"job:slo_bad:rate5m{chosen}", "bad"),
                        width=HALF,
                    ),
                ],
            )
        )
    return board(
        "espalier-slo",
        "Espalier: objectives",
        "Service-level objectives of deploy/prometheus/slo.toml, their budgets and the alerts.",
        variables=[],
        since="now-7d",
        rows=rows,
    )
