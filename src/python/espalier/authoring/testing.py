"""A small checkout, and files as people have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

PRODUCTS = 'PRODUCTS = (\n    "churn",\n)\n'
DEPLOYMENTS = '[pool]\nname = "espalier"\n\n[[queue]]\nname = "training"\nlimit = 1\n'
PYPROJECT = '[tool.ruff.lint.isort]\nknown-first-party = ["churn", "espalier"]\n'
SHARED = {
    "build-support/macros/products.py": PRODUCTS,
    "deploy/prefect/deployments.toml": DEPLOYMENTS,
    "pyproject.toml": PYPROJECT,
}


def make_checkout(root: Path) -> Path:
    """The parts of a checkout that `new` reads and changes."""
    for name, text in SHARED.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def files_of(root: Path) -> Mapping[str, str]:
    """Every file of a checkout with its text."""
    return {
        str(path.relative_to(root)): path.read_text(errors="replace")
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def customers(rows: int = 60) -> pd.DataFrame:
    """A file of one day: a key, numbers, a category, a date, yes and no, gaps, and a label."""
    chance = np.random.default_rng(7)
    age = chance.integers(18, 80, rows)
    spend = chance.gamma(2.0, 50.0, rows).round(2)
    left = chance.random(rows) < 1 / (1 + np.exp((spend - 90) / 40))
    return pd.DataFrame(
        {
            "customer_id": [f"c{number:03}" for number in range(rows)],
            "age": [None if number % 17 == 3 else str(a) for number, a in enumerate(age)],
            "spend": [str(value) for value in spend],
            "plan": [("basic", "plus", "pro")[number % 3] for number in range(rows)],
            "since": [f"2024-{number % 12 + 1:02}-{number % 28 + 1:02}" for number in range(rows)],
            "newsletter": [("yes", "no")[int(a) % 2] for a in age],
            "label": ["true" if one else "false" for one in left],
        },
        dtype=object,
    )


def by_month(keys: int = 12, months: int = 10) -> pd.DataFrame:
    """A panel: each key once a month, a number to predict that follows another one."""
    chance = np.random.default_rng(11)
    rows = [
        {
            "shop_id": f"s{key:02}",
            "day": f"2024-{month + 1:02}-15",
            "visits": str(visits := int(chance.integers(10, 200))),
            "sales": f"{visits * 1.7 + chance.normal(0, 20):.2f}",
        }
        for month in range(months)
        for key in range(keys)
    ]
    return pd.DataFrame(rows, dtype=object)


def write_csv(path: Path, rows: pd.DataFrame, *, separator: str = ",") -> Path:
    """Write the rows as a person's program does."""
    rows.to_csv(path, index=False, sep=separator)
    return path


def with_column(rows: pd.DataFrame, name: str, values: Sequence[object]) -> pd.DataFrame:
    """The rows with another column, or other values in one."""
    made = rows.copy()
    made[name] = pd.Series(list(values), index=made.index, dtype=object)
    return made
