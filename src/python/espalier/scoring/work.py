"""One part of a run: read a range of keys, score it, write it. Runs in any process, anywhere."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from espalier.postgres.connect import connect
from espalier.project import Project
from espalier.registry.download import FetchedModel
from espalier.registry.manifest import ModelManifest
from espalier.scoring.plan import Part, Plan
from espalier.scoring.read import part_features
from espalier.serving.loading import open_scorer
from espalier.serving.scorer import answers, checked


class Sink(Protocol):
    """Where the scores of a run go to, and what is there already. Travels to other processes."""

    def missing(self, plan: Plan) -> list[Part]:
        """The parts that are still to be written; what is there and belongs to no part goes."""

    def write(self, part: Part, table: pa.Table) -> None:
        """Store one part, whole or not at all; a part that is there already stays as it is."""

    def close(self, plan: Plan) -> int:
        """Make the complete run known; the number of its rows."""


@dataclass(frozen=True)
class Job:
    """All that a worker needs beside its part; the model goes along as bytes."""

    project: Project
    as_of: date
    dsn: str
    version: str
    manifest: ModelManifest
    content: bytes
    sink: Sink


def job(model: FetchedModel, project: Project, *, as_of: date, dsn: str, sink: Sink) -> Job:
    """A job of a model on this machine."""
    content = model.path.read_bytes()
    return Job(project, as_of, dsn, model.version, model.manifest, content, sink)


def score_part(job: Job, part: Part) -> int:
    """Score the part's entities and write them; how many they are.

    Raises:
        ScoreInvalid: the model gave a score that is no probability, or no finite number.
        DependencyUnreachable: PostgreSQL does not answer.
        ConfigurationError: the output cannot be written.
    """
    manifest, features = job.manifest, job.manifest.features
    with connect(job.dsn) as connection:
        rows = part_features(
            connection,
            job.project,
            features,
            as_of=job.as_of,
            first=part.first,
            before=part.before,
        )
    scores = np.empty(0)
    if len(rows.keys):
        # A scorer opens a file and stays in its process, so each part opens it: milliseconds.
        with tempfile.TemporaryDirectory(prefix="espalier-score-") as folder:
            path = Path(folder, job.manifest.file)
            path.write_bytes(job.content)
            scorer = open_scorer(path, len(features), manifest.task, len(manifest.classes))
            scores = checked(scorer.run(rows.matrix), manifest.task)
    found = answers(manifest, scores)
    table = pa.table(
        {
            job.project.entity.join_key: rows.keys,
            "score": pa.array(found.score, pa.float64()),
            "prediction": pa.array(found.prediction, pa.float64()),
            **_classes(manifest, found.prediction, scores),
            "model_version": pa.repeat(job.version, len(rows.keys)),
            "feature_time": rows.times,
        }
    )
    job.sink.write(part, table)
    return len(rows.keys)


def _classes(
    manifest: ModelManifest, places: npt.NDArray[np.float64], scores: npt.NDArray[np.float64]
) -> dict[str, pa.Array]:
    """The columns that scores of several classes have beside the others."""
    if not manifest.classes:
        return {}
    names = pa.array(manifest.classes, pa.string())
    return {
        "label": names.take(pa.array(places.astype(np.int64))),
        "probabilities": pa.FixedSizeListArray.from_arrays(
            pa.array(scores.ravel(), pa.float64()), len(manifest.classes)
        ),
    }
