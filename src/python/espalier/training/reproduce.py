"""Trains a registered version again from what was recorded of it, and tells every difference.

Nothing is registered or promoted by it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np

from espalier.errors import BadData, ModelNotReady
from espalier.features.point_in_time import training_set
from espalier.postgres.connect import Connection, connect
from espalier.project import Project
from espalier.registry.download import FetchedModel, fetch_document, fetch_version
from espalier.registry.manifest import PROVENANCE
from espalier.training import fitting, provenance, served
from espalier.training.build import Built, build
from espalier.training.program import UNKNOWN, Program
from espalier.training.split import Split, split_rows

Part = Literal["result", "input", "context"]


@dataclass(frozen=True)
class Compared:
    """One value as it was recorded and as it is now.

    `part` is "result" for what training gave, "input" for what decides it, and "context" for what
    need not change it: another commit may have the same training code.
    """

    part: Part
    name: str
    recorded: str
    now: str

    @property
    def equal(self) -> bool:
        """Whether it stayed the same."""
        return self.recorded == self.now


@dataclass(frozen=True)
class Reproduction:
    """The comparison of a version with its second training."""

    project: str
    version: str
    as_of: date
    compared: tuple[Compared, ...]

    @property
    def differences(self) -> tuple[Compared, ...]:
        """What is not the same."""
        return tuple(one for one in self.compared if not one.equal)

    @property
    def same_result(self) -> bool:
        """Whether training gave the same model, bit for bit."""
        return all(one.part != "result" for one in self.differences)

    @property
    def equal(self) -> bool:
        """Whether results and inputs are the same."""
        return all(one.part == "context" for one in self.differences)


def reproduce(
    project: Project,
    version: str,
    *,
    dsn: str,
    tracking_uri: str,
    who: str,
    program: Program | None = None,
) -> Reproduction:
    """Train the version again as it was trained, from the recorded snapshots alone.

    Snapshots are found by their day, revision and digest, so that another database with the same
    batches will do. What was stored since is left out. Seed, estimator and baseline are the
    recorded ones; everything else is as the product declares it now, and any part of that which
    was declared otherwise is told.

    Args:
        project: The declaration as it is now.
        version: The version's number, or an alias.
        dsn: The database with the snapshots.
        tracking_uri: The MLflow server.
        who: Who asks.
        program: The program that trains now.

    Raises:
        ModelNotReady: there is no such version, or it tells nothing of its provenance.
        BadData: a file of it was changed, or the snapshots that are left do not allow training.
        DependencyUnreachable: PostgreSQL or MLflow does not answer.
    """
    with tempfile.TemporaryDirectory() as scratch:
        fetched = fetch_version(tracking_uri, project.name, version, Path(scratch))
        recorded = _recorded(tracking_uri, fetched)
        with connect(dsn) as connection:
            snapshots = _stored(connection, project, recorded["snapshots"])
            as_of = date.fromisoformat(recorded["as_of"])
            frame = training_set(
                connection, project, as_of=as_of, snapshots=[one["id"] for one in snapshots]
            )
        declared = _as_declared(project, recorded)
        split = split_rows(frame, declared)
        built = build(declared, split)
        again = provenance.document(
            project,
            as_of=as_of,
            who=who,
            snapshots=snapshots,
            split=split,
            built=built,
            program=program or Program(),
        )
        compared = (
            *_results(recorded, again),
            _scores(fetched, split, built),
            *_inputs(recorded, again),
            *_context(recorded, again),
        )
    return Reproduction(project.name, fetched.version, as_of, compared)


def _recorded(tracking_uri: str, fetched: FetchedModel) -> dict[str, Any]:
    what = f"{PROVENANCE} of {fetched.name} version {fetched.version}"
    try:
        text = fetch_document(tracking_uri, fetched.name, fetched.version, PROVENANCE)
        found: dict[str, Any] = json.loads(text)
        known = found["format"]
    except ModelNotReady as error:
        raise ModelNotReady(
            f"{fetched.name} version {fetched.version} has no {PROVENANCE}",
            fix="it is of an older release: train again, that version can be reproduced",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadData(f"{what} is not a record of provenance") from error
    if known != provenance.FORMAT:
        raise BadData(
            f"{what} has format {known}, this release reads {provenance.FORMAT}",
            fix="use the release that trained it",
        )
    return found


def _stored(
    connection: Connection, project: Project, recorded: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Those of the recorded snapshots that this database has, whatever their digest is here."""
    wanted = {(one["as_of"], one["revision"]) for one in recorded}
    # Of all days: the backfill may be younger than the day that was trained as of.
    every = provenance.known_snapshots(connection, project, date.max)
    found = [one for one in every if (one["as_of"], one["revision"]) in wanted]
    if not found:
        raise BadData(
            f"none of the {len(wanted)} snapshots that the version was trained on is stored here",
            fix="connect to the database that has them, or ingest the same batches",
        )
    return found


