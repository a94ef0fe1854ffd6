"""The Dockerfile, compose.yaml and the Kubernetes manifests, by the tools that read them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from espalier.testing_tools import tool

DOCKER = Path("deploy/docker").absolute()
K8S = Path("deploy/k8s").absolute()
# The parts of deploy/process-compose.yaml that a host runs by itself.
PARTS = {
    *("postgres", "migrate", "mlflow", "prefect", "deploy", "worker", "fill", "server"),
    *("exporter", "prometheus", "alertmanager", "grafana"),
}


def run(*command: object) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    """compose.yaml as Docker Compose reads it."""
    # CI does without it and kustomize: Go builds them for ten minutes.
    asked = [
        tool("docker-compose", required=False),
        "-f",
        DOCKER / "compose.yaml",
        "--profile",
        "fill",
    ]
    found: dict[str, Any] = json.loads(run(*asked, "config", "--format", "json"))
    return found


@pytest.fixture(scope="module")
def manifests(tmp_path_factory) -> tuple[Path, list[str]]:
    """The example's manifests, in one file and each."""
    builds = [tool("kustomize", "kubectl", required=False)]
    builds.append(Path("build" if builds[0].name == "kustomize" else "kustomize"))
    text = run(*builds, K8S / "overlays" / "example")
    path: Path = tmp_path_factory.mktemp("k8s") / "all.yaml"
    path.write_text(text)
    return path, text.split("\n---\n")


def test_hadolint_has_nothing_to_say():
    assert run(tool("hadolint"), "--no-color", DOCKER / "Dockerfile") == ""


def test_compose_has_the_parts_of_process_compose(composed):
    assert set(composed["services"]) == PARTS | {"folders"}


def test_compose_opens_ports_on_loopback_alone_and_bounds_every_part(composed):
    for name, service in composed["services"].items():
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", name
        if name not in ("postgres", "folders"):
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
        # A password in a variable would be seen by `docker inspect`.
        given = service.get("environment") or {}
        assert not {"POSTGRES_PASSWORD", "GF_SECURITY_ADMIN_PASSWORD"} & set(given), name


def test_the_manifests_are_valid(manifests):
    path, _ = manifests
    said = run(tool("kubernetes-validate"), "--strict", "--no-warn", path)
    for kind in ("deployment", "job", "horizontalpodautoscaler", "poddisruptionbudget"):
        assert f"passed for resource {kind}/espalier-" in said


def test_every_pod_is_restricted(manifests):
    _, documents = manifests
    pods = [text for text in documents if "\nkind: Deployment" in text or "\nkind: Job" in text]
    assert len(pods) == 4
    for text in pods:
        for line in (
            "runAsNonRoot: true",
            "type: RuntimeDefault",
            "readOnlyRootFilesystem: true",
            "allowPrivilegeEscalation: false",
            "- ALL",
            "automountServiceAccountToken: false",
            "enableServiceLinks: false",
            "secretName: espalier-postgres",
        ):
            assert line in text, text


def test_a_wrong_manifest_is_refused(manifests, tmp_path):
    path, _ = manifests
    wrong = tmp_path / "wrong.yaml"
    shutil.copy(path, wrong)
    wrong.write_text(wrong.read_text().replace("minReplicas: 2", "minReplicas: two"))
    done = subprocess.run(
        [tool("kubernetes-validate"), "--strict", wrong],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode != 0
