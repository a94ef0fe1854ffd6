"""Calls of a real server over HTTP."""

from __future__ import annotations

import json

import pytest

from espalier.serving.testing import expected_score


def test_http_predict_answers_by_either_name(server):
    for name in ("user_id", "entity_id"):
        answer = server.http.post("/predict", json={name: "u0200"})
        assert answer.status_code == 200
        body = answer.json()
        assert body.pop("score") == pytest.approx(expected_score("u0200", 0.01), abs=1e-6)
        assert body == {
            "user_id": "u0200",
            "prediction": 1.0,
            "status": "OK",
            "source": "MODEL",
            "model": {"name": "churn", "version": "1"},
            "feature_time": "1998-06-30T00:00:00Z",
        }


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        ('{"user_id": "nobody"}', 404, "ENTITY_UNKNOWN"),
        ('{"user_id": "u0001", "model": "fraud"}', 404, "MODEL_UNKNOWN"),
        ('{"user_id": ""}', 400, "INVALID_REQUEST"),
        ('{"user_id": "\\ud800"}', 400, "INVALID_REQUEST"),
        ('{"user_id": "a\\u0000b"}', 400, "INVALID_REQUEST"),
        ('{"user_id": 7}', 422, "INVALID_REQUEST"),
        ('{"user": "u0001"}', 422, "INVALID_REQUEST"),
        ("{}", 422, "INVALID_REQUEST"),
        ("{", 422, "INVALID_REQUEST"),
        ("", 422, "INVALID_REQUEST"),
        ("[]", 422, "INVALID_REQUEST"),
        ('{"user_id": "' + "x" * 20_000 + '"}', 413, "INVALID_REQUEST"),
    ],
)
def test_http_errors_are_json_of_one_line(server, content, status, reason):
    answer = server.http.post(
        "/predict", content=content, headers={"content-type": "application/json"}
    )
    assert answer.status_code == status, answer.text
    assert answer.json()["reason"] == reason
    assert answer.json()["message"]
    assert "\n" not in answer.json()["message"]
    assert set(answer.json()) == {"reason", "message"}


def test_http_tells_of_wrong_paths_and_methods(server):
    assert server.http.get("/guess").json()["reason"] == "NO_SUCH_PATH"
    answer = server.http.get("/predict")
    assert (answer.status_code, answer.json()["reason"]) == (405, "METHOD_NOT_ALLOWED")


def test_http_probes_docs_and_metrics(server):
    assert server.http.get("/health").json() == {"status": "alive"}
    assert server.http.get("/ready").json() == {"ready": True, "missing": []}
    schema = server.http.get("/openapi.json").json()
    assert "user_id" in json.dumps(schema["components"]["schemas"]["PredictRequest"])
    assert server.http.get("/docs").status_code == 200
    server.http.post("/predict", json={"user_id": "nobody"})
    assert server.metric('espalier_model_info{name="churn",version="1"}') == 1
    assert server.metric("espalier_ready") == 1
    not_found = 'espalier_requests_total{code="404",method="predict",transport="http"}'
    assert server.metric(not_found) >= 1
    assert server.metric('espalier_batch_entities_count{model="churn"}') > 0


def test_the_one_product_is_also_found_by_its_name(server):
    asked = {"user_id": "u0200"}
    for what in ("predict", "explain"):
        by_name = server.http.post(f"/models/churn/{what}", json=asked).json()
        assert by_name == server.http.post(f"/{what}", json=asked).json()
        assert by_name == server.http.post(f"/{what}", json=asked | {"model": "churn"}).json()
        for path, model in ((f"/models/fraud/{what}", ""), (f"/{what}", "fraud")):
            answer = server.http.post(path, json=asked | {"model": model})
            assert answer.status_code == 404
            assert answer.json() == {
                "reason": "MODEL_UNKNOWN",
                "message": "no model 'fraud' here; ask for 'churn' or leave it empty",
            }
    assert server.http.get("/models/churn").json() == server.http.get("/model").json()
    (listed,) = server.http.get("/models").json()["models"]
    assert (listed["name"], listed["version"], listed["ready"]) == ("churn", "1", True)
    assert server.http.get("/models/churn/ready").json() == {"ready": True, "missing": []}
    counted = 'espalier_requests_total{code="200",method="predict",transport="http"}'
    before = server.metric(counted)
    server.http.post("/models/churn/predict", json=asked)
    assert server.metric(counted) == before + 1
