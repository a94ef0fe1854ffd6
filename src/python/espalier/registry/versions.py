"""Reads model versions from MLflow for people: which there are, and all that is known of one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from espalier.errors import BadData, GateRefused, ModelNotReady, UsageError
from espalier.registry import download
from espalier.registry.download import StoredFile
from espalier.registry.manifest import ASKED_BY, GATE, PROVENANCE
from espalier.registry.rest import MlflowRest, with_tags

# MLflow hands out at most so many versions at a time.
MOST = 200


@dataclass(frozen=True)
class Version:
    """A registered version. `gate` is "accepted", "refused", or empty without evidence."""

    version: str
    created: datetime
    run_id: str
    aliases: tuple[str, ...]
    gate: str
    gate_reason: str
    opponent: str
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Details:
    """A version with its files, its documents as JSON values, and the page of its run."""

    version: Version
    files: list[StoredFile]
    provenance: Mapping[str, Any]
    gate: Mapping[str, Any]
    run_page: str


def list_versions(tracking_uri: str, project: str, *, limit: int = MOST) -> list[Version]:
    """The newest versions of a project's model, the newest first.

    Raises:
        DependencyUnreachable: MLflow does not answer.
    """
    with MlflowRest(tracking_uri) as mlflow:
        records = _newest(mlflow, project, min(limit, MOST))
        aliases = mlflow.aliases(project)
        return [_version(mlflow, record, aliases) for record in records]


def asked_for(tracking_uri: str, project: str, asked_by: str) -> Version | None:
    """The version, of the newest, whose training was asked for under a name; None without one.

    Raises:
        DependencyUnreachable: MLflow does not answer.
    """
    with MlflowRest(tracking_uri) as mlflow:
        for record in _newest(mlflow, project, MOST):
            if record["tags"].get(ASKED_BY) == asked_by:
                return _version(mlflow, record, mlflow.aliases(project))
    return None


def document(tracking_uri: str, project: str, version: str, name: str) -> Mapping[str, Any]:
    """A JSON document of a version; empty when a version has none.

    Raises:
        BadData: it was changed after it was registered, or is not JSON.
        DependencyUnreachable: MLflow does not answer.
    """
    try:
        found = json.loads(download.fetch_document(tracking_uri, project, version, name))
    except ModelNotReady:
        return {}
    except ValueError as error:
        raise BadData(f"{name} of {project} version {version} is not JSON") from error
    return found if isinstance(found, dict) else {}


def show(tracking_uri: str, project: str, version_or_alias: str) -> Details:
    """All that is known of one version.

    Raises:
        UsageError: there is no such version or alias.
        BadData: one of its documents was changed after it was registered.
        DependencyUnreachable: MLflow does not answer.
    """
    with MlflowRest(tracking_uri) as mlflow:
        record, aliases = _find(mlflow, project, version_or_alias)
        found = _version(mlflow, record, aliases)
        run = mlflow.get("runs/get", {"run_id": found.run_id}) or {}
    experiment = run.get("run", {}).get("info", {}).get("experiment_id", "0")
    return Details(
        version=found,
        files=download.stored_files(tracking_uri, project, found.version),
        provenance=document(tracking_uri, project, found.version, PROVENANCE),
        gate=document(tracking_uri, project, found.version, GATE),
        run_page=f"{tracking_uri}/#/experiments/{experiment}/runs/{found.run_id}",
    )


def gate_evidence(
    tracking_uri: str, project: str, version: str, *, champion: str | None, force: bool
) -> Mapping[str, Any]:
    """What a promotion by hand rests on: the gate's verdict of when the version was trained.

    Args:
        tracking_uri: MLflow's address.
        project: The project.
        version: The version that is to be promoted.
        champion: The champion it would replace.
        force: Whether to promote it against the evidence; the evidence then says so.

    Raises:
        GateRefused: the gate refused the version, compared it with another champion, or never
            saw it.
        UsageError: there is no such version.
        DependencyUnreachable: MLflow does not answer.
    """
    with MlflowRest(tracking_uri) as mlflow:
        record, aliases = _find(mlflow, project, version)
        found = _version(mlflow, record, aliases)
    against = "the baseline" if champion is None else f"champion {champion}"
    what = f"version {version} of {project}"
    objection = ""
    if found.gate == "refused":
        objection = f"{what} was refused by the gate: {found.gate_reason}"
    elif found.gate != "accepted":
        objection = f"{what} was never judged by the gate"
    elif found.opponent != against:
        objection = f"{what} was compared with {found.opponent}, not with {against}"
    if objection and not force:
        raise GateRefused(
            objection,
            fix="train again, or promote it all the same with --force; the ledger will say so",
        )
    evidence = {
        "gate": document(tracking_uri, project, version, GATE),
        "verdict": found.gate,
        "run_id": found.run_id,
    }
    return {**evidence, "forced_against": objection} if objection else evidence


def _newest(mlflow: MlflowRest, project: str, limit: int) -> list[dict[str, Any]]:
    asked = {
        "filter": f"name='{project}'",
        "max_results": str(limit),
        "order_by": "version_number DESC",
    }
    answer = mlflow.get("model-versions/search", asked) or {}
    return [with_tags(record) for record in answer.get("model_versions", [])]


def _find(
    mlflow: MlflowRest, project: str, version_or_alias: str
) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    aliases = mlflow.aliases(project)
    number = aliases.get(version_or_alias, version_or_alias)
    record = mlflow.version(project, number) if number.isdecimal() else None
    if record is None:
        raise UsageError(
            f"MLflow has no version {version_or_alias} of model {project}",
            fix="see espalier models list",
        )
    return record, aliases


def _version(mlflow: MlflowRest, record: Mapping[str, Any], aliases: Mapping[str, str]) -> Version:
    tags, number = record["tags"], str(record["version"])
    run_id = str(record.get("run_id", ""))
    answer = (mlflow.get("runs/get", {"run_id": run_id}) if run_id else None) or {}
    data = answer.get("run", {}).get("data", {})
    return Version(
        version=number,
        created=datetime.fromtimestamp(int(record["creation_timestamp"]) / 1000, UTC),
        run_id=run_id,
        aliases=tuple(sorted(alias for alias, version in aliases.items() if version == number)),
        gate=tags.get("gate", ""),
        gate_reason=tags.get("gate_reason", ""),
        opponent=tags.get("gate_opponent", ""),
        metrics={str(m["key"]): float(m["value"]) for m in data.get("metrics", [])},
        tags=tags,
    )
