"""Broken files, given to the real ingest through a command line: what it says and what it stores."""

from __future__ import annotations

import gzip
import re
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet
import pytest

from espalier import commandline
from espalier.ingest.conftest import BATCH, Run, write_batch
from espalier.postgres.connect import Connection

STAYS, NIGHTS, ROOMS = BATCH["stays"], BATCH["nights"], BATCH["rooms"]
GIGABYTE = 1 << 30

Make = Callable[[Path], object]


@dataclass(frozen=True)
class Broken:
    """One kind of broken file: how to make it, and what is said of it.

    `says` is a regular expression of the one line after "ingest: ". With `exit_code` 0 the file is
    not broken at all, and the batch is stored.
    """

    kind: str
    make: Make
    says: str
    exit_code: int = 4


def table(name: str, data: str | bytes) -> Make:
    """Another content of one table's CSV file."""
    return lambda folder: write_batch(folder, **{name: data})


def instead(name: str, ending: str, data: bytes) -> Make:
    """A file of another format in the place of the CSV file."""

    def make(folder: Path) -> None:
        (folder / f"{name}.csv").unlink()
        (folder / f"{name}.{ending}").write_bytes(data)

    return make


def linked(name: str, target: str) -> Make:
    def make(folder: Path) -> None:
        (folder / f"{name}.csv").unlink()
        (folder / f"{name}.csv").symlink_to(target)

    return make


def directory(folder: Path) -> None:
    (folder / "stays.csv").unlink()
    (folder / "stays.csv").mkdir()


def sparse_line(folder: Path) -> None:
    with (folder / "stays.csv").open("r+b") as file:
        file.seek(0, 2)
        file.truncate(GIGABYTE)


def bomb(folder: Path) -> None:
    """A line of 1 GB in a file of 1 MB."""
    member = gzip.compress(b"x" * (1 << 24))
    packed = gzip.compress(STAYS.encode()) + member * (GIGABYTE >> 24)
    instead("stays", "csv.gz", packed)(folder)


def parquet(folder: Path, *, cut: int | None = None, **types: pyarrow.DataType) -> None:
    """The stays as Parquet, some columns as other types; `x` as a type leaves the column out."""
    read = pyarrow.csv.ConvertOptions(true_values=["true"], false_values=["0"])
    rows = pyarrow.csv.read_csv(folder / "stays.csv", convert_options=read)
    for name, kind in types.items():
        at = rows.column_names.index(name)
        rows = (
            rows.remove_column(at)
            if kind == pyarrow.null()
            else rows.set_column(at, name, rows[name].cast(kind))
        )
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(rows, sink)
    instead("stays", "parquet", sink.getvalue().to_pybytes()[:cut])(folder)


def changed(old: str, new: str, text: str = STAYS) -> str:
    assert old in text
    return text.replace(old, new)


PACKED = gzip.compress(STAYS.encode())
MEND = r".*; mend the files, .*nothing was stored.*"

