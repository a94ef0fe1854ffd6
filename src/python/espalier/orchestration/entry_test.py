from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from espalier.orchestration.conftest import Programs, ended
from espalier.orchestration.entry import main
from espalier.orchestration.testing import SEEDS
from espalier.postgres import embedded
from espalier.postgres.connect import Connection, connect
from espalier.testing_web import NOBODY

BATCH = SEEDS / "churn" / "month_000"
AS_OF = "--as-of=1997-06-30"


@pytest.fixture
def connection(server: embedded.Server, database: str):
    with connect(server.dsn(database), autocommit=True) as open_connection:
        yield open_connection


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    """A copy of the first batch, for a test to break."""
    return Path(shutil.copytree(BATCH, tmp_path / "batch"))


def nothing_stored(connection: Connection) -> bool:
    snapshots = connection.execute("SELECT count(*) FROM espalier.snapshots").fetchone()
    schemas = connection.execute(
        "SELECT count(*) FROM pg_namespace WHERE nspname = 'churn'"
    ).fetchone()
    return (snapshots, schemas) == ((0,), (0,))


def test_at_a_terminal_nothing_is_told_to_makers_of_libraries(programs: Programs, tmp_path: Path):
    reader, terminal = pty.openpty()
    # Prefect says it to those to whom it has not said it before.
    home = {"HOME": str(tmp_path / "home"), "PREFECT_HOME": str(tmp_path / "home" / "prefect")}
    done = subprocess.run(
        programs.command("--help"),
        cwd=programs.folder,
        env={**programs.environment, **home},
        stdout=subprocess.PIPE,
        stderr=terminal,
        check=True,
        timeout=100,
    )
    os.close(terminal)
    assert done.stdout.startswith(b"usage: ")
    said = b""
    # There is nothing to read when nothing was written: Linux calls that an error.
    with suppress(OSError):
        said = os.read(reader, 4096)
    os.close(reader)
    assert not said


def test_a_batch_is_stored_and_told_as_json_and_again_is_unchanged(
    programs: Programs, connection: Connection
):
    first = programs.run("--as-of", "1997-06-30", "--source", str(BATCH))
    assert (first.code, first.err) == (0, "")
    assert first.facts["status"] == "stored"
    assert first.facts["as_of"] == "1997-06-30"
    assert first.facts["new rows"] == {"users": 2357, "features": 9428, "labels": 2357}
    assert Path(first.facts["report"]).is_file()
    found = connection.execute("SELECT id, as_of::text, digest FROM espalier.snapshots").fetchall()
    assert found == [(first.facts["snapshot"], "1997-06-30", first.facts["digest"])]

    # The default source is the batch of that day in the data folder: the same one.
    again = programs.run(AS_OF)
    assert again.code == 0
    assert again.facts == {
        **first.facts,
        "status": "unchanged",
        "new rows": {"users": 0, "features": 0, "labels": 0},
    }


def test_help_names_the_options(programs: Programs):
    shown = programs.run("--help")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith("usage: churn-ingest.pex [-h] --as-of YYYY-MM-DD [--source SOURCE]")
    assert "--project" not in shown.out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "the following arguments are required: --as-of; see churn-ingest.pex --help"),
        ([AS_OF, "--nope"], "unrecognized arguments: --nope; see churn-ingest.pex --help"),
        (
            ["--as-of=tomorrow"],
            "argument --as-of: 'tomorrow' is not a day, as 1998-06-30; see churn-ingest.pex --help",
        ),
        (
            [AS_OF, "--source=nowhere"],
            "nowhere: there is no such folder; name the folder that holds the batch's files",
        ),
        (
            [AS_OF, "--project=nope"],
            "no project 'nope' here; it would be declared in nope/project.py",
        ),
    ],
)
def test_wrong_use_is_2_and_one_line(programs: Programs, arguments, reason):
    run = programs.run(*arguments)
    assert (run.code, run.reason) == (2, reason)


