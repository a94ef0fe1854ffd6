from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from espalier.errors import (
    BadData,
    ConfigurationError,
    DependencyUnreachable,
    SnapshotConflict,
    UsageError,
)
from espalier.ingest import snapshots
from espalier.ingest.conftest import (
    AS_OF,
    BATCH,
    HOTEL,
    LATER,
    NIGHTS,
    ROOMS,
    Run,
    hotel,
    write_batch,
)
from espalier.ingest.run import ingest
from espalier.postgres import embedded
from espalier.postgres.connect import Connection
from espalier.processes import python_environment


def at(year: int, month: int, day: int) -> datetime:
    return datetime(year, month, day, tzinfo=UTC)


def rows(connection: Connection, query: str) -> Any:
    return connection.execute(query.encode()).fetchall()


def nothing_stored(connection: Connection) -> bool:
    left = [
        rows(connection, "SELECT 1 FROM espalier.snapshots"),
        rows(connection, "SELECT 1 FROM pg_namespace WHERE nspname = 'hotel'"),
        rows(connection, "SELECT 1 FROM pg_class WHERE relnamespace = 'staging'::regnamespace"),
    ]
    return left == [[], [], []]


def test_the_same_content_again_changes_nothing(
    run: Run, connection: Connection, tmp_path: Path
) -> None:
    first = run(write_batch(tmp_path / "a"))
    assert first.report is not None
    first.report.unlink()
    docs = first.report.parent / "2024-01-31" / "nights.html"
    docs.unlink()
    nights = BATCH["nights"].replace("80.5", "80.50").split("\n")
    other = "\r\n".join([nights[0], *reversed(nights[1:-1]), ""])
    again = run(write_batch(tmp_path / "b", nights=other))
    assert again == replace(first, rows={"rooms": 0, "nights": 0, "stays": 0}, status="unchanged")
    assert first.report.exists()
    assert docs.exists()
    assert len(snapshots.list_snapshots(connection, "hotel")) == 1


def test_other_content_is_a_conflict_unless_it_is_a_revision(
    run: Run, connection: Connection, tmp_path: Path
) -> None:
    run(write_batch(tmp_path))
    write_batch(tmp_path, rooms=BATCH["rooms"].replace("2,double", "2,single"))
    with pytest.raises(
        SnapshotConflict, match=r"2024-01-31: other content .* snapshot 1"
    ) as caught:
        run(tmp_path)
    assert caught.value.exit_code == 1
    assert rows(connection, "SELECT count(*) FROM hotel.rooms") == [(2,)]

    revised = run(tmp_path, revision=True)
    assert revised.rows == {"rooms": 1, "nights": 0, "stays": 0}
    assert [s.revision for s in snapshots.list_snapshots(connection, "hotel")] == [1, 2]
    assert rows(connection, "SELECT room, kind FROM hotel.rooms_latest ORDER BY room") == [
        (1, "single"),
        (2, "single"),
    ]
    assert run(tmp_path, revision=True).status == "unchanged"


def test_only_new_and_changed_rows_are_stored_and_keep_when_they_became_known(
    run: Run, connection: Connection, tmp_path: Path
) -> None:
    run(write_batch(tmp_path))
    later = run(
        write_batch(
            tmp_path,
            rooms="room,kind,note\n1,single,\n2,double,\n3,double,\n",
            # A correction, a late row and a new one; the row that is not repeated stays.
            nights=(
                "room,night,price,booked\n1,2024-01-31,95,\n2,2024-01-10,60,\n"
                "3,2024-02-29,70,\n1,2024-01-30,80.5,2024-01-02T03:04:05Z\n"
            ),
            stays="room,night,stayed\n1,2024-02-27,false\n",
        ),
        as_of=LATER,
    )
    assert later.rows == {"rooms": 2, "nights": 3, "stays": 1}
    new = (
        "SELECT room, night, price, known_at FROM hotel.nights WHERE snapshot_id = 2 ORDER BY 1, 2"
    )
    assert rows(connection, new) == [
        (1, date(2024, 1, 31), 95.0, at(2024, 2, 29)),
        (2, date(2024, 1, 10), 60.0, at(2024, 2, 29)),
        (3, date(2024, 2, 29), 70.0, at(2024, 2, 29)),
    ]
    assert rows(connection, "SELECT room, night, price FROM hotel.nights_latest ORDER BY 1, 2") == [
        (1, date(2024, 1, 30), 80.5),
        (1, date(2024, 1, 31), 95.0),
        (2, date(2024, 1, 10), 60.0),
        (2, date(2024, 1, 31), 100.0),
        (3, date(2024, 2, 29), 70.0),
    ]
    assert rows(connection, "SELECT known_at FROM hotel.rooms_latest WHERE room = 1") == [
        (at(2024, 1, 31),)
    ]


