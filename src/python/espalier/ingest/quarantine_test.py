"""Faulty rows below and above the limit, what is kept of them, and how they come back."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from espalier.errors import BadData, CheckRefused, UsageError
from espalier.ingest import faulty_rows, quarantine, snapshots
from espalier.ingest.conftest import BATCH, LATER, NIGHTS, ROOMS, STAYS, Run, hotel, write_batch
from espalier.ingest.quarantine import Entry
from espalier.ingest.replay import Replayed, export, replay
from espalier.postgres.connect import Connection
from espalier.project import Project

HALF = hotel(*(replace(table, max_fault_share=0.5) for table in (ROOMS, NIGHTS, STAYS)))
Replay = Callable[..., Replayed]


@pytest.fixture
def again(dsn: str) -> Replay:
    """Replay a batch of the test's database."""

    def run(batch: int, repaired: Path | None = None, project: Project = HALF) -> Replayed:
        return replay(project, batch, dsn=dsn, who="mender", repaired=repaired)

    return run


def rows(connection: Connection, query: str) -> Any:
    return connection.execute(query.encode()).fetchall()


def told(entries: list[Entry]) -> list[tuple[Any, ...]]:
    return [(e.table, e.line, e.column, e.rule, e.reason) for e in entries]


def test_faulty_rows_below_the_limit_are_kept_apart_and_the_others_stored(
    run: Run, connection: Connection, tmp_path: Path
) -> None:
    done = run(
        write_batch(
            tmp_path,
            rooms=BATCH["rooms"] + "x,single,new\n",
            nights=BATCH["nights"] + "2,2024-01-30,-9,never\n9,2024-01-30,1,\n",
        ),
        project=HALF,
    )
    assert done.rows == {"rooms": 2, "nights": 3, "stays": 2}
    assert done.quarantined == {"rooms": 1, "nights": 2}
    found = quarantine.entries(connection, 1)
    assert told(found) == [
        (
            "nights",
            5,
            "booked",
            "has its type",
            "column booked: 'never' is not a time such as 1997-06-30T12:00:00Z",
        ),
        ("nights", 6, "room", "is known", "column room: '9' is not in rooms.room"),
        ("rooms", 4, "room", "has its type", "column room: 'x' is not a whole number"),
    ]
    assert found[2].row == {"room": "x", "kind": "single", "note": "new"}
    assert found[1].row == {"room": "9", "night": "2024-01-30", "price": "1", "booked": None}
    assert {(e.file, e.outcome, e.snapshot_id, e.state) for e in found if e.table == "rooms"} == {
        ("rooms.csv", "stored", 1, "open")
    }
    (snapshot,) = snapshots.list_snapshots(connection, "hotel")
    assert snapshot.row_counts == {"rooms": 3, "nights": 5, "stays": 2}
    assert snapshot.validation["quarantined"] == {"rooms": 1, "nights": 2}
    assert done.report is not None
    assert "stored without the faulty rows: 1 of rooms, 2 of nights" in done.report.read_text()


def test_what_refers_to_a_faulty_row_is_kept_apart_with_it_down_to_the_last(
    run: Run, connection: Connection, tmp_path: Path
) -> None:
    stays = replace(
        STAYS,
        max_fault_share=0.5,
        columns=(
            replace(STAYS.column("room"), references="nights.room"),
            *STAYS.columns[1:],
        ),
    )
    nights = replace(NIGHTS, max_fault_share=0.5)
    run(
        write_batch(
            tmp_path,
            # Room 1 is there twice, so its nights and then its stay have no parent.
            rooms="room,kind,note\n1,single,\n1,double,\n2,double,\n3,double,\n4,double,\n",
            nights="room,night,price,booked\n1,2024-01-30,1,\n2,2024-01-30,1,\n",
            stays="room,night,stayed\n1,2024-01-28,t\n2,2024-01-28,t\n",
        ),
        project=hotel(replace(ROOMS, max_fault_share=0.5), nights, stays),
    )
    assert told(quarantine.entries(connection, 1)) == [
        ("nights", 2, "room", "is known", "column room: '1' is in no good row of rooms.room"),
        ("rooms", 2, "room", "is unique", "column room: '1' is there more than once"),
        ("rooms", 3, "room", "is unique", "column room: '1' is there more than once"),
        ("stays", 2, "room", "is known", "column room: '1' is in no good row of nights.room"),
    ]
    assert rows(connection, "SELECT room FROM hotel.stays") == [(2,)]


