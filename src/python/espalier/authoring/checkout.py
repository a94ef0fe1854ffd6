"""A checkout: its products, and how a new one comes into it, whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from espalier.authoring.batches import Tables
from espalier.errors import ConfigurationError, UsageError

PRODUCTS = Path("build-support/macros/products.py")
DEPLOYMENTS = Path("deploy/prefect/deployments.toml")
_PYPROJECT = Path("pyproject.toml")
_FIRST_PARTY = re.compile(r"^known-first-party = \[(.*)\]$", re.MULTILINE)
_LIST = re.compile(r"^PRODUCTS = \((.*?)\)$", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r'"([^"]+)"')
_FLOWS = ("ingest", "materialize", "train", "monitor", "score", "loop")


def products(root: Path) -> list[str]:
    """The names in the list of products.

    Raises:
        ConfigurationError: this is no checkout.
    """
    return _NAME.findall(_listed(root)[1])


def _listed(root: Path) -> re.Match[str]:
    path = root / PRODUCTS
    found = _LIST.search(path.read_text(encoding="utf-8")) if path.is_file() else None
    if found is None:
        raise ConfigurationError(
            f"{root} is no checkout: there is no {PRODUCTS}",
            fix="run this at the root of a checkout, or name that by --root",
        )
    return found


@contextmanager
def workplace(root: Path) -> Iterator[Path]:
    """A folder on the checkout's file system that is gone afterwards."""
    place = root / ".espalier"
    place.mkdir(exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=place, prefix="new-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write text files by their paths within a folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def write_tables(folder: Path, tables: Tables) -> None:
    """Write a batch's tables as CSV; an empty field is null."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        rows.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")


def with_product(root: Path, name: str) -> dict[str, str]:
    """The shared files with the product in them, by their paths."""
    changed = {str(PRODUCTS): _with_name(root, name)}
    deployments = root / DEPLOYMENTS
    if deployments.is_file():
        text = deployments.read_text(encoding="utf-8")
        changed[str(DEPLOYMENTS)] = f"{text.rstrip()}\n\n{deployed(name)}"
    project = root / _PYPROJECT
    text = project.read_text(encoding="utf-8") if project.is_file() else ""
    if (found := _FIRST_PARTY.search(text)) and name not in _NAME.findall(found[1]):
        names = sorted({*_NAME.findall(found[1]), name})
        line = f"known-first-party = [{', '.join(f'{chr(34)}{n}{chr(34)}' for n in names)}]"
        changed[str(_PYPROJECT)] = text[: found.start()] + line + text[found.end() :]
    return changed


def _with_name(root: Path, name: str) -> str:
    found = _listed(root)
    names = [*_NAME.findall(found[1]), name]
    line = "".join(f'    "{one}",\n' for one in names)
    text = found.string
    return f"{text[: found.start()]}PRODUCTS = (\n{line}){text[found.end() :]}"


def deployed(name: str) -> str:
    """A product's flows as deployments of Prefect, as the others have them."""
    parts = []
    for flow in _FLOWS:
        lines = [
            "[[deployment]]",
            f'name = "{name}-{flow}"',
            f'flow = "{flow}"',
            f'project = "{name}"',
            f'pex = "{name}-{flow}.pex"',
        ]
        if flow == "train":
            lines.append('queue = "training"')
        if flow == "loop":
            lines.append("parameters = { wait_seconds = 43200 }")
        parts.append("\n".join([*lines, "concurrency = 1", f'tags = ["{name}"]']))
    return "\n\n".join(parts) + "\n"


def move_in(staged: Path, root: Path, paths: list[str], changed: Mapping[str, str]) -> None:
    """Bring what is staged, and the changed shared files, to their places; all or nothing.

    Args:
        staged: The folder with what is new.
        root: The checkout.
        paths: Files and folders in `staged` that are not in the checkout yet.
        changed: The whole new text of files that are there, the list of products among them.

    Raises:
        UsageError: the checkout cannot be written; it is as it was.
    """
    before = {name: (root / name).read_text(encoding="utf-8") for name in changed}
    moved: list[Path] = []
    try:
        for name in paths:
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                raise FileExistsError(17, "there is one already", str(target))  # noqa: TRY301
            (staged / name).rename(target)
            moved.append(target)
        for name, text in changed.items():
            _replace(root / name, text)
    except BaseException as error:
        for path in reversed(moved):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name, text in before.items():
            if (root / name).read_text(encoding="utf-8") != text:
                _replace(root / name, text)
        if isinstance(error, OSError):
            raise UsageError(
                f"{error.filename}: {error.strerror}",
                fix="nothing was changed; see to it and run this again",
            ) from error
        raise


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)  # noqa: PTH105  # atomic on both systems
