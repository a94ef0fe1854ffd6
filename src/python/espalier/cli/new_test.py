"""`espalier new` as a person types it: what is written, and what is said of awkward files."""

from __future__ import annotations

import gzip
import os
import pty
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from espalier.authoring.testing import (
    by_month,
    customers,
    files_of,
    make_checkout,
    with_column,
    write_csv,
)
from espalier.cli.main import main
from espalier.processes import python_environment

ONE_DAY = ["--time", "none", "--as-of", "2026-01-31"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_checkout(tmp_path / "checkout")


@pytest.fixture
def new(root: Path, tmp_path: Path, capsys) -> Callable[..., tuple[int, str, list[str]]]:
    """Runs the command without a terminal; its exit code, output and lines of errors."""

    def run(
        rows: pd.DataFrame | Path, *options: str, name: str = "shop"
    ) -> tuple[int, str, list[str]]:
        path = rows if isinstance(rows, Path) else write_csv(tmp_path / "rows.csv", rows)
        argv = ["new", name, "--from", str(path), "--root", str(root), "--yes", *options]
        code = main(argv)
        captured = capsys.readouterr()
        return code, captured.out, captured.err.splitlines()

    return run


def test_a_file_of_one_day_becomes_a_product(new, root: Path):
    code, out, err = new(customers(), *ONE_DAY)
    assert (code, err) == (0, [])
    assert max(map(len, out.splitlines())) <= 80
    assert "key       customer_id  sure      named like a key, unique in all 60 rows" in out
    assert sorted(set(files_of(root)) - set(files_of(make_checkout(root.parent / "other")))) == [
        "data/seeds/shop/month_000/features.csv",
        "data/seeds/shop/month_000/labels.csv",
        "feature_repo/shop_features.py",
        "src/python/shop/BUILD",
        "src/python/shop/answers.toml",
        "src/python/shop/estimator.py",
        "src/python/shop/estimator_test.py",
        "src/python/shop/project.py",
        "src/python/shop/project_test.py",
    ]
    found = files_of(root)
    assert (
        found["build-support/macros/products.py"] == 'PRODUCTS = (\n    "churn",\n    "shop",\n)\n'
    )
    isort = tomllib.loads(found["pyproject.toml"])["tool"]["ruff"]["lint"]["isort"]
    assert isort["known-first-party"] == sorted(["churn", "espalier", "shop"])
    assert found["deploy/prefect/deployments.toml"].count('project = "shop"') == 6
    # Of the first customer: no age in row 3, days since a date, the code of a plan.
    features = pd.read_csv(root / "data/seeds/shop/month_000/features.csv", dtype=str)
    assert list(features.columns) == [
        *("customer_id", "feature_date", "age", "spend", "plan", "since", "newsletter")
    ]
    first = features.iloc[0]
    assert (first["customer_id"], first["feature_date"], first["plan"]) == (
        "c000",
        "2026-01-31",
        "0",
    )
    assert first["since"] == str((pd.Timestamp("2026-01-31") - pd.Timestamp("2024-01-01")).days)
    assert pd.isna(features["age"][3])


def run_tests(root: Path, name: str) -> None:
    """The product's own tests, as its folder has them."""
    environment = {**os.environ, **python_environment()}
    environment["PYTHONPATH"] = f"{root / 'src/python'}{os.pathsep}{environment['PYTHONPATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"src/python/{name}"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        (customers(), ONE_DAY),
        (with_column(customers(90), "label", ["abc"[n * 7 // 5 % 3] for n in range(90)]), ONE_DAY),
        (by_month(), ["--label", "sales", "--horizon-days", "0"]),
        (customers()[["customer_id", "plan", "label"]], ONE_DAY),
    ],
    ids=["binary", "multiclass", "regression by month", "categories alone"],
)
def test_the_tests_that_are_written_pass_at_once(new, root: Path, rows, options):
    code, _, err = new(rows, *options)
    assert (code, err) == (0, [])
    run_tests(root, "shop")


def test_rows_with_a_time_are_cut_into_batches_of_months(new, root: Path):
    code, out, _ = new(by_month(), "--label", "sales", "--horizon-days", "30")
    assert code == 0
    folders = sorted(p.name for p in (root / "data/seeds/shop").iterdir())
    assert folders == [f"month_{n:03}" for n in range(6)]
    # A label of a month's end is known 30 days later, so the newest one waits.
    labels = [pd.read_csv(root / f"data/seeds/shop/{f}/labels.csv") for f in folders]
    assert [list(dict.fromkeys(one["label_date"])) for one in labels] == [
        ["2024-01-31", "2024-02-29", "2024-03-31", "2024-04-30"],
        ["2024-05-31"], ["2024-06-30"], ["2024-07-31"], ["2024-08-31"], ["2024-09-30"],
    ]  # fmt: skip
    assert "12 labels are known only after the last batch's day" in out


def test_a_composite_key_is_one_text_and_its_parts_are_features(new, root: Path):
    rows = by_month().assign(town=[("a|b", "c\\d")[n % 2] for n in range(120)])
    rows = rows.rename(columns={"shop_id": "shop"})
    code, _, err = new(rows, "--key", "town,shop", "--label", "sales", "--horizon-days", "0")
    assert (code, err) == (0, [])
    features = pd.read_csv(root / "data/seeds/shop/month_000/features.csv", dtype=str)
    assert set(features["town_shop"]) >= {"a\\|b|s00", "c\\\\d|s01"}
    assert list(features.columns)[2:] == ["shop", "visits", "town"]


def test_what_is_open_is_one_line_each_and_nothing_is_written(new, root: Path):
    before = files_of(root)
    rows = customers().rename(columns={"customer_id": "who", "label": "left"})
    code, _out, err = new(rows.assign(left=["M" if v == "true" else "B" for v in rows["left"]]))
    assert code == 2
    assert err == [
        (
            "espalier: which column says when a row's facts were so? since could; say --time since or "
            "--time none"
        ),
        "espalier: is who what identifies a row?; say --key who or --key A,B or --key row",
        "espalier: which column is to be predicted?; say --label left",
    ]
    assert files_of(root) == before


def test_answers_repeat_a_run(new, root: Path, tmp_path: Path):
    rows = customers().rename(columns={"customer_id": "who"})
    assert new(rows, "--key", "who", *ONE_DAY)[0] == 0
    answers = root / "src/python/shop/answers.toml"
    assert new(rows, "--answers", str(answers), name="again")[0] == 0
    for name in ("features", "labels"):
        path = f"month_000/{name}.csv"
        seeds = root / "data/seeds"
        assert (seeds / "shop" / path).read_bytes() == (seeds / "again" / path).read_bytes()


def test_a_later_file_becomes_the_next_batch(new, root: Path, tmp_path: Path, capsys, monkeypatch):
    assert new(customers(), *ONE_DAY)[0] == 0
    monkeypatch.syspath_prepend(str(root / "src" / "python"))
    for module in ("shop", "shop.project"):
        # Put back at the end as it is now: not there.
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.delitem(sys.modules, module)
    later = customers().assign(plan="gold").drop(columns="label")
    path = write_csv(tmp_path / "later.csv", later)
    argv = ["add-batch", "shop", "--from", str(path), "--root", str(root), "--as-of"]
    assert main([*argv, "2026-02-28"]) == 0
    out = capsys.readouterr().out
    assert "data/seeds/shop/month_001: 60 rows of features, 0 rows of labels" in out
    assert "60 values of plan are no declared category: null" in out
    assert main([*argv, "2026-02-28"]) == 2
    assert "month_001 is there already" in capsys.readouterr().err
    assert main([*argv, "2026-02-27"]) == 2
    run_tests(root, "shop")


def test_a_person_at_a_terminal_is_asked(root: Path, tmp_path: Path):
    path = write_csv(tmp_path / "rows.csv", customers().rename(columns={"customer_id": "who"}))
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "espalier.cli.main", "new", "--root", str(root)],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **python_environment()},
        text=True,
    )
    os.close(slave)
    with os.fdopen(master, "w") as typed:
        # Name, file; the time by number, after what is no option; the key after what is no column; agreed.
        typed.write(f"shop\n{path}\n--nope\n2\n--key nobody\n1\ny\n")
        typed.flush()
        out, _ = process.communicate(timeout=200)
    assert process.returncode == 0, out
    assert "unrecognized arguments: --nope" in out
    assert 'key = ["who"]' in (root / "src/python/shop/answers.toml").read_text()
    assert max(len(line) for line in out.splitlines() if str(path) not in line) <= 80


