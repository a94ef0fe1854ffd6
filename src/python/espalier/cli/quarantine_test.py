"""The way from a faulty batch to repaired rows, as a person goes it."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest

from churn.project import PROJECT as CHURN
from espalier.cli.main import main
from espalier.errors import BadData
from espalier.ingest.run import ingest
from espalier.postgres import embedded, migrate
from espalier.postgres.connect import connect

SEEDS = Path("data/seeds/churn")
AS_OF = date(1997, 7, 31)
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded.Server]:
    """Holds the real second month, three of its feature rows broken, and a refused third one."""
    folder = tmp_path_factory.mktemp("batch")
    for table in ("users", "labels", "features"):
        (folder / f"{table}.csv").write_bytes((SEEDS / "month_001" / f"{table}.csv").read_bytes())
    with embedded.temporary() as running:
        with connect(running.dsn()) as connection:
            migrate.migrate(connection)
        for as_of, broken in [(AS_OF, (1, 2, 3)), (date(1997, 8, 31), range(100))]:
            with (folder / "features.csv").open(newline="") as file:
                records = list(csv.DictReader(file))
            for number in broken:
                records[number]["orders_total"] = "none" if number == 2 else "-1"
            with (folder / "features.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, list(records[0]))
                writer.writeheader()
                writer.writerows(records)
            try:
                ingest(
                    CHURN,
                    source=folder,
                    as_of=as_of,
                    dsn=running.dsn(),
                    reports_dir=folder / "reports",
                    who="tester",
                )
            except BadData:
                assert as_of != AS_OF
        yield running


@pytest.fixture
def espalier(
    server: embedded.Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """Run the command against the server's database; give exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POSTGRES_HOST", str(server.host))
    monkeypatch.setenv("POSTGRES_PORT", str(server.port))
    monkeypatch.setenv("POSTGRES_USER", server.user)
    monkeypatch.setenv("POSTGRES_PASSWORD", server.password)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["quarantine", *arguments])
        return code, *capsys.readouterr()

    return run


def test_rows_are_listed_shown_repaired_and_replayed(
    espalier: Command, server: embedded.Server, tmp_path: Path
) -> None:
    code, out, _ = espalier("list", "--project", "churn")
    assert code == 0
    assert [" ".join(line.split()) for line in out.splitlines()[1:]] == [
        # The next month's batch came with this month's rows.
        "2 churn 1997-08-31 refused features is fresh table open",
        "2 churn 1997-08-31 refused features is in its range 99 of 100 open",
        "2 churn 1997-08-31 refused features has its type 1 of 100 open",
        "1 churn 1997-07-31 stored features is in its range 2 open",
        "1 churn 1997-07-31 stored features has its type 1 open",
    ]
    code, out, _ = espalier("show", "1")
    assert code == 0
    assert out.splitlines() == [
        "1  features.csv row 3: column orders_total: '-1' is not from 1 to 1e+06",
        "2  features.csv row 4: column orders_total: 'none' is not a whole number",
        "3  features.csv row 5: column orders_total: '-1' is not from 1 to 1e+06",
    ]
    code, out, _ = espalier("show", "1", "--row", "2")
    assert "    orders_total = 'none'\n" in out
    assert "    mean_gap_days = " in out

    assert espalier("show", "1", "--csv", "rows.csv")[1] == "3 open rows written to rows.csv\n"
    repaired = tmp_path / "rows.csv"
    text = repaired.read_text()
    repaired.write_text(text.replace(",none,", ",1,").replace(",-1,", ",2,", 1))
    code, out, _ = espalier("replay", "1", "--csv", "rows.csv")
    assert code == 4
    assert out.splitlines() == [
        "2 rows stored as snapshot 2, revision 2 of churn 1997-07-31",
        "3  features.csv row 5: column orders_total: '-1' is not from 1 to 1e+06",
        "1 rows are still faulty and stay",
    ]
    with connect(server.dsn()) as connection:
        found = connection.execute(
            "SELECT orders_total, known_at::date FROM churn.features WHERE snapshot_id = 2 ORDER BY 1"
        ).fetchall()
    # The first snapshot's rows are known as they happened.
    assert found == [(1, AS_OF), (2, AS_OF)]
    _, out, _ = espalier("list", "--as-of", "1997-07-31", "--all")
    assert [line.split()[-2:] for line in out.splitlines()[1:]] == [
        ["1", "replayed"],
        ["1", "replayed"],
        ["1", "open"],
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ("show", "9"),
            2,
            "the quarantine has no batch 9; see them with: espalier quarantine list",
        ),
        (("show", "1", "--row", "77"), 2, "batch 1 has no row 77"),
        (("replay", "9"), 2, "the quarantine has no batch 9"),
        (("replay", "2"), 1, "was refused as a whole, so its other rows are not stored either"),
        (("replay", "1", "--csv", "none.csv"), 2, "none.csv: cannot be read: No such file"),
        (("list", "--as-of", "July"), 2, "'July' is not a day such as 1997-06-30"),
        (("show", "1", "--csv", "none/rows.csv"), 2, "none/rows.csv: cannot be written: No such"),
    ],
)
def test_wrong_use_is_one_line(
    espalier: Command, arguments: tuple[str, ...], code: int, message: str
) -> None:
    returned, out, err = espalier(*arguments)
    assert (returned, out) == (code, "")
    assert message in err
    assert err.count("\n") == 1


def test_an_empty_quarantine_says_so(espalier: Command) -> None:
    assert espalier("list", "--project", "other") == (0, "no open row is in the quarantine\n", "")
