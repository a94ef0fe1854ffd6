"""The whole server as a process: model swaps, a database that leaves, signals, wrong use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import grpc
import psycopg
import pytest

from espalier.postgres import embedded
from espalier.prediction.v1 import prediction_pb2 as pb
from espalier.prediction.v1 import prediction_pb2_grpc as pb_grpc
from espalier.processes import python_environment
from espalier.serving.testing import ENTITIES, create_online_table, expected_score
from espalier.serving.testing_server import (
    NOT_SERVING,
    SERVICE,
    SERVING,
    command,
    environment,
    error_info,
    serving,
)
from espalier.testing_web import NOBODY


def test_a_swap_under_load_gives_no_error_and_no_mixed_answer(server, registry, models):
    slopes = {"1": 0.01, "2": -0.01}
    seen, failures, over = set(), [], threading.Event()
    asked = [*ENTITIES[::10], "nobody"]

    def call():
        with grpc.insecure_channel(server.grpc_address) as channel:
            stub = pb_grpc.PredictionServiceStub(channel)
            while not over.is_set():
                try:
                    answer = stub.BatchPredict(pb.BatchPredictRequest(entity_ids=asked), timeout=10)
                    (version,) = {p.model.version for p in answer.predictions}
                    for p in answer.predictions[:-1]:
                        wanted = expected_score(p.entity_id, slopes[version])
                        assert p.score == pytest.approx(wanted, abs=1e-6)
                    seen.add(version)
                except Exception as error:  # noqa: BLE001 - any at all is the failure
                    failures.append(error)
                    return

    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    try:
        for version, folder in (("2", "two"), ("1", "one"), ("2", "two"), ("1", "one")):
            registry.publish(version, models / folder)
            info = f'espalier_model_info{{name="churn",version="{version}"}}'
            server.until(lambda info=info: failures or server.metric(info) == 1)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert seen == {"1", "2"}


def test_a_database_that_leaves_and_returns(registry, tmp_path, port):
    data, log = tmp_path / "data", tmp_path / "postgres.log"

    def predict(running):
        return running.stub.Predict(pb.PredictRequest(entity_id="u0001"), timeout=5)

    with embedded.serve(data, log=log, port=port, durable=False) as database:
        dsn = database.dsn()
    # The server starts without its database, and says what is missing.
    with serving(dsn, registry.uri, tmp_path) as running:
        running.until(lambda: "PostgreSQL" in running.ready_text())
        assert running.health() == NOT_SERVING
        assert running.http.get("/health").status_code == 200
        for first in (True, False):
            with embedded.serve(data, log=log, port=port, durable=False):
                if first:
                    running.until(lambda: "materialize" in running.ready_text())
                    create_online_table(dsn, ["u0001"])
                running.until(running.is_ready)
                assert predict(running).status == pb.ENTITY_STATUS_OK
                running.until(lambda: running.health(SERVICE) == SERVING)
            with pytest.raises(grpc.RpcError) as caught:
                predict(running)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert error_info(caught.value).reason == "FEATURES_UNAVAILABLE"
            answer = running.http.post("/predict", json={"user_id": "u0001"})
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["reason"] == "FEATURES_UNAVAILABLE"
            running.until(lambda: running.health(SERVICE) == NOT_SERVING)
        password = str(psycopg.conninfo.conninfo_to_dict(dsn)["password"])
        assert len(password) > 8
        assert password not in running.log.read_text()


def test_without_a_registry_it_serves_probes_and_says_what_is_missing(dsn, tmp_path):
    nowhere = f"http://{NOBODY}"
    with serving(dsn, nowhere, tmp_path) as running:
        running.until(lambda: "MLflow" in running.ready_text())
        with pytest.raises(grpc.RpcError) as caught:
            running.stub.Predict(pb.PredictRequest(entity_id="u0001"), timeout=5)
        assert error_info(caught.value).reason == "MODEL_NOT_READY"
        assert running.health(SERVICE) == NOT_SERVING
        answer = running.http.post("/predict", json={"user_id": "u0001"})
        assert (answer.status_code, answer.json()["reason"]) == (503, "MODEL_NOT_READY")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_drains_and_exits_0(dsn, registry, tmp_path, number):
    answered, codes, lock = [], [], threading.Lock()

    def call(stub):
        while True:
            try:
                answer = stub.BatchPredict(pb.BatchPredictRequest(entity_ids=ENTITIES), timeout=10)
            except grpc.RpcError as error:
                with lock:
                    codes.append((error.code(), error.details()))
                return
            with lock:
                answered.append(len(answer.predictions))

    with serving(dsn, registry.uri, tmp_path) as running:
        running.until(running.is_ready)
        # One of these is always under way when the signal comes.
        threads = [threading.Thread(target=call, args=(running.stub,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        running.until(lambda: len(answered) > 50)
        running.process.send_signal(number)
        for thread in threads:
            thread.join()
        assert running.process.wait(15) == 0
        assert running.process.stdout is not None
        assert "churn-server: ready, gRPC on 127.0.0.1:" in running.process.stdout.read()
    # Each answer is in the prediction log, of calls at once in one batch at least once.
    with psycopg.connect(dsn) as connection:
        logged = connection.execute(
            "SELECT entity_id FROM espalier.predictions GROUP BY entity_id"
        ).fetchall()
    assert {key for (key,) in logged} >= set(ENTITIES)
    # Calls that were accepted are answered whole; later ones are told to go elsewhere.
    assert set(answered) == {len(ENTITIES)}
    assert {code for code, _ in codes} == {grpc.StatusCode.UNAVAILABLE}, codes
    events = [json.loads(line)["event"] for line in running.log.read_text().splitlines()]
    assert events[-2:] == ["draining", "stopped"]
    assert "unexpected error" not in events


def run_to_end(dsn, *arguments, **env):
    done = subprocess.run(
        command(*arguments),
        env={**environment(dsn, "http://127.0.0.1:1"), **env},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stderr.splitlines(), done.stdout


@pytest.mark.parametrize("which", ["grpc", "http"])
def test_a_port_in_use_is_one_line_and_exit_2(dsn, server, which):
    other = {"grpc": "http", "http": "grpc"}[which]
    taken = {"grpc": server.grpc_address, "http": server.http.base_url.netloc.decode()}[which]
    code, lines, _ = run_to_end(
        dsn, f"--{which}-address", taken, f"--{other}-address", "127.0.0.1:0"
    )
    errors = [line for line in lines if not line.startswith("{")]
    assert code == 2
    assert len(errors) == 1
    assert f"cannot listen on {taken}: Address already in use" in errors[0]


@pytest.mark.parametrize(
    ("arguments", "env", "text"),
    [
        (["--grpc-address", "50051"], {}, "'50051' is not an address to listen on"),
        (["--grpc-address", "127.0.0.1:99999"], {}, "not an address"),
        (
            ["--grpc-address", "no.such.host.invalid:0", "--insecure-address-ok"],
            {},
            "cannot listen on no.such.host",
        ),
        (["--grpc-address", "0.0.0.0:0"], {}, "gRPC at 0.0.0.0:0 would be open"),
        (["--http-address", "[::]:0"], {}, "HTTP at [::]:0 would be open"),
        (["--tls-key", "key.pem"], {}, "by halves"),
        (["--tls-key", "a", "--tls-certificate", "b"], {}, "certificate b with key a cannot"),
        (["--tokens", "no_tokens"], {}, "no_tokens cannot be read: No such file"),
        (["--rate", "-1"], {}, "--rate"),
        (["--max-entities", "0"], {}, "--max-entities"),
        (["--new-token", "a b"], {}, "'a b' is not a token's name"),
        ([], {"ESPALIER_LOG_LEVEL": "LOUD"}, "ESPALIER_LOG_LEVEL"),
        ([], {"ESPALIER_MODEL_POLL_SECONDS": "soon"}, "ESPALIER_MODEL_POLL_SECONDS"),
        ([], {"ESPALIER_MODEL_POLL_SECONDS": "0"}, "ESPALIER_MODEL_POLL_SECONDS"),
        (["--drain-seconds", "-1"], {}, "--drain-seconds"),
        (["--drain-seconds", "long"], {}, "--drain-seconds"),
        (["--as-of", "yesterday"], {}, "'yesterday' is not a day"),
        (["--guess"], {}, "--guess"),
        (["--project", "nothing_here"], {}, "no project 'nothing_here'"),
    ],
)
def test_wrong_configuration_is_one_line_and_exit_2(dsn, arguments, env, text):
    code, lines, _ = run_to_end(dsn, *arguments, **env)
    assert code == 2
    assert len(lines) == 1
    assert text in lines[0]


def test_help_names_every_option(dsn):
    code, _, text = run_to_end(dsn, "--help")
    assert code == 0
    for option in ("--project", "--grpc-address", "--http-address", "--as-of", "--drain-seconds"):
        assert option in text


def test_the_server_carries_no_training_or_feature_store_library():
    program = (
        "import sys, espalier.serving.main, espalier.serving.server, "
        "espalier.serving.http_service\n"
        "from espalier.project import load_project; load_project('churn')\n"
        "from espalier.serving.scorer import OnnxScorer\n"
        "import onnxruntime\n"
        "print('\\n'.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **python_environment()},
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {name.partition(".")[0] for name in done.stdout.split()}
    assert "grpc" in imported
    kept_out = {
        "sklearn",
        "mlflow",
        "feast",
        "prefect",
        "evidently",
        "great_expectations",
        "pandas",
        "scipy",
        "skl2onnx",
        "dask",
        "pyarrow",
        "matplotlib",
    }
    assert imported & kept_out == set()
    # FastAPI brings its interface along; its SDK is loaded where a collector is configured.
    assert "opentelemetry.sdk" not in done.stdout.split()
