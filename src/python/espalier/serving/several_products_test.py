"""One server of several products, as real processes: churn, one of several classes, and a number."""

from __future__ import annotations

import json
from functools import partial

import grpc
import numpy as np
import psycopg
import pytest

from espalier.prediction.v1 import prediction_pb2 as pb
from espalier.serving.testing import ENTITIES, expected_score, running_registry
from espalier.serving.testing_load import unaccounted, under_load
from espalier.serving.testing_products import CLASSES, FEATURES, features_of, price, probabilities
from espalier.serving.testing_server import (
    NOT_SERVING,
    SERVICE,
    SERVING,
    error_info,
    serving,
)
from inference import open_inference_pb2 as oip
from inference import open_inference_pb2_grpc as oip_grpc

NAMES = "churn or wine or houses"
BOTTLES = ["5", "13", "21"]


@pytest.fixture
def running(several):
    return several[0]


def near(values):
    return pytest.approx(values, abs=1e-5)


def in_force(running, version):
    return running.metric(f'espalier_model_info{{name="wine",version="{version}"}}') == 1


def check_wine(answer, key, slope=1.0):
    wanted = probabilities(key, slope)
    assert list(answer.probabilities) == near(wanted)
    assert answer.score == near(max(wanted))
    assert answer.prediction == int(np.argmax(wanted))
    assert answer.label == CLASSES[int(answer.prediction)]


