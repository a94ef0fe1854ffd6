"""Prometheus, Alertmanager and Grafana of the stack: programs that this machine may not have.

Without one the stack does what it does, so its process says what is missing and ends well.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espalier import settings as configuration
from espalier.cli.products import add_project
from espalier.errors import ConfigurationError
from espalier.orchestration.worker import become


def add_arguments(name: str, parser: argparse.ArgumentParser) -> None:
    """The options of one of the three beside its port; others have none."""
    if name in ("prometheus", "alertmanager", "grafana"):
        parser.add_argument(
            "--files",
            type=Path,
            default=Path("deploy"),
            help=f"the folder with {name}/ in it; default: %(default)s",
        )
    if name == "prometheus":
        add_project(parser, text="what is served")
    if name in ("prometheus", "grafana"):
        told = "where Alertmanager is; default: %(default)s"
        parser.add_argument(
            "--alertmanager", metavar="HOST:PORT", default="127.0.0.1:9093", help=told
        )
    if name == "grafana":
        told = "where Prometheus is; default: %(default)s"
        parser.add_argument(
            "--prometheus", metavar="URL", default="http://127.0.0.1:9090", help=told
        )


def run_prometheus(options: argparse.Namespace) -> int:
    """Become Prometheus, over a copy of its configuration with this stack's addresses."""
    program = _found("prometheus", "Debian has it as prometheus")
    if program is None:
        return 0
    settings = configuration.load()
    state = settings.stack_dir.absolute() / "prometheus"
    folder = configure(
        _folder(options.files, "prometheus"),
        state / "configuration",
        {
            "espalier-server": settings.http_address,
            "espalier-exporter": settings.exporter_address,
            "prometheus": f"127.0.0.1:{options.port}",
            "alertmanager": options.alertmanager,
        },
        project=options.project,
    )
    return _become(
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={state / 'data'}",
        # The error budget looks 30 days back.
        "--storage.tsdb.retention.time=31d",
        f"--web.listen-address=127.0.0.1:{options.port}",
    )


def run_alertmanager(options: argparse.Namespace) -> int:
    """Become Alertmanager."""
    program = _found("alertmanager", "Debian has it as prometheus-alertmanager")
    if program is None:
        return 0
    state = configuration.load().stack_dir.absolute() / "alertmanager"
    return _become(
        program,
        f"--config.file={_folder(options.files, 'alertmanager') / 'alertmanager.yml'}",
        f"--storage.path={state}",
        f"--web.listen-address=127.0.0.1:{options.port}",
        # One alone has no peers to gossip with.
        "--cluster.listen-address=",
    )


def run_grafana(options: argparse.Namespace) -> int:
    """Become Grafana, provisioned, open to this machine's users without a login."""
    program = _found("grafana", "nix develop has it")
    if program is None:
        return 0
    state = configuration.load().stack_dir.absolute() / "grafana"
    files = _folder(options.files, "grafana")
    variables = {
        "GF_SERVER_HTTP_ADDR": "127.0.0.1",
        "GF_SERVER_HTTP_PORT": str(options.port),
        "GF_PATHS_DATA": str(state),
        "GF_PATHS_LOGS": str(state / "logs"),
        "GF_PATHS_PLUGINS": str(state / "plugins"),
        "GF_PATHS_PROVISIONING": str(files / "provisioning"),
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "ESPALIER_GRAFANA_DASHBOARDS": str(files / "dashboards"),
        "ESPALIER_PROMETHEUS_URL": options.prometheus,
        "ESPALIER_ALERTMANAGER_URL": f"http://{options.alertmanager}",
    }
    # Beside bin in Nix, at a place of its own in packages.
    homes = (Path(program).resolve().parents[1] / "share" / "grafana", Path("/usr/share/grafana"))
    home = next((str(one) for one in homes if one.is_dir()), None)
    return _become(program, "server", *(["--homepath", home] if home else []), env=variables)


def configure(source: Path, target: Path, addresses: Mapping[str, str], *, project: str) -> Path:
    """Copy Prometheus' configuration beside files that name what it scrapes; give the copy's folder.

    Args:
        source: The folder with prometheus.yml, as committed.
        target: The copy; an older one is replaced.
        addresses: Where each job is, as HOST:PORT.
        project: The ML product that the server serves.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("tests", "targets*"))
    groups: dict[str, dict[str, Any]] = {
        job: {"targets": [address], "labels": {"job": job}} for job, address in addresses.items()
    }
    groups["espalier-server"]["labels"] = {"job": "espalier-server", "project": project}
    _write(target / "targets" / "stack.json", list(groups.values()))
    _write(target / "targets-alertmanager" / "stack.json", [groups["alertmanager"]])
    return target


def _write(path: Path, groups: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{json.dumps(groups, indent=2)}\n")


def _found(name: str, source: str) -> str | None:
    # Debian's name for it, after the usual one.
    found = shutil.which(name) or shutil.which(f"prometheus-{name}")
    if found is None:
        print(f"{name} is not on PATH, so the stack runs without it; to have it: {source}")
    return found


def _folder(files: Path, name: str) -> Path:
    folder = (files / name).absolute()
    if not folder.is_dir():
        raise ConfigurationError(
            f"{folder} is not there", fix="run at the root of a checkout, or give --files"
        )
    return folder


def _become(program: str, *arguments: str, env: Mapping[str, str] | None = None) -> int:
    become([program, *arguments], env or {})
    raise AssertionError("exec does not return")
