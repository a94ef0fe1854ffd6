"""Panels, variables and dashboards in this project's style, over Grafana's foundation SDK."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    timeseries,
)
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heat
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from observability.grafana_rules import DATASOURCE

_SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
# Of the 24 columns of Grafana's grid.
SMALL, THIRD, HALF, WHOLE = 4, 8, 12, 24
_YES_NO = (("0", "no", "red"), ("1", "yes", "green"))
NO_YES = (("0", "no", "green"), ("1", "yes", "red"))


@dataclass(frozen=True)
class Query:
    """PromQL, and the series' name by Grafana's `{{label}}`."""

    expr: str
    legend: str = ""


Panel = bargauge.Panel | heatmap.Panel | stat.Panel | statetimeline.Panel | timeseries.Panel


def lines(
    title: str,
    what: str,
    unit: str,
    *queries: Query,
    width: int = THIRD,
    stacked: bool = False,
    signed: bool = False,
) -> Panel:
    """Values over time, from 0 on unless they are `signed`."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(what)
        .unit(unit)
        .datasource(_SOURCE)
        .targets(_targets(queries, instant=False))
        .span(width)
        .height(8)
        .line_width(1)
        .fill_opacity(30 if stacked else 0)
        .show_points(looks.VisibilityMode.AUTO)
        .legend(
            common.VizLegendOptions()
            .display_mode(looks.LegendDisplayMode.TABLE)
            .placement(looks.LegendPlacement.BOTTOM)
            .show_legend(True)  # noqa: FBT003  # the SDK's
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI))
    )
    panel = panel if signed else panel.min(0)
    normal = common.StackingConfig().mode(looks.StackingMode.NORMAL)
    return panel.stacking(normal) if stacked else panel


def number(
    title: str,
    what: str,
    unit: str,
    query: Query,
    *,
    limits: Sequence[tuple[float, str]] = (),
    states: Sequence[tuple[str, str, str]] = (),
    named: bool = False,
    width: int = SMALL,
) -> Panel:
    """One value now. From each of `limits` on it has that colour; `named` shows the series' name."""
    steps = [model.Threshold(value=None, color="green")]
    steps += [model.Threshold(value=value, color=colour) for value, colour in limits]
    panel = (
        stat.Panel()
        .title(title)
        .description(what)
        .unit(unit)
        .datasource(_SOURCE)
        .targets(_targets([query], instant=True))
        .span(width)
        .height(4)
        .thresholds(dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps))
        .color_mode(looks.BigValueColorMode.VALUE)
        .graph_mode(looks.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .text_mode(looks.BigValueTextMode.NAME if named else looks.BigValueTextMode.AUTO)
    )
    return panel.mappings([_mapping(states)]) if states else panel


def yes_no(title: str, what: str, query: Query, *, bad: bool = False) -> Panel:
    """A value of 0 or 1 now; `bad` makes 1 the bad one."""
    return number(title, what, "bool_yes_no", query, states=NO_YES if bad else _YES_NO)


def bars(title: str, what: str, unit: str, query: Query, *, limit: float) -> Panel:
    """Values now, one bar each, red from `limit` on."""
    steps = [
        model.Threshold(value=None, color="green"),
        model.Threshold(value=limit, color="red"),
    ]
    return (
        bargauge.Panel()
        .title(title)
        .description(what)
        .unit(unit)
        .datasource(_SOURCE)
        .targets(_targets([query], instant=True))
        .span(HALF)
        .height(8)
        .min(0)
        .thresholds(dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps))
        .display_mode(looks.BarGaugeDisplayMode.BASIC)
        .orientation(looks.VizOrientation.HORIZONTAL)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )


