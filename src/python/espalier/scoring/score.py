"""Scores every entity known on a day with one model version."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from espalier.errors import BadData, CheckRefused, UsageError
from espalier.postgres.connect import Connection, connect
from espalier.project import Project
from espalier.registry.download import FetchedModel, fetch_version
from espalier.registry.manifest import CHAMPION, ModelManifest
from espalier.scoring import execute, plan, work
from espalier.scoring.folder import Folder
from espalier.scoring.parquet import ParquetSink
from espalier.scoring.postgres import PostgresSink
from espalier.scoring.progress import Progress
from espalier.serving.loading import load

POSTGRESQL = "postgresql"


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a run left: `rows` scores by model `version` in `output`.

    `written` parts are of this run, `kept` ones were there already.
    """

    rows: int
    version: str
    output: str
    written: int
    kept: int


def score(
    project: Project,
    *,
    as_of: date,
    dsn: str,
    tracking_uri: str,
    output: Path | str,
    partitions: int,
    model_version: str = CHAMPION,
    scheduler: Any = "threads",
    workers: int | None = None,
    progress: Progress | None = None,
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
            workers=workers,
            progress=progress,
        )


def score_with(
    model: FetchedModel,
    project: Project,
    *,
    as_of: date,
    dsn: str,
    output: Path | str,
    partitions: int,
    scheduler: Any = "threads",
    workers: int | None = None,
    progress: Progress | None = None,
) -> Scored:
    """Score each entity exactly once, from its features as known at `as_of`.

    Into Parquet files, columns: the join key, `score` and `prediction` as the server answers
    (float64), with several classes also `label` (text) and `probabilities` (one for each),
    `model_version`, `feature_time` (UTC); `_SUCCESS.json` comes last. Or into PostgreSQL, as a
    partition of `espalier.scores` that appears when it is whole; see `espalier.scores_latest`.

    Entities are cut into ranges of keys. Workers read, score and write each range by themselves; a
    range is there whole or not at all. A run that was cut short is taken up again, as long as the
    day, the model and what was known of that day are the same.

    Args:
        model: The model on this machine; workers are sent its content.
        project: The product.
        as_of: The day whose knowledge counts.
        dsn: PostgreSQL, as workers reach it too.
        output: A folder or a URL that fsspec knows, one for each day and model version; it is made
            when it is missing. Or "postgresql".
        partitions: How many ranges; at most one for each entity.
        scheduler: "threads", "processes" or "synchronous" on this machine, or a Dask cluster's
            address or client. Its workers have this program's packages and see the same output.
        workers: How many threads or processes of this machine.
        progress: Is told of parts.

    Raises:
        UsageError: fewer than 1 partition, or `output` holds something else.
        CheckRefused: another run writes to `output`.
        ConfigurationError: `output` cannot be written.
        BadData: no features are known, the model needs others, or what is known of the day changed
            meanwhile.
        ScoreInvalid: the model gave a score that is no probability, or no finite number.
        DependencyUnreachable: PostgreSQL, the cluster or the output does not answer.
    """
    if partitions < 1:
        raise UsageError(f"{partitions} partitions", fix="ask for 1 or more")
    # Here once, since it proves the golden rows.
    load(model.name, model.version, folder=model.folder, manifest=model.manifest)
    _check_features(model.manifest, project)
    # A folder's path means the same from every working directory.
    local = output != POSTGRESQL and "://" not in str(output)
    to = str(Path(output).absolute()) if local else str(output)
    told = progress or _Silent()
    # Runs into a folder take turns; those into PostgreSQL only with the same one.
    what = to if to != POSTGRESQL else f"{to} {project.name} {as_of} {model.version}"
    with connect(dsn) as connection, _alone(connection, what):
        planned = plan.make(
            connection,
            project,
            model,
            as_of=as_of,
            partitions=partitions,
            output=to,
            keeps_cut=to == POSTGRESQL,
        )
        sink: work.Sink = (
            PostgresSink(dsn, planned.run_id) if to == POSTGRESQL else ParquetSink(Folder(to))
        )
        absent = sink.missing(planned)
        told.begin(parts=len(planned.parts), kept=len(planned.parts) - len(absent))
        job = work.job(model, project, as_of=as_of, dsn=dsn, sink=sink)
        if absent:
            execute.run(job, absent, scheduler=scheduler, workers=workers, done=told.part)
        if plan.inputs_digest(connection, project, as_of=as_of) != planned.inputs:
            raise BadData(
                f"a snapshot of {project.name} up to {as_of} was stored meanwhile, so parts may "
                "differ in what they know",
                fix="score again",
            )
        rows = sink.close(planned)
    return Scored(
        rows=rows,
        version=model.version,
        output=to,
        written=len(absent),
        kept=len(planned.parts) - len(absent),
    )


class _Silent(Progress):
    def _say(self, text: str, *, stays: bool = True) -> None:
        pass


def _check_features(manifest: ModelManifest, project: Project) -> None:
    absent = [name for name in manifest.features if name not in project.view.features]
    if absent:
        raise BadData(
            f"the model needs {', '.join(absent)}, which {project.view.name} does not have",
            fix="train and promote a model on the view as it is now",
        )


@contextmanager
def _alone(connection: Connection, output: str) -> Iterator[None]:
    """Keep other runs out of the output; the lock ends with the connection, so with the process."""
    locked = connection.execute(
        "SELECT pg_try_advisory_lock(hashtextextended('espalier scores into ' || %s, 0))", [output]
    ).fetchone()
    connection.commit()
    if locked != (True,):
        raise CheckRefused(
            f"another run writes to {output}", fix="wait for it, or choose another output"
        )
    yield