def test_each_row_is_there_once_with_all_its_faults(
    run: Run, connection: Connection, tmp_path: Path
) -> None:
    run(
        write_batch(tmp_path, nights=BATCH["nights"] + "8,2024-02-01,-9,\n"),
        project=HALF,
    )
    (entry,) = quarantine.entries(connection, 1)
    assert entry.reason == (
        "column room: '8' is not in rooms.room; "
        "column night: '2024-02-01' is after 2024-01-31, so it could not be known on 2024-01-31; "
        "column price: '-9' is not from -0.5 to 1000"
    )


def test_a_batch_above_the_limit_is_refused_and_its_faults_are_kept(
    run: Run, connection: Connection, tmp_path: Path
) -> None:
    project = hotel(replace(NIGHTS, max_fault_share=0.25))
    folder = write_batch(tmp_path, nights=BATCH["nights"] + "1,2024-01-29,-9,\n1,2024-01-28,-9,\n")
    for _ in range(2):
        with pytest.raises(
            BadData,
            match=r"^2 faults: nights.csv row 5 .*; nights has 2 faulty rows of 5, more than the "
            r"0.25 it may have; .*nothing was stored; .* espalier quarantine show \d",
        ) as caught:
            run(folder, project=project)
    assert caught.value.exit_code == 4
    assert snapshots.list_snapshots(connection, "hotel") == []
    # What the same files left before is replaced.
    assert rows(connection, "SELECT id, faulty_counts FROM espalier.quarantine_batches") == [
        (2, {"nights": 2})
    ]
    assert [
        (e.line, e.outcome, e.snapshot_id, e.state) for e in quarantine.entries(connection, 2)
    ] == [
        (5, "refused", None, "open"),
        (6, "refused", None, "open"),
    ]


def test_of_a_refused_batch_the_first_rows_are_kept_and_all_are_counted(
    run: Run, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "KEPT", 3)
    faulty = "".join(f"1,2024-01-{day:02},x,\n" for day in range(1, 11))
    with pytest.raises(
        BadData, match=r"^10 faults: nights.csv row 5 column price: 'x' is not a nu"
    ):
        run(write_batch(tmp_path, nights=BATCH["nights"] + faulty))
    (summary,) = quarantine.summaries(connection)
    assert (summary.rows, summary.faulty, summary.rule) == (3, 10, "has its type")
    assert faulty_rows.KEPT == 10_000


def test_a_failed_check_of_a_table_is_kept_without_a_row(
    run: Run, connection: Connection, tmp_path: Path
) -> None:
    with pytest.raises(BadData, match=r"1 fault: rooms.csv has fewer than 3 rows; "):
        run(write_batch(tmp_path), project=hotel(replace(ROOMS, min_rows=3, max_fault_share=1)))
    assert told(quarantine.entries(connection, 1)) == [
        ("rooms", None, None, "has rows", "has fewer than 3 rows")
    ]


def test_the_same_faulty_batch_again_changes_nothing_and_a_mended_one_is_other_content(
    run: Run, connection: Connection, tmp_path: Path
) -> None:
    faulty = write_batch(tmp_path / "a", rooms=BATCH["rooms"] + "x,single,\n")
    first = run(faulty, project=HALF)
    again = run(faulty, project=HALF)
    assert (again.status, again.quarantined) == ("unchanged", first.quarantined)
    assert len(quarantine.entries(connection, 1)) == 1
    mended = write_batch(tmp_path / "b", rooms=BATCH["rooms"] + "3,single,\n")
    with pytest.raises(CheckRefused, match=r"other content"):
        run(mended, project=HALF)
    assert run(mended, project=HALF, revision=True).rows["rooms"] == 1
    assert [e.state for e in quarantine.entries(connection, 1)] == ["superseded"]
    assert quarantine.summaries(connection) == []
    assert run(write_batch(tmp_path / "c"), project=HALF, as_of=LATER).quarantined == {}