def test_a_value_that_returns_is_a_new_version(
    run: Run, connection: Connection, tmp_path: Path
) -> None:
    for month, note in [(1, "a"), (2, "b"), (3, "a")]:
        run(
            write_batch(tmp_path, rooms=f"room,kind,note\n1,single,{note}\n2,double,\n"),
            as_of=date(2024, month + 1, 1),
        )
    notes = "SELECT note FROM hotel.rooms WHERE room = 1 ORDER BY known_at"
    assert rows(connection, notes) == [("a",), ("b",), ("a",)]


def test_an_older_batch_comes_in_only_as_a_revision_and_does_not_win_over_newer_rows(
    run: Run, connection: Connection, tmp_path: Path
) -> None:
    folder = write_batch(tmp_path)
    run(folder)
    run(
        write_batch(tmp_path, rooms="room,kind,note\n1,double,\n2,double,\n3,single,\n"),
        as_of=date(2024, 3, 31),
    )
    write_batch(tmp_path, rooms="room,kind,note\n1,single,\n2,single,\n3,single,\n")
    with pytest.raises(SnapshotConflict, match="newer snapshot 2024-03-31 is stored"):
        run(tmp_path, as_of=LATER)
    late = run(tmp_path, as_of=LATER, revision=True)
    assert late.rows["rooms"] == 2
    assert rows(
        connection,
        "SELECT room, kind, known_at FROM hotel.rooms WHERE snapshot_id = 3 ORDER BY room",
    ) == [(2, "single", at(2024, 2, 29)), (3, "single", at(2024, 2, 29))]
    assert rows(connection, "SELECT room, kind FROM hotel.rooms_latest ORDER BY room") == [
        (1, "double"),
        (2, "double"),
        (3, "single"),
    ]


def test_a_revision_of_the_backfill_is_known_as_the_backfill_was(
    run: Run, connection: Connection, tmp_path: Path
) -> None:
    run(write_batch(tmp_path))
    nights = BATCH["nights"].replace("80.5", "81")
    run(write_batch(tmp_path, nights=nights), revision=True)
    changed = "SELECT price, known_at FROM hotel.nights WHERE snapshot_id = 2"
    assert rows(connection, changed) == [(81.0, at(2024, 1, 30))]
    assert rows(connection, "SELECT price FROM hotel.nights_latest WHERE night = '2024-01-30'") == [
        (81.0,)
    ]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rooms": "room,kind\n1,single\n"}, "rooms.csv: its header .* missing 'note'"),
        ({"rooms": ""}, "rooms.csv: is empty"),
        (
            {"rooms": "room,kind,note\n"},
            "4 faults: rooms.csv has no rows; nights.csv row 2 column room",
        ),
        ({"rooms": BATCH["rooms"] + "x,single,\n"}, "row 4 column room: 'x' is not a whole number"),
        ({"rooms": b"room,kind,note\n1,single,\xff\n"}, "rooms.csv line 2: is not UTF-8"),
        ({"rooms": BATCH["rooms"] + "3,single\n"}, "rooms.csv line 4: missing data"),
        (
            {"rooms": BATCH["rooms"] + "2,single,\n"},
            "2 faults: rooms.csv row 3 column room: '2' is there more than once; rooms.csv row 4",
        ),
        (
            {"stays": BATCH["stays"] + "1,2024-01-28,f\n"},
            "stays.csv row 2 column room, night: '1, 2024-01-28' is there more than once",
        ),
        ({"stays": BATCH["stays"] + "1,2024-01-27,\n"}, "row 4 column stayed: null where a value"),
        ({"rooms": BATCH["rooms"] + "0,single,\n"}, "row 4 column room: '0' is below 1"),
        ({"rooms": BATCH["rooms"] + "3,suite,\n"}, "'suite' is none of single, double"),
        (
            {"nights": BATCH["nights"] + "1,2024-01-01,nan,\n"},
            "nights.csv row 5 column price: 'nan' is not a number",
        ),
        (
            {"nights": BATCH["nights"] + "1,2024-01-01,1000.5,\n"},
            "1 fault: nights.csv row 5 column price: '1000.5' is not from -0.5 to 1000",
        ),
        (
            {"nights": BATCH["nights"] + "3,2024-01-01,1,\n"},
            "nights.csv row 5 column room: '3' is not in rooms.room",
        ),
        (
            {"nights": BATCH["nights"] + "1,2024-02-01,1,\n"},
            "'2024-02-01' is after 2024-01-31, so it could not be known on 2024-01-31",
        ),
        (
            {"stays": BATCH["stays"] + "1,2024-01-30,1\n"},
            "'2024-01-30' is after 2024-01-29, so it could not be known on 2024-01-31",
        ),
    ],
)
def test_a_batch_with_a_fault_is_refused_as_a_whole(
    run: Run, connection: Connection, tmp_path: Path, changed: dict[str, str | bytes], message: str
) -> None:
    with pytest.raises(BadData, match=message) as caught:
        run(write_batch(tmp_path, **changed))
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    assert nothing_stored(connection)