def _as_declared(project: Project, recorded: Mapping[str, Any]) -> Project:
    """The project with what can be taken from the record."""
    declared = recorded["declaration"]
    return replace(
        project,
        seed=int(recorded["seed"]),
        estimator=str(declared["estimator"]),
        baseline=str(declared["baseline"]),
    )


def _results(recorded: Mapping[str, Any], again: Mapping[str, Any]) -> list[Compared]:
    before, now = dict(recorded["model"]), dict(again["model"])
    metrics = _pairs("result", before.pop("metrics"), now.pop("metrics"), prefix="metric ")
    return [
        *_pairs("result", recorded["data"], again["data"]),
        *_pairs("result", recorded["settings"], again["settings"], prefix="setting "),
        *_pairs("result", before, now),
        *metrics,
    ]


def _scores(fetched: FetchedModel, split: Split, built: Built) -> Compared:
    """The recorded model's scores of the validation rows beside those of the new one."""
    manifest = fetched.manifest
    name, rows = "scores of the recorded model", len(split.validation)
    if set(manifest.features) - set(split.validation.columns):
        return Compared("result", name, f"of {rows} rows", "it takes features that are gone")
    score = served.open_score(manifest.file, fetched.path.read_bytes())
    before = score(fitting.matrix(split.validation, manifest.features))
    if before.shape != built.scores.shape:
        return Compared("result", name, f"of {rows} rows", "it predicts something else")
    different = (before != built.scores).reshape(rows, -1).any(axis=1)
    if not different.any():
        return Compared("result", name, f"of {rows} rows", f"of {rows} rows")
    largest = float(np.abs(before - built.scores).max())
    return Compared(
        "result", name, f"of {rows} rows", f"{int(different.sum())} differ, by up to {largest:.2g}"
    )


def _inputs(recorded: Mapping[str, Any], again: Mapping[str, Any]) -> list[Compared]:
    compared = [
        Compared("input", name, str(recorded.get(name, "")), str(again[name]))
        for name in ("contract_digest", "view_digest")
    ]
    stored = {(one["as_of"], one["revision"]): one["digest"] for one in again["snapshots"]}
    for one in recorded["snapshots"]:
        here = stored.get((one["as_of"], one["revision"]), "not stored")
        name = f"snapshot {one['as_of']} revision {one['revision']}"
        compared.append(Compared("input", name, one["digest"], here))
    compared += _pairs("input", recorded["declaration"], again["declaration"])
    before, now = recorded["environment"], again["environment"]
    compared += _pairs("input", before["libraries"], now["libraries"], prefix="library ")
    compared.append(Compared("input", "python", before["python"], now["python"]))
    before, now = recorded["program"], again["program"]
    # Locks of different kinds cannot be compared; the libraries tell.
    if before["lock_source"] == now["lock_source"] != UNKNOWN:
        compared.append(Compared("input", "lock", before["lock_digest"], now["lock_digest"]))
    return compared


def _context(recorded: Mapping[str, Any], again: Mapping[str, Any]) -> list[Compared]:
    before, now = recorded["program"], again["program"]
    compared = [
        Compared("context", said, str(before[key]), str(now[key]))
        for key, said in (
            ("git_commit", "commit"),
            ("git_dirty", "uncommitted changes"),
            ("pex_sha256", "PEX"),
        )
    ]
    before, now = recorded["environment"], again["environment"]
    return [
        *compared,
        *(Compared("context", key, before[key], now[key]) for key in ("platform", "blas")),
    ]


def _pairs(
    part: Part, recorded: Mapping[str, Any], now: Mapping[str, Any], *, prefix: str = ""
) -> list[Compared]:
    """Both sides' values by name; a nested value is compared by its own parts."""
    found: list[Compared] = []
    for name in sorted({*recorded, *now}):
        before, after = recorded.get(name, "none"), now.get(name, "none")
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += _pairs(part, before, after, prefix=f"{prefix}{name}.")
        else:
            found.append(Compared(part, f"{prefix}{name}", _plain(before), _plain(after)))
    return found


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
