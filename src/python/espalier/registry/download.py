"""Fetches model versions from MLflow over HTTP alone.

The prediction server and batch scoring use this, so it imports neither mlflow nor a model library.
Needs an MLflow server that runs with `--serve-artifacts`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from espalier.errors import BadData, ConfigurationError, ModelNotReady
from espalier.registry.manifest import (
    CHAMPION,
    FILES_TAG,
    MANIFEST,
    ONNX,
    SKOPS,
    ModelManifest,
)
from espalier.registry.rest import MlflowRest

_CHANGED = "it was changed after it was registered: roll back, or train again"


@dataclass(frozen=True)
class FetchedModel:
    """A model version on this machine: `folder` holds `manifest.json` and `manifest.file`."""

    name: str
    version: str
    folder: Path
    manifest: ModelManifest

    @property
    def path(self) -> Path:
        """The model file, whose sha256 was compared with the manifest's."""
        return self.folder / self.manifest.file


@dataclass(frozen=True)
class Champion:
    """The model that serves, and what it promised."""

    version: str
    manifest: ModelManifest


def champion(tracking_uri: str, project: str) -> Champion | None:
    """The champion, its files checked; None when nothing was promoted yet.

    Raises:
        DependencyUnreachable, ModelNotReady, BadData: as `fetch_version`.
    """
    if current_version(tracking_uri, project) is None:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        fetched = fetch_version(tracking_uri, project, CHAMPION, Path(scratch))
    return Champion(fetched.version, fetched.manifest)


def current_version(tracking_uri: str, project: str, alias: str = CHAMPION) -> str | None:
    """The version that `alias` of the project's registered model points to, or None.

    Raises:
        DependencyUnreachable: MLflow does not answer, or not as MLflow does.
    """
    with MlflowRest(tracking_uri) as mlflow:
        return mlflow.alias(project, alias)


def fetch_version(
    tracking_uri: str, project: str, alias_or_version: str, into: Path
) -> FetchedModel:
    """Download one version, named by its number or by an alias, into a folder of its own in `into`.

    A version that is there already, with the right digest, is not downloaded again. The folder
    appears whole or not at all, so several processes may share `into`.

    Raises:
        DependencyUnreachable: MLflow does not answer, or not as MLflow does.
        ModelNotReady: there is no such alias or version, or a file of it is missing.
        BadData: the manifest is no manifest, or a file is not the one that was registered.
    """
    with MlflowRest(tracking_uri) as mlflow:
        version = _resolve(mlflow, project, alias_or_version)
        stored = _stored(mlflow, project, version)
        target, what = into / f"{project}-{version}", stored.what
        into.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=".fetching-", dir=into))
        try:
            # The manifest is always fetched: version numbers begin again in a new registry.
            _download(mlflow, stored, MANIFEST, making)
            manifest = _read_manifest(making, what)
            if not _same(target, manifest):
                digest = _download(mlflow, stored, manifest.file, making)
                if digest != manifest.digest:
                    raise BadData(
                        f"{manifest.file} of {what} has sha256 {digest}, its manifest says "
                        f"{manifest.digest}",
                        fix=_CHANGED,
                    )
                _put_in_place(making, target)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return FetchedModel(project, version, target, manifest)


def fetch_document(tracking_uri: str, project: str, version: str, name: str) -> str:
    """The text of one of the documents beside a version's model, such as `provenance.json`.

    Raises:
        DependencyUnreachable: MLflow does not answer, or not as MLflow does.
        ModelNotReady: there is no such version, or it has no such document.
        BadData: the document is not the one that was registered, or is not text.
    """
    with MlflowRest(tracking_uri) as mlflow, tempfile.TemporaryDirectory() as scratch:
        stored = _stored(mlflow, project, version)
        _download(mlflow, stored, name, Path(scratch))
        try:
            return (Path(scratch) / name).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise BadData(f"{name} of {stored.what} is not text") from error


@dataclass(frozen=True)
class StoredFile:
    """A file of a version: its size now, and the sha256 it was registered with, if it was."""

    name: str
    size: int
    digest: str | None


