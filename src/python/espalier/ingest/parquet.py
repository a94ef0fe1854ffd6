"""Parquet files, read as the CSV text of the same rows.

That text goes the way of every file, so rules, row numbers and the content digest cannot depend
on the format. Row groups are read page by page: memory does not grow with the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pyarrow.types as kinds

from espalier.contract import Column, ColumnType
from espalier.errors import BadData
from espalier.ingest.source import SourceFile, unreadable

_BATCH_ROWS, _BATCH_BYTES = 16_384, 1 << 22
_BUFFER_BYTES = 1 << 18

# What a column of Parquet may be for each declared type. Integers do for doubles, not the reverse.
_ACCEPTED: Mapping[ColumnType, Callable[[pa.DataType], bool]] = {
    ColumnType.TEXT: lambda t: kinds.is_string(t) or kinds.is_large_string(t),
    ColumnType.INTEGER: kinds.is_integer,
    ColumnType.DOUBLE: lambda t: kinds.is_floating(t) or kinds.is_integer(t) or kinds.is_decimal(t),
    ColumnType.BOOLEAN: kinds.is_boolean,
    ColumnType.DATE: kinds.is_date,
    ColumnType.TIMESTAMP: kinds.is_timestamp,
}


def columns(path: Path) -> tuple[str, ...]:
    """The names of the file's columns.

    Raises:
        BadData: it is not a whole Parquet file.
    """
    with _open(path) as file:
        return tuple(file.schema_arrow.names)


def csv_text(source: SourceFile) -> Iterator[bytes]:
    """The file's rows as CSV with a header, in chunks.

    A null is an empty field. A float32 is written as the double of the same value, a time in UTC
    (one without a zone is taken to be in it).

    Raises:
        BadData: it is not a whole Parquet file, a column has a type that does not fit the declared
            one, or a time has a part smaller than a microsecond.
    """
    with _open(source.path) as file:
        targets = [
            _text_type(source.path, source.table.column(field.name), field.type)
            for field in file.schema_arrow
        ]
        yield f"{','.join(source.header)}\n".encode()
        schema = pa.schema(list(zip(source.header, targets, strict=True)))
        options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed")
        for batch in file.iter_batches(_batch_rows(file.metadata), use_threads=False):
            arrays = [
                array.cast(target) for array, target in zip(batch.columns, targets, strict=True)
            ]
            sink = pa.BufferOutputStream()
            pyarrow.csv.write_csv(pa.RecordBatch.from_arrays(arrays, schema=schema), sink, options)
            yield sink.getvalue().to_pybytes()


def _batch_rows(about: pyarrow.parquet.FileMetaData) -> int:
    """How many rows at a time, fewer if they are long."""
    rows: int = about.num_rows
    size: int = sum(about.row_group(n).total_byte_size for n in range(about.num_row_groups))
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES * rows // max(1, size)))


def _text_type(path: Path, column: Column, found: pa.DataType) -> pa.DataType:
    """The type to write a column's values from."""
    kind = found.value_type if kinds.is_dictionary(found) else found
    # A column without any value has no type of its own.
    if not (kinds.is_null(kind) or _ACCEPTED[column.type](kind)):
        raise BadData(
            f"{path}: column {column.name} is {found}, declared {column.type.value}",
            fix="write the column with the declared type",
        )
    if kinds.is_null(kind) or column.type is ColumnType.TEXT:
        return pa.string()
    if column.type is ColumnType.DATE:
        return pa.date32()
    if column.type is ColumnType.TIMESTAMP:
        return pa.timestamp("us", tz="UTC")
    return pa.float64() if kinds.is_floating(kind) else kind


@contextmanager
def _open(path: Path) -> Iterator[pyarrow.parquet.ParquetFile]:
    try:
        with pyarrow.parquet.ParquetFile(
            path, buffer_size=_BUFFER_BYTES, pre_buffer=False, memory_map=False
        ) as file:
            yield file
    except pa.ArrowException as error:
        raise _damaged(path, error) from error
    except OSError as error:
        # Arrow says so of damaged data too, without the system's number.
        if error.errno is not None:
            raise unreadable(path, error) from error
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> BadData:
    said = str(error).split("\n", maxsplit=1)[0].rstrip(".")
    return BadData(
        f"{path}: is not a whole Parquet file with readable values ({said})",
        fix="write or copy it again",
    )
