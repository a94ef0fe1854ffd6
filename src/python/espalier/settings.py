"""Every environment variable that the platform reads, each with its meaning.

Read once, at a program's start, by `load`; everything else is given the values. A `.env` file in
the working directory is read too; the environment wins over it.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

from espalier.errors import ConfigurationError

PASSWORD, PASSWORD_FILE = "POSTGRES_PASSWORD", "POSTGRES_PASSWORD_FILE"


def _var(name: str, default: Any, meaning: str) -> Any:
    """A dataclass field that is read from the variable `name`."""
    return field(default=default, metadata={"env": name, "meaning": meaning})


@dataclass(frozen=True)
class Settings:
    """The platform's configuration. `ESPALIER_*` names are ours, the others are conventional."""

    postgres_host: str = _var(
        "POSTGRES_HOST", "127.0.0.1", "PostgreSQL's host, or the folder of its Unix socket"
    )
    postgres_port: int = _var("POSTGRES_PORT", 5432, "PostgreSQL's port")
    postgres_user: str = _var("POSTGRES_USER", "espalier", "the role that owns our schemas")
    postgres_password: str = _var(
        PASSWORD,
        "",
        "that role's password; without it the content of the file POSTGRES_PASSWORD_FILE",
    )
    postgres_db: str = _var("POSTGRES_DB", "espalier", "the database with our schemas")
    mlflow_tracking_uri: str = _var(
        "MLFLOW_TRACKING_URI", "http://127.0.0.1:5000", "the MLflow server, by http or https"
    )
    prefect_api_url: str = _var(
        "PREFECT_API_URL", "", "Prefect's API; without it a flow from a shell runs unrecorded"
    )
    data_dir: Path = _var(
        "ESPALIER_DATA_DIR", Path("data/seeds"), "holds <project>/month_NNN/<table>.csv"
    )
    products: str = _var(
        "ESPALIER_PRODUCTS",
        "churn",
        "the ML products here, by commas; without --project a command is about the first",
    )
    reports_dir: Path = _var(
        "ESPALIER_REPORTS_DIR", Path("reports"), "where validation and drift reports are written"
    )
    state_dir: Path = _var(
        "ESPALIER_STATE_DIR", Path(".espalier"), "quickstart's database, servers' files and logs"
    )
    artifacts: str = _var(
        "ESPALIER_ARTIFACTS",
        "",
        "quickstart's MLflow store: a folder or a URI as s3://bucket/path; default: its state folder",
    )
    pex_store: str = _var(
        "ESPALIER_PEX_STORE",
        ".espalier/pex",
        "where deploy puts PEXes and workers fetch them: a folder or a URL that fsspec knows",
    )
    pex_cache: Path = _var(
        "ESPALIER_PEX_CACHE", Path("~/.cache/espalier/pex"), "a worker host's PEXes, by digest"
    )
    grpc_address: str = _var(
        "ESPALIER_GRPC_ADDRESS", "127.0.0.1:50051", "where the prediction server serves gRPC"
    )
    http_address: str = _var(
        "ESPALIER_HTTP_ADDRESS", "127.0.0.1:8000", "where it serves HTTP; empty for gRPC alone"
    )
    exporter_address: str = _var(
        "ESPALIER_EXPORTER_ADDRESS", "127.0.0.1:9108", "where the exporter answers Prometheus"
    )
    prometheus_url: str = _var(
        "ESPALIER_PROMETHEUS_URL", "http://127.0.0.1:9090", "where doctor asks Prometheus"
    )
    grafana_url: str = _var(
        "ESPALIER_GRAFANA_URL", "http://127.0.0.1:3001", "where doctor looks for Grafana"
    )
    model_poll_seconds: float = _var(
        "ESPALIER_MODEL_POLL_SECONDS", 5.0, "how often the server asks the registry for champion"
    )
    otlp_endpoint: str = _var(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "",
        "where the server sends traces, by OTLP over gRPC as http://127.0.0.1:4317; empty: nowhere",
    )
    log_level: str = _var("ESPALIER_LOG_LEVEL", "INFO", "the lowest level that is logged")
    git_commit: str = _var(
        "ESPALIER_GIT_COMMIT", "", "the commit a PEX was built from, -dirty if so; a checkout wins"
    )
    actor: str = _var("ESPALIER_ACTOR", "", "who acts, for snapshots and ledger; default: the user")

    @property
    def dsn(self) -> str:
        """PostgreSQL's connection URI, as psycopg takes it."""
        user = quote(self.postgres_user, safe="")
        if self.postgres_password:
            user += ":" + quote(self.postgres_password, safe="")
        database = quote(self.postgres_db, safe="")
        if self.postgres_host.startswith("/"):
            host = quote(self.postgres_host, safe="")
            return f"postgresql://{user}@/{database}?host={host}&port={self.postgres_port}"
        return f"postgresql://{user}@{self.postgres_host}:{self.postgres_port}/{database}"

    @property
    def product_names(self) -> tuple[str, ...]:
        """The ML products; the first is meant when none is named."""
        return tuple(name.strip() for name in self.products.split(","))

    @property
    def stack_dir(self) -> Path:
        """Where the stack's servers keep their files: deploy/process-compose.yaml."""
        return self.state_dir / "stack"

    @property
    def who(self) -> str:
        """Who acts."""
        return self.actor or getpass.getuser()

    def environment(self) -> dict[str, str]:
        """The variables that give a child process these settings."""
        return {f.metadata["env"]: str(getattr(self, f.name)) for f in fields(self)}


def read(environ: Mapping[str, str]) -> Settings:
    """Settings from variables; an empty one is the default.

    Raises:
        ConfigurationError: a value does not parse as its type, or the password's file is not there.
    """
    values: dict[str, Any] = {}
    environ = {**environ, PASSWORD: _password(environ)}
    for item in fields(Settings):
        text = environ.get(item.metadata["env"], "")
        if not text:
            continue
        kind: type = type(item.default)
        try:
            values[item.name] = kind(text)
        except ValueError as error:
            raise ConfigurationError(
                f"{item.metadata['env']}={text!r} is not a valid {kind.__name__}",
                fix=f"it is {item.metadata['meaning']}; default {item.default}",
            ) from error
    return Settings(**values)


def _password(environ: Mapping[str, str]) -> str:
    """The password, which may be in a file, as Docker's and Kubernetes' secrets are."""
    path = environ.get(PASSWORD_FILE, "")
    if environ.get(PASSWORD) or not path:
        return environ.get(PASSWORD, "")
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"{PASSWORD_FILE}={path!r} cannot be read: {said}",
            fix=f"it is a file with the password alone; or set {PASSWORD}",
        ) from error


def running_pex() -> Path | None:
    """The PEX that this process was started from, as PEX itself says; None without one."""
    pex = os.environ.get("PEX")
    return Path(pex) if pex else None


def load() -> Settings:
    """Settings from `.env` in the working directory and the environment."""
    return read(_given())


def product_names() -> tuple[str, ...]:
    """The settings' ML products alone, whatever else is set wrongly."""
    given = _given()
    return read({name: given[name] for name in given if name == "ESPALIER_PRODUCTS"}).product_names


def _given() -> dict[str, str]:
    from dotenv import dotenv_values

    from_file = {k: v for k, v in dotenv_values(".env").items() if v is not None}
    return {**from_file, **os.environ}
