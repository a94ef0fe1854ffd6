# %% [markdown]
# # Churn: what the model learns from, what it promises, and what has moved since
#
# It reads a running stack, such as that of `./pants quickstart --keep`; `docs/notebook.md` says how
# to start it. It changes nothing there.

# %%
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset

from churn.project import PROJECT
from espalier import settings as configuration
from espalier.features.point_in_time import features_at, training_set
from espalier.ingest import snapshots
from espalier.postgres.connect import connect
from espalier.registry import download
from espalier.training.slices import contains
from espalier_client import Client

SETTINGS = configuration.load()
REPORTS = Path(SETTINGS.reports_dir) / "notebook"
REPORTS.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## The training set, as it was known
#
# A row is a label and the features that were known at the label's time: not what a later batch told
# about that time. So what follows is what a model trained on the newest day sees, and no more.

# %%
with connect(SETTINGS.dsn) as connection:
    newest = snapshots.newest(connection, PROJECT.name)
    if newest is None:
        raise SystemExit("nothing was ingested yet; run quickstart first")
    rows = training_set(connection, PROJECT, as_of=newest.as_of)
print(f"{len(rows):,} labels known on {newest.as_of}; {rows['label'].mean():.1%} are positive:")
print(f"the customer {PROJECT.label.positive_means}")
print(rows[list(PROJECT.view.features)].describe().T[["mean", "min", "50%", "max"]].round(2))

# %% [markdown]
# The label moves with time, as the cohort gets older. Who validates on rows drawn at random sees days
# that lie ahead of those it trained on; this project validates on the newest label time alone.

# %%
by_time = rows.groupby("label_time")["label"].agg(["size", "mean"])
print(by_time.rename(columns={"size": "labels", "mean": "positive"}).round(3))
figure, axes = plt.subplots(figsize=(7, 3))
axes.plot(by_time.index, by_time["mean"], marker="o")
axes.set(ylabel="positive share", ylim=(0, 1), title="Labels by their time")
figure.autofmt_xdate()
figure.savefig(REPORTS / "labels.png", bbox_inches="tight")

# %% [markdown]
# ## Slices
#
# The gate compares models on each slice that the project declares, so a model that is better for all
# together and worse for some is refused. This is what they hold.

# %%
slices = pd.DataFrame(
    {
        one.name: {
            "rows": int(inside.sum()),
            "share": float(inside.mean()),
            "positive": float(rows["label"].to_numpy()[inside].mean()),
        }
        for one in PROJECT.slices
        if (inside := contains(one, rows[one.feature].to_numpy(dtype=np.float64))).any()
    }
).T
print(slices.astype({"rows": int}).round(3))

# %% [markdown]
# ## The champion's model card
#
# Training writes it beside the model; MLflow has it under the version's artifacts.

# %%
champion = download.champion(SETTINGS.mlflow_tracking_uri, PROJECT.name)
if champion is None:
    raise SystemExit("no version is champion; see the gate's reasons in MLflow")
card = download.fetch_document(
    SETTINGS.mlflow_tracking_uri, PROJECT.name, champion.version, "model_card.md"
)
print(card)

# %% [markdown]
# ## What has moved since
#
# Evidently compares the features that the model was trained on with those of every customer today. Its
# page is in the reports folder. `churn-monitor.pex` does this with the project's own limits, and
# knows which features must grow; here all of them are treated alike.

# %%
with connect(SETTINGS.dsn) as connection:
    today = features_at(connection, PROJECT, when=newest.as_of)
names = list(PROJECT.view.features)
definition = DataDefinition(numerical_columns=names)
drift = Report([DataDriftPreset(columns=names)]).run(
    Dataset.from_pandas(today[names], data_definition=definition),
    Dataset.from_pandas(rows[names], data_definition=definition),
)
drift.save_html(str(REPORTS / "drift.html"))
metrics = json.loads(drift.json())["metrics"]
found = pd.DataFrame(
    {
        "feature": one["config"]["column"],
        "method": one["config"]["method"],
        "distance": float(one["value"]),
        "moved": float(one["value"]) >= one["config"]["threshold"],
    }
    for one in metrics
    if one["config"]["type"].endswith(":ValueDrift")
)
print(found.sort_values("distance", ascending=False).round(3).to_string(index=False))
print(REPORTS / "drift.html")

# %% [markdown]
# ## Predictions
#
# The server answers with the online store's features, by the champion, over gRPC.

# %%
keys = today[PROJECT.entity.join_key].head(200).tolist()
with Client(SETTINGS.grpc_address) as client:
    model = client.get_model()
    answers = list(client.predict_many(keys))
print(f"{model.name} version {model.version}, {len(model.features)} features")
scores = pd.DataFrame(
    {"entity": a.entity_id, "score": a.score, "prediction": a.prediction} for a in answers
)
print(scores.sort_values("score").head().round(4).to_string(index=False))