def refused(call, *arguments):
    """The code, the reason and the text of a call that must be refused."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, timeout=10)
    error = caught.value
    return error.code().name, error_info(error).reason, error.details()


def test_each_request_is_answered_by_the_model_that_it_names(running):
    stub = running.stub
    churn = stub.Predict(pb.PredictRequest(model="churn", entity_id="u0200"), timeout=10)
    assert (churn.model.name, churn.score) == ("churn", near(expected_score("u0200", 0.01)))
    assert (churn.label, list(churn.probabilities)) == ("", [])
    for key in BOTTLES:
        wine = stub.Predict(pb.PredictRequest(model="wine", entity_id=key), timeout=10)
        assert (wine.entity_id, wine.model.name) == (key, "wine")
        check_wine(wine, key)
    house = stub.Predict(pb.PredictRequest(model="houses", entity_id="h13"), timeout=10)
    assert house.prediction == house.score == pytest.approx(price("h13"))
    assert house.label == ""


def test_a_batch_is_of_one_model_and_a_stream_of_whatever_each_message_names(running):
    asked = pb.BatchPredictRequest(model="wine", entity_ids=[*BOTTLES, "1000", *BOTTLES])
    found = running.stub.BatchPredict(asked, timeout=10).predictions
    assert found[3].status == pb.ENTITY_STATUS_UNKNOWN_ENTITY
    for answer, key in zip([*found[:3], *found[4:]], BOTTLES * 2, strict=True):
        check_wine(answer, key)
    mixed = [("churn", "u0007"), ("wine", "7"), ("houses", "h7")] * 50
    requests = [pb.StreamPredictRequest(model=model, entity_id=key) for model, key in mixed]
    answers = [a.prediction for a in running.stub.StreamPredict(iter(requests), timeout=20)]
    assert [(a.model.name, a.entity_id) for a in answers] == mixed
    check_wine(answers[1], "7")


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (
            "",
            ("INVALID_ARGUMENT", "INVALID_REQUEST", f"3 models are served here; name one: {NAMES}"),
        ),
        ("fraud", ("NOT_FOUND", "MODEL_UNKNOWN", f"no model 'fraud' here; ask for {NAMES}")),
    ],
)
def test_no_name_and_a_name_of_none_are_refused_with_the_names(running, model, told):
    stub, inference = running.stub, oip_grpc.GRPCInferenceServiceStub(running.channel)
    infer = oip.ModelInferRequest(model_name=model)

    def stream(request, timeout):
        return list(stub.StreamPredict(iter([request]), timeout=timeout))

    assert refused(stub.Predict, pb.PredictRequest(model=model, entity_id="u0001")) == told
    assert refused(stub.BatchPredict, pb.BatchPredictRequest(model=model)) == told
    assert refused(stream, pb.StreamPredictRequest(model=model, entity_id="u0001")) == told
    assert refused(stub.GetModel, pb.GetModelRequest(model=model)) == told
    assert refused(inference.ModelInfer, infer) == told
    code = {"INVALID_ARGUMENT": 400, "NOT_FOUND": 404}[told[0]]
    for path in ("/predict", "/explain"):
        answer = running.http.post(path, json={"user_id": "u0001", "model": model})
        assert (answer.status_code, answer.json()) == (
            code,
            {"reason": told[1], "message": told[2]},
        )


def test_keys_are_of_each_products_own_type(running):
    stub = running.stub
    told = refused(stub.Predict, pb.PredictRequest(model="wine", entity_id="u0001"))
    assert told[:2] == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert "send an integer" in told[2]
    told = refused(stub.Predict, pb.PredictRequest(model="churn", entity_id="5"))
    assert told[:2] == ("NOT_FOUND", "ENTITY_UNKNOWN")


@pytest.mark.parametrize("below", ["", "/models/wine"])
@pytest.mark.parametrize("key", ["bottle", "entity_id"])
@pytest.mark.parametrize("given", [13, "13"])
def test_http_takes_the_model_beside_the_key_or_in_the_path(running, below, key, given):
    body = {key: given} | ({} if below else {"model": "wine"})
    answer = running.http.post(f"{below}/predict", json=body).json()
    assert answer.pop("probabilities") == near(probabilities("13"))
    assert answer.pop("score") == near(max(probabilities("13")))
    assert answer == {
        "bottle": "13",
        "prediction": 0.0,
        "label": "barolo",
        "status": "OK",
        "source": "MODEL",
        "model": {"name": "wine", "version": "1"},
        "feature_time": "1998-06-30T00:00:00Z",
    }
    answer = running.http.post(f"{below}/explain", json=body).json()
    assert answer["features"] == dict(zip(FEATURES, features_of("13"), strict=True))
    assert answer["label"] == "barolo"


def test_http_tells_no_label_where_there_are_no_classes(running):
    answer = running.http.post("/models/houses/predict", json={"house_id": "h13"}).json()
    assert answer["prediction"] == answer["score"] == pytest.approx(price("h13"))
    assert {"label", "probabilities"}.isdisjoint(answer)
    answer = running.http.post("/predict", json={"user_id": "u0001", "model": "churn"}).json()
    assert {"label", "probabilities"}.isdisjoint(answer)


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("/predict", {"model": "wine", "user_id": "u0001"}, 422, "wine.bottle: Field required"),
        ("/predict", {"model": "churn", "bottle": 5}, 422, "churn.user_id: Field required"),
        ("/predict", {"model": "churn", "user_id": 5}, 422, "churn.user_id: "),
        ("/predict", {"model": 7, "user_id": "u0001"}, 404, f"no model '7' here; ask for {NAMES}"),
        ("/predict", {"user_id": "u0001"}, 400, NAMES),
        ("/predict", [], 422, ""),
        ("/models/wine/predict", {"bottle": 5, "model": "churn"}, 422, "'wine'"),
        (
            "/models/fraud/predict",
            {"user_id": "u0001"},
            404,
            f"no model 'fraud' here; ask for {NAMES}",
        ),
        ("/models/wine/guess", {}, 404, "/models/wine/guess"),
        ("/models/wine/predict", {"bottle": 1000}, 404, "no features for entity '1000'"),
    ],
)
def test_http_refuses_what_does_not_fit_and_says_what(running, path, body, status, told):
    answer = running.http.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"reason", "message"}
    assert told in answer.json()["message"]


def test_what_is_served_is_listed_and_described(running):
    listed = running.http.get("/models").json()["models"]
    assert [(one["name"], one["task"], one["join_key"]) for one in listed] == [
        ("churn", "binary", "user_id"),
        ("wine", "multiclass", "bottle"),
        ("houses", "regression", "house_id"),
    ]
    assert all(one["ready"] for one in listed)
    wine = running.http.get("/models/wine").json()
    assert (wine["name"], wine["classes"], wine["metrics"]) == (
        "wine",
        list(CLASSES),
        {"accuracy": 0.75},
    )
    assert "threshold" not in wine
    assert running.http.get("/models/churn").json()["threshold"] == 0.5
    assert running.http.get("/models/fraud").json()["reason"] == "MODEL_UNKNOWN"
    assert running.http.get("/model").json()["reason"] == "INVALID_REQUEST"
    told = running.stub.GetModel(pb.GetModelRequest(model="wine"), timeout=10)
    assert (told.model.name, told.task, tuple(told.classes)) == ("wine", "multiclass", CLASSES)
    # Each product's key stands in the interface's description.
    schema = running.http.get("/openapi.json").json()
    one_of = schema["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert set(one_of["schema"]["discriminator"]["mapping"]) == {"churn", "wine", "houses"}
    assert "bottle" in json.dumps(schema["components"]["schemas"]["PredictWineRequest"])


def test_rows_are_scored_by_the_model_that_the_protocol_names(running):
    stub = oip_grpc.GRPCInferenceServiceStub(running.channel)
    rows = np.array([features_of(key) for key in BOTTLES])
    tensor = {"name": "features", "datatype": "FP64", "shape": rows.shape}

    def infer(model, *, is_raw):
        tensors = [tensor if is_raw else tensor | {"contents": {"fp64_contents": rows.ravel()}}]
        request = oip.ModelInferRequest(
            model_name=model, inputs=tensors, raw_input_contents=[rows.tobytes()] if is_raw else []
        )
        answer = stub.ModelInfer(request, timeout=10)
        flat = [np.frombuffer(raw) for raw in answer.raw_output_contents] or [
            np.array(output.contents.fp64_contents) for output in answer.outputs
        ]
        return [
            values.reshape(output.shape)
            for values, output in zip(flat, answer.outputs, strict=True)
        ]

    for is_raw in (True, False):
        score, prediction = infer("wine", is_raw=is_raw)
        assert score.shape == (3, 3)
        np.testing.assert_allclose(score, [probabilities(key) for key in BOTTLES], atol=1e-5)
        assert prediction.tolist() == score.argmax(axis=1).tolist()
        score, prediction = infer("houses", is_raw=is_raw)
        assert score.tolist() == prediction.tolist() == [price(key) for key in BOTTLES]
    metadata = stub.ModelMetadata(oip.ModelMetadataRequest(name="wine"), timeout=10)
    assert [list(output.shape) for output in metadata.outputs] == [[-1, 3], [-1]]
    for name, is_ready in (("wine", True), ("churn", True), ("fraud", False), ("", False)):
        assert stub.ModelReady(oip.ModelReadyRequest(name=name), timeout=10).ready is is_ready


def test_health_metrics_and_log_tell_the_models_apart(running, products_database):
    for service in ("", SERVICE, *(f"{SERVICE}/{name}" for name in ("churn", "wine", "houses"))):
        assert running.health(service) == SERVING
    with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
        running.health(f"{SERVICE}/fraud")
    name = 'espalier_predictions_total{{model="{}",source="MODEL",status="OK"}}'
    before = {model: running.metric(name.format(model)) or 0 for model in ("churn", "wine")}
    for key in BOTTLES:
        running.stub.Predict(pb.PredictRequest(model="wine", entity_id=key), timeout=10)
    assert running.metric(name.format("wine")) == before["wine"] + 3
    assert (running.metric(name.format("churn")) or 0) == before["churn"]
    assert running.metric('espalier_model_info{name="wine",version="1"}') == 1
    assert running.metric('espalier_model_ready{model="houses"}') == 1
    assert running.metric("espalier_ready") == 1
    running.until(lambda: unaccounted(running) == 0)
    with psycopg.connect(products_database.dsn) as connection:
        logged = connection.execute(
            "SELECT DISTINCT project FROM espalier.predictions WHERE entity_id = ANY(%s)", [BOTTLES]
        ).fetchall()
    assert logged == [("wine",)]


def test_a_swap_of_one_disturbs_no_traffic_of_another(several, products):
    running, registry = several
    with under_load(running, model="churn") as load:
        load.until_served(200)
        for version, folder, slope in (("2", "two", -1), ("1", "one", 1), ("2", "two", -1)):
            registry.of("wine").publish(version, products / folder)
            load.until(partial(in_force, running, version))
            wine = running.stub.Predict(pb.PredictRequest(model="wine", entity_id="13"), timeout=10)
            assert wine.model.version == version
            check_wine(wine, "13", slope)
        load.until_served(200)
    registry.of("wine").publish("1", products / "one")
    load.tell("another product's model is swapped three times")
    assert (load.counts().lost, load.counts().refused) == ((), {})
    running.until(lambda: running.metric('espalier_model_info{name="wine",version="1"}') == 1)


def test_a_product_whose_table_is_locked_holds_up_no_other(running, products_database):
    with under_load(running, model="churn") as load:
        load.until_served(200)
        before = load.counts()
        with products_database.locked("online.wine_facts_daily"):
            calls = [
                running.stub.Predict.future(
                    pb.PredictRequest(model="wine", entity_id=str(number)), timeout=30
                )
                for number in range(100)
            ]
            load.until(lambda: running.health(f"{SERVICE}/wine") == NOT_SERVING)
            assert running.health(f"{SERVICE}/churn") == SERVING
            assert running.health() == NOT_SERVING
            codes = {call.exception().code() for call in calls}
            assert codes == {grpc.StatusCode.UNAVAILABLE}
            load.until_served(200)
        load.until(running.is_ready)
    load.tell("another product's table is locked")
    assert (load.since(before).lost, load.since(before).refused) == ((), {})
    # Churn never waited for a read of wine's, which is given up after 2 s.
    assert load.counts().slowest < 2


def test_one_without_a_champion_does_not_stop_the_others(
    products_database, models, products, tmp_path
):
    with running_registry() as registry:
        registry.publish("1", models / "one")
        wine = registry.of("wine")
        with serving(
            products_database.dsn,
            registry.uri,
            tmp_path,
            "--project",
            "wine",
            packages=products / "packages",
        ) as running:
            running.until(lambda: running.ready_text() and running.health(f"{SERVICE}/churn") == 1)
            running.until(lambda: "wine has no champion" in running.ready_text())
            answer = running.http.get("/ready")
            assert answer.status_code == 503
            (missing,) = answer.json()["missing"]
            assert missing.startswith("wine: model wine has no champion in the registry")
            told = refused(running.stub.Predict, pb.PredictRequest(model="wine", entity_id="1"))
            assert told[:2] == ("UNAVAILABLE", "MODEL_NOT_READY")
            churn = pb.PredictRequest(model="churn", entity_id="u0200")
            assert running.stub.Predict(churn, timeout=10).score > 0
            body = {"model": "churn", "user_id": ENTITIES[1]}
            assert running.http.post("/predict", json=body).status_code == 200
            assert running.health(f"{SERVICE}/wine") == NOT_SERVING
            assert running.health() == NOT_SERVING
            for name, code in (("churn", 200), ("wine", 503), ("fraud", 404)):
                assert running.http.get(f"/models/{name}/ready").status_code == code
            listed = running.http.get("/models").json()["models"]
            assert [(one["ready"], one["version"]) for one in listed] == [
                (True, "1"),
                (False, None),
            ]
            assert running.metric('espalier_model_ready{model="churn"}') == 1
            assert running.metric('espalier_model_ready{model="wine"}') == 0
            assert running.metric("espalier_ready") == 0
            wine.publish("1", products / "one")
            running.until(running.is_ready)
            assert running.line().startswith("espalier-server: ready, gRPC on")
            request = pb.PredictRequest(model="wine", entity_id="1")
            check_wine(running.stub.Predict(request, timeout=10), "1")


def test_workers_serve_all_of_them(products_database, models, products, tmp_path):
    with running_registry() as registry:
        registry.publish("1", models / "one")
        registry.of("wine").publish("1", products / "one")
        arguments = ("--project", "wine", "--workers", "2")
        with serving(
            products_database.dsn,
            registry.uri,
            tmp_path,
            *arguments,
            packages=products / "packages",
        ) as running:
            assert running.line().startswith("espalier-server: ready")
            options = [("grpc.use_local_subchannel_pool", 1)]
            for number in range(20):
                with grpc.insecure_channel(running.grpc_address, options=options) as channel:
                    stub = type(running.stub)(channel)
                    key = str(number)
                    wine = stub.Predict(pb.PredictRequest(model="wine", entity_id=key), timeout=10)
                    check_wine(wine, key)
                    churn = pb.PredictRequest(model="churn", entity_id=ENTITIES[number])
                    assert stub.Predict(churn, timeout=10).model.name == "churn"
            counts = [f'espalier_batch_entities_count{{model="{m}"}}' for m in ("churn", "wine")]
            running.until(lambda: [running.metric(name) for name in counts] == [20, 20])
