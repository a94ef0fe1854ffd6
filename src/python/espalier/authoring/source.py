"""A person's files as text: their format, encoding, separator and header looked at."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from espalier.errors import BadData, UsageError
from espalier.ingest.source import not_utf8, read_header, unreadable

_ENDINGS = (".csv", ".csv.gz", ".parquet")
_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_DECIMAL_COMMA = r"[+-]?\d*,\d+"
_WHOLE = r"[+-]?\d+"


@dataclass(frozen=True)
class Sheet:
    """One file. Every value is text without blanks around it, or None for null."""

    path: Path
    rows: pd.DataFrame
    notes: tuple[str, ...]


def read(path: Path) -> list[Sheet]:
    """The file, or all CSV and Parquet files of a folder by their names, which have equal columns.

    Raises:
        UsageError: there is nothing of that name, or it cannot be read.
        BadData: a file is not of its format, has no rows, or other columns than the first one.
    """
    sheets = [_sheet(one) for one in _files(path)]
    first = sheets[0]
    for sheet in sheets[1:]:
        check_columns(sheet, list(first.rows.columns))
    # In the order of the first one's columns.
    return [Sheet(s.path, s.rows[list(first.rows.columns)], s.notes) for s in sheets]


def check_columns(sheet: Sheet, expected: Sequence[str]) -> None:
    """Refuse a file that lacks columns or has more.

    Raises:
        BadData: it names them.
    """
    found = list(sheet.rows.columns)
    missing = [name for name in expected if name not in found]
    more = [name for name in found if name not in expected]
    told = [
        f"{what} {', '.join(map(repr, names))}"
        for what, names in (("lacks", missing), ("also has", more))
        if names
    ]
    if told:
        raise BadData(
            f"{sheet.path}: {' and '.join(told)}",
            fix="the files of one product have the same columns",
        )


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise UsageError(f"{path}: there is no such file or folder")
    if not path.is_dir():
        if not path.name.endswith(_ENDINGS):
            raise UsageError(f"{path}: is not {', '.join(_ENDINGS)}", fix="export it as CSV")
        return [path]
    found = sorted(one for one in path.iterdir() if one.name.endswith(_ENDINGS))
    if not found:
        raise UsageError(f"{path}: holds no {', '.join(_ENDINGS)}")
    return found


def _sheet(path: Path) -> Sheet:
    try:
        sheet = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    except OSError as error:
        raise unreadable(path, error) from error
    if sheet.rows.empty:
        raise BadData(f"{path}: has a header and no row", fix="it needs a row for each record")
    return sheet


def _csv(path: Path) -> Sheet:
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise BadData(f"{path}: is not a whole gzip file ({error})") from error
    # Refuses what is empty or ends its lines in an unusual way.
    read_header(path, content[: 1 << 20] if content.isascii() else content)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_utf8(path, content.count(b"\n", 0, error.start) + 1) from error
    separator = _separator(text)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        header = [name.strip() for name in next(lines)]
        _check_header(path, header)
        rows = []
        for row in lines:
            if not row:
                continue
            if len(row) != len(header):
                raise BadData(
                    f"{path} line {lines.line_num}: has {len(row)} fields, the header {len(header)}",
                    fix="mend the line",
                )
            rows.append([value.strip() or None for value in row])
    except csv.Error as error:
        raise BadData(f"{path} line {lines.line_num}: is not CSV ({error})") from error
    frame = pd.DataFrame(rows, columns=header, dtype=object)
    notes = []
    if separator != ",":
        notes.append(f"{path.name}: fields are separated by {_SEPARATORS[separator]}")
    if separator == ";":
        notes.extend(_without_decimal_commas(path, frame))
    return Sheet(path, frame, tuple(notes))


def _separator(text: str) -> str:
    """What parts the first record, outside of quotes."""
    first = next(line for line in text.splitlines() if line.strip())
    parts = {one: len(next(csv.reader([first], delimiter=one))) for one in _SEPARATORS}
    return max(parts, key=lambda one: parts[one])


def _check_header(path: Path, header: Sequence[str]) -> None:
    twice = [name for name, times in Counter(header).items() if times > 1]
    if twice:
        raise BadData(
            f"{path}: the header has {', '.join(map(repr, twice))} more than once",
            fix="give each column a name of its own",
        )


def _without_decimal_commas(path: Path, frame: pd.DataFrame) -> list[str]:
    """Numbers such as 1,5 become 1.5, in columns that hold nothing else; tells which."""
    changed = []
    for name in frame.columns:
        values = frame[name].dropna()
        with_comma = values.str.fullmatch(_DECIMAL_COMMA)
        if with_comma.any() and (with_comma | values.str.fullmatch(_WHOLE)).all():
            frame[name] = frame[name].str.replace(",", ".", regex=False)
            changed.append(name)
    return [f"{path.name}: decimal commas in {', '.join(changed)}"] if changed else []


def _parquet(path: Path) -> Sheet:
    import pyarrow as pa
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pa.ArrowInvalid as error:
        raise BadData(f"{path}: is not a whole Parquet file ({error})") from error
    _check_header(path, table.column_names)
    columns = {
        name: _texts(path, name, column)
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    return Sheet(path, pd.DataFrame(columns, dtype=object), ())


def _texts(path: Path, name: str, column: object) -> list[str | None]:
    import pyarrow.types as kinds

    kind = column.type  # type: ignore[attr-defined]  # pyarrow ships no types
    if kinds.is_dictionary(kind):
        column = column.cast(kind.value_type)  # type: ignore[attr-defined]
        kind = kind.value_type
    if kinds.is_nested(kind) or kinds.is_binary(kind) or kinds.is_large_binary(kind):
        raise BadData(f"{path}: column {name} is {kind}", fix="leave it out, or write it as text")
    values = column.to_pylist()  # type: ignore[attr-defined]
    return [None if value is None else _text(value) for value in values]


def _text(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        # What pandas writes for null.
        return None if value != value else repr(value)  # noqa: PLR0124
    if isinstance(value, str):
        return value.strip() or None
    isoformat = getattr(value, "isoformat", None)
    return isoformat() if isoformat else str(value)