def test_the_report_of_a_refused_batch_is_written_and_named(run: Run, tmp_path: Path) -> None:
    with pytest.raises(BadData) as caught:
        run(write_batch(tmp_path, rooms=BATCH["rooms"] + "0,single,\n"))
    page = tmp_path / "reports" / "validation" / "hotel" / "2024-01-31.html"
    assert f"{page} tells more; nothing was stored" in str(caught.value)
    assert "is below 1" in str(caught.value)
    found = json.loads(page.with_suffix(".json").read_text())
    assert [f["first"] for f in found["findings"] if not f["success"]] == [[{"row": 4, "value": 0}]]


def test_faults_of_all_files_are_told_in_one_line(run: Run, tmp_path: Path) -> None:
    with pytest.raises(
        BadData, match=r"^3 faults: rooms\.csv row 2 .*; nights\.csv row 2 .*; stays"
    ):
        run(
            write_batch(
                tmp_path,
                rooms="room,kind,note\na,single,\n",
                nights="room,night,price,booked\nb,2024-01-01,,\n",
                stays="room,night,stayed\nc,2024-01-01,t\n",
            )
        )


def test_a_number_of_rows_is_compared_with_the_batch_before(
    run: Run, connection: Connection, tmp_path: Path
) -> None:
    steady = hotel(replace(ROOMS, max_row_change=0.5))
    folder = write_batch(tmp_path)
    run(folder, project=steady)
    write_batch(tmp_path, rooms=BATCH["rooms"] + "3,single,\n4,single,\n")
    with pytest.raises(
        BadData,
        match=r"^1 fault: rooms.csv has a number of rows that is not from 1 to 3, as it had 2 in "
        r"the snapshot before: 4; ",
    ) as caught:
        run(folder, project=steady, as_of=LATER)
    assert caught.value.exit_code == 4
    assert len(snapshots.list_snapshots(connection, "hotel")) == 1
    # A revision is compared with the batch before it, not with what it corrects.
    assert run(folder, project=steady, revision=True).rows["rooms"] == 2


def test_old_news_and_too_many_nulls_refuse_a_batch(run: Run, tmp_path: Path) -> None:
    price = replace(NIGHTS.column("price"), max_null_share=0.2)
    nights = replace(
        NIGHTS,
        max_age=timedelta(days=3),
        columns=(*NIGHTS.columns[:2], price, NIGHTS.column("booked")),
    )
    run(write_batch(tmp_path), project=hotel(replace(nights, columns=NIGHTS.columns)))
    with pytest.raises(
        BadData,
        match=r"^2 faults: nights.csv has no night from 2024-02-26 on: 2024-01-31; nights.csv has "
        r"a price that is null in more than 0.2 of its rows: 0.6667; ",
    ):
        run(tmp_path, project=hotel(nights), as_of=LATER)


def test_a_unique_column_has_no_value_twice_in_a_batch(run: Run, tmp_path: Path) -> None:
    note = replace(ROOMS.column("note"), unique=True)
    project = hotel(replace(ROOMS, columns=(*ROOMS.columns[:2], note)))
    rooms = "room,kind,note\n1,single,a\n2,double,b\n3,double,\n4,double,\n"
    run(write_batch(tmp_path, rooms=rooms), project=project)
    run(write_batch(tmp_path, rooms=rooms.replace("1,", "5,")), project=project, as_of=LATER)
    with pytest.raises(BadData, match=r"2 faults: rooms.csv row 2 column note: 'b' is there more"):
        run(write_batch(tmp_path, rooms=rooms.replace(",a", ",b")), project=project, revision=True)