BROKEN = [
    Broken(
        "Latin-1",
        table("rooms", changed("by the lift", "près du lift", ROOMS).encode("latin-1")),
        r".*rooms\.csv line 3: is not UTF-8; write the file as UTF-8",
    ),
    Broken(
        "UTF-16",
        table("stays", STAYS.encode("utf-16")),
        r".*stays\.csv line 1: is not UTF-8; write the file as UTF-8",
    ),
    Broken("UTF-8 with a byte order mark", table("stays", "\ufeff" + STAYS), "", 0),
    Broken("CR LF line ends", table("stays", changed("\n", "\r\n")), "", 0),
    Broken(
        "columns in another order", table("stays", "stayed,room,night\nt,1,2024-01-28\n"), "", 0
    ),
    Broken("no line end at the end", table("stays", STAYS.rstrip("\n")), "", 0),
    Broken(
        "CR line ends",
        table("stays", changed("\n", "\r")),
        r".*stays\.csv: its lines end in CR alone; end them with LF, or with CR and LF",
    ),
    Broken(
        "LF and CR LF mixed",
        table("stays", changed("true\n", "true\r\n")),
        r".*stays\.csv line 2: .*carriage return.*; end all lines alike, .*",
    ),
    Broken(
        "a quote that is not closed",
        table("rooms", changed("by the", '"by the', ROOMS)),
        r".*rooms\.csv line \d: unterminated CSV quoted field; mend the row: .*quoted.*",
    ),
    Broken(
        "a row with too few fields",
        table("stays", changed(",true", "")),
        r'.*stays\.csv line 2: missing data for column "stayed"; mend the row: as many fields .*',
    ),
    Broken(
        "a row with too many fields",
        table("stays", changed(",true", ",true,1")),
        r".*stays\.csv line 2: extra data after last expected column; mend the row: .*",
    ),
    Broken(
        "a missing column",
        table("stays", "room,night\n1,2024-01-28\n"),
        r".*stays\.csv: its header has other columns: missing 'stayed'; the columns are .*",
    ),
    Broken(
        "an extra column",
        table("stays", "room,night,stayed,note\n1,2024-01-28,t,\n"),
        r".*stays\.csv: its header has other columns: unknown 'note'; the columns are .*",
    ),
    Broken(
        "a column twice in the header",
        table("stays", "room,night,stayed,room\n1,2024-01-28,t,1\n"),
        r".*stays\.csv: its header has other columns: duplicated 'room'; the columns are .*",
    ),
    Broken(
        "another separator",
        table("stays", changed(",", ";")),
        r".*stays\.csv: its header has other columns: missing 'room', .* unknown 'room;night;.*",
    ),
    Broken(
        "an integer out of range",
        table("stays", changed("2,2024", "9223372036854775808,2024")),
        r"1 fault: stays\.csv row 3 column room: '9223372036854775808' is not a whole number"
        + MEND,
    ),
    Broken(
        "a float out of range",
        table("nights", changed("80.5", "1e999", NIGHTS)),
        r"1 fault: nights\.csv row 2 column price: '1e999' is not a number" + MEND,
    ),
    Broken(
        "NaN",
        table("nights", changed("80.5", "NaN", NIGHTS)),
        r"1 fault: nights\.csv row 2 column price: 'NaN' is not a number" + MEND,
    ),
    Broken(
        "infinity",
        table("nights", changed("80.5", "-inf", NIGHTS)),
        r"1 fault: nights\.csv row 2 column price: '-inf' is not a number" + MEND,
    ),
    Broken(
        "a number within blanks",
        table("nights", changed("80.5", " 80.5 ", NIGHTS)),
        r"1 fault: nights\.csv row 2 column price: ' 80\.5 ' is not a number" + MEND,
    ),
    Broken(
        "a day that is none",
        table("stays", changed("2024-01-29", "2024-02-30")),
        r"1 fault: stays\.csv row 3 column night: '2024-02-30' is not a date such as" + MEND,
    ),
    Broken(
        "the year 99999",
        table("stays", changed("2024-01-29", "99999-01-29")),
        r"1 fault: stays\.csv row 3 column night: '99999-01-29' is not a date such as" + MEND,
    ),
    Broken(
        "a day after the batch's",
        table("stays", changed("2024-01-29", "2024-03-29")),
        r"1 fault: stays\.csv row 3 column night: '2024-03-29' is after 2024-01-29, .*" + MEND,
    ),
    Broken(
        "a word that is no boolean",
        table("stays", changed("true", "yes")),
        r"1 fault: stays\.csv row 2 column stayed: 'yes' is not true or false" + MEND,
    ),
    Broken(
        "a null where none may be",
        table("stays", changed("true", "")),
        r"1 fault: stays\.csv row 2 column stayed: null where a value is due" + MEND,
    ),
    Broken(
        "a value out of its range",
        table("nights", changed("80.5", "1000.5", NIGHTS)),
        r"1 fault: nights\.csv row 2 column price: '1000\.5' is not from -0\.5 to 1000" + MEND,
    ),
    Broken(
        "a key twice in a file",
        table("stays", STAYS + "1,2024-01-28,f\n"),
        r"2 faults: stays\.csv row 2 column room, night: .*; stays\.csv row 4 .*more than once"
        + MEND,
    ),
    Broken(
        "a reference to nothing",
        table("nights", changed("2,2024-01-31", "3,2024-01-31", NIGHTS)),
        r"1 fault: nights\.csv row 4 column room: '3' is not in rooms\.room" + MEND,
    ),
    Broken(
        "a NUL byte",
        table("rooms", changed("by the", "by\0the", ROOMS)),
        r".*rooms\.csv line 3: invalid byte sequence for encoding \"UTF8\": 0x00; take the byte out",
    ),
    Broken(
        "COPY's end mark amid the rows",
        table("stays", changed("true\n", "true\n\\.\n")),
        r".*stays\.csv line 3: begins with \\\., which ends a file for PostgreSQL; .*quotes",
    ),
    Broken(
        "a line of 1 GB",
        sparse_line,
        r".*stays\.csv line 4: a record of more than 1,048,576 bytes; look for a quote .*",
    ),
    Broken(
        "a line of 1 GB, packed to 1 MB",
        bomb,
        r".*stays\.csv\.gz line 4: a record of more than 1,048,576 bytes; look for a quote .*",
    ),
    Broken(
        "gzip that is cut off",
        instead("stays", "csv.gz", PACKED[:-9]),
        r".*stays\.csv\.gz: the gzip file is cut off; copy it again, whole",
    ),
    Broken(
        "gzip with a wrong checksum",
        instead("stays", "csv.gz", PACKED[:-8] + b"1234" + PACKED[-4:]),
        r".*stays\.csv\.gz: the gzip file is damaged .*; copy it again, whole",
    ),
    Broken(
        "no gzip under its name",
        instead("stays", "csv.gz", STAYS.encode()),
        r".*stays\.csv\.gz: is not gzip; pack it by gzip, or name it \.csv",
    ),
    Broken(
        "gzip that goes on after its end",
        instead("stays", "csv.gz", PACKED + b"more"),
        r".*stays\.csv\.gz: something that is not gzip follows its end; write the file anew",
    ),
    Broken(
        "Parquet that is cut off",
        lambda folder: parquet(folder, cut=-30),
        r".*stays\.parquet: is not a whole Parquet file .*; write or copy it again",
    ),
    Broken(
        "no Parquet under its name",
        instead("stays", "parquet", STAYS.encode()),
        r".*stays\.parquet: is not a whole Parquet file .*; write or copy it again",
    ),
    Broken(
        "Parquet with another type",
        lambda folder: parquet(folder, room=pyarrow.float64()),
        r".*stays\.parquet: column room is double, declared bigint; write the column with .*",
    ),
    Broken(
        "Parquet without a column",
        lambda folder: parquet(folder, stayed=pyarrow.null()),
        r".*stays\.parquet: its header has other columns: missing 'stayed'; the columns are .*",
    ),
    Broken(
        "an empty file",
        table("stays", b""),
        r".*stays\.csv: is empty; it needs a header, and a row for each record",
    ),
    Broken(
        "a header alone",
        table("rooms", "room,kind,note\n"),
        r".*faults?: rooms\.csv has .*" + MEND,
    ),
    Broken(
        "no file",
        lambda folder: (folder / "stays.csv").unlink(),
        r".*: no stays\.csv; a batch holds one file for each table: .*",
    ),
    Broken(
        "two files of one table",
        lambda folder: (folder / "stays.csv.gz").write_bytes(PACKED),
        r".*: table stays has 2 files: stays\.csv, stays\.csv\.gz; leave one of them",
    ),
    Broken(
        "a directory in a file's place",
        directory,
        r".*stays\.csv: is not a file; put the table's file in its place",
    ),
    Broken(
        "a link to itself",
        linked("stays", "stays.csv"),
        r".*stays\.csv: is not a file; put the table's file in its place",
    ),
    Broken(
        "a file that cannot be read",
        # Of a process without memory at address 0: opened by everyone, read by no one.
        linked("stays", "/proc/self/mem"),
        r".*stays\.csv: cannot be read: Input/output error; check the file, .*",
        2,
    ),
]


