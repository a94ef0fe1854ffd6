"""Names: of columns, as the platform takes them, and of products."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from espalier.errors import UsageError

# Columns of ours beside the declared ones, in the training set, the store, Feast and the log.
_TAKEN = frozenset(
    {
        "created_at",
        "created_timestamp",
        "entity",
        "entity_id",
        "event_time",
        "event_timestamp",
        "feature_date",
        "feature_time",
        "known_at",
        "label",
        "label_date",
        "label_time",
        "label_value",
        "prediction",
        "row_id",
        "score",
        "snapshot_id",
    }
)
# Schemas of the database that are not a product's.
_SCHEMAS = frozenset(
    {
        "espalier",
        "feast",
        "information_schema",
        "mlflow",
        "online",
        "prefect",
        "public",
        "staging",
    }
)
_LONGEST = 40
_PRODUCT = re.compile(r"[a-z][a-z0-9_]{0,29}")


def identifier(text: str) -> str:
    """A column's name in lower case, of letters, digits and _, a letter first.

    `PassengerId` is `passenger_id`.
    """
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text)
    plain = re.sub(r"[^a-z0-9]+", "_", parted.lower()).strip("_")
    if not plain:
        return "column"
    return (plain if plain[0].isalpha() else f"c_{plain}")[:_LONGEST].rstrip("_")


def identifiers(columns: Sequence[str], *, also_taken: Iterable[str] = ()) -> Mapping[str, str]:
    """A name for each column, none twice and none that the platform uses itself."""
    taken = {*_TAKEN, *also_taken}
    found: dict[str, str] = {}
    for column in columns:
        name = first = identifier(column)
        number = 2
        while name in taken:
            ending = f"_{number}"
            name = first[: _LONGEST - len(ending)] + ending
            number += 1
        taken.add(name)
        found[column] = name
    return found


def check_product(name: str, root: Path, products: Sequence[str]) -> None:
    """Refuse a name that cannot be a new product's.

    Args:
        name: The name.
        root: The checkout.
        products: The names that there are.

    Raises:
        UsageError: it says what is in the way.
    """
    fix = "choose another name"
    if not _PRODUCT.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a product's name",
            fix="use a-z, 0-9 and _, a letter first, at most 30 characters",
        )
    if name in products or (root / "src" / "python" / name).exists():
        raise UsageError(
            f"product {name} is there already: src/python/{name}",
            fix="choose another name, or add data to it by: add-batch",
        )
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise UsageError(f"{name!r} is a word of the Python language", fix=fix)
    if name in _SCHEMAS or name.startswith("pg_"):
        raise UsageError(f"{name!r} is the platform's own name in the database", fix=fix)
    if name in sys.stdlib_module_names or importlib.util.find_spec(name) is not None:
        raise UsageError(f"{name!r} is a Python package that is in use here", fix=fix)
    left = [root / "data" / "seeds" / name, root / "feature_repo" / f"{name}_features.py"]
    for path in left:
        if path.exists():
            raise UsageError(f"{path.relative_to(root)} is there already", fix=fix)