def test_both_revisions_of_a_day_stay_readable(
    run: Run, connection: Connection, tmp_path: Path
) -> None:
    first = run(write_batch(tmp_path))
    second = run(
        write_batch(tmp_path, rooms=BATCH["rooms"].replace("2,double", "2,single")), revision=True
    )
    by_snapshot = (
        "SELECT DISTINCT ON (room) room, kind FROM hotel.rooms WHERE snapshot_id <= {} "
        "ORDER BY room, snapshot_id DESC"
    )
    for done, kind in [(first, "double"), (second, "single")]:
        assert rows(connection, by_snapshot.format(done.snapshot_id))[1] == (2, kind)
    assert [
        (s.revision, s.created_by, s.files["rooms"]["name"], len(s.files["rooms"]["sha256"]))
        for s in snapshots.list_snapshots(connection, "hotel")
    ] == [(1, "tester", "rooms.csv", 64), (2, "tester", "rooms.csv", 64)]


def test_missing_files_and_folders(run: Run, connection: Connection, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        run(tmp_path / "nowhere")
    write_batch(tmp_path)
    (tmp_path / "nights.csv").unlink()
    with pytest.raises(BadData, match=r"no nights\.csv"):
        run(tmp_path)
    assert nothing_stored(connection)


def test_quoted_newlines_crlf_and_a_byte_order_mark_are_no_fault(
    run: Run, connection: Connection, tmp_path: Path
) -> None:
    rooms = b'\xef\xbb\xbfkind,room,note\r\nsingle,1,"by the\r\nlift, ""old"""\r\ndouble,2,\r\n'
    assert run(write_batch(tmp_path, rooms=rooms)).rows["rooms"] == 2
    assert rows_of(connection) == [(1, "single", 'by the\r\nlift, "old"'), (2, "double", None)]


def rows_of(connection: Connection) -> Any:
    return rows(connection, "SELECT room, kind, note FROM hotel.rooms ORDER BY room")


def test_a_reference_may_be_to_a_row_of_an_earlier_batch(run: Run, tmp_path: Path) -> None:
    run(write_batch(tmp_path))
    nights = "room,night,price,booked\n2,2024-02-01,1,\n"
    write_batch(tmp_path, rooms="room,kind,note\n3,single,\n", nights=nights)
    assert run(tmp_path, as_of=LATER).rows["nights"] == 1


def test_a_declaration_that_changed_is_refused_and_nothing_stored(
    run: Run, connection: Connection, tmp_path: Path
) -> None:
    run(write_batch(tmp_path))
    other = hotel(replace(ROOMS, columns=ROOMS.columns[:2]))
    write_batch(tmp_path, rooms="room,kind\n1,single\n2,single\n")
    with pytest.raises(
        ConfigurationError,
        match=r"column hotel\.rooms\.note \(text\) is no longer declared; keep it",
    ):
        run(tmp_path, project=other, as_of=LATER)
    assert len(snapshots.list_snapshots(connection, "hotel")) == 1


def test_a_database_that_is_not_migrated_or_not_there(
    run: Run, connection: Connection, tmp_path: Path
) -> None:
    folder = write_batch(tmp_path)
    connection.execute("ALTER SCHEMA espalier RENAME TO elsewhere")
    try:
        with pytest.raises(ConfigurationError, match="apply the migrations"):
            run(folder)
    finally:
        connection.execute("ALTER SCHEMA elsewhere RENAME TO espalier")
    with pytest.raises(DependencyUnreachable, match="PostgreSQL"):
        ingest(
            HOTEL,
            source=folder,
            as_of=AS_OF,
            dsn="postgresql:///nowhere?host=/nonexistent",
            reports_dir=tmp_path,
            who="tester",
        )


def test_a_role_without_rights_is_told_so(
    server: embedded.Server, connection: Connection, tmp_path: Path
) -> None:
    connection.execute("DROP ROLE IF EXISTS guest")
    connection.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    guest = replace(server, user="guest", password="guest")
    with pytest.raises(ConfigurationError, match="permission denied for schema"):
        ingest(
            HOTEL,
            source=write_batch(tmp_path),
            as_of=AS_OF,
            dsn=guest.dsn("espalier"),
            reports_dir=Path("unused"),
            who="guest",
        )


def test_a_report_folder_that_cannot_be_written_is_told_and_the_next_run_mends_it(
    run: Run, tmp_path: Path
) -> None:
    folder = write_batch(tmp_path / "batch")
    (tmp_path / "reports").write_text("in the way")
    with pytest.raises(ConfigurationError, match="report cannot be written"):
        run(folder)
    (tmp_path / "reports").unlink()
    again = run(folder)
    assert again.status == "unchanged"
    assert again.report is not None
    assert again.report.exists()


def test_great_expectations_is_not_imported_before_a_batch_is_validated() -> None:
    code = "import sys, espalier.ingest.run; sys.exit('great_expectations' in sys.modules)"
    environment = {**os.environ, **python_environment()}
    assert (
        subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
    )
