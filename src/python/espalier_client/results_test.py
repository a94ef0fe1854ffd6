from __future__ import annotations

from espalier.prediction.v1 import prediction_pb2 as pb
from espalier_client import EntityStatus, Model, Prediction, ScoreSource


def test_several_classes_have_a_label_and_a_probability_each():
    answer = pb.PredictResponse(
        entity_id="w1",
        prediction=1,
        score=0.7,
        label="red",
        probabilities=[0.1, 0.7, 0.2],
        model=pb.ModelVersion(name="wine", version="3"),
        status=pb.ENTITY_STATUS_OK,
        source=pb.SCORE_SOURCE_MODEL,
    )
    found = Prediction.of(answer)
    assert (found.label, found.probabilities) == ("red", (0.1, 0.7, 0.2))
    assert found.feature_time is None
    described = pb.GetModelResponse(task="multiclass", classes=["white", "red", "rosé"])
    model = Model.of(described)
    assert (model.task, model.classes[1]) == ("multiclass", found.label)


def test_what_only_a_newer_server_knows_is_unspecified():
    # Field 6 and 7, enums, with a number that this contract does not have.
    newer = pb.PredictResponse.FromString(bytes([6 << 3, 99, 7 << 3, 98]))
    found = Prediction.of(newer)
    assert (found.status, found.source) == (EntityStatus.UNSPECIFIED, ScoreSource.UNSPECIFIED)
