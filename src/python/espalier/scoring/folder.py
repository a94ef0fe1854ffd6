"""A folder by path or by URL, in which a file is whole or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from espalier.errors import ConfigurationError, DependencyUnreachable

_UNFINISHED = ".unfinished-"


@dataclass(frozen=True)
class Folder:
    """A local folder, or one that fsspec reaches by a URL, such as `s3://bucket/scores`.

    A local file gets its name by renaming when it is complete. An object store shows an object when
    its upload has ended.
    """

    url: str

    def make(self) -> None:
        """Make it when it is missing.

        Raises:
            ConfigurationError: it cannot be made, or no such kind of URL is known.
            DependencyUnreachable: where it is does not answer.
        """
        with self._told() as (system, root):
            system.makedirs(root, exist_ok=True)

    def names(self) -> list[str]:
        """The files in it, without unfinished ones, which are deleted."""
        with self._told() as (system, root):
            system.invalidate_cache()
            found = []
            for path in system.ls(root, detail=False):
                name = str(path).rstrip("/").rpartition("/")[2]
                if name.startswith(_UNFINISHED):
                    system.rm(path)
                else:
                    found.append(name)
            return sorted(found)

    @contextmanager
    def open(self, name: str) -> Iterator[Any]:
        """A file to read from."""
        system, root = self._system()
        with system.open(f"{root}/{name}", "rb") as file:
            yield file

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        with self._told() as (system, root):
            if system.exists(f"{root}/{name}"):
                system.rm(f"{root}/{name}")

    def write(self, name: str, content: bytes) -> None:
        """Store a file under its name, once it is complete, over one that is there.

        Raises:
            ConfigurationError: the folder cannot be written, or is full.
            DependencyUnreachable: where it is does not answer.
        """
        with self._told() as (system, root):
            if "file" not in _protocols(system):
                system.pipe_file(f"{root}/{name}", content)
                return
            handle, made = tempfile.mkstemp(prefix=_UNFINISHED, dir=root)
            unfinished = Path(made)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                # mkstemp makes it private; scores are read by others.
                unfinished.chmod(0o644)
                unfinished.replace(Path(root, name))
            except BaseException:
                unfinished.unlink(missing_ok=True)
                raise

    def _system(self) -> tuple[Any, str]:
        try:
            system, root = fsspec.core.url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise ConfigurationError(
                f"the output {self.url} cannot be used: {error}",
                fix="give a folder, a URL that fsspec knows, or postgresql",
            ) from error
        return system, root

    @contextmanager
    def _told(self) -> Iterator[tuple[Any, str]]:
        """The file system and the path in it, with errors a person can act on."""
        system, root = self._system()
        # Each store's client has errors of its own; those of a local folder are the system's.
        local = "file" in _protocols(system)
        expected: type[Exception] = OSError if local else Exception
        try:
            yield system, root
        except expected as error:
            if local:
                reason = error.strerror if isinstance(error, OSError) else ""
                raise ConfigurationError(
                    f"the output folder {self.url} cannot be written: {reason or error}",
                    fix="make room there, or choose another folder",
                ) from error
            raise DependencyUnreachable(f"the output {self.url}: {error}") from error


def _protocols(system: Any) -> tuple[str, ...]:
    kinds = system.protocol
    return (kinds,) if isinstance(kinds, str) else tuple(kinds)
