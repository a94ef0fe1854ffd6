"""What `espalier models` prints for people, in 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from espalier.cli.tables import table, wrapped
from espalier.registry.ledger import Entry
from espalier.registry.versions import Details, Version

_INDENT = 14


def listing(project: str, found: Sequence[Version], metric: str) -> str:
    """One line a version."""
    if not found:
        return f"no version of {project} is registered yet"
    rows = [
        [
            version.version,
            ", ".join(version.aliases),
            _interval(version.metrics, metric),
            version.gate or "not judged",
            _minute(version.created),
        ]
        for version in found
    ]
    return table(["version", "alias", f"{metric} (95 %)", "gate", "registered (UTC)"], rows)


def details(project: str, found: Details) -> str:
    """All of one version, a part a heading."""
    version = found.version
    aliases = f", {' and '.join(version.aliases)}" if version.aliases else ""
    parts = [f"{project} version {version.version}{aliases}"]
    by = f" by {version.tags['who']}" if "who" in version.tags else ""
    parts += _part("Registered", [f"{_second(version.created)} UTC{by}"])
    verdict = f"{version.gate}: {version.gate_reason}" if version.gate else "not judged"
    parts += _part("Gate", [verdict, *_checks(found.gate)])
    parts += _part("Metrics", list(_metrics(version.metrics)))
    parts += _part("Provenance", list(_provenance(found.provenance, version.tags)))
    files = [
        f"{file.name}  {file.size:,} bytes" + (f"\n{file.digest}" if file.digest else "")
        for file in found.files
    ]
    parts += _part("Files", "\n".join(files).split("\n"))
    return "\n".join([*parts, *_part("Run", [found.run_page])])


def history(project: str, entries: Sequence[Entry]) -> str:
    """One entry a paragraph, oldest first."""
    if not entries:
        return f"nothing of {project} was promoted yet"
    told = []
    for entry in entries:
        forced = entry.evidence.get("forced_against")
        change = f"{entry.from_version or 'none'} -> {entry.to_version}"
        lines = [
            f"{_second(entry.at)}  {entry.kind:<8}  {change}  by {entry.who}",
            wrapped(entry.why, first="    ", indent=4),
        ]
        if forced:
            lines.append(wrapped(f"forced: {forced}", first="    ", indent=4))
        told.append("\n".join(lines))
    return "\n".join(told)


def changed(entry: Entry) -> str:
    """What a promotion or a rollback did."""
    again = " again" if entry.kind == "rollback" else ""
    was = f" (was version {entry.from_version})" if entry.from_version else ""
    return f"version {entry.to_version} of {entry.project} is champion{again}{was}"


def _part(title: str, lines: Sequence[str]) -> list[str]:
    first = f"  {title:<{_INDENT - 2}}"
    return [
        wrapped(line, first=first if place == 0 else " " * _INDENT, indent=_INDENT + 2)
        for place, line in enumerate(lines or ["none"])
    ]


def _checks(gate: Mapping[str, Any]) -> list[str]:
    return [
        f"{check.get('verdict', '')} {check.get('name', '')}: {check.get('reason', '')}"
        for check in gate.get("checks", [])
    ]


def _metrics(metrics: Mapping[str, float]) -> Iterator[str]:
    """Each metric of the model with its interval and the baseline's value beside it."""
    ends = {f"{name}_{end}" for name in metrics for end in ("low", "high")}
    for name in sorted(metrics):
        if name in ends or name.startswith(("baseline_", "gate", "importance.")):
            continue
        baseline = metrics.get(f"baseline_{name}")
        beside = "" if baseline is None else f"  baseline {baseline:.4f}"
        yield f"{name}  {_interval(metrics, name)}{beside}"


def _provenance(found: Mapping[str, Any], tags: Mapping[str, str]) -> Iterator[str]:
    if not found.get("format"):
        yield from (f"{name}  {value}" for name, value in sorted(tags.items()) if name != "files")
        return
    program, under, data = found["program"], found["environment"], found["data"]
    dirty = {"true": ", with uncommitted changes", "false": ""}
    yield f"trained as of {found['as_of']}, seed {found['seed']}"
    yield f"rows {data['train_rows']:,} of {data['train_from']} to {data['train_to']}"
    yield f"validated on {data['validation_rows']:,} of {data['validation_time']}"
    if found["settings"]:
        yield f"settings {', '.join(f'{k}={v}' for k, v in found['settings'].items())}"
    yield f"commit {program['git_commit']}{dirty.get(program['git_dirty'], ', changes unknown')}"
    yield f"lock {program['lock_digest'][:12]} ({program['lock_source']})"
    if program["pex"]:
        yield f"{program['pex']} {program['pex_sha256'][:12]}"
    yield f"contract {found['contract_digest'][:12]}, view {found['view_digest'][:12]}"
    for one in found["snapshots"]:
        revision = "" if one["revision"] == 1 else f" revision {one['revision']}"
        yield f"snapshot {one['as_of']}{revision}, id {one['id']}, {one['digest'][:12]}"
    yield f"Python {under['python']} on {under['platform']}, {under['blas']}"
    yield ", ".join(f"{name} {said}" for name, said in under["libraries"].items())


def _interval(metrics: Mapping[str, float], name: str) -> str:
    if name not in metrics:
        return ""
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    ends = "" if low is None or high is None else f" ({low:.4f} to {high:.4f})"
    return f"{metrics[name]:.4f}{ends}"


def _minute(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M")


def _second(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M:%S")