def test_a_file_that_cannot_be_replaced_leaves_the_checkout_as_it_was(new, root: Path, monkeypatch):
    before = files_of(root)
    replaced = os.replace

    def refuse(source, target):
        if str(target).endswith("products.py"):
            raise PermissionError(13, "Permission denied", str(target))
        replaced(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    code, _, err = new(customers(), *ONE_DAY)
    assert code == 2
    assert err[0].endswith("nothing was changed; see to it and run this again")
    left = {k: v for k, v in files_of(root).items() if not k.endswith(".new")}
    assert left == before


LABEL = list(customers()["label"])
AWKWARD: dict[str, tuple[object, list[str], int, str]] = {
    "constant label": (
        with_column(customers(), "label", ["true"] * 60), [], 4,
        "label 'label' is the same in every row; there is nothing to learn",
    ),
    "a column that equals the label": (
        with_column(customers(), "copy", LABEL), [], 4,
        ("column 'copy' tells the label: each of its 2 values goes with one label; if it is known "
        "only afterwards, --drop copy; it cannot be trained on"),
    ),
    "a column that ranks the label": (
        with_column(customers(), "days_gone", [n + 100 * (v == "true") for n, v in enumerate(LABEL)]),
        [], 4, "column 'days_gone' tells the label: alone it reaches a ROC-AUC of 1.0000",
    ),
    "a column that is empty for one label": (
        with_column(customers(), "gone_on", [None if v == "true" else n % 7 for n, v in enumerate(LABEL)]),
        [], 4, "column 'gone_on' tells the label: it is empty exactly where the label has one value",
    ),
    "key not unique": (
        with_column(customers(), "customer_id", ["c1", "c1", *(f"d{n}" for n in range(58))]),
        ["--key", "customer_id"], 4,
        "key customer_id is not unique: 2 rows share it, such as 'c1' (rows 2, 3)",
    ),
    "key not unique for each time": (
        pd.concat([by_month(), by_month().head(1)]),
        ["--key", "shop_id", "--time", "day", "--label", "sales", "--horizon-days", "0"], 4,
        ("key shop_id is not unique for each time: 2 rows share it, such as 's00' (rows 2, 122, day "
        "2024-01-15)"),
    ),
    "no key": (
        customers().drop(columns="customer_id").assign(spend="1.5", since="2024-01-01"),
        [], 2, "no column alone identifies a row: name several as A,B, or number the rows; say",
    ),
    "an empty key": (
        with_column(customers(), "customer_id", [None, *(f"d{n}" for n in range(59))]),
        ["--key", "customer_id"], 4, "key column 'customer_id' is empty in 1 rows, first in row 2",
    ),
    "dates in several formats": (
        with_column(customers(), "since", ["2024-01-31"] * 40 + ["31.01.2024"] * 20), [], 4,
        "column 'since' has dates in several formats: '2024-01-31' (row 2), '31.01.2024' (row 42)",
    ),
    "day or month": (
        with_column(customers(), "since", [f"0{n % 9 + 1}/0{n % 7 + 1}/2024" for n in range(60)]),
        [], 2, ("column 'since' has days that can be read as %d/%m/%Y or as %m/%d/%Y; say "
        "--date-format since=%d/%m/%Y or --date-format since=%m/%d/%Y"),
    ),
    "a date after the snapshot": (
        with_column(customers(), "since", ["2026-03-01", *["2024-01-05", "2024-02-05"] * 29, "2024-01-05"]),
        [], 4, "column 'since' is after the snapshot's day in 1 rows, first in row 2",
    ),
    "duplicated columns": (
        b"customer_id,age,age,label\n1,2,3,true\n", [], 4,
        "the header has 'age' more than once; give each column a name of its own",
    ),
    "label with nulls": (
        with_column(customers(), "label", [None, *LABEL[1:]]), [], 2,
        ("1 of 60 rows have no label: keep them, to be predicted, or drop them?; say --unlabelled "
        "keep or --unlabelled drop"),
    ),
    "too many classes": (
        with_column(customers(), "label", [f"k{n}" for n in range(60)]), [], 4,
        "label 'label' has 60 classes, more than 50",
    ),
    "a single row of a class": (
        with_column(customers(), "label", ["once", *["often", "seldom"] * 29, "often"]), [], 4,
        "label 'label' has classes of fewer than 5 rows: 'once': 1",
    ),
    "mixed types": (
        with_column(customers(), "age", ["old", *range(59)]), [], 4,
        ("column 'age' mixes numbers with text: 'old' (row 2); mend those, or --text age to take all "
        "as text, or --drop age"),
    ),
    "commas within numbers": (
        with_column(customers(), "spend", [f"1,{n:03}.50" for n in range(60)]), [], 4,
        "column 'spend' has commas within numbers: '1,000.50' (row 2)",
    ),
    "infinite values": (
        with_column(customers(), "spend", ["inf", *range(59)]), [], 4,
        "column 'spend' has infinite values: 'inf' (row 2); leave those fields empty, or --drop spend",
    ),
    "not UTF-8": (
        "customer_id,name,label\n1,Zoë,true\n".encode("latin-1"), [], 4, "line 2: is not UTF-8",
    ),
    "an empty file": (b"", [], 4, "is empty; it needs a header, and a row for each record"),
    "a header alone": (b"customer_id,age,label\n", [], 4, "has a header and no row"),
    "a short line": (b"customer_id,label\n1,true\n2\n", [], 4, "line 3: has 1 fields, the header 2"),
    "too few rows": (customers(12), [], 4, "12 rows with a label are too few to train"),
    "time in the future": (
        by_month().assign(day=[f"2199-{n % 12 + 1:02}-15" for n in range(120)], shop_id=range(120)),
        ["--key", "shop_id", "--time", "day", "--label", "sales", "--horizon-days", "0"], 4,
        "time column 'day' is after today in 120 rows, first in row 2: 2199-01-15",
    ),
    "no time in a row": (
        with_column(by_month(), "day", [None, *by_month()["day"][1:]]),
        ["--key", "shop_id", "--time", "day", "--label", "sales", "--horizon-days", "0"], 4,
        "time column 'day' is no day in 1 rows, first in row 2: nothing; every row needs its day",
    ),
    "a horizon that nobody said": (
        by_month(), ["--label", "sales"], 2,
        "how many days after day is the label known? 0 when at once; say --horizon-days 0",
    ),
    "classes or an amount": (
        with_column(customers(), "label", [n % 4 for n in range(60)]), [], 2,
        ("are the 4 values of label classes, or is it an amount?; say --task multiclass or --task "
        "regression"),
    ),
    "which value is looked for": (
        with_column(customers(), "label", ["M" if v == "true" else "B" for v in LABEL]), [], 2,
        "which value of the label is the one to look for?; say --positive B or --positive M",
    ),
    "suspiciously good": (
        customers(400).assign(
            label=[
                "true" if float(s) + 3 * float(a or 40) > 220 else "false"
                for s, a in zip(customers(400)["spend"], customers(400)["age"], strict=True)
            ]
        ),
        [], 2, ("is suspiciously good: may the label really be told so well, or is a column known "
        "only afterwards?; say --near-perfect or --drop COLUMN"),
    ),
    "a column that is not there": (
        customers(), ["--label", "gone"], 2, "no column 'gone' in the file; there are customer_id,",
    ),
    "a day that is no month's end": (
        customers(), ["--as-of", "2026-01-30"], 2, "--as-of 2026-01-30 is no month's end up to today",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", AWKWARD)
def test_what_a_person_is_told_of_an_awkward_file(new, root: Path, tmp_path: Path, case):
    rows, options, code, said = AWKWARD[case]
    if isinstance(rows, bytes):
        (tmp_path / "raw.csv").write_bytes(rows)
        rows = tmp_path / "raw.csv"
    before = files_of(root)
    about_time = {"--time", "--horizon-days"} & {*options} or case == "a horizon that nobody said"
    given = [] if about_time else ["--time", "none"]
    given += [] if about_time or "--as-of" in options else ["--as-of", "2026-01-31"]
    found, _, err = new(rows, *options, *given)
    assert found == code, err
    assert any(said in line for line in err), err
    assert all(line.startswith("espalier: ") for line in err)
    assert files_of(root) == before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("class", "'class' is a word of the Python language"),
        ("match", "'match' is a word of the Python language"),
        ("json", "'json' is a Python package that is in use here"),
        ("pandas", "'pandas' is a Python package that is in use here"),
        ("churn", "product churn is there already"),
        ("staging", "'staging' is the platform's own name in the database"),
        ("My-Shop", "'My-Shop' cannot be a product's name"),
    ],
)
def test_a_name_that_cannot_be_a_products(new, root: Path, name, said):
    before = files_of(root)
    code, _, err = new(customers(), *ONE_DAY, name=name)
    assert code == 2
    assert said in err[0]
    assert files_of(root) == before


def test_a_product_is_not_written_twice(new):
    assert new(customers(), *ONE_DAY)[0] == 0
    code, _, err = new(customers(), *ONE_DAY)
    assert code == 2
    assert err == [
        (
            "espalier: product shop is there already: src/python/shop; choose another name, or add data "
            "to it by: add-batch"
        )
    ]


def test_files_of_other_programs_are_understood(new, root: Path, tmp_path: Path):
    rows = customers()
    german = rows.assign(spend=rows["spend"].str.replace(".", ","))
    path = write_csv(tmp_path / "german.csv", german, separator=";")
    code, out, err = new(path, *ONE_DAY, name="german")
    assert (code, err) == (0, [])
    assert "german.csv: fields are separated by semicolon" in out
    assert "german.csv: decimal commas in spend" in out
    zipped = tmp_path / "rows.csv.gz"
    zipped.write_bytes(gzip.compress(rows.to_csv(index=False).encode("utf-8-sig")))
    assert new(zipped, *ONE_DAY, name="zipped")[0] == 0
    typed = rows.assign(
        age=pd.to_numeric(rows["age"]),
        spend=rows["spend"].astype(float),
        plan=rows["plan"].astype("category"),
        since=pd.to_datetime(rows["since"]).dt.date,
        newsletter=rows["newsletter"] == "yes",
        label=rows["label"] == "true",
    )
    typed.to_parquet(tmp_path / "rows.parquet")
    assert new(tmp_path / "rows.parquet", *ONE_DAY, name="typed")[0] == 0
    seeds = root / "data" / "seeds"
    texts = [
        (seeds / name / "month_000" / "features.csv").read_text() for name in ("german", "zipped")
    ]
    assert texts[0] == texts[1]
    numbers = [pd.read_csv(seeds / n / "month_000/features.csv") for n in ("german", "typed")]
    pd.testing.assert_frame_equal(numbers[0], numbers[1], check_dtype=False)


def test_names_that_are_no_identifiers_are_mapped_and_told(new, root: Path):
    rows = customers().rename(
        columns={"spend": "Spend (€)", "age": "2nd Age", "plan": "label_time"}
    )
    code, out, err = new(rows, *ONE_DAY)
    assert (code, err) == (0, [])
    for column, name in (
        ("Spend (€)", "spend"),
        ("2nd Age", "c_2nd_age"),
        ("label_time", "label_time_2"),
    ):
        assert any(
            line.split("  ")[0] == column and name in line.split() for line in out.splitlines()
        )


def test_files_named_by_months_are_batches(new, root: Path, tmp_path: Path):
    folder = tmp_path / "months"
    folder.mkdir()
    for month in ("2024-01", "2024-02", "2024-03"):
        write_csv(folder / f"customers_{month}.csv", customers())
    code, _, err = new(folder, "--time", "file_month", "--drop", "since", "--horizon-days", "0")
    assert (code, err) == (0, [])
    assert [p.name for p in sorted((root / "data/seeds/shop").iterdir())] == [
        "month_000", "month_001", "month_002"
    ]  # fmt: skip


def test_a_file_that_is_not_there(new, tmp_path: Path):
    code, _, err = new(tmp_path / "gone.csv")
    assert (code, err) == (2, [f"espalier: {tmp_path}/gone.csv: there is no such file or folder"])
    (tmp_path / "rows.xlsx").write_bytes(b"PK")
    code, _, err = new(tmp_path / "rows.xlsx")
    assert code == 2
    assert "is not .csv, .csv.gz, .parquet; export it as CSV" in err[0]


def test_outside_of_a_checkout(tmp_path: Path, capsys):
    path = write_csv(tmp_path / "rows.csv", customers())
    code = main(["new", "shop", "--from", str(path), "--root", str(tmp_path), "--yes"])
    assert code == 2
    assert "is no checkout: there is no build-support/macros/products.py" in capsys.readouterr().err
