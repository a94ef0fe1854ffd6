"""Batch scoring of real features in PostgreSQL by a real ONNX model."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper

from espalier.errors import (
    BadData,
    CheckRefused,
    ConfigurationError,
    DependencyUnreachable,
    ScoreInvalid,
    UsageError,
)
from espalier.postgres.connect import connect
from espalier.processes import python_environment
from espalier.registry.download import FetchedModel
from espalier.scoring.progress import Progress
from espalier.scoring.score import Scored, score_with
from espalier.scoring.testing import FEATURES, JUNE, LATER, MAY, SEPTEMBER, SHOP, SHOPS, facts, save
from espalier.testing_web import NOBODY


def run(
    model: FetchedModel,
    dsn: str,
    output: Path | str,
    *,
    as_of: date = JUNE,
    partitions: int = 4,
    scheduler: Any = "threads",
    progress: Progress | None = None,
) -> Scored:
    return score_with(
        model,
        SHOP,
        as_of=as_of,
        dsn=dsn,
        output=output,
        partitions=partitions,
        scheduler=scheduler,
        progress=progress,
    )


def files(folder: Path) -> dict[str, int]:
    """Each part and when it was written, in ns."""
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.glob("part-*"))}


def test_every_entity_once_with_the_score_of_the_model(
    dsn: str, model: FetchedModel, pipeline: Any, tmp_path: Path
) -> None:
    done = run(model, dsn, tmp_path)
    assert (done.rows, done.version, done.output) == (SHOPS, "5", str(tmp_path))
    assert (done.written, done.kept) == (4, 0)
    assert list(files(tmp_path)) == [f"part-0000{number}.parquet" for number in range(4)]
    # A Parquet reader takes the folder as one table; the files beside the parts do not disturb.
    found = pq.read_table(tmp_path).to_pandas()
    assert list(found) == ["shop_id", "score", "prediction", "model_version", "feature_time"]
    expected = facts(JUNE)
    assert list(found["shop_id"]) == list(expected["shop_id"])
    direct = pipeline.predict_proba(expected[list(FEATURES)].to_numpy())[:, 1]
    np.testing.assert_allclose(found["score"], direct, atol=1e-6)
    assert list(found["prediction"]) == list((found["score"] >= 0.4).astype(float))
    assert set(found["prediction"]) == {0.0, 1.0}
    assert set(found["model_version"]) == {"5"}
    assert set(found["feature_time"]) == {datetime(1997, 6, 30, tzinfo=UTC)}
    closing = json.loads((tmp_path / "_SUCCESS.json").read_text())
    assert closing["rows"] == SHOPS
    assert closing["parts"] == list(files(tmp_path))
    assert (closing["model_version"], closing["as_of"]) == ("5", "1997-06-30")


@pytest.mark.parametrize("scheduler", ["synchronous", "processes"])
def test_the_same_on_each_scheduler(
    dsn: str, model: FetchedModel, tmp_path: Path, scheduler: str
) -> None:
    run(model, dsn, tmp_path / "threads")
    run(model, dsn, tmp_path / "other", scheduler=scheduler, partitions=2)
    one, other = (pq.read_table(tmp_path / name) for name in ("threads", "other"))
    assert one.equals(other)


def test_the_day_decides_the_features(
    dsn: str, model: FetchedModel, pipeline: Any, tmp_path: Path
) -> None:
    run(model, dsn, tmp_path, as_of=MAY)
    found = pq.read_table(tmp_path).to_pandas()
    direct = pipeline.predict_proba(facts(MAY)[list(FEATURES)].to_numpy())[:, 1]
    np.testing.assert_allclose(found["score"], direct, atol=1e-6)


def test_a_second_run_keeps_all(dsn: str, model: FetchedModel, tmp_path: Path) -> None:
    run(model, dsn, tmp_path)
    before = files(tmp_path)
    done = run(model, dsn, tmp_path)
    assert (done.written, done.kept) == (0, 4)
    assert files(tmp_path) == before


def test_a_lost_a_damaged_and_a_foreign_part_are_written_again(
    dsn: str, model: FetchedModel, tmp_path: Path
) -> None:
    run(model, dsn, tmp_path / "out")
    whole = pq.read_table(tmp_path / "out")
    before = files(tmp_path / "out")
    (tmp_path / "out" / "part-00000.parquet").unlink()
    (tmp_path / "out" / "part-00002.parquet").write_bytes(b"PAR1 torn")
    (tmp_path / "out" / ".unfinished-x").write_bytes(b"left by a killed run")
    # A part that was cut otherwise holds other entities.
    run(model, dsn, tmp_path / "cut", partitions=3)
    (tmp_path / "cut" / "part-00001.parquet").rename(tmp_path / "out" / "part-00001.parquet")
    done = run(model, dsn, tmp_path / "out")
    assert (done.written, done.kept) == (3, 1)
    assert pq.read_table(tmp_path / "out").equals(whole)
    after = files(tmp_path / "out")
    assert after["part-00003.parquet"] == before["part-00003.parquet"]
    assert not (tmp_path / "out" / ".unfinished-x").exists()


def test_fewer_partitions_leave_no_part_behind(
    dsn: str, model: FetchedModel, tmp_path: Path
) -> None:
    run(model, dsn, tmp_path, partitions=5)
    done = run(model, dsn, tmp_path, partitions=2)
    assert (done.written, done.kept) == (2, 0)
    assert pq.read_table(tmp_path)["shop_id"].to_pylist() == list(facts(JUNE)["shop_id"])


def test_more_partitions_than_entities(dsn: str, model: FetchedModel, tmp_path: Path) -> None:
    done = run(model, dsn, tmp_path, as_of=SEPTEMBER, partitions=50)
    assert done.written == done.rows == 7
    assert pq.read_table(tmp_path).num_rows == 7


_RUN = """
import sys
from datetime import date
from pathlib import Path
from espalier.registry.download import FetchedModel
from espalier.registry.manifest import MANIFEST, ModelManifest
from espalier.scoring.testing import JUNE, SHOP
from espalier.scoring.score import score_with
folder, output, dsn = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
manifest = ModelManifest.from_json((folder / MANIFEST).read_text())
model = FetchedModel("shop", "5", folder, manifest)
score_with(model, SHOP, as_of=JUNE, dsn=dsn, output=output, partitions=300)
"""


def test_a_killed_run_is_taken_up(dsn: str, model: FetchedModel, tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", _RUN, str(model.folder), str(output), dsn],
        env={**os.environ, **python_environment()},
    )
    while len(before := files(output)) < 5:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = files(output)
    assert 5 <= len(before) < 300
    assert not (output / "_SUCCESS.json").exists()

    done = run(model, dsn, output, partitions=300, scheduler="synchronous")
    assert done.kept == len(before)
    assert done.written == 300 - len(before)
    after = files(output)
    assert {name: after[name] for name in before} == before
    assert pq.read_table(output)["shop_id"].to_pylist() == list(facts(JUNE)["shop_id"])
    assert sorted(path.name for path in output.iterdir()) == ["_SUCCESS.json", *after]


def test_the_folder_of_another_run_is_refused(
    dsn: str, model: FetchedModel, tmp_path: Path
) -> None:
    run(model, dsn, tmp_path)
    before = files(tmp_path)
    other = FetchedModel("shop", "6", model.folder, model.manifest)
    with pytest.raises(UsageError, match="of shop as of 1997-06-30 by version 5; choose another"):
        run(other, dsn, tmp_path)
    with pytest.raises(UsageError, match="choose another folder"):
        run(model, dsn, tmp_path, as_of=MAY)
    assert files(tmp_path) == before
    assert (tmp_path / "_SUCCESS.json").exists()


def test_a_file_that_is_no_part_is_refused(dsn: str, model: FetchedModel, tmp_path: Path) -> None:
    facts(MAY).to_parquet(tmp_path / "mine.parquet")
    with pytest.raises(UsageError, match="which is no part of a run"):
        run(model, dsn, tmp_path)
    assert (tmp_path / "mine.parquet").exists()


def test_two_runs_into_one_folder(dsn: str, model: FetchedModel, tmp_path: Path) -> None:
    with connect(dsn) as other:
        other.execute(
            "SELECT pg_advisory_lock(hashtextextended('espalier scores into ' || %s, 0))",
            [str(tmp_path)],
        )
        with pytest.raises(CheckRefused, match="another run writes to"):
            run(model, dsn, tmp_path)
        run(model, dsn, tmp_path / "beside")
    assert run(model, dsn, tmp_path).written == 4


def test_a_full_disk(dsn: str, model: FetchedModel, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the kernel refuses the write itself."""
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));" + _RUN
    )
    output = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, str(model.folder), str(output), dsn],
        env={**os.environ, **python_environment()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("espalier.errors.ConfigurationError: the output folder")
    assert "File too large" in last
    assert not (output / "_SUCCESS.json").exists()
    assert files(output) == {}


def test_an_output_that_cannot_be_made(dsn: str, model: FetchedModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        run(model, dsn, tmp_path / "file" / "out")


@pytest.mark.parametrize("day", [date(1997, 1, 31), LATER], ids=["before all", "all are stale"])
def test_nothing_to_score(dsn: str, model: FetchedModel, tmp_path: Path, day: date) -> None:
    with pytest.raises(BadData, match=f"no features of shop are known at {day}"):
        run(model, dsn, tmp_path / "out", as_of=day)
    assert not (tmp_path / "out").exists()


def test_no_partition(dsn: str, model: FetchedModel, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="0 partitions"):
        run(model, dsn, tmp_path, partitions=0)


def test_progress_is_told(dsn: str, model: FetchedModel, tmp_path: Path) -> None:
    said = io.StringIO()
    run(model, dsn, tmp_path, progress=Progress(every=0, stream=said), scheduler="synchronous")
    lines = said.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[-1].startswith(f"score: 4 of 4 parts, {SHOPS:,} rows, ")
    (tmp_path / "part-00002.parquet").unlink()
    run(model, dsn, tmp_path, progress=Progress(every=0, stream=said))
    kept, last = said.getvalue().splitlines()[4:]
    assert kept == "score: 3 of 4 parts are there already"
    assert last.startswith("score: 4 of 4 parts, ")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_one_line_and_a_log_few() -> None:
    seen, logged = Terminal(), io.StringIO()
    for progress in (Progress(every=0, stream=seen), Progress(stream=logged)):
        progress.begin(parts=50, kept=0)
        for _ in range(50):
            progress.part(2)
    assert seen.getvalue().count("\n") == 1
    assert seen.getvalue().endswith("\x1b[K\n")
    lines = seen.getvalue().split("\r")[1:]
    assert len(lines) == 50
    assert lines[-1].startswith("score: 50 of 50 parts, 100 rows, ")
    (line,) = logged.getvalue().splitlines()
    assert line.startswith("score: 50 of 50 parts, 100 rows, ")


def test_a_url(dsn: str, model: FetchedModel, tmp_path: Path) -> None:
    """Any that fsspec knows; its memory stands for an object store."""
    url = f"memory://{tmp_path.name}/scores"
    assert run(model, dsn, url).written == 4
    system = fsspec.filesystem("memory")
    found = pq.read_table(f"/{tmp_path.name}/scores", filesystem=system)
    assert found["shop_id"].to_pylist() == list(facts(JUNE)["shop_id"])
    system.rm(f"/{tmp_path.name}/scores/part-00001.parquet")
    again = run(model, dsn, url)
    assert (again.written, again.kept) == (1, 3)
    assert system.exists(f"/{tmp_path.name}/scores/_SUCCESS.json")


@pytest.mark.parametrize("output", ["nonsense://bucket/scores", "s3:///"])
def test_a_url_that_cannot_be_used(dsn: str, model: FetchedModel, output: str) -> None:
    with pytest.raises((ConfigurationError, DependencyUnreachable)):
        run(model, dsn, output)


def test_a_scheduler_that_is_none(dsn: str, model: FetchedModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'thread' is no scheduler"):
        run(model, dsn, tmp_path, scheduler="thread")
    with pytest.raises(DependencyUnreachable, match="does not answer"):
        run(model, dsn, tmp_path, scheduler=f"tcp://{NOBODY}")


def test_a_model_of_other_features(dsn: str, model: FetchedModel, tmp_path: Path) -> None:
    content = model.path.read_bytes()
    other = save(tmp_path, content, "6", features=("amount", "visits", "pace"))
    with pytest.raises(BadData, match="the model needs pace, which monthly does not have"):
        run(other, dsn, tmp_path / "out")


def test_a_model_that_scores_nonsense(dsn: str, tmp_path: Path) -> None:
    """The class shares it gives sum to 1 but are no probabilities: 1 - x and x."""
    graph = helper.make_graph(
        [
            helper.make_node("Slice", ["features", "zero", "one", "axis"], ["x"]),
            helper.make_node("Sub", ["unit", "x"], ["rest"]),
            helper.make_node("Concat", ["rest", "x"], ["probabilities"], axis=1),
        ],
        "nonsense",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])],
        [
            helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
            helper.make_tensor("one", TensorProto.INT64, [1], [1]),
            helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
            helper.make_tensor("unit", TensorProto.FLOAT, [1], [1.0]),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.checker.check_model(made)
    nonsense = save(tmp_path, made.SerializeToString(), "6")
    with pytest.raises(ScoreInvalid, match="scores are not in 0 to 1"):
        run(nonsense, dsn, tmp_path / "out")
    assert not (tmp_path / "out" / "_SUCCESS.json").exists()
    assert files(tmp_path / "out") == {}
