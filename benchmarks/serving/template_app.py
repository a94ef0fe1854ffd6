"""The usual template: FastAPI, Feast's SDK over its own PostgreSQL store, a model from MLflow.

Written as the tutorials of the three show it, with what they recommend for speed: the store and the
model are loaded once, and the endpoint is a plain function, which FastAPI runs on threads.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd
import uvicorn
from fastapi import FastAPI, HTTPException


def app(store: Any, model: Any, *, join_key: str, references: list[str]) -> FastAPI:
    """POST /predict {join_key: value} -> {"score": ...}."""
    service = FastAPI()
    columns = [reference.split(":")[1] for reference in references]

    @service.post("/predict")
    def predict(request: dict[str, str]) -> dict[str, Any]:
        found = store.get_online_features(
            features=references, entity_rows=[{join_key: request[join_key]}]
        ).to_dict()
        if all(found[name][0] is None for name in columns):
            raise HTTPException(404, "unknown entity")
        # Floats throughout: an integer column with a null would be of objects.
        rows = pd.DataFrame({name: found[name] for name in columns}, dtype="float64")
        return {"score": float(model.predict_proba(rows)[0, 1])}

    @service.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    return service


def main() -> None:
    """Serve what the JSON file says: Feast's configuration, the model's folder, the features."""
    parser = argparse.ArgumentParser()
    parser.add_argument("configuration", type=Path)
    parser.add_argument("port", type=int)
    options = parser.parse_args()
    import mlflow.sklearn
    from feast import FeatureStore, RepoConfig

    told = json.loads(options.configuration.read_text())
    service = app(
        FeatureStore(config=RepoConfig(**told["feast"])),
        mlflow.sklearn.load_model(told["model"]),
        join_key=told["join_key"],
        references=told["references"],
    )
    uvicorn.run(service, host="127.0.0.1", port=options.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