def stored_files(tracking_uri: str, project: str, version: str) -> list[StoredFile]:
    """The files in a version's folder, by name.

    Raises:
        DependencyUnreachable, ModelNotReady: as for `fetch_document`.
    """
    with MlflowRest(tracking_uri) as mlflow:
        stored = _stored(mlflow, project, version)
        sizes = mlflow.artifacts(stored.root)
    return [StoredFile(name, sizes[name], stored.files.get(name)) for name in sorted(sizes)]


@dataclass(frozen=True)
class _Stored:
    """A version's folder in the server's artifact store, and what MLflow's database says of it.

    `files` gives the sha256 of each file that was registered; empty for a version of an older
    release.
    """

    what: str
    root: str
    files: Mapping[str, str]


def _resolve(mlflow: MlflowRest, project: str, alias_or_version: str) -> str:
    if alias_or_version.isdecimal():
        return alias_or_version
    version = mlflow.alias(project, alias_or_version)
    if version is None:
        raise ModelNotReady(
            f"MLflow has no {alias_or_version} of model {project}",
            fix="run the training flow until a model passes its gate",
        )
    return version


def _stored(mlflow: MlflowRest, project: str, version: str) -> _Stored:
    asked = {"name": project, "version": version}
    found = mlflow.version(project, version)
    if found is None:
        raise ModelNotReady(f"MLflow has no version {version} of model {project}")
    status = found.get("status", "READY")
    if status != "READY":
        raise ModelNotReady(f"version {version} of model {project} is {status} in MLflow")
    answer = mlflow.get("model-versions/get-download-uri", asked) or {}
    uri = urlsplit(str(answer.get("artifact_uri", "")))
    if uri.scheme != "mlflow-artifacts":
        raise ConfigurationError(
            f"MLflow keeps version {version} of model {project} under "
            f"{uri.scheme or 'no'}://, which it does not hand out itself",
            fix="run the MLflow server with --serve-artifacts and --artifacts-destination",
        )
    files = found["tags"].get(FILES_TAG, "{}")
    try:
        digests = {str(name): str(digest) for name, digest in json.loads(files).items()}
    except (ValueError, AttributeError) as error:
        raise BadData(f"tag {FILES_TAG} of {project} version {version} is not JSON") from error
    return _Stored(f"{project} version {version}", uri.path.strip("/"), digests)


def _download(mlflow: MlflowRest, stored: _Stored, name: str, into: Path) -> str:
    """Store one artifact; give its sha256.

    Raises:
        BadData: it is another one than MLflow's database says.
    """
    digest, what = hashlib.sha256(), stored.what
    with mlflow.artifact(f"{stored.root}/{name}") as response, (into / name).open("wb") as file:
        if response is None:
            raise ModelNotReady(
                f"{name} of {what} is not in MLflow's artifact store",
                fix="roll back, or train again",
            )
        for chunk in response.iter_bytes():
            digest.update(chunk)
            file.write(chunk)
    found, registered = digest.hexdigest(), stored.files.get(name)
    if registered not in (None, found):
        raise BadData(
            f"{name} of {what} has sha256 {found}, but was registered with {registered}",
            fix=_CHANGED,
        )
    return found


def _read_manifest(folder: Path, what: str) -> ModelManifest:
    try:
        manifest = ModelManifest.from_json((folder / MANIFEST).read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise BadData(f"{MANIFEST} of {what} is not text") from error
    if manifest.file not in (ONNX, SKOPS):
        raise BadData(f"{MANIFEST} of {what} names the model file {manifest.file!r}")
    return manifest


def _same(folder: Path, manifest: ModelManifest) -> bool:
    """Whether the folder holds just this manifest and its model file, undamaged."""
    try:
        present = _read_manifest(folder, str(folder))
        content = (folder / manifest.file).read_bytes()
    except (OSError, BadData):
        return False
    return present == manifest and hashlib.sha256(content).hexdigest() == manifest.digest


def _put_in_place(making: Path, target: Path) -> None:
    try:
        making.rename(target)
    except OSError:
        # A folder is there: just put by another process, or damaged. Ours is checked, so it wins.
        shutil.rmtree(target, ignore_errors=True)
        making.rename(target)
