"""How a client connects: gRPC's service config, its channel's options, TLS and the token."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import grpc

from espalier.prediction.v1 import prediction_pb2 as pb

_SERVICE: str = pb.DESCRIPTOR.services_by_name["PredictionService"].full_name
# Of a chunk of 100,000 entities with the probabilities of several classes.
_MAX_ANSWER_BYTES = 64 * 2**20

Options: TypeAlias = list[tuple[str, str | int]]
Metadata: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Retry:
    """How often, and with what pauses, a call is tried again that met nobody.

    All calls of the contract only read, so each may be made again. A pause is twice the one before;
    gRPC varies it by some, so that callers do not come all at once. It knows no more than 5
    attempts, and stops trying again while most calls fail.
    """

    attempts: int = 5
    first_seconds: float = 0.2
    longest_seconds: float = 2.0

    def __post_init__(self) -> None:
        """Refuse what gRPC would ignore."""
        if not 1 <= self.attempts <= 5:
            raise ValueError(f"{self.attempts} attempts: gRPC makes 1 to 5")
        if not 0 < self.first_seconds <= self.longest_seconds:
            raise ValueError("pauses are more than 0 s, the longest not shorter than the first")


DEFAULT_RETRY = Retry()


@dataclass(frozen=True, kw_only=True)
class Tls:
    """PEM files for a server with TLS; `Tls()` trusts the authorities that gRPC brings.

    `ca` are authorities to trust instead, `certificate` and `key` what the client shows when the
    server asks for it, `name` is what the server's certificate says when that is not its address.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    name: str = ""

    def __post_init__(self) -> None:
        """Refuse half of a pair."""
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a client's certificate needs its key, and the key its certificate")

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files."""
        ca, certificate, key = (
            None if path is None else Path(path).read_bytes()
            for path in (self.ca, self.certificate, self.key)
        )
        return grpc.ssl_channel_credentials(ca, key, certificate)


def service_config(timeout: float, retry: Retry) -> str:
    """The service config: a deadline for calls with one answer, retries for all."""
    policy = {
        "maxAttempts": retry.attempts,
        "initialBackoff": f"{retry.first_seconds:.6f}s",
        "maxBackoff": f"{retry.longest_seconds:.6f}s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    # A server that is away is an error at once: what is worth waiting for is the retries' to say.
    rules: dict[str, object] = {"waitForReady": False}
    if retry.attempts > 1:
        rules["retryPolicy"] = policy
    short = [{"service": _SERVICE, "method": m} for m in ("Predict", "BatchPredict", "GetModel")]
    stream = [{"service": _SERVICE, "method": "StreamPredict"}]
    return json.dumps(
        {
            "methodConfig": [
                {"name": short, "timeout": f"{timeout:.6f}s", **rules},
                {"name": stream, **rules},
            ],
            "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.5},
        }
    )


def options(timeout: float, retry: Retry, tls: Tls | None) -> Options:
    """The options of a channel.

    Raises:
        ValueError: `timeout` is no time.
    """
    if not timeout > 0:
        raise ValueError(f"a call cannot have {timeout:g} s")
    found: Options = [
        ("grpc.service_config", service_config(timeout, retry)),
        ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),
        # A connection that broke is made anew as fast as calls are tried again.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # Each client has a connection of its own: a server's workers share connections, not calls.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if tls is not None and tls.name:
        found.append(("grpc.ssl_target_name_override", tls.name))
    return found


def metadata(token: str | None) -> Metadata:
    """What is sent with each call."""
    return () if token is None else (("authorization", f"Bearer {token}"),)
