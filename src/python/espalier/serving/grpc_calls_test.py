"""Calls of a real server over gRPC."""

from __future__ import annotations

import threading

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2

from espalier.prediction.v1 import prediction_pb2 as pb
from espalier.serving.testing import ENTITIES, FEATURES, NULLED, STALE, TYPES, expected_score
from espalier.serving.testing_server import SERVICE, SERVING, error_info


def test_predict_gives_score_version_and_feature_time(server):
    answer = server.stub.Predict(pb.PredictRequest(entity_id="u0200"), timeout=5)
    assert answer.entity_id == "u0200"
    assert answer.score == pytest.approx(expected_score("u0200", 0.01), abs=1e-6)
    assert answer.prediction == 1
    assert answer.status == pb.ENTITY_STATUS_OK
    assert (answer.model.name, answer.model.version) == ("churn", "1")
    assert answer.feature_time.ToJsonString() == "1998-06-30T00:00:00Z"


def test_predict_of_an_unknown_entity_is_not_found_with_its_reason(server):
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.Predict(pb.PredictRequest(entity_id="nobody ž"), timeout=5)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    info = error_info(caught.value)
    assert info.reason == "ENTITY_UNKNOWN"
    assert info.metadata["entity_id"] == "nobody ž"
    assert set(info.metadata) == {"entity_id", "request_id"}


@pytest.mark.parametrize(
    ("request_", "code", "reason"),
    [
        (pb.PredictRequest(), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
        (pb.PredictRequest(entity_id="a\0"), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
        (
            pb.PredictRequest(entity_id="u0001", model="fraud"),
            grpc.StatusCode.NOT_FOUND,
            "MODEL_UNKNOWN",
        ),
        (pb.PredictRequest(entity_id=NULLED), grpc.StatusCode.INTERNAL, "SCORE_INVALID"),
    ],
)
def test_errors_carry_code_and_reason(server, request_, code, reason):
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.Predict(request_, timeout=5)
    assert caught.value.code() is code
    assert error_info(caught.value).reason == reason
    assert "\n" not in str(caught.value.details())


def test_batch_predict_keeps_order_with_unknown_and_repeated(server):
    asked = ["u0003", "nobody", "u0001", STALE, "u0003"]
    answer = server.stub.BatchPredict(pb.BatchPredictRequest(entity_ids=asked), timeout=5)
    assert [p.entity_id for p in answer.predictions] == asked
    assert [p.status for p in answer.predictions] == [
        pb.ENTITY_STATUS_OK,
        pb.ENTITY_STATUS_UNKNOWN_ENTITY,
        pb.ENTITY_STATUS_OK,
        pb.ENTITY_STATUS_STALE_FEATURES,
        pb.ENTITY_STATUS_OK,
    ]
    assert not answer.predictions[1].HasField("feature_time")


def test_batch_predict_of_thousands_and_of_none(server):
    asked = [ENTITIES[n % 300] for n in range(5000)]
    answer = server.stub.BatchPredict(pb.BatchPredictRequest(entity_ids=asked), timeout=10)
    assert [p.entity_id for p in answer.predictions] == asked
    empty = server.stub.BatchPredict(pb.BatchPredictRequest(), timeout=5)
    assert list(empty.predictions) == []


def test_stream_predict_answers_in_the_order_sent(server):
    asked = [ENTITIES[n % 300] if n % 7 else "nobody" for n in range(1000)]
    requests = (pb.StreamPredictRequest(entity_id=key) for key in asked)
    answers = [a.prediction for a in server.stub.StreamPredict(requests, timeout=20)]
    assert [p.entity_id for p in answers] == asked
    assert all(
        (p.status == pb.ENTITY_STATUS_UNKNOWN_ENTITY) == (p.entity_id == "nobody") for p in answers
    )


def test_stream_predict_answers_before_the_caller_has_sent_all(server):
    answered = threading.Event()

    def requests():
        yield pb.StreamPredictRequest(entity_id="u0001")
        assert answered.wait(30)
        yield pb.StreamPredictRequest(entity_id="u0002")

    call = server.stub.StreamPredict(requests(), timeout=60)
    assert next(call).prediction.entity_id == "u0001"
    answered.set()
    assert [a.prediction.entity_id for a in call] == ["u0002"]


def test_stream_predict_ends_at_the_first_error_after_the_answers_before_it(server):
    asked = ["u0001", "u0002", "", "u0003"]
    call = server.stub.StreamPredict(
        (pb.StreamPredictRequest(entity_id=key) for key in asked), timeout=5
    )
    assert [next(call).prediction.entity_id, next(call).prediction.entity_id] == asked[:2]
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert error_info(caught.value).reason == "INVALID_REQUEST"


def test_streams_that_their_callers_leave_leave_nothing_in_flight(server):
    def in_flight():
        return server.metric('espalier_requests_in_flight{transport="grpc"}')

    for _ in range(5):
        call = server.stub.StreamPredict(
            (pb.StreamPredictRequest(entity_id=ENTITIES[n % 300]) for n in range(100_000)),
            timeout=20,
        )
        next(call)
        call.cancel()
    server.until(lambda: in_flight() == 0)
    assert server.stub.Predict(pb.PredictRequest(entity_id="u0001"), timeout=5).status


def test_get_model_tells_features_and_origin(server):
    answer = server.stub.GetModel(pb.GetModelRequest(), timeout=5)
    assert answer.model.version == "1"
    assert [(f.name, f.type) for f in answer.features] == list(zip(FEATURES, TYPES, strict=True))
    assert answer.threshold == 0.5
    assert (answer.task, list(answer.classes)) == ("binary", [])
    assert dict(answer.metrics) == {"roc_auc": 0.75}
    assert dict(answer.provenance) == {"slope": "0.01"}


def test_health_is_told_for_the_service_and_the_server(server):
    assert server.health() == server.health(SERVICE) == SERVING
    assert server.health(f"{SERVICE}/churn") == SERVING
    with pytest.raises(grpc.RpcError) as caught:
        server.health("no.such.Service")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_describes_every_service_it_lists(server, version):
    method = server.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    (answer,) = method(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=5)
    names = [service.name for service in answer.list_services_response.service]
    assert set(names) == {
        SERVICE,
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    asked = [reflection_pb2.ServerReflectionRequest(file_containing_symbol=n) for n in names]
    for found in method(iter(asked), timeout=5):
        assert found.file_descriptor_response.file_descriptor_proto


def test_an_unknown_method_is_unimplemented(server):
    call = server.channel.unary_unary(f"/{SERVICE}/Guess")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_deadline_that_cannot_be_made_is_told(server):
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.Predict(pb.PredictRequest(entity_id="u0001"), timeout=1e-6)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