def test_wrong_settings_are_2_and_one_line(programs: Programs, server: embedded.Server):
    run = programs.run(AS_OF, POSTGRES_PORT="many")
    assert (run.code, run.reason) == (
        2,
        "POSTGRES_PORT='many' is not a valid int; it is PostgreSQL's port; default 5432",
    )
    run = programs.run(AS_OF, PREFECT_API_URL="localhost:4200")
    assert run.code == 2
    assert run.reason.startswith("PREFECT_API_URL='localhost:4200' is not an http or https address")
    embedded.create_database(server, "unmigrated")
    run = programs.run(AS_OF, POSTGRES_DB="unmigrated", flow="train")
    assert run.code == 2
    assert run.reason.startswith("the database unmigrated lacks ")
    assert run.reason.endswith("; apply them with: espalier migrate")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "no flow is named; give it as module:attribute, then its options"),
        (["espalier.orchestration.flows.ingest"], "'espalier.orchestration.flows.ingest' names no"),
        (["nowhere:ingest"], "'nowhere:ingest' names no function"),
    ],
)
def test_a_flow_that_is_none_is_2_and_one_line(
    capsys: pytest.CaptureFixture[str], arguments, reason
):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.partition(": ")[2].startswith(reason)
    assert said.count("\n") == 1


def test_postgresql_that_is_down_is_3_and_one_line(programs: Programs, tmp_path: Path):
    run = programs.run(AS_OF, POSTGRES_HOST=str(tmp_path))
    assert run.code == 3
    assert run.reason.startswith("PostgreSQL: ")
    assert "check POSTGRES_HOST" in run.reason


def test_prefect_that_is_down_is_3_and_one_line(programs: Programs, connection: Connection):
    url = f"http://{NOBODY}/api"
    run = programs.run(AS_OF, PREFECT_API_URL=url)
    assert run.code == 3
    assert run.reason == (
        f"Prefect: Failed to reach API at {url}/; "
        "start the server that PREFECT_API_URL names, or unset it to run unrecorded"
    )
    assert nothing_stored(connection)


@pytest.mark.parametrize("flow", ["monitor", "score"])
def test_mlflow_that_is_down_is_3_and_one_line(programs: Programs, flow):
    uri = f"http://{NOBODY}"
    run = programs.run(AS_OF, flow=flow, MLFLOW_TRACKING_URI=uri)
    assert run.code == 3
    assert run.reason.startswith(f"MLflow at {uri}: ")


def cut(folder: Path, table: str, change) -> None:
    path = folder / f"{table}.csv"
    path.write_text(change(path.read_text()))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a missing file": (lambda b: (b / "labels.csv").unlink(), ": no labels.csv;"),
    "an empty file": (lambda b: (b / "users.csv").write_text(""), "users.csv: is empty;"),
    "a broken header": (
        lambda b: cut(b, "users", lambda text: text.replace("user_id", "id", 1)),
        "its header has other columns: missing 'user_id'; unknown 'id';",
    ),
    "a wrong type": (
        # More rows than a batch may leave in quarantine.
        lambda b: cut(b, "features", lambda text: text.replace(",1997-0", ",soon-0")),
        "features.csv row ",
    ),
    "a duplicate key": (
        lambda b: cut(b, "users", lambda text: text + text.splitlines()[-1] + "\n"),
        "column user_id: ",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_bad_data_is_4_and_one_line_and_nothing_is_stored(
    programs: Programs, connection: Connection, batch: Path, what
):
    spoil, says = BROKEN[what]
    spoil(batch)
    run = programs.run(AS_OF, f"--source={batch}")
    assert run.code == 4, run.err
    assert says in run.reason
    assert nothing_stored(connection)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_130_and_one_line_and_nothing_is_stored(
    programs: Programs, connection: Connection, server: embedded.Server, database: str, number
):
    with connect(server.dsn(database)) as other:
        other.execute("LOCK TABLE espalier.snapshots")
        process = programs.start(AS_OF)
        deadline = time.monotonic() + 60
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = to_regclass(%s)"
        while not connection.execute(waiting, ["espalier.snapshots"]).fetchall():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        run = ended(process)
    assert (run.code, run.reason) == (130, "interrupted")
    assert nothing_stored(connection)
