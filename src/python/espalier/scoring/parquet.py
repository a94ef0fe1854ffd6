"""Scores as Parquet files: each is whole or not there, and says what it belongs to.

The name of the closing file begins with an underscore; Parquet readers skip it.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from espalier.errors import UsageError
from espalier.scoring.folder import Folder
from espalier.scoring.plan import Part, Plan

SUCCESS = "_SUCCESS.json"
_KEY = b"espalier"
_REPEATING = ("prediction", "label", "model_version", "feature_time")
_NAME = re.compile(r"part-\d{5,}\.parquet")


@dataclass(frozen=True)
class ParquetSink:
    """A folder of files, one a part, one run at a time."""

    folder: Folder

    def missing(self, plan: Plan) -> list[Part]:
        """The parts that are still to be written; parts of another cut or other rows go.

        Raises:
            UsageError: the folder holds another run's parts, or Parquet files that are none.
        """
        self.folder.make()
        wanted = {_name(part): part for part in plan.parts}
        present, stale = set[str](), list[str]()
        names = self.folder.names()
        for name in names:
            if not name.endswith(".parquet"):
                continue
            found = self._part(name)
            if not _NAME.fullmatch(name) or (found and found.run != plan.parts[0].run):
                raise UsageError(
                    f"{self.folder.url} holds {name}"
                    + (f" of {found.run}" if found else ", which is no part of a run"),
                    fix="choose another folder, one for each day and model version",
                )
            if found is not None and found == wanted.get(name):
                present.add(name)
            else:
                stale.append(name)
        absent = [part for name, part in wanted.items() if name not in present]
        if absent or stale:
            # Readers that wait for the closing file must not take an unfinished folder for whole.
            self.folder.remove(SUCCESS)
        for name in stale:
            self.folder.remove(name)
        return absent

    def write(self, part: Part, table: pa.Table) -> None:
        """Store one part under its name, once it is complete; the same rows again are the same."""
        table = table.replace_schema_metadata({_KEY: json.dumps(asdict(part)).encode()})
        buffer = io.BytesIO()
        # Keys and scores hardly repeat; a dictionary of them is tried and thrown away.
        repeating = [n for n in _REPEATING if n in table.column_names]
        pq.write_table(table, buffer, compression="zstd", use_dictionary=repeating)
        self.folder.write(_name(part), buffer.getvalue())

    def close(self, plan: Plan) -> int:
        """Count the rows in all files, and write the closing one if it is not there."""
        rows = sum(self._rows(_name(part)) for part in plan.parts)
        if SUCCESS in self.folder.names():
            return rows
        first = plan.parts[0]
        content = {
            "project": first.project,
            "as_of": first.as_of,
            "model_version": first.model_version,
            "model_digest": first.model_digest,
            "inputs": first.inputs,
            "rows": rows,
            "parts": [_name(part) for part in plan.parts],
        }
        self.folder.write(SUCCESS, (json.dumps(content, indent=2) + "\n").encode())
        return rows

    def _rows(self, name: str) -> int:
        with self.folder.open(name) as file:
            rows: int = pq.read_metadata(file).num_rows
            return rows

    def _part(self, name: str) -> Part | None:
        """What a file says it belongs to; None when it says nothing or is damaged."""
        try:
            with self.folder.open(name) as file:
                kept: dict[bytes, bytes] = pq.read_metadata(file).metadata or {}
            values: dict[str, Any] = json.loads(kept[_KEY])
            return Part(**values)
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError):
            return None


def _name(part: Part) -> str:
    return f"part-{part.part:05}.parquet"
