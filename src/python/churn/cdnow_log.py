"""Reads the CDNOW purchase log: every purchase of the shop's customers of 1997-Q1.

The log holds all purchases up to 1998-06-30 of the 23,570 customers who first bought from the music
shop CDNOW in the first quarter of 1997 (Fader and Hardie, https://www.brucehardie.com/datasets/).
Both published forms are read: the master log (customer, date, CDs, dollars) and the 1/10 sample
(customer, number within the sample, date, CDs, dollars). A copy of each comes with the `lifetimes`
distribution; its data file is read and its code is never run.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from espalier.errors import BadData, ConfigurationError

_PACKAGE = "lifetimes"
_FIX = "give an unchanged CDNOW_master.txt or CDNOW_sample.txt"
_ID = re.compile(r"[0-9]{5}")
_DATE = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})")
_COUNT = re.compile(r"[1-9][0-9]*")
_DOLLARS = re.compile(r"([0-9]+)\.([0-9]{2})")


@dataclass(frozen=True, slots=True)
class Purchase:
    """One line of the log: `cds` discs for `cents` US cents by `user_id` (five digits) on `day`."""

    user_id: str
    day: date
    cds: int
    cents: int


def packaged_log(*, sample: bool) -> Path:
    """The CDNOW log in the installed `lifetimes` distribution: the 1/10 sample or the full one.

    Finds the file without importing the package.

    Raises:
        ConfigurationError: the package is not installed, or without its data.
    """
    name = "CDNOW_sample.txt" if sample else "CDNOW_master.txt"
    spec = importlib.util.find_spec(_PACKAGE)
    locations = spec.submodule_search_locations if spec else None
    for location in locations or ():
        path = Path(location) / "datasets" / name
        if path.is_file():
            return path
    raise ConfigurationError(
        f"{name}: no installed package {_PACKAGE!r} holds it",
        fix="install Lifetimes==0.11.3, which carries the CDNOW data",
    )


def read_log(path: Path) -> Iterator[Purchase]:
    """Yields the purchases of a CDNOW log, line by line, in the order of the file.

    A header line and blank lines are passed over. Lines that are alike are separate purchases.

    Raises:
        BadData: a line is no purchase or has another number of columns than the first one (the
            message names file and line), the file holds no purchases, or it cannot be read.
    """
    width = 0
    try:
        with path.open(encoding="ascii") as log:
            for number, line in enumerate(log, start=1):
                columns = line.split()
                if not columns or (not width and columns[0] == "customer_id"):
                    continue
                width = width or len(columns)
                yield _purchase(columns, width, f"{path}:{number}")
    except OSError as error:
        raise BadData(f"{path}: cannot be read: {error.strerror}", fix=_FIX) from error
    except UnicodeDecodeError as error:
        raise BadData(f"{path}: holds bytes that are not ASCII", fix=_FIX) from error
    if not width:
        raise BadData(f"{path}: holds no purchases", fix=_FIX)


def _purchase(columns: Sequence[str], width: int, where: str) -> Purchase:
    if len(columns) != width or width not in (4, 5):
        raise BadData(
            f"{where}: {len(columns)} columns, where every line of a CDNOW log has 4 (customer,"
            " date, CDs, dollars) or every line 5 (customer, sample number, date, CDs, dollars)",
            fix=_FIX,
        )
    user_id, raw_day, raw_cds, raw_dollars = columns[0], *columns[-3:]
    day, dollars = _DATE.fullmatch(raw_day), _DOLLARS.fullmatch(raw_dollars)
    if not _ID.fullmatch(user_id):
        raise BadData(f"{where}: customer {user_id!r} is not a number of five digits", fix=_FIX)
    if not day:
        raise BadData(f"{where}: date {raw_day!r} is not YYYYMMDD", fix=_FIX)
    if not _COUNT.fullmatch(raw_cds):
        raise BadData(f"{where}: CDs {raw_cds!r} is not a whole number above zero", fix=_FIX)
    if not dollars:
        raise BadData(f"{where}: value {raw_dollars!r} is not dollars with two decimals", fix=_FIX)
    try:
        bought = date(int(day[1]), int(day[2]), int(day[3]))
    except ValueError:
        raise BadData(f"{where}: date {raw_day!r} is not a day of the calendar", fix=_FIX) from None
    return Purchase(user_id, bought, int(raw_cds), int(dollars[1]) * 100 + int(dollars[2]))
