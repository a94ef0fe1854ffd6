"""Fetches model versions from MLflow over HTTP alone.

The prediction server and batch scoring use this, so it imports neither mlflow nor a model library.
Needs an MLflow server that runs with `--serve-artifacts`.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from espalier.errors import BadData, ConfigurationError, ModelNotReady
from espalier.registry.manifest import CHAMPION, MANIFEST, ONNX, SKOPS, ModelManifest
from espalier.registry.rest import MlflowRest


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
        BadData: the manifest is no manifest, or the model file is not the one it names.
    """
    with MlflowRest(tracking_uri) as mlflow:
        version = _resolve(mlflow, project, alias_or_version)
        root = _artifact_root(mlflow, project, version)
        target, what = into / f"{project}-{version}", f"{project} version {version}"
        into.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=".fetching-", dir=into))
        try:
            # The manifest is always fetched: version numbers begin again in a new registry.
            _download(mlflow, root, MANIFEST, making, what)
            manifest = _read_manifest(making, what)
            if not _same(target, manifest):
                digest = _download(mlflow, root, manifest.file, making, what)
                if digest != manifest.digest:
                    raise BadData(
                        f"{manifest.file} of {what} has sha256 {digest}, its manifest says "
                        f"{manifest.digest}",
                        fix="it was changed after it was registered: roll back, or train again",
                    )
                _put_in_place(making, target)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return FetchedModel(project, version, target, manifest)


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


def _artifact_root(mlflow: MlflowRest, project: str, version: str) -> str:
    """The path of a version's folder in the server's artifact store."""
    asked = {"name": project, "version": version}
    found = mlflow.get("model-versions/get", asked)
    if found is None:
        raise ModelNotReady(f"MLflow has no version {version} of model {project}")
    status = found["model_version"].get("status", "READY")
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
    return uri.path.strip("/")


def _download(mlflow: MlflowRest, root: str, name: str, into: Path, what: str) -> str:
    """Store one artifact; give its sha256."""
    digest = hashlib.sha256()
    with mlflow.artifact(f"{root}/{name}") as response, (into / name).open("wb") as file:
        if response is None:
            raise ModelNotReady(
                f"{name} of {what} is not in MLflow's artifact store",
                fix="roll back, or train again",
            )
        for chunk in response.iter_bytes():
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


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
