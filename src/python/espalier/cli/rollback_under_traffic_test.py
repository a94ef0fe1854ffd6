"""A rollback while a real server answers."""

from __future__ import annotations

import threading
import time

import grpc
import pytest

from espalier.postgres.connect import connect
from espalier.prediction.v1 import prediction_pb2 as pb
from espalier.prediction.v1 import prediction_pb2_grpc as pb_grpc
from espalier.registry import promotion
from espalier.serving.testing import ENTITIES, expected_score
from espalier.serving.testing_server import serving

# The harness' servers ask the registry every 0.1 s; the rest is the download, a warm-up, and
# whatever else this machine does.
_WITHIN_SECONDS = 5.0


def test_all_answers_are_of_one_version_or_the_other_and_none_fails(registered, tmp_path) -> None:
    old, new = registered.promoted(0.01, -0.01)
    slopes = {old: 0.01, new: -0.01}
    failures: list[BaseException] = []
    answered: list[tuple[float, str]] = []
    over = threading.Event()

    with serving(registered.dsn, registered.uri, tmp_path) as server:
        server.until(server.is_ready)

        def call() -> None:
            with grpc.insecure_channel(server.grpc_address) as channel:
                stub = pb_grpc.PredictionServiceStub(channel)
                while not over.is_set():
                    try:
                        asked = pb.BatchPredictRequest(entity_ids=ENTITIES[::10])
                        answer = stub.BatchPredict(asked, timeout=10)
                        (version,) = {p.model.version for p in answer.predictions}
                        for p in answer.predictions:
                            wanted = expected_score(p.entity_id, slopes[version])
                            assert p.score == pytest.approx(wanted, abs=1e-6)
                        answered.append((time.monotonic(), version))
                    except Exception as error:  # noqa: BLE001  # any at all is the failure
                        failures.append(error)
                        return

        callers = [threading.Thread(target=call) for _ in range(4)]
        for caller in callers:
            caller.start()
        try:
            server.until(lambda: len(answered) > 50 or failures)
            with connect(registered.dsn) as connection:
                promotion.rollback(
                    connection,
                    registered.uri,
                    "churn",
                    expected=new,
                    who="tester",
                    why="under traffic",
                )
            done = time.monotonic()
            server.until(
                lambda: failures or (answered and answered[-1][1] == old), seconds=_WITHIN_SECONDS
            )
            count = len(answered)
            server.until(lambda: failures or len(answered) > count + 50)
        finally:
            over.set()
            for caller in callers:
                caller.join()
    assert failures == []
    versions = [version for _, version in sorted(answered)]
    assert versions[0] == new
    assert versions[-1] == old
    # One change; a caller may note its answer a little after another's of the next version.
    first = versions.index(old)
    assert set(versions[:first]) == {new}
    assert set(versions[first + len(callers) :]) == {old}
    took = next(at for at, version in sorted(answered) if version == old) - done
    assert took < _WITHIN_SECONDS
    print(f"the new version answered {took:+.2f} s after the rollback returned")
