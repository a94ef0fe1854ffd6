"""Each example, built and run as its README says, against a real server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from espalier.serving.testing import expected_score
from espalier.testing_tools import tool

EXAMPLES, PROTOS = Path("examples").absolute(), Path("protos").absolute()
SCORE = f"{expected_score('u0200', 0.01):.4f}"
LINES = f"u0200 1 score {SCORE} model churn version 1\nnobody unknown\n"


def run(command, *, folder=None, code=0, **env):
    """What a program printed; Go and npm keep what they got from their registries at home."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={"HOME": str(Path.home()), **os.environ, **env},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture
def copied(tmp_path):
    """The examples beside the contract, where they may write."""
    shutil.copytree(PROTOS, tmp_path / "protos")
    left_out = shutil.ignore_patterns("node_modules", "build", "generated")
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=left_out)
    return tmp_path / "examples"


def test_curl(guarded):
    tool("curl")
    command = [EXAMPLES / "curl/predict.sh", guarded.http_url, "user_id"]
    done = run([*command, "u0200"], ESPALIER_TOKEN=guarded.token)
    prediction, model = map(json.loads, done.stdout.splitlines())
    assert f"{prediction['score']:.4f}" == SCORE
    assert "churn" in str(model)
    told = run([*command, "nobody"], code=22, ESPALIER_TOKEN=guarded.token)
    assert "ENTITY_UNKNOWN" in told.stdout
    assert "UNAUTHENTICATED" in run([*command, "u0200"], code=22).stdout


def test_grpcurl(guarded):
    tool("grpcurl")
    command = [EXAMPLES / "grpcurl/predict.sh", guarded.running.grpc_address, "u0200", "nobody"]
    done = run(command, ESPALIER_TOKEN=guarded.token)
    described, brace, answer = done.stdout.partition("\n{")
    assert "rpc BatchPredict" in described
    found = json.loads(brace + answer)["predictions"]
    assert f"{found[0]['score']:.4f}" == SCORE
    assert found[1]["status"] == "ENTITY_STATUS_UNKNOWN_ENTITY"
    assert "Unauthenticated" in run(command, code=80).stderr


def test_go(guarded, copied):
    go = tool("go")
    run([go, "build", "-o", "predict", "."], folder=copied / "go")
    command = [copied / "go/predict", guarded.running.grpc_address, "u0200", "nobody"]
    assert run(command, ESPALIER_TOKEN=guarded.token).stdout == LINES
    assert run(command, code=1).stderr.startswith("UNAUTHENTICATED: ")


def test_the_generated_go_is_of_this_contract(copied):
    tool("go")
    made = copied / "go/predictionv1"
    kept = {path.name: path.read_text() for path in made.iterdir()}
    assert len(kept) == 2
    shutil.rmtree(made)
    run(
        [Path(sysconfig.get_path("scripts")) / "buf", "generate"],
        folder=copied / "go",
        BUF_CACHE_DIR=str(copied / "cache"),
    )
    assert {path.name: path.read_text() for path in made.iterdir()} == kept


def test_typescript(guarded, copied):
    node, npm = tool("node"), tool("npm")
    folder = copied / "typescript"
    run([npm, "ci", "--prefer-offline", "--no-audit", "--no-fund"], folder=folder)
    run([npm, "run", "--silent", "build"], folder=folder)
    command = [node, folder / "build/predict.js", guarded.running.grpc_address, "u0200", "nobody"]
    assert run(command, ESPALIER_TOKEN=guarded.token).stdout == LINES
    assert "UNAUTHENTICATED" in run(command, code=1).stderr
