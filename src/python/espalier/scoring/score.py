"""Scores every entity known on a day with one model version."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from dask.base import compute
from dask.delayed import delayed

from espalier.errors import BadData, UsageError
from espalier.features import point_in_time
from espalier.postgres.connect import connect
from espalier.project import Project
from espalier.registry.download import FetchedModel, fetch_version
from espalier.registry.manifest import CHAMPION, ModelManifest
from espalier.scoring import parts
from espalier.serving.loading import load
from espalier.serving.scorer import OnnxScorer


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a run left: `rows` scores by model `version` in the folder `output`.

    `written` parts are of this run, `kept` ones were there already.
    """

    rows: int
    version: str
    output: Path
    written: int
    kept: int


def score(
    project: Project,
    *,
    as_of: date,
    dsn: str,
    tracking_uri: str,
    output: Path,
    partitions: int,
    model_version: str = CHAMPION,
    scheduler: Any = "threads",
) -> Scored:
    """Score with the champion, or another version or alias; see `score_with`.

    Raises:
        DependencyUnreachable: PostgreSQL or MLflow does not answer.
        ModelNotReady: there is no such version.
        And what `score_with` raises.
    """
    with tempfile.TemporaryDirectory(prefix="espalier-score-") as folder:
        model = fetch_version(tracking_uri, project.name, model_version, Path(folder))
        return score_with(
            model,
            project,
            as_of=as_of,
            dsn=dsn,
            output=output,
            partitions=partitions,
            scheduler=scheduler,
        )


def score_with(
    model: FetchedModel,
    project: Project,
    *,
    as_of: date,
    dsn: str,
    output: Path,
    partitions: int,
    scheduler: Any = "threads",
) -> Scored:
    """Score each entity once, from its features as known at `as_of`, into Parquet files.

    Columns: the join key, `score` (probability of the positive class, float64), `prediction` (1.0
    or 0.0 by the model's threshold, as the server answers), `model_version`, `feature_time` (UTC).
    Entities are cut by the order of their keys into `partitions` files. A run that was cut short
    is taken up again: parts of the same day, model version and input rows are kept. `_SUCCESS.json`
    comes last.

    Args:
        model: The model on this machine.
        project: The product.
        as_of: The day whose knowledge counts.
        dsn: PostgreSQL.
        output: The folder, one for each day and model version; made when it is missing.
        partitions: How many files; at most one for each entity.
        scheduler: Where Dask runs the parts: "threads", "synchronous", "processes", or a
            distributed client whose workers see the same files.

    Raises:
        UsageError: fewer than 1 partition, or `output` holds something else.
        CheckRefused: another run writes to `output`.
        ConfigurationError: `output` cannot be written.
        BadData: no features are known, an entity comes twice, or the model needs others.
        ScoreInvalid: the model gave a score outside of 0 to 1.
        DependencyUnreachable: PostgreSQL does not answer.
    """
    if partitions < 1:
        raise UsageError(f"{partitions} partitions", fix="ask for 1 or more")
    # Here once, since it proves the golden rows; each task then opens the file for itself, as
    # a session cannot travel to another process.
    load(model.name, model.version, folder=model.folder, manifest=model.manifest)
    rows = _rows(model.manifest, project, as_of, dsn)
    cuts = np.array_split(np.arange(len(rows)), min(partitions, len(rows)))
    chunks = [rows.iloc[cut[0] : cut[-1] + 1] for cut in cuts]
    wanted = [
        parts.Identity(
            project=project.name,
            as_of=str(as_of),
            model_version=model.version,
            model_digest=model.manifest.digest,
            part=number,
            parts=len(chunks),
            inputs=_digest(chunk),
        )
        for number, chunk in enumerate(chunks)
    ]
    with parts.locked(output):
        absent = parts.missing(output, wanted)
        one = delayed(_score_part, pure=False)
        tasks = [one(model, chunks[identity.part], output, identity) for identity in absent]
        compute(*tasks, scheduler=scheduler)
        parts.close(output, wanted, len(rows))
    return Scored(
        rows=len(rows),
        version=model.version,
        output=output,
        written=len(absent),
        kept=len(wanted) - len(absent),
    )


def _rows(manifest: ModelManifest, project: Project, as_of: date, dsn: str) -> pd.DataFrame:
    """Join key, feature_time and the model's features of every entity, in the keys' order."""
    key = project.entity.join_key
    with connect(dsn) as connection:
        found = point_in_time.features_at(connection, project, when=as_of)
    if found.empty:
        raise BadData(
            f"no features of {project.name} are known at {as_of}",
            fix="ingest that month first",
        )
    absent = [name for name in manifest.features if name not in found]
    if absent:
        raise BadData(
            f"the model needs {', '.join(absent)}, which {project.view.name} does not have",
            fix="train and promote a model on the view as it is now",
        )
    if found[key].duplicated().any():
        raise BadData(f"{key} {found.loc[found[key].duplicated(), key].iloc[0]!r} comes twice")
    columns = [key, "feature_time", *manifest.features]
    return found[columns].sort_values(key, ignore_index=True)


def _digest(rows: pd.DataFrame) -> str:
    """The sha256 of a part's input."""
    hashes = pd.util.hash_pandas_object(rows, index=False).to_numpy()
    return hashlib.sha256(",".join(rows.columns).encode() + hashes.tobytes()).hexdigest()


def _score_part(
    model: FetchedModel, rows: pd.DataFrame, output: Path, identity: parts.Identity
) -> None:
    manifest = model.manifest
    scorer = OnnxScorer(model.path, len(manifest.features))
    scores = scorer.score(rows[list(manifest.features)].to_numpy(dtype=np.float64))
    key = rows.columns[0]
    table = pa.table(
        {
            key: pa.array(rows[key]),
            "score": scores,
            "prediction": (scores >= manifest.threshold).astype(np.float64),
            "model_version": pa.array([model.version] * len(rows), pa.string()),
            "feature_time": pa.array(rows["feature_time"], pa.timestamp("us", tz="UTC")),
        }
    )
    parts.write(output, identity, table)
