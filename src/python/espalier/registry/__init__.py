"""MLflow behind one door: model versions, aliases, artifacts and where a model comes from."""
