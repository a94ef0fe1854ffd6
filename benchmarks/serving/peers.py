"""Model servers that score features given in the request, each as its documentation runs it.

MLflow is in our lock. The others, and the protocol's own clients, ask for libraries that contradict
ours and each other, so each gets an environment, made once under `--peers` from the pins below.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from espalier.probe import answers
from espalier.processes import Process, python_environment, reserved_port
from serving.place import Place
from serving.servers import Side

_PINS = {
    "mlserver": ["mlserver==1.7.1", "mlserver-sklearn==1.7.1", "scikit-learn==1.9.1"],
    "bentoml": ["bentoml==1.4.39", "scikit-learn==1.9.1"],
    "triton-client": ["tritonclient[grpc]==2.73.0"],
    "kserve-client": ["kserve==0.21.0"],
}
_PATIENCE_SECONDS = 120
# Fits the project's own pipeline with the environment's own scikit-learn.
_FIT = """\
import sys, joblib, numpy
from espalier.project import load_function, load_project
project = load_project(sys.argv[1])
data = numpy.load(sys.argv[2])
model = load_function(project.estimator)(seed=project.seed).fit(data["rows"], data["labels"])
joblib.dump(model, sys.argv[3])
"""
_BENTO = """\
import bentoml, joblib, numpy

@bentoml.service(workers=1)
class Churn:
    def __init__(self) -> None:
        self.model = joblib.load({model!r})

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=128)
    def predict(self, rows: numpy.ndarray) -> numpy.ndarray:
        return self.model.predict_proba(rows)[:, 1]
"""


@contextmanager
def mlflow(place: Place, _peers: Path) -> Iterator[Side]:
    """`mlflow models serve`; POST /invocations."""
    with (
        reserved_port() as port,
        Process(
            "mlflow models serve",
            [
                *(sys.executable, "-m", "mlflow", "models", "serve"),
                *("-m", str(place.folder / "template_model"), "--env-manager", "local"),
                *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
            ],
            log=place.folder / "mlflow_models.log",
            env={
                **python_environment(),
                "OMP_NUM_THREADS": "1",
                # It starts uvicorn by name.
                "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            },
        ) as process,
    ):
        url = f"http://127.0.0.1:{port}"
        process.wait_until(lambda: answers(f"{url}/ping"), seconds=_PATIENCE_SECONDS)
        yield Side(process, http=url)


@contextmanager
def mlserver(place: Place, peers: Path) -> Iterator[Side]:
    """MLServer's scikit-learn runtime; Open Inference Protocol over gRPC and HTTP."""
    python = environment("mlserver", peers)
    folder = place.folder / "mlserver"
    folder.mkdir(exist_ok=True)
    _fit(place, python, folder / "model.joblib")
    (folder / "model-settings.json").write_text(
        json.dumps(
            {
                "name": place.project.name,
                "implementation": "mlserver_sklearn.SKLearnModel",
                "parameters": {"uri": "./model.joblib", "version": "1"},
            }
        )
    )
    with reserved_port() as http, reserved_port() as grpc, reserved_port() as metrics:
        settings = {
            "host": "127.0.0.1",
            "http_port": http,
            "grpc_port": grpc,
            "metrics_port": metrics,
            # Scoring in the server's own process: its workers cost more than they give here.
            "parallel_workers": 0,
            "debug": False,
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        with Process(
            "MLServer",
            [str(python.parent / "mlserver"), "start", str(folder)],
            log=place.folder / "mlserver.log",
            env={"OMP_NUM_THREADS": "1"},
        ) as process:
            url = f"http://127.0.0.1:{http}"
            process.wait_until(
                lambda: answers(f"{url}/v2/models/{place.project.name}/ready"),
                seconds=_PATIENCE_SECONDS,
            )
            yield Side(process, grpc=f"127.0.0.1:{grpc}", http=url)


@contextmanager
def bentoml(place: Place, peers: Path) -> Iterator[Side]:
    """BentoML with its own batching; POST /predict {"rows": [[...]]}."""
    python = environment("bentoml", peers)
    folder = place.folder / "bentoml"
    folder.mkdir(exist_ok=True)
    _fit(place, python, folder / "model.joblib")
    (folder / "service.py").write_text(_BENTO.format(model=str(folder / "model.joblib")))
    with (
        reserved_port() as port,
        Process(
            "BentoML",
            [
                *(str(python), "-m", "bentoml", "serve", "service:Churn"),
                *("--working-dir", str(folder), "--host", "127.0.0.1", "--port", str(port)),
            ],
            log=place.folder / "bentoml.log",
            env={"OMP_NUM_THREADS": "1", "BENTOML_DO_NOT_TRACK": "true"},
        ) as process,
    ):
        url = f"http://127.0.0.1:{port}"
        process.wait_until(lambda: answers(f"{url}/readyz"), seconds=_PATIENCE_SECONDS)
        yield Side(process, http=url)


def environment(name: str, peers: Path) -> Path:
    """The Python of a peer's environment, made when it is not there yet."""
    folder = peers / name
    python = folder / "bin" / "python"
    done = folder / "complete"
    if not done.exists():
        print(f"making {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *_PINS[name]], check=True)
        done.touch()
    return python


def _fit(place: Place, python: Path, model: Path) -> None:
    arguments: Sequence[str] = [place.project.name, str(place.folder / "training.npz"), str(model)]
    subprocess.run(
        [str(python), "-c", _FIT, *arguments],
        check=True,
        env={"PYTHONPATH": _sources(), "PATH": "/usr/bin:/bin"},
    )


def _sources() -> str:
    """Where the project's declaration is, without our libraries, which are not that Python's."""
    import churn.project

    return str(Path(churn.project.__file__).parents[1])
