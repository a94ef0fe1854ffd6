"""The text of a product's project.py."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from espalier.authoring.answers import NONE, ROW, Answers, As, Feature
from espalier.authoring.convert import FEATURE_DATE, LABEL, LABEL_DATE
from espalier.authoring.infer import key_name
from espalier.authoring.layout import Call, Raw, layout
from espalier.project import Task

_INTEGER, _DOUBLE = Raw("ColumnType.INTEGER"), Raw("ColumnType.DOUBLE")
_TEXT, _DATE = Raw("ColumnType.TEXT"), Raw("ColumnType.DATE")


@dataclass(frozen=True)
class Product:
    """All that the texts of a product are made of."""

    name: str
    answers: Answers
    files: str
    first: date
    ttl_days: int
    batches: int

    @property
    def key(self) -> str:
        """The join key."""
        return key_name(self.answers)

    @property
    def task(self) -> Task:
        """What is predicted."""
        return Task(self.answers.task)

    @property
    def features(self) -> tuple[Feature, ...]:
        """The features in the view's order."""
        return self.answers.features or ()

    @property
    def timed(self) -> bool:
        """Whether validation is on the newest label time, and not on a part of the entities."""
        return self.answers.time != NONE or self.batches > 1


def project(product: Product) -> str:
    """The module."""
    parts = [
        f'"""{_title(product)}\n\n{_told(product)}\n"""',
        "from __future__ import annotations",
        "from datetime import date, timedelta",
        _imports(product),
        "",
        _assigned("_KEY", _key(product)),
        _assigned("FEATURES", _features(product)),
        _assigned("LABELS", _labels(product)),
        _assigned("PROJECT", _project(product)),
    ]
    return "\n\n".join(parts).replace("\n\n\n\n", "\n\n") + "\n"


def _assigned(name: str, call: Call) -> str:
    return f"{name} = {layout(call, before=len(name) + 3)}"


def _title(product: Product) -> str:
    told = " ".join(_description(product).split())
    # It stands in a docstring.
    told = told.replace("\\", "/").replace('"', "'")
    return told if told.endswith((".", "?", "!")) else f"{told}."


def _description(product: Product) -> str:
    return product.answers.description or f"{product.answers.label} of {product.name}."


def _told(product: Product) -> str:
    lines = [
        f"Written by `espalier new` from {product.files}; answers.toml tells how each column was taken.",
        "Change what you like: this file is the product's declaration, and nothing renews it.",
    ]
    return "\n".join(lines).replace("\\", "/").replace('"', "'")


def _imports(product: Product) -> str:
    policies = ["Gate"] if product.answers.near_perfect else []
    policies += ["Search", *([] if product.timed else ["Validation"])]
    return "\n".join(
        [
            "from espalier.contract import Column, ColumnType, Table",
            f"from espalier.policies import {', '.join(policies)}",
            "from espalier.project import Calendar, Entity, FeatureView, Label, Project",
        ]
    )


def _column(name: object, kind: Raw, description: str, **more: object) -> Call:
    return Call("Column", {"name": name, "type": kind, "description": description, **more})


def _key(product: Product) -> Call:
    key = product.answers.key or ()
    told = f"column {key[0]!r}"
    if key == (ROW,):
        told = "the row's number in the file, counted on from batch to batch"
    elif len(key) > 1:
        told = f"{' | '.join(key)}: their texts joined by |, with | and \\ escaped by \\"
    return _column(product.key, _TEXT, told)


def _features(product: Product) -> Call:
    columns = (
        Raw("_KEY"),
        _column(FEATURE_DATE, _DATE, _day_told(product)),
        *(_feature(feature) for feature in product.features),
    )
    return Call(
        "Table",
        {
            "name": "features",
            "key": (product.key, FEATURE_DATE),
            "event_time": FEATURE_DATE,
            "columns": columns,
        },
    )


def _day_told(product: Product) -> str:
    if product.answers.time == NONE:
        return "the day of the file"
    month = "the end of the month of" if product.answers.by_month else "the day of"
    return f"{month} column {product.answers.time!r}"


def _feature(feature: Feature) -> Call:
    null = {"nullable": True} if feature.nullable else {}
    source = f"column {feature.source!r}"
    match feature.kind:
        case As.CODES:
            codes = ", ".join(f"{place} = {value}" for place, value in enumerate(feature.values))
            bounds = {**null, "minimum": 0, "maximum": len(feature.values) - 1}
            told = f"{source}: {codes}; null for another one"
            return _column(feature.name, _INTEGER, told, **bounds)
        case As.TRUTH:
            bounds = {**null, "minimum": 0, "maximum": 1}
            return _column(feature.name, _INTEGER, f"{source}: 1 = true, 0 = false", **bounds)
        case As.DAYS:
            told = f"days from {source} to {FEATURE_DATE}"
            return _column(feature.name, _INTEGER, told, **null, minimum=0)
        case As.INTEGER:
            return _column(feature.name, _INTEGER, source, **null)
    return _column(feature.name, _DOUBLE, source, **null)


def _labels(product: Product) -> Call:
    kinds = {
        Task.BINARY: Raw("ColumnType.BOOLEAN"),
        Task.MULTICLASS: _TEXT,
        Task.REGRESSION: _DOUBLE,
    }
    told = f"column {product.answers.label!r}"
    if product.task is Task.BINARY:
        told += f": true for {product.answers.positive}"
    label = _column(LABEL, kinds[product.task], told)
    columns = (Raw("_KEY"), _column(LABEL_DATE, _DATE, _day_told(product)), label)
    few = {"min_rows": 0} if product.answers.horizon_days or product.answers.unlabelled else {}
    return Call(
        "Table",
        {
            "name": "labels",
            "key": (product.key, LABEL_DATE),
            "event_time": LABEL_DATE,
            **few,
            "columns": columns,
        },
    )


def _project(product: Product) -> Call:
    answers = product.answers
    label: dict[str, object] = {
        "table": "labels",
        "column": LABEL,
        "time": LABEL_DATE,
        "horizon": Raw(f"timedelta(days={answers.horizon_days or 0})"),
    }
    if product.task is Task.BINARY:
        label["positive_means"] = f"{answers.label} is {answers.positive}"
    elif product.task is Task.MULTICLASS:
        label["classes"] = answers.classes or ()
    view = {
        "name": "features",
        "table": "features",
        "features": tuple(feature.name for feature in product.features),
        "ttl": Raw(f"timedelta(days={product.ttl_days})"),
    }
    entity = {"name": product.key, "join_key": product.key, "description": f"one of {product.name}"}
    # More than this is never reached, so the gate's check for a leak passes.
    gate = {"gate": Call("Gate", {"suspicious": 1.0})} if answers.near_perfect else {}
    validation = {} if product.timed else {"validation": Call("Validation", {"by": "entity"})}
    first = product.first
    return Call(
        "Project",
        {
            "name": product.name,
            "description": _description(product),
            "entity": Call("Entity", entity),
            "tables": (Raw("FEATURES"), Raw("LABELS")),
            "view": Call("FeatureView", view),
            "label": Call("Label", label),
            "estimator": f"{product.name}.estimator:build",
            "baseline": f"{product.name}.estimator:baseline",
            "calendar": Call(
                "Calendar", {"first": Raw(f"date({first.year}, {first.month}, {first.day})")}
            ),
            **gate,
            "search": Call("Search", {"space": (("trees", (False, True)),), "folds": 3}),
            **validation,
        },
    )
