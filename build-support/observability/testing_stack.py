"""A prediction server, an exporter, Prometheus and Alertmanager, all real, on loopback."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psycopg
import yaml

from espalier.monitoring.exporter import exporting
from espalier.postgres import embedded
from espalier.probe import answers
from espalier.processes import Process, reserved_port
from espalier.serving.testing import create_online_table, running_registry, write_model
from espalier.serving.testing_server import command, environment
from espalier.testing_tools import tool
from observability import prometheus_rules, render, slo
from observability.testing_history import SQL

# Of the declared times: an hour is a minute.
SPEED = 60
AS_OF = "1998-07-14"


@dataclass
class Stack:
    """What runs. `told` has what Alertmanager sent, oldest first."""

    dsn: str
    grpc_address: str
    http_address: str
    prometheus: httpx.Client
    start_server: Callable[[], Process]
    server: Process
    told: list[dict[str, Any]] = field(default_factory=list)

    def ask(self, expr: str, at: float | None = None) -> list[dict[str, Any]]:
        """The samples of an instant query.

        Raises:
            AssertionError: Prometheus refuses it.
        """
        return self._result("query", query=expr, **({"time": at} if at else {}))

    def ask_range(self, expr: str, start: float, end: float) -> list[dict[str, Any]]:
        """The series of a range query, a sample each second."""
        return self._result("query_range", query=expr, start=start, end=end, step=1)

    def value(self, expr: str, at: float | None = None) -> float:
        """The only sample's value; 0 without one."""
        found = self.ask(expr, at)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else 0.0

    def firing(self, alert: str, **labels: str) -> bool:
        """Whether Prometheus has the alert firing, of these labels."""
        chosen = {"alertname": alert, "alertstate": "firing", **labels}
        matchers = ",".join(f'{name}="{value}"' for name, value in chosen.items())
        return bool(self.ask(f"ALERTS{{{matchers}}}"))

    def is_told(self, status: str, alert: str, **labels: str) -> bool:
        """Whether the last that Alertmanager sent of the alert was "firing" or "resolved"."""
        chosen = {"alertname": alert, **labels}
        found = [told["status"] for told in self.told if chosen.items() <= told["labels"].items()]
        return found[-1:] == [status]

    def is_ready(self) -> bool:
        """Whether the prediction server says so."""
        return answers(f"http://{self.http_address}/ready")

    def _result(self, path: str, **parameters: Any) -> list[dict[str, Any]]:
        answer = self.prometheus.get(f"/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", (parameters, answer)
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found


def until(
    condition: Callable[[], object], *, seconds: float = 60, meanwhile: Callable[[], object] = int
) -> None:
    """Wait until `condition()` is true, doing something in between.

    Raises:
        AssertionError: it did not become true in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        meanwhile()
        time.sleep(0.1)


@contextmanager
def running(folder: Path) -> Iterator[Stack]:
    """Run all of it with its files in `folder`, until every target is up."""
    prometheus, alertmanager = tool("prometheus"), tool("prometheus-alertmanager", "alertmanager")
    with ExitStack() as exits:
        database = exits.enter_context(embedded.temporary())
        dsn = database.dsn()
        create_online_table(dsn)
        with psycopg.connect(dsn) as connection:
            connection.execute(SQL)
        registry = exits.enter_context(running_registry())
        for version, slope in (("1", 0.01), ("2", -0.01)):
            write_model(folder / "models" / version, slope=slope)
            registry.publish(version, folder / "models" / version)
        registry.champion, registry.challenger = "1", "2"
        exporter = exits.enter_context(exporting(dsn, "127.0.0.1:0")).address
        grpc, http, watching, alerting = (
            f"127.0.0.1:{exits.enter_context(reserved_port())}" for _ in range(4)
        )

        def start_server() -> Process:
            arguments = ("--grpc-address", grpc, "--http-address", http, "--as-of", AS_OF)
            server = exits.enter_context(
                Process(
                    "server",
                    command(*arguments),
                    log=folder / "server.log",
                    env=environment(dsn, registry.uri),
                )
            )
            server.wait_until(lambda: answers(f"http://{http}/ready"), seconds=60)
            return server

        told: list[dict[str, Any]] = []
        hook = exits.enter_context(_webhook(told))
        targets = {
            "espalier-server": http,
            "espalier-exporter": exporter,
            "prometheus": watching,
            "alertmanager": alerting,
        }
        _configure(folder, targets, hook)
        server = start_server()
        for name, argv, address in (
            (
                "alertmanager",
                (
                    *(alertmanager, f"--config.file={folder}/alertmanager.yml"),
                    *(f"--storage.path={folder}/alertmanager", "--cluster.listen-address="),
                ),
                alerting,
            ),
            (
                "prometheus",
                (
                    *(prometheus, f"--config.file={folder}/prometheus.yml"),
                    f"--storage.tsdb.path={folder}/prometheus",
                ),
                watching,
            ),
        ):
            line = [*map(str, argv), f"--web.listen-address={address}", "--log.level=warn"]
            started = exits.enter_context(Process(name, line, log=folder / f"{name}.log"))
            url = f"http://{address}/-/ready"
            started.wait_until(lambda url=url: answers(url), seconds=60)  # type: ignore[misc]
        client = exits.enter_context(httpx.Client(base_url=f"http://{watching}", timeout=30))
        stack = Stack(dsn, grpc, http, client, start_server, server, told)
        until(lambda: stack.value("sum(up)") == len(targets))
        yield stack


def _configure(folder: Path, targets: dict[str, str], hook: str) -> None:
    """Write the committed configuration with shorter times, and a receiver."""
    fast = replace(slo.load(render.SLO), speed=SPEED)
    (folder / "rules").mkdir()
    (folder / "rules/espalier.yml").write_text(render.as_yaml(prometheus_rules.rules(fast)))
    watching = yaml.safe_load(Path("deploy/prometheus/prometheus.yml").read_text())
    watching["global"] = dict.fromkeys(watching["global"], "1s")
    (folder / "prometheus.yml").write_text(yaml.safe_dump(watching))
    _write_targets(folder / "targets", targets)
    _write_targets(folder / "targets-alertmanager", {"alertmanager": targets["alertmanager"]})
    telling = yaml.safe_load(Path("deploy/alertmanager/alertmanager.yml").read_text())
    times = {"group_wait": "1s", "group_interval": "1s"}
    telling["route"].update(times)
    for route in telling["route"]["routes"]:
        route.update(times)
    telling["receivers"][0]["webhook_configs"] = [{"url": hook, "send_resolved": True}]
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(telling))


def _write_targets(folder: Path, targets: dict[str, str]) -> None:
    folder.mkdir()
    listed = [{"targets": [address], "labels": {"job": job}} for job, address in targets.items()]
    (folder / "all.json").write_text(json.dumps(listed))


@contextmanager
def _webhook(told: list[dict[str, Any]]) -> Iterator[str]:
    """Collect the alerts that are posted; gives the address to post them to."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.extend(json.loads(body)["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()
