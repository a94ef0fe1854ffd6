"""Churn of CDNOW's customers: will this one buy nothing in the next 90 days?

The data and the meaning of each column are described in data/README.md.
"""

from __future__ import annotations

from datetime import date, timedelta

from espalier.contract import Column, ColumnType, Table
from espalier.policies import ColumnMonitoring, Gate, Monitoring, Search, Slice
from espalier.project import Calendar, Entity, FeatureView, Label, Project

_USER = Column(
    name="user_id",
    type=ColumnType.TEXT,
    description="the customer's number in the purchase log",
)
_USER_REFERENCE = Column(
    name="user_id",
    type=ColumnType.TEXT,
    description="the customer",
    references="users.user_id",
)


def _count(name: str, description: str, *, minimum: float = 0) -> Column:
    return Column(
        name=name, type=ColumnType.INTEGER, minimum=minimum, maximum=1e6, description=description
    )


def _amount(name: str, description: str, *, minimum: float = 0) -> Column:
    return Column(
        name=name, type=ColumnType.DOUBLE, minimum=minimum, maximum=1e6, description=description
    )


USERS = Table(
    name="users",
    key=("user_id",),
    # Every batch lists the whole cohort.
    max_row_change=0.1,
    columns=(
        _USER,
        Column(
            name="first_purchase_date",
            type=ColumnType.DATE,
            description="the day of the first order",
        ),
        Column(
            name="acquisition_week",
            type=ColumnType.TEXT,
            description="the ISO week of the first order, as 1997-W05",
        ),
        _count("first_order_cds", "CDs in the first order", minimum=1),
        _amount("first_order_value", "dollars of the first order"),
    ),
)

FEATURES = Table(
    name="features",
    key=("user_id", "feature_date"),
    event_time="feature_date",
    # One row in a hundred may wait for its repair; the batch brings its own day's rows.
    max_fault_share=0.01,
    max_age=timedelta(days=7),
    columns=(
        _USER_REFERENCE,
        Column(
            name="feature_date",
            type=ColumnType.DATE,
            description="the day up to which purchases are counted",
        ),
        _count("recency_days", "days since the last order"),
        _count("tenure_days", "days since the first order"),
        _count("orders_total", "orders so far", minimum=1),
        _count("orders_30d", "orders in the last 30 days"),
        _count("orders_90d", "orders in the last 90 days"),
        _count("cds_total", "CDs bought so far", minimum=1),
        _amount("spend_total", "dollars spent so far"),
        _amount("spend_90d", "dollars spent in the last 90 days"),
        _amount(
            "spend_change_90d",
            "dollars of the last 90 days less those of the 90 days before",
            minimum=-1e6,
        ),
        _amount("avg_order_value", "dollars an order"),
        Column(
            name="mean_gap_days",
            type=ColumnType.DOUBLE,
            nullable=True,
            minimum=0,
            maximum=1e6,
            # It falls from 72 to 52 in a hundred, as customers come back.
            max_null_share=0.9,
            description="mean days between orders; null before the second order",
        ),
    ),
)

LABELS = Table(
    name="labels",
    key=("user_id", "label_date"),
    event_time="label_date",
    # The 90 days after 1998-01-31 end on 05-01, so the batch of 04-30 has no label.
    min_rows=0,
    columns=(
        _USER_REFERENCE,
        Column(
            name="label_date",
            type=ColumnType.DATE,
            description="the day whose next 90 days the label tells",
        ),
        Column(
            name="label_value",
            type=ColumnType.BOOLEAN,
            description="true when the customer buys nothing in those days",
        ),
    ),
)

# All customers came in one quarter and are counted from then on, so these grow every month, whatever
# anyone does. No earlier rows are of customers of the same age either: there was one cohort. What
# changes in behaviour shows in the columns over fixed windows of time.
_TRENDS = (
    "recency_days",
    "tenure_days",
    "orders_total",
    "cds_total",
    "spend_total",
    "mean_gap_days",
)

PROJECT = Project(
    name="churn",
    description="Will this customer buy nothing in the next 90 days?",
    entity=Entity(name="user", join_key="user_id", description="a customer of CDNOW"),
    tables=(USERS, FEATURES, LABELS),
    view=FeatureView(
        name="customer_monthly",
        table="features",
        features=tuple(
            column.name
            for column in FEATURES.columns
            if column.name not in ("user_id", "feature_date")
        ),
        ttl=timedelta(days=45),
    ),
    label=Label(
        table="labels",
        column="label_value",
        time="label_date",
        horizon=timedelta(days=90),
        positive_means="buys nothing in the next 90 days",
    ),
    estimator="churn.estimator:build",
    baseline="churn.estimator:recency_only",
    calendar=Calendar(first=date(1997, 6, 30)),
    gate=Gate(metric="roc_auc", margin=0.01, slice_margin=0.05),
    search=Search(space=(("interactions", (False, True)),), folds=3),
    slices=(
        Slice(name="one-time buyers", feature="orders_total", maximum=2),
        Slice(name="regular buyers", feature="orders_total", minimum=2),
        Slice(name="lately active", feature="recency_days", maximum=90),
        Slice(name="long silent", feature="recency_days", minimum=90),
    ),
    monitoring=Monitoring(columns=tuple(ColumnMonitoring(name=n, trend=True) for n in _TRENDS)),
    full_data="churn.cdnow:build_full",
    seed=1997,
)
