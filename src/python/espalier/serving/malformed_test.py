"""What a caller is told of a message that cannot be parsed; `fuzz_test` sends many."""

from __future__ import annotations

import grpc
import pytest

from espalier.prediction.v1 import prediction_pb2 as pb
from espalier.serving.testing_server import SERVICE, error_info


@pytest.mark.parametrize(
    "method",
    [
        f"/{SERVICE}/Predict",
        f"/{SERVICE}/BatchPredict",
        "/inference.GRPCInferenceService/ModelInfer",
    ],
)
def test_a_malformed_message_is_told_without_the_parsers_words(server, method):
    with pytest.raises(grpc.RpcError) as caught:
        server.channel.unary_unary(method)(b"\xff", timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_info(caught.value).reason == "INVALID_REQUEST"
    assert "protobuf" not in str(caught.value.details())


def test_a_malformed_message_in_a_stream_comes_after_the_answers_before_it(server):
    stream = server.channel.stream_stream(f"/{SERVICE}/StreamPredict")
    call = stream(iter([pb.StreamPredictRequest(entity_id="u0001").SerializeToString(), b"\xff"]))
    assert pb.StreamPredictResponse.FromString(next(call)).prediction.entity_id == "u0001"
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_info(caught.value).reason == "INVALID_REQUEST"
