from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from protos import buf, renew_image

CONTRACT = Path(__file__).resolve().parent
PROTO = "espalier/prediction/v1/prediction.proto"
BREAKING = ("breaking", "--against", renew_image.IMAGE)


def violations(folder, *arguments):
    """What buf reports, as (rule, message), having told the same by its exit code."""
    done = buf.run(folder, *arguments, "--error-format", "json")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == (100 if found else 0), done.stderr
    return [(each["type"], each["message"]) for each in found]


def built(folder, tmp_path):
    done = buf.run(folder, *buf.BUILD, str(tmp_path / "built.binpb"))
    assert done.returncode == 0, done.stdout + done.stderr
    return (tmp_path / "built.binpb").read_bytes()


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(CONTRACT, tmp_path / "protos")


@pytest.fixture
def change(copy):
    def change(old, new):
        text = (copy / PROTO).read_text()
        assert text.count(old) == 1, f"{old!r} is not in {PROTO} once"
        (copy / PROTO).write_text(text.replace(old, new))
        return copy

    return change


def test_the_contract_keeps_to_the_style():
    assert violations(CONTRACT, "lint") == []


def test_the_contract_is_compatible_with_its_image():
    assert violations(CONTRACT, *BREAKING) == []


def test_the_image_is_current(tmp_path):
    assert built(CONTRACT, tmp_path) == (CONTRACT / renew_image.IMAGE).read_bytes(), (
        "the contract has changed: ./pants run build-support/protos/renew_image.py"
    )


@pytest.mark.parametrize(
    ("old", "new", "rule", "names"),
    [
        ("double score = 3", "double probability = 3", "FIELD_SAME_NAME", ["score", "probability"]),
        ("double score = 3", "double score = 70", "FIELD_NO_DELETE", ["score", "PredictResponse"]),
        ("double score = 3", "float score = 3", "FIELD_SAME_TYPE", ["score", "double", "float"]),
        (
            "repeated string entity_ids = 2",
            "string entity_ids = 2",
            "FIELD_SAME_CARDINALITY",
            ["entity_ids", "BatchPredictRequest"],
        ),
        (
            "  rpc GetModel(GetModelRequest) returns (GetModelResponse);\n",
            "",
            "RPC_NO_DELETE",
            ["GetModel", "PredictionService"],
        ),
        (
            "(stream StreamPredictRequest)",
            "(StreamPredictRequest)",
            "RPC_SAME_CLIENT_STREAMING",
            ["StreamPredict"],
        ),
        (
            "returns (GetModelResponse)",
            "returns (ModelVersion)",
            "RPC_SAME_RESPONSE_TYPE",
            ["GetModel", "espalier.prediction.v1.ModelVersion"],
        ),
        (
            "ENTITY_STATUS_OK = 1",
            "ENTITY_STATUS_FRESH = 1",
            "ENUM_VALUE_SAME_NAME",
            ["ENTITY_STATUS_OK", "ENTITY_STATUS_FRESH"],
        ),
        (
            "package espalier.prediction.v1",
            "package espalier.prediction.v2",
            "FILE_SAME_PACKAGE",
            ["espalier.prediction.v1", "espalier.prediction.v2"],
        ),
    ],
    ids=[
        *("field renamed", "field renumbered", "type changed", "no longer repeated"),
        *("rpc deleted", "no longer a stream", "other response", "enum value renamed"),
        "package renamed",
    ],
)
def test_an_incompatible_change_is_refused_and_named(change, old, new, rule, names):
    found = violations(change(old, new), *BREAKING)
    assert any(kind == rule and all(f'"{name}"' in told for name in names) for kind, told in found)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("double score = 3;", "double score = 3;\n  // Added.\n  string added = 70;"),
        (
            "ENTITY_STATUS_OK = 1;",
            "ENTITY_STATUS_OK = 1;\n  // Added.\n  ENTITY_STATUS_ADDED = 40;",
        ),
        (
            "// One entity to predict for.",
            "// Added.\nmessage Added {}\n\n// One entity to predict for.",
        ),
    ],
    ids=["field", "enum value", "message"],
)
def test_a_compatible_addition_passes_and_wants_a_new_image(change, tmp_path, old, new):
    folder = change(old, new)
    assert violations(folder, "lint") == []
    assert violations(folder, *BREAKING) == []
    assert built(folder, tmp_path) != (folder / renew_image.IMAGE).read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "rule", "name"),
    [
        ("double score = 3", "double theScore = 3", "FIELD_LOWER_SNAKE_CASE", "theScore"),
        (
            "returns (GetModelResponse)",
            "returns (Feature)",
            "RPC_RESPONSE_STANDARD_NAME",
            "Feature",
        ),
        ("service PredictionService", "service Prediction", "SERVICE_SUFFIX", "Prediction"),
        ("  // The model that answered.\n", "", "COMMENT_FIELD", "model"),
    ],
)
def test_a_lint_violation_is_named(change, old, new, rule, name):
    found = violations(change(old, new), "lint")
    assert [kind for kind, told in found if f'"{name}"' in told] == [rule]
