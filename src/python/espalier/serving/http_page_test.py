"""The page at `/` of a real server, over HTTP; `page_browser_test` looks at it in a browser."""

from __future__ import annotations

import re

import pytest

from espalier.serving.testing import FEATURES, NULLED, expected_score, features_of


def test_the_page_needs_nothing_from_elsewhere_and_lets_nothing_in(server):
    answer = server.http.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    # An empty icon keeps browsers from asking for one.
    page = answer.text.replace('href="data:,"', "")
    assert not re.search(r"https?://|src=|href=|@import|url\(| on\w+=|innerHTML| style=", page)


def test_the_model_is_described(server):
    told = server.http.get("/model").json()
    assert (told["name"], told["version"], told["join_key"]) == ("churn", "1", "user_id")
    assert [feature["name"] for feature in told["features"]] == list(FEATURES)
    assert told["metrics"] == {"roc_auc": 0.75}
    assert told["provenance"] == {"slope": "0.01"}


def test_a_prediction_comes_with_the_features_it_was_made_of(server):
    told = server.http.post("/explain", json={"entity_id": "u0200"}).json()
    assert told["score"] == pytest.approx(expected_score("u0200", 0.01), abs=1e-6)
    assert told["features"] == dict(zip(FEATURES, features_of("u0200"), strict=True))
    assert told["user_id"] == "u0200"
    assert told["source"] == "MODEL"


@pytest.mark.parametrize(
    ("entity", "status", "reason"),
    [
        ("nobody", 404, "ENTITY_UNKNOWN"),
        ("", 400, "INVALID_REQUEST"),
        (NULLED, 500, "SCORE_INVALID"),
    ],
)
def test_what_cannot_be_explained_is_told_as_by_predict(server, entity, status, reason):
    answer = server.http.post("/explain", json={"entity_id": entity})
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)


def test_answers_carry_the_request_id(server):
    answer = server.http.post(
        "/predict", json={"user_id": "u0001"}, headers={"x-request-id": "order-17"}
    )
    assert answer.headers["x-request-id"] == "order-17"
    assert server.http.post("/predict", json={"user_id": "u0001"}).headers["x-request-id"]
