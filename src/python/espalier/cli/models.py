"""`espalier models`: which versions there are, and who is champion."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from espalier.cli import models_text
from espalier.cli.products import add_project
from espalier.orchestration import context
from espalier.postgres.connect import connect
from espalier.registry import ledger, promotion, versions
from espalier.registry.ledger import Entry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own commands, each with its options."""
    commands = parser.add_subparsers(required=True, metavar="ACTION", dest="action")

    def command(name: str, body: Any, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        add_project(added)
        added.add_argument("--json", action="store_true", help="print JSON")
        added.set_defaults(run=body)
        return added

    listing = command("list", _list, "the newest versions, with alias, metric and gate")
    listing.add_argument("--limit", type=_count, default=20, metavar="N", help="default: 20")
    show = command("show", _show, "all that is known of one version")
    show.add_argument("version", help="the version's number, or champion or previous")
    promote = command("promote", _promote, "make a version champion")
    promote.add_argument("version", help="the version's number")
    promote.add_argument("--why", required=True, metavar="REASON", help="for the ledger")
    promote.add_argument(
        "--force", action="store_true", help="against the gate; the ledger will say so"
    )
    rollback = command("rollback", _rollback, "make the champion before champion again")
    rollback.add_argument("--to", metavar="VERSION", help="an earlier champion instead")
    rollback.add_argument(
        "--why", default="rolled back by hand", metavar="REASON", help="for the ledger"
    )
    history = command("ledger", _ledger, "who made which version champion, when and why")
    history.add_argument(
        "--repair", action="store_true", help="point MLflow's aliases to what the ledger says"
    )


def _count(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= versions.MOST:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {versions.MOST}")


def _list(options: argparse.Namespace) -> int:
    with context.begin(options.project) as begun:
        uri, project = begun.settings.mlflow_tracking_uri, begun.project
        found = versions.list_versions(uri, project.name, limit=options.limit)
        text = models_text.listing(project.name, found, project.gate.metric)
    _print(options, [_plain(version) for version in found], text)
    return 0


def _show(options: argparse.Namespace) -> int:
    with context.begin(options.project) as begun:
        uri, project = begun.settings.mlflow_tracking_uri, begun.project
        found = versions.show(uri, project.name, options.version)
    _print(options, _plain(found), models_text.details(project.name, found))
    return 0


def _promote(options: argparse.Namespace) -> int:
    with context.begin(options.project) as begun, connect(begun.settings.dsn) as connection:
        uri, name = begun.settings.mlflow_tracking_uri, begun.project.name
        champion = promotion.champion(connection, uri, name)
        evidence = versions.gate_evidence(
            uri, name, options.version, champion=champion, force=options.force
        )
        entry = promotion.promote(
            connection,
            uri,
            name,
            options.version,
            expected=champion,
            who=begun.settings.who,
            why=options.why,
            evidence=evidence,
        )
    _print(options, _plain(entry), models_text.changed(entry))
    return 0


def _rollback(options: argparse.Namespace) -> int:
    with context.begin(options.project) as begun, connect(begun.settings.dsn) as connection:
        last = ledger.last(connection, begun.project.name)
        entry = promotion.rollback(
            connection,
            begun.settings.mlflow_tracking_uri,
            begun.project.name,
            # Nothing was promoted yet: it is refused there.
            expected=last.to_version if last else None,
            to=options.to,
            who=begun.settings.who,
            why=options.why,
        )
    _print(options, _plain(entry), models_text.changed(entry))
    return 0


def _ledger(options: argparse.Namespace) -> int:
    with context.begin(options.project) as begun, connect(begun.settings.dsn) as connection:
        name = begun.project.name
        if options.repair:
            promotion.repair(connection, begun.settings.mlflow_tracking_uri, name)
        entries: Sequence[Entry] = ledger.history(connection, name)
    _print(options, [_plain(entry) for entry in entries], models_text.history(name, entries))
    return 0


def _plain(value: Any) -> Mapping[str, Any]:
    """A value's fields; what JSON does not know is written as text."""
    return asdict(value)


def _print(options: argparse.Namespace, value: Any, text: str) -> None:
    print(json.dumps(value, indent=2, default=str) if options.json else text)
