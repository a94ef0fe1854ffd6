"""The Open Inference Protocol against a real server."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from espalier.serving.testing import ENTITIES, FEATURES, expected_score, features_of
from espalier.serving.testing_server import SERVING, error_info
from inference import open_inference_pb2 as pb
from inference import open_inference_pb2_grpc as pb_grpc

ROWS = [features_of(entity) for entity in ENTITIES[:100:20]]
SCORES = [expected_score(entity, 0.01) for entity in ENTITIES[:100:20]]
SHAPE = [len(ROWS), len(FEATURES)]


@pytest.fixture
def stub(server):
    return pb_grpc.GRPCInferenceServiceStub(server.channel)


def infer(stub, *, raw=(), values=None, field="fp64_contents", shape=SHAPE, **changes):
    changed = {"model_name": "churn", **changes}
    tensor = {"name": "features", "datatype": "FP64", "shape": shape}
    tensor |= changed.pop("tensor", {})
    if values is not None:
        tensor["contents"] = {field: values}
    request = pb.ModelInferRequest(
        inputs=[tensor], id="mine", raw_input_contents=list(raw), **changed
    )
    return stub.ModelInfer(request, timeout=10)


@pytest.mark.parametrize(("datatype", "kind"), [("FP32", "<f4"), ("FP64", "<f8")])
@pytest.mark.parametrize("is_raw", [True, False])
def test_rows_are_scored_and_answered_as_they_were_sent(stub, datatype, kind, is_raw):
    matrix = np.array(ROWS, dtype=kind)
    if is_raw:
        given: dict[str, object] = {"raw": [matrix.tobytes()]}
    else:
        given = {"values": matrix.ravel().tolist(), "field": f"{datatype.lower()}_contents"}
    answer = infer(stub, **given, tensor={"datatype": datatype})
    assert (answer.model_name, answer.model_version, answer.id) == ("churn", "1", "mine")
    score, prediction = answer.outputs
    assert [score.name, prediction.name] == ["score", "prediction"]
    assert list(score.shape) == list(prediction.shape) == [len(ROWS)]
    if is_raw:
        scores, predictions = (np.frombuffer(raw, "<f8") for raw in answer.raw_output_contents)
        assert not score.HasField("contents")
    else:
        scores, predictions = score.contents.fp64_contents, prediction.contents.fp64_contents
        assert not answer.raw_output_contents
    assert list(scores) == pytest.approx(SCORES, abs=1e-6)
    assert list(predictions) == [float(score >= 0.5) for score in SCORES]


def test_callers_at_once_get_their_own_rows(stub):
    calls = [
        stub.ModelInfer.future(
            pb.ModelInferRequest(
                model_name="churn",
                inputs=[{"name": "features", "datatype": "FP64", "shape": [n, len(FEATURES)]}],
                raw_input_contents=[
                    np.array([features_of(e) for e in ENTITIES[n : 2 * n]]).tobytes()
                ],
                outputs=[{"name": "score"}],
            ),
            timeout=10,
        )
        for n in range(1, 60)
    ]
    for n, call in enumerate(calls, 1):
        (raw,) = call.result().raw_output_contents
        wanted = [expected_score(entity, 0.01) for entity in ENTITIES[n : 2 * n]]
        assert np.frombuffer(raw, "<f8") == pytest.approx(wanted, abs=1e-6)


def test_no_rows_give_no_scores_and_many_rows_give_many(stub):
    answer = infer(stub, raw=[b""], shape=[0, len(FEATURES)])
    assert list(answer.raw_output_contents) == [b"", b""]
    many = np.tile(np.array(ROWS), (4000, 1))
    answer = infer(
        stub,
        raw=[many.astype("<f4").tobytes()],
        shape=list(many.shape),
        tensor={"datatype": "FP32"},
    )
    scores = np.frombuffer(answer.raw_output_contents[0], "<f8").reshape(4000, len(ROWS))
    assert np.abs(scores - SCORES).max() < 1e-6


FLAT = np.array(ROWS).ravel().tolist()
RAW = [np.array(ROWS).tobytes()]


@pytest.mark.parametrize(
    ("given", "code", "told"),
    [
        ({"values": FLAT, "tensor": {"name": "x"}}, "INVALID_ARGUMENT", "named features"),
        ({"values": FLAT, "tensor": {"datatype": "INT64"}}, "INVALID_ARGUMENT", "'INT64'"),
        ({"values": FLAT[1:]}, "INVALID_ARGUMENT", "elements"),
        ({"values": FLAT, "shape": [len(FLAT)]}, "INVALID_ARGUMENT", "dimensions"),
        ({"values": FLAT, "shape": [-1, -len(FLAT)]}, "INVALID_ARGUMENT", "dimensions"),
        ({"values": [], "shape": [2**62, 4]}, "INVALID_ARGUMENT", "elements"),
        ({"values": [], "shape": [0, 2**31]}, "INVALID_ARGUMENT", "a dimension of 2147483648"),
        ({"values": [], "shape": [0, 2**62]}, "INVALID_ARGUMENT", "a dimension of"),
        ({"values": [], "shape": [2**62, 0]}, "INVALID_ARGUMENT", "a dimension of"),
        ({"values": [], "shape": [0, 2**31 - 1]}, "INVALID_ARGUMENT", "rows of 2147483647"),
        ({"values": [], "shape": [2**31 - 1, 0]}, "INVALID_ARGUMENT", "rows in one request"),
        ({"values": FLAT, "shape": [len(FLAT), 1]}, "INVALID_ARGUMENT", "rows of 1 features"),
        ({"values": FLAT, "raw": RAW}, "INVALID_ARGUMENT", "raw contents"),
        ({"raw": [*RAW, *RAW]}, "INVALID_ARGUMENT", "raw contents"),
        ({"raw": [b"123"]}, "INVALID_ARGUMENT", "3 bytes"),
        ({"values": FLAT, "outputs": [{"name": "label"}]}, "INVALID_ARGUMENT", "'label'"),
        ({"values": FLAT, "model_name": "fraud"}, "NOT_FOUND", "'fraud'"),
        ({"values": FLAT, "model_version": "99"}, "NOT_FOUND", "'99'"),
        ({"values": [float("nan")] * len(FLAT)}, "INVALID_ARGUMENT", "no probability"),
    ],
)
def test_what_does_not_fit_is_named(stub, given, code, told):
    with pytest.raises(grpc.RpcError) as caught:
        infer(stub, **given)
    assert caught.value.code().name == code, caught.value.details()
    assert told in str(caught.value.details())
    assert error_info(caught.value).reason


def test_server_and_model_describe_themselves(stub, server):
    assert stub.ServerLive(pb.ServerLiveRequest(), timeout=5).live
    assert stub.ServerReady(pb.ServerReadyRequest(), timeout=5).ready
    assert stub.ServerMetadata(pb.ServerMetadataRequest(), timeout=5).name == "espalier"
    assert server.health("inference.GRPCInferenceService") == SERVING
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="churn"), timeout=5)
    assert list(metadata.versions) == ["1"]
    (tensor,) = metadata.inputs
    assert (tensor.name, tensor.datatype) == ("features", "FP32")
    assert list(tensor.shape) == [-1, len(FEATURES)]
    for name, version, ready in [
        ("churn", "", True),
        ("churn", "1", True),
        ("churn", "2", False),
        ("fraud", "", False),
    ]:
        asked = pb.ModelReadyRequest(name=name, version=version)
        assert stub.ModelReady(asked, timeout=5).ready is ready
