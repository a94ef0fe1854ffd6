"""What is wrong with a batch, as values, and the one error that says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from espalier.errors import BadData

SHOWN = 5
_SHOWN_CHARACTERS = 50


@dataclass(frozen=True)
class Faults:
    """Rows of one file that break one rule.

    `count` is how many there are; `first` describes the first few, each with row and column. Row 1
    is the header.
    """

    table: str
    count: int
    first: tuple[str, ...]


def refused(
    faults: Sequence[Faults], *, names: Mapping[str, str], fix: str, limits: Sequence[str] = ()
) -> BadData:
    """The error of a batch with these faults, of which the first `SHOWN` are named.

    `names` has each table's file; `limits` says where the faults are more than a table may have.
    """
    total = sum(f.count for f in faults)
    named = [f"{names[f.table]} {text}" for f in faults for text in f.first][:SHOWN]
    more = f"; and {total - len(named)} more" if total > len(named) else ""
    return BadData(
        "; ".join(
            [f"{total} {'fault' if total == 1 else 'faults'}: {'; '.join(named)}{more}", *limits]
        ),
        fix=fix,
        faults=str(total),
    )


def shown(value: object) -> str:
    """A value as it is shown in an error: quoted and cut."""
    text = "null" if value is None else repr(str(value))
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 4]}...'"
