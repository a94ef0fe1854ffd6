"""MLflow's REST API over httpx: the few calls that need no mlflow import (which takes seconds)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from espalier.errors import ConfigurationError, DependencyUnreachable
from espalier.registry.manifest import CHAMPION

_API = "/api/2.0/mlflow"
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
# Well below the 5 s after which MLflow's uvicorn closes a connection that nobody uses: the same
# 5 s, which are httpx's too, would let a call go out on a connection that is just being closed.
_LIMITS = httpx.Limits(keepalive_expiry=2.0)
# What MLflow answers for a model or version, and for an alias, that does not exist.
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def with_tags(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of MLflow's with its tags, a list of keys and values, as a mapping."""
    tags = {str(tag["key"]): str(tag.get("value", "")) for tag in record.get("tags", [])}
    return {**record, "tags": tags}


class MlflowRest:
    """One MLflow server. Use as a context manager.

    Every method raises DependencyUnreachable when the server does not answer, or answers in
    another way than MLflow does.
    """

    def __init__(self, tracking_uri: str) -> None:
        """Prepare a client; raises ConfigurationError when the address is not http or https."""
        if urlsplit(tracking_uri).scheme not in ("http", "https"):
            raise ConfigurationError(
                "MLFLOW_TRACKING_URI is not an http or https address",
                fix="give the address of an MLflow server, such as http://127.0.0.1:5000",
            )
        self._client = httpx.Client(base_url=tracking_uri, timeout=_TIMEOUT, limits=_LIMITS)

    def get(self, call: str, query: Mapping[str, str]) -> dict[str, Any] | None:
        """The answer to one reading call; None when what is asked for does not exist."""
        with self._reachable():
            return self._answer(call, self._client.get(f"{_API}/{call}", params=dict(query)))

    def post(self, call: str, body: Mapping[str, str]) -> dict[str, Any] | None:
        """The answer to one writing call; None when what is to be changed does not exist."""
        return self._write("POST", call, body)

    def alias(self, model: str, alias: str = CHAMPION) -> str | None:
        """The version that the alias of a registered model points to, or None."""
        answer = self.get("registered-models/alias", {"name": model, "alias": alias})
        return None if answer is None else str(answer["model_version"]["version"])

    def set_alias(self, model: str, version: str, alias: str = CHAMPION) -> bool:
        """Point the alias to a version; false when there is no such version."""
        body = {"name": model, "alias": alias, "version": version}
        return self.post("registered-models/alias", body) is not None

    def delete_alias(self, model: str, alias: str) -> None:
        """Take an alias away; nothing is done when there is none."""
        self._write("DELETE", "registered-models/alias", {"name": model, "alias": alias})

    def aliases(self, model: str) -> dict[str, str]:
        """The versions that the aliases of a registered model point to; none without a model."""
        answer = self.get("registered-models/get", {"name": model}) or {}
        found = answer.get("registered_model", {}).get("aliases", [])
        return {str(entry["alias"]): str(entry["version"]) for entry in found}

    def version(self, model: str, version: str) -> dict[str, Any] | None:
        """What MLflow says of a model version, its tags as a mapping; None when there is none."""
        answer = self.get("model-versions/get", {"name": model, "version": version})
        return None if answer is None else with_tags(answer["model_version"])

    def artifacts(self, path: str) -> dict[str, int]:
        """The files directly in a folder of the artifact store, with their sizes in bytes."""
        with self._reachable():
            response = self._client.get(_ARTIFACTS, params={"path": path})
            # As for `artifact`: 500 is a folder that is not there.
            found = {} if response.status_code in (404, 500) else self._answer(path, response)
        return {
            str(entry["path"]): int(entry.get("file_size", 0))
            for entry in (found or {}).get("files", [])
            if not entry.get("is_dir")
        }

    @contextmanager
    def artifact(self, path: str) -> Iterator[httpx.Response | None]:
        """A stream of one file of the artifact store; None when it is not there."""
        with (
            self._reachable(),
            self._client.stream("GET", f"{_ARTIFACTS}/{quote(path)}") as response,
        ):
            # MLflow answers 500 for a file that its store lacks, newer releases 404.
            if response.status_code in (404, 500):
                yield None
            elif response.is_success:
                yield response
            else:
                raise self._unreachable(f"answered {response.status_code} for {path}")

    def __enter__(self) -> Self:
        """The client itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close its connections."""
        self._client.close()

    def _write(self, method: str, call: str, body: Mapping[str, str]) -> dict[str, Any] | None:
        with self._reachable():
            return self._answer(
                call, self._client.request(method, f"{_API}/{call}", json=dict(body))
            )

    def _answer(self, call: str, response: httpx.Response) -> dict[str, Any] | None:
        try:
            body = response.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise self._unreachable(f"answered {response.status_code} to {call}, and no JSON")
        if response.is_success:
            return body
        if body.get("error_code") in _ABSENT:
            return None
        why = str(body.get("message", ""))[:200]
        raise self._unreachable(f"answered {response.status_code} to {call}: {why}")

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            raise self._unreachable(str(error) or type(error).__name__) from error

    def _unreachable(self, why: str) -> DependencyUnreachable:
        # The address without the user and password that it may hold.
        address = self._client.base_url.copy_with(username=None, password=None)
        return DependencyUnreachable(
            f"MLflow at {str(address).rstrip('/')}: {why}",
            fix="start it, or set MLFLOW_TRACKING_URI to the server's address",
        )
