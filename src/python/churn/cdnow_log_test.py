"""The reader of the CDNOW log: both forms, and every way a line can be wrong."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

import pytest

from churn.cdnow_log import Purchase, packaged_log, read_log
from espalier.errors import BadData

GOOD = " 00001 19970101  1   11.77"


def write(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "log.txt"
    path.write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    return path


def test_the_master_form_has_a_header(tmp_path: Path) -> None:
    path = write(tmp_path, " customer_id  date number_of_cds  dollar_value", GOOD, GOOD, "")
    assert list(read_log(path)) == 2 * [Purchase("00001", date(1997, 1, 1), 1, 1177)]


def test_the_sample_form_gives_the_master_id(tmp_path: Path) -> None:
    path = write(tmp_path, " 00004 0001 19970118  2   29.73")
    assert list(read_log(path)) == [Purchase("00004", date(1997, 1, 18), 2, 2973)]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("00002 19970112  1", "3 columns"),
        ("00002 0001 19970112  1 12.00", "5 columns"),
        ("customer_id date number_of_cds dollar_value", "'customer_id'"),
        ("2 19970112  1   12.00", "customer '2'"),
        ("00002 1997-01-12  1   12.00", "'1997-01-12' is not YYYYMMDD"),
        ("00002 19970229  1   12.00", "'19970229' is not a day"),
        ("00002 19970112  0   12.00", "CDs '0'"),
        ("00002 19970112  1.5 12.00", "CDs '1.5'"),
        ("00002 19970112  1   -12.00", "'-12.00' is not dollars"),
        ("00002 19970112  1   12", "'12' is not dollars"),
        ("00002 19970112  1   nan", "'nan' is not dollars"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, told: str) -> None:
    path = write(tmp_path, GOOD, line)
    with pytest.raises(BadData) as raised:
        list(read_log(path))
    message = str(raised.value)
    assert message.startswith(f"{path}:2: ")
    assert told in message
    assert "\n" not in message
    assert raised.value.exit_code == 4


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "no purchases"), (b"\n\n", "no purchases"), ("00001 é".encode(), "not ASCII")],
)
def test_a_file_that_is_no_log_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(content)
    with pytest.raises(BadData, match=told):
        list(read_log(path))


def test_a_missing_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="cannot be read: No such file"):
        list(read_log(tmp_path / "none.txt"))


@pytest.mark.parametrize(
    ("sample", "lines", "customers"), [(True, 6_919, 2_357), (False, 69_659, 23_570)]
)
def test_the_packaged_logs_are_whole(sample: bool, lines: int, customers: int) -> None:
    before = set(sys.modules)
    log = list(read_log(packaged_log(sample=sample)))
    assert (len(log), len({purchase.user_id for purchase in log})) == (lines, customers)
    assert max(purchase.day for purchase in log) == date(1998, 6, 30)
    assert not {name for name in set(sys.modules) - before if name.startswith("lifetimes")}
