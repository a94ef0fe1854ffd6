"""How a prediction server runs, as one frozen value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from espalier.errors import ConfigurationError
from espalier.project import Project
from espalier.serving.listeners import require_loopback
from espalier.serving.tls import TlsFiles


@dataclass(frozen=True)
class Worker:
    """One of several processes on the same ports.

    `slot` names it among them, `metrics` is the folder they share, and at the end of `lifeline`, a
    file descriptor, their parent is gone.
    """

    slot: str
    metrics: Path
    lifeline: int


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a server runs. `http_address` may be empty; a port may be 0 for a free one.

    Attributes:
        projects: What is served, at least one and none twice.
        dsn: PostgreSQL's connection URI.
        tracking_uri: MLflow's address.
        grpc_address: HOST:PORT.
        http_address: HOST:PORT, or empty.
        tls: The server's certificate; None for plain text.
        insecure_address_ok: Let plain text listen on other addresses than loopback.
        tokens: A file of token hashes, see `tokens`; None when calls need no token.
        rate: Entities a second for each token and worker process; 0 for no limit.
        max_entities: The largest BatchPredict.
        max_message_bytes: The largest gRPC message.
        feature_repo: A Feast repository to read features from; None for the wide-row store.
        poll_seconds: How often the registry is asked for the champion.
        drain_seconds: How long requests under way may take after SIGTERM.
        workers: How many batches are under way at once, in one process.
        max_waiting: How many entities may wait for a batch.
        log_predictions: Whether served rows go to the prediction log.
        log_sample: The share of entities that goes there, 0 to 1.
        log_retention_days: Months of the log that ended so long ago are dropped; 0 keeps all.
        otlp_endpoint: OpenTelemetry's collector, by OTLP over gRPC; empty for no tracing.
        worker: What this process is told as one of several workers; None when it is alone.
        now: What time it is, for the age of features; replaying history sets it to the past.
    """

    projects: tuple[Project, ...]
    dsn: str
    tracking_uri: str
    grpc_address: str
    http_address: str
    tls: TlsFiles | None = None
    insecure_address_ok: bool = False
    tokens: Path | None = None
    rate: float = 0.0
    max_entities: int = 100_000
    max_message_bytes: int = 16 * 2**20
    feature_repo: Path | None = None
    poll_seconds: float = 5.0
    drain_seconds: float = 10.0
    workers: int = 2
    max_waiting: int = 4096
    log_predictions: bool = True
    log_sample: float = 1.0
    log_retention_days: int = 0
    otlp_endpoint: str = ""
    worker: Worker | None = None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    @property
    def program(self) -> str:
        """The server's name, for those who look at several of them."""
        return f"{self.projects[0].name}-server" if len(self.projects) == 1 else "espalier-server"

    def __post_init__(self) -> None:
        """Refuse what makes no sense, or would be open to all by mistake."""
        for wrong, told, fix in [
            (
                not self.poll_seconds > 0,
                f"the registry cannot be asked every {self.poll_seconds:g} s",
                "set ESPALIER_MODEL_POLL_SECONDS to more than 0",
            ),
            (
                not self.drain_seconds >= 0,
                f"draining cannot take {self.drain_seconds:g} s",
                "give --drain-seconds 0 or more",
            ),
            (
                not self.rate >= 0,
                f"a rate cannot be {self.rate:g} entities a second",
                "give --rate more than 0, or 0 for no limit",
            ),
            (
                self.max_entities < 1,
                f"a batch cannot have {self.max_entities} entities at most",
                "give --max-entities 1 or more",
            ),
            (
                not 0 <= self.log_sample <= 1,
                f"{self.log_sample:g} of the predictions cannot be logged",
                "give --log-sample 0 to 1",
            ),
            (
                self.log_retention_days < 0,
                f"the prediction log cannot be kept {self.log_retention_days} days",
                "give --log-retention-days more than 0, or 0 to keep it",
            ),
        ]:
            if wrong:
                raise ConfigurationError(told, fix=fix)
        if self.tls is None and not self.insecure_address_ok:
            require_loopback(self.grpc_address, "gRPC")
            if self.http_address:
                require_loopback(self.http_address, "HTTP")


@dataclass(frozen=True)
class Addresses:
    """Where a server listens; `http` is empty without HTTP."""

    grpc: str
    http: str
