"""Keeps fitted scikit-learn estimators without pickle.

A skops file names the types it is made of; loading builds those that are trusted and no other, so
a tampered file cannot run code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from espalier.errors import BadData, CheckRefused
from espalier.registry.trusted import TRUSTED


def save(estimator: Any, path: Path) -> None:
    """Write a fitted estimator.

    Raises:
        CheckRefused: it holds a type that `load` would not trust, such as a class of one's own.
    """
    from skops import io

    io.dump(estimator, path)
    if unknown := _untrusted(path):
        path.unlink()
        raise CheckRefused(
            f"the estimator holds {', '.join(unknown)}, which loading would not trust",
            fix="use scikit-learn's own steps, or review the type and add it to TRUSTED",
        )


def load(path: Path) -> Any:
    """Read an estimator.

    Raises:
        BadData: the file is no skops file, or holds a type outside of the trusted ones.
    """
    from skops import io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        return io.load(path, trusted=list(TRUSTED))
    except UntrustedTypesFoundException as error:
        raise BadData(
            f"{path.name} holds types that are not trusted: {', '.join(_untrusted(path))}",
            fix="do not load it; find out who wrote it",
        ) from error
    except Exception as error:  # zipfile, json and skops raise what they like
        raise BadData(f"{path.name} is not a skops file ({type(error).__name__})") from error


def _untrusted(path: Path) -> list[str]:
    from skops import io

    return sorted(set(io.get_untrusted_types(file=path)) - set(TRUSTED))