@dataclass(frozen=True)
class Told:
    """What a command line's caller sees."""

    exit_code: int
    error: str


def tell(
    run: Run, folder: Path, capsys: pytest.CaptureFixture[str], *, revision: bool = False
) -> Told:
    def body() -> int:
        run(folder, revision=revision)
        return 0

    code = commandline.run("ingest", body)
    return Told(code, capsys.readouterr().err)


def stored(connection: Connection) -> tuple[int, int]:
    """How many snapshots there are, and how many tables in staging."""
    ((snapshots,),) = connection.execute("SELECT count(*) FROM espalier.snapshots").fetchall()
    ((staging,),) = connection.execute(
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'staging'::regnamespace"
    ).fetchall()
    return snapshots, staging


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.kind)
def test_a_broken_file_is_refused_on_one_line_and_nothing_is_stored(
    broken: Broken,
    run: Run,
    connection: Connection,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = write_batch(tmp_path / "batch")
    broken.make(folder)
    told = tell(run, folder, capsys)
    assert told.exit_code == broken.exit_code
    if broken.exit_code == 0:
        assert told.error == ""
        assert stored(connection) == (1, 0)
        return
    assert re.fullmatch(rf"ingest: {broken.says}\n", told.error), told.error
    assert stored(connection) == (0, 0)


def test_the_mended_batch_is_stored_as_if_nothing_had_been(
    run: Run, connection: Connection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # One that is refused by its bytes, one by a type, one by a rule.
    kinds = ["a NUL byte", "NaN", "a reference to nothing"]
    for number, broken in enumerate(one for one in BROKEN if one.kind in kinds):
        folder = write_batch(tmp_path / str(number))
        broken.make(folder)
        assert tell(run, folder, capsys).exit_code == 4
    assert tell(run, write_batch(tmp_path / "mended"), capsys) == Told(0, "")
    assert stored(connection) == (1, 0)


def test_a_key_with_another_content_of_the_same_day_is_refused_unless_it_is_a_revision(
    run: Run, connection: Connection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(write_batch(tmp_path / "first"))
    again = write_batch(tmp_path / "again", stays=changed("true", "false"))
    told = tell(run, again, capsys)
    assert told.exit_code == 1
    assert re.fullmatch(
        r"ingest: hotel 2024-01-31: other content is stored as snapshot 1, revision 1; "
        r"ask for a revision if this batch corrects it\n",
        told.error,
    )
    assert stored(connection) == (1, 0)
    assert tell(run, again, capsys, revision=True) == Told(0, "")
    kept = "SELECT stayed FROM hotel.stays WHERE room = 1 ORDER BY snapshot_id"
    assert connection.execute(kept.encode()).fetchall() == [(True,), (False,)]


@pytest.mark.parametrize("make", [sparse_line, bomb])
def test_a_line_of_a_gigabyte_takes_no_memory(
    make: Make, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_batch(tmp_path / "batch")
    make(folder)
    tracemalloc.start()
    try:
        told = tell(run, folder, capsys)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert told.exit_code == 4
    assert peak < 20_000_000
