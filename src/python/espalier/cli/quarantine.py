"""`espalier quarantine`: the faulty rows of batches, to be looked at, repaired and replayed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from espalier import settings
from espalier.errors import UsageError
from espalier.ingest import quarantine
from espalier.ingest.quarantine import Entry, Summary
from espalier.postgres.connect import Connection, connect

_BAD_DATA = 4
_STATES: tuple[quarantine.State, ...] = ("open", "replayed", "superseded")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `list`, `show` and `replay`."""
    commands = parser.add_subparsers(required=True, metavar="ACTION", dest="action")
    listing = commands.add_parser("list", help="count faulty rows by batch, table and rule")
    listing.add_argument("--project", help="of this project alone")
    listing.add_argument("--as-of", type=_day, metavar="DAY", help="of this day alone")
    listing.add_argument(
        "--all", action="store_true", help="also what was replayed or superseded by a later batch"
    )
    listing.set_defaults(run=_list)
    show = commands.add_parser("show", help="the rows of one batch and what is wrong with each")
    show.add_argument("batch", type=int, help="its number in the list")
    show.add_argument("--row", type=int, help="only the row of this number, with all of its values")
    show.add_argument("--limit", type=int, default=20, help="rows to show; default: 20")
    show.add_argument(
        "--csv", type=Path, metavar="FILE", help="write the open rows, to be repaired"
    )
    show.set_defaults(run=_show)
    replay = commands.add_parser(
        "replay", help="check a batch's rows again and store the good ones"
    )
    replay.add_argument("batch", type=int, help="its number in the list")
    replay.add_argument(
        "--csv", type=Path, metavar="FILE", help="the repaired rows; default: the rows as they are"
    )
    replay.set_defaults(run=_replay)


def _list(options: argparse.Namespace) -> int:
    with connect(settings.load().dsn) as connection:
        _require_migrated(connection)
        found = quarantine.summaries(
            connection,
            project=options.project,
            as_of=options.as_of,
            states=_STATES if options.all else ("open",),
        )
    if not found:
        print("nothing is in the quarantine" if options.all else "no open row is in the quarantine")
        return 0
    titles = ("batch", "project", "as of", "batch was", "table", "rule", "rows", "state")
    print(_table([titles, *map(_cells, found)]))
    return 0


def _cells(one: Summary) -> tuple[str, ...]:
    rows = f"{one.rows:,}" if one.rows else "table"
    # Of a refused batch only the first rows are kept.
    more = f" of {one.faulty:,}" if one.rows != one.faulty and one.outcome == "refused" else ""
    return (
        str(one.batch_id),
        one.project,
        one.as_of.isoformat(),
        one.outcome,
        one.table,
        one.rule,
        rows + (more if one.rows else ""),
        one.state,
    )


def _show(options: argparse.Namespace) -> int:
    entries = _entries(options.batch)
    if options.csv is not None:
        from espalier.ingest.replay import export
        from espalier.project import load_project

        count = export(load_project(entries[0].project), entries, options.csv)
        print(f"{count:,} open rows written to {options.csv}")
        return 0
    if options.row is not None:
        entries = [entry for entry in entries if entry.id == options.row]
        if not entries:
            raise UsageError(f"batch {options.batch} has no row {options.row}")
    for entry in entries[: options.limit]:
        print(_describe(entry))
        if options.row is not None:
            for name, value in (entry.row or {}).items():
                print(f"    {name} = {'null' if value is None else value!r}")
    if len(entries) > options.limit:
        print(f"and {len(entries) - options.limit:,} more: --limit N, or --csv FILE")
    return 0


def _describe(entry: Entry) -> str:
    where = entry.file if entry.line is None else f"{entry.file} row {entry.line}"
    state = "" if entry.state == "open" else f" [{entry.state}]"
    return f"{entry.id}  {where}: {entry.reason or entry.rule}{state}"


def _replay(options: argparse.Namespace) -> int:
    from espalier.ingest.replay import replay
    from espalier.project import load_project

    configured = settings.load()
    entries = _entries(options.batch)
    done = replay(
        load_project(entries[0].project),
        options.batch,
        dsn=configured.dsn,
        who=configured.who,
        repaired=options.csv,
    )
    if done.stored:
        print(
            f"{done.stored:,} rows stored as snapshot {done.snapshot_id}, revision {done.revision} "
            f"of {entries[0].project} {entries[0].as_of}"
        )
    for entry in done.faulty[:20]:
        print(_describe(entry))
    if done.faulty:
        print(f"{len(done.faulty):,} rows are still faulty and stay")
        return _BAD_DATA
    if not done.stored:
        print("no open row to replay")
    return 0


def _entries(batch_id: int) -> Sequence[Entry]:
    with connect(settings.load().dsn) as connection:
        _require_migrated(connection)
        entries = quarantine.entries(connection, batch_id)
    if not entries:
        raise UsageError(
            f"the quarantine has no batch {batch_id}",
            fix="see them with: espalier quarantine list --all",
        )
    return entries


def _require_migrated(connection: Connection) -> None:
    from espalier.ingest.batch import prepare

    prepare(connection)


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day such as 1997-06-30") from None
