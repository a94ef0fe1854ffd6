"""`espalier fill`: the stack's first data, so that there is something to serve and to look at."""

from __future__ import annotations

import argparse

from espalier import settings as configuration
from espalier.cli import loop, quickstart
from espalier.cli.console import Console
from espalier.cli.products import add_project
from espalier.errors import ConfigurationError
from espalier.orchestration import recorded
from espalier.project import load_project


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_project(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Ingest all batches of the data folder, materialize, train and monitor; run again, go on.

    Raises:
        EspalierError: a step failed, or a server does not answer.
    """
    settings, project, console = configuration.load(), load_project(options.project), Console()
    if not settings.prefect_api_url:
        raise ConfigurationError(
            "PREFECT_API_URL is not set", fix="set it, such as http://127.0.0.1:4200/api"
        )
    months = quickstart.batches(project, settings.data_dir / project.name)
    stages = loop.Loop(project, settings, console)
    with recorded.delivered():
        stages.ingest(months)
        stages.materialize()
        stages.train()
        stages.monitor()
    return 0
