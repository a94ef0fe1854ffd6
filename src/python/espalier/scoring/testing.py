"""What the tests here score: a small project, its features on some days, a model's folder."""

from __future__ import annotations

import hashlib
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from espalier.contract import Column, ColumnType, Table
from espalier.project import Calendar, Entity, FeatureView, Label, Project
from espalier.registry.download import FetchedModel
from espalier.registry.manifest import MANIFEST, ONNX, ModelManifest

SHOPS = 1003
NULL_SHARE = 0.4
FEATURES = ("amount", "visits", "gap")
MAY, JUNE, LATER = date(1997, 5, 31), date(1997, 6, 30), date(1998, 6, 30)
# The features of the other days are stale on this one, which has those of seven shops.
SEPTEMBER = date(1997, 9, 30)
_KEY = Column(name="shop_id", type=ColumnType.TEXT, description="the shop")
_DAY = Column(name="day", type=ColumnType.DATE, description="the day")
SHOP = Project(
    name="shop",
    description="Will this shop close?",
    entity=Entity(name="shop", join_key="shop_id", description="a shop"),
    tables=(
        Table(
            name="facts",
            key=("shop_id", "day"),
            event_time="day",
            columns=(
                *(_KEY, _DAY),
                Column(name="amount", type=ColumnType.DOUBLE, description="amount"),
                Column(name="visits", type=ColumnType.INTEGER, description="visits"),
                Column(name="gap", type=ColumnType.DOUBLE, description="gap", nullable=True),
            ),
        ),
        Table(
            name="endings",
            key=("shop_id", "day"),
            event_time="day",
            columns=(
                *(_KEY, _DAY),
                Column(name="closed", type=ColumnType.BOOLEAN, description="closed since"),
            ),
        ),
    ),
    view=FeatureView(name="monthly", table="facts", features=FEATURES, ttl=timedelta(days=45)),
    label=Label(
        table="endings",
        column="closed",
        time="day",
        horizon=timedelta(days=30),
        positive_means="closes",
    ),
    estimator="none:none",
    baseline="none:none",
    calendar=Calendar(first=MAY),
)


def facts(day: date) -> pd.DataFrame:
    """The features of every shop on a day, NaN for null."""
    random = np.random.default_rng(day.toordinal())
    gap = pd.Series(random.exponential(30, SHOPS))
    return pd.DataFrame(
        {
            "shop_id": [f"s{number:04}" for number in range(SHOPS)],
            "amount": random.lognormal(3, 1, SHOPS),
            "visits": random.poisson(3, SHOPS).astype("float64"),
            "gap": gap.where(random.random(SHOPS) > NULL_SHARE),
        }
    )


def save(folder: Path, content: bytes, version: str, **changes: Any) -> FetchedModel:
    """A model file with its manifest in a folder, as if fetched."""
    (folder / ONNX).write_bytes(content)
    values: dict[str, Any] = {
        "project": "shop",
        "join_key": "shop_id",
        "view": "monthly",
        "features": FEATURES,
        "feature_types": ("double precision", "bigint", "double precision"),
        "ttl_seconds": SHOP.view.ttl.total_seconds(),
        "threshold": 0.4,
        "file": ONNX,
        "digest": hashlib.sha256(content).hexdigest(),
    }
    manifest = ModelManifest(**(values | changes))
    (folder / MANIFEST).write_text(manifest.to_json())
    return FetchedModel("shop", version, folder, manifest)