def states(
    title: str, what: str, query: Query, names: Sequence[tuple[str, str, str]] = NO_YES
) -> Panel:
    """States over time: `names` has value, word and colour of each."""
    return (
        statetimeline.Panel()
        .title(title)
        .description(what)
        .unit("bool_yes_no")
        .datasource(_SOURCE)
        .targets(_targets([query], instant=False))
        .span(HALF)
        .height(8)
        .mappings([_mapping(names)])
        .show_value(looks.VisibilityMode.NEVER)
        .row_height(0.8)
        .line_width(0)
        .fill_opacity(70)
    )


def heat_map(title: str, what: str, unit: str, query: Query) -> Panel:
    """A histogram's buckets over time."""
    target = _target(query, "A", instant=False).format(PromQueryFormat.HEATMAP)
    return (
        heatmap.Panel()
        .title(title)
        .description(what)
        .unit(unit)
        .datasource(_SOURCE)
        .targets([target])
        .span(HALF)
        .height(8)
        .calculate(False)  # noqa: FBT003  # the SDK's
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .scale_distribution(common.ScaleDistributionConfig().type(looks.ScaleDistribution.LINEAR))
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heat.HeatmapColorMode.SCHEME)
            .scheme("Oranges")
            .steps(64)
        )
    )


def choice(name: str, label: str, query: str) -> dashboard.QueryVariable:
    """A variable with the values of a label; all of them at first."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(_SOURCE)
        .query({"query": query, "refId": f"variable-{name}"})
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .include_all(True)  # noqa: FBT003  # the SDK's
        .multi(True)  # noqa: FBT003  # the SDK's
        .all_value(".*")
        .current(model.VariableOption(selected=True, text="All", value="$__all"))
    )


def mark(name: str, expr: str, colour: str) -> dashboard.AnnotationQuery:
    """An annotation wherever `expr` has a sample."""
    return (
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(_SOURCE)
        .enable(True)  # noqa: FBT003  # the SDK's
        .icon_color(colour)
        .expr(expr)
    )


def board(
    uid: str,
    title: str,
    what: str,
    *,
    variables: Sequence[dashboard.QueryVariable],
    rows: Sequence[tuple[str, Sequence[Panel]]],
    marks: Sequence[dashboard.AnnotationQuery] = (),
    since: str = "now-1h",
) -> model.Dashboard:
    """A dashboard: rows of panels, which are numbered in their order."""
    source = (
        dashboard.DatasourceVariable("datasource")
        .label("Prometheus")
        .type("prometheus")
        .current(model.VariableOption(selected=True, text="Prometheus", value=DATASOURCE))
    )
    firing = mark("Alerts", 'ALERTS{alertstate="firing",alertname=~"Espalier.*"}', "red")
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(what)
        .tags(["espalier"])
        .editable()
        .refresh("30s")
        .time(since, "now")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .variables([source, *variables])
        .annotations([firing, *marks])
        .link(
            dashboard.DashboardLink("Espalier")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags(["espalier"])
            .as_dropdown(True)  # noqa: FBT003  # the SDK's
            .keep_time(True)  # noqa: FBT003  # the SDK's
        )
    )
    count = 0
    for name, panels in rows:
        count += 1
        made = made.with_row(dashboard.Row(name).id(count))
        for panel in panels:
            count += 1
            made = made.with_panel(panel.id(count))
    return made.build()


def _targets(queries: Sequence[Query], *, instant: bool) -> list[Builder[Dataquery]]:
    return [
        _target(query, chr(ord("A") + place), instant=instant)
        for place, query in enumerate(queries)
    ]


def _target(query: Query, letter: str, *, instant: bool) -> prometheus.Dataquery:
    made = prometheus.Dataquery().expr(query.expr).ref_id(letter).datasource(_SOURCE)
    made = made.legend_format(query.legend) if query.legend else made
    return made.instant() if instant else made.range()


def _mapping(states: Sequence[tuple[str, str, str]]) -> model.ValueMap:
    return model.ValueMap(
        options={
            value: model.ValueMappingResult(text=text, color=colour)
            for value, text, colour in states
        }
    )