def test_repaired_rows_are_replayed_as_a_revision_of_their_day(
    run: Run, again: Replay, connection: Connection, tmp_path: Path
) -> None:
    folder = write_batch(
        tmp_path / "a",
        rooms=BATCH["rooms"] + 'x,single,"a, ""b""\nc"\n5,suite,\n',
        nights=BATCH["nights"] + "3,2024-01-30,1,\n",
    )
    first = run(folder, project=replace_limits(1))
    run(write_batch(tmp_path / "b"), project=replace_limits(1), as_of=LATER)
    file = tmp_path / "rows.csv"
    assert export(HALF, quarantine.entries(connection, 1), file) == 3
    mend(file, room={"x": "3"})
    done = again(1, file)
    assert (done.stored, done.snapshot_id, done.revision) == (2, 3, 2)
    assert told(list(done.faulty)) == [
        (
            "rooms",
            5,
            "kind",
            "is an allowed value",
            "column kind: 'suite' is none of single, double",
        )
    ]
    assert rows(
        connection, "SELECT room, note, known_at FROM hotel.rooms WHERE snapshot_id = 3"
    ) == [(3, 'a, "b"\nc', datetime(2024, 1, 31, tzinfo=UTC))]
    # A revision of the backfill is known as the backfill was.
    assert rows(connection, "SELECT room, known_at FROM hotel.nights WHERE snapshot_id = 3") == [
        (3, datetime(2024, 1, 30, tzinfo=UTC))
    ]
    assert [
        (e.line, e.state, e.replayed_snapshot_id) for e in quarantine.entries(connection, 1)
    ] == [
        (5, "replayed", 3),
        (4, "replayed", 3),
        (5, "open", None),
    ]
    # The batch is still the same batch.
    assert run(folder, project=replace_limits(1)) == replace(
        first, rows={"rooms": 0, "nights": 0, "stays": 0}, status="unchanged"
    )
    assert again(1).stored == 0


def test_rows_are_replayed_as_they_are_once_their_parent_has_come(
    run: Run, again: Replay, connection: Connection, tmp_path: Path
) -> None:
    run(write_batch(tmp_path, nights=BATCH["nights"] + "3,2024-01-30,7,\n"), project=HALF)
    assert again(1).stored == 0
    run(
        write_batch(tmp_path, rooms=BATCH["rooms"] + "3,single,\n"),
        project=HALF,
        as_of=LATER,
    )
    done = again(1)
    assert (done.stored, done.faulty) == (1, ())
    assert rows(connection, "SELECT price FROM hotel.nights_latest WHERE room = 3") == [(7.0,)]


def test_rows_are_replayed_as_they_are_once_the_contract_allows_them(
    run: Run, again: Replay, connection: Connection, tmp_path: Path
) -> None:
    run(write_batch(tmp_path, nights=BATCH["nights"] + "2,2024-01-30,5000,\n"), project=HALF)
    (stays,) = again(1).faulty
    assert stays.reason == "column price: '5000' is not from -0.5 to 1000"
    columns = tuple(replace(c, maximum=9000.0) if c.name == "price" else c for c in NIGHTS.columns)
    wider = hotel(replace(NIGHTS, columns=columns, max_fault_share=0.5), ROOMS, STAYS)
    assert again(1, project=wider).stored == 1
    assert rows(connection, "SELECT max(price) FROM hotel.nights") == [(5000.0,)]
    versions = "SELECT version, changes FROM espalier.contracts ORDER BY version DESC LIMIT 1"
    assert "column nights.price: maximum from 1000 to 9000.0" in rows(connection, versions)[0][1]


def test_what_cannot_be_replayed_is_told(
    run: Run, again: Replay, connection: Connection, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"the quarantine has no batch 1 of hotel; see them with"):
        again(1)
    folder = write_batch(tmp_path / "a", rooms=BATCH["rooms"] + "x,single,\n")
    with pytest.raises(BadData):
        run(folder)
    with pytest.raises(
        CheckRefused, match=r"batch 1 .* was refused as a whole, .*; mend its files"
    ):
        again(1)
    run(folder, project=HALF)
    assert [e.state for e in quarantine.entries(connection, 1)] == ["superseded"]
    file = tmp_path / "rows.csv"
    export(HALF, quarantine.entries(connection, 2), file)
    good = file.read_text()
    for text, message in [
        (good.replace("_id", "id"), "has no column _id"),
        (good.replace("2,rooms", "7,rooms"), "line 2: _id '7' is no open row of the batch"),
        (good + good.splitlines()[1] + "\n", "row 2 is there twice"),
        (good.replace("x,single,", "x"), "line 2: lacks kind, note"),
        (good + '"', "is not CSV in UTF-8"),
    ]:
        file.write_text(text)
        with pytest.raises(BadData, match=message) as caught:
            again(2, file)
        assert caught.value.exit_code == 4
    with pytest.raises(UsageError, match=r"nowhere.csv: cannot be read"):
        again(2, tmp_path / "nowhere.csv")
    run(write_batch(tmp_path / "b"), project=HALF, revision=True)
    with pytest.raises(CheckRefused, match=r"batch 2 .* was revised since"):
        again(2)


def replace_limits(share: float) -> Project:
    return hotel(*(replace(table, max_fault_share=share) for table in (ROOMS, NIGHTS, STAYS)))


def mend(path: Path, **changes: dict[str, str]) -> None:
    """Replace values in an exported file."""
    with path.open(newline="") as file:
        records = list(csv.DictReader(file))
    for record in records:
        for column, values in changes.items():
            record[column] = values.get(record[column], record[column])
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
