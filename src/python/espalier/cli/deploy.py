"""`espalier deploy` and `espalier worker`: the flows' PEXes, to Prefect and on a host."""

from __future__ import annotations

import argparse
from pathlib import Path

from espalier import settings as configuration
from espalier.errors import ConfigurationError
from espalier.orchestration import deploy, deployments, distribution, recorded, worker


def add_deploy_arguments(parser: argparse.ArgumentParser) -> None:
    """Deploy's options."""
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        default=Path("deploy/prefect/deployments.toml"),
        help="the declared file; default: deploy/prefect/deployments.toml",
    )
    parser.add_argument(
        "--pexes", type=Path, default=Path("dist"), help="the folder of PEXes; default: dist"
    )
    parser.add_argument("--store", help="where workers fetch them; default: ESPALIER_PEX_STORE")
    parser.add_argument(
        "--record",
        action="store_true",
        help="write the PEXes' digests to SHA256SUMS in their folder: these were tested",
    )
    parser.add_argument("--dry-run", action="store_true", help="only show what would change")
    parser.set_defaults(run=run_deploy)


def add_worker_arguments(parser: argparse.ArgumentParser) -> None:
    """The worker's options."""
    parser.add_argument("--pool", default="espalier", help="the work pool; default: espalier")
    parser.add_argument("--name", help="the worker's name in Prefect")
    parser.add_argument("--limit", type=int, metavar="N", help="at most so many runs at a time")
    parser.add_argument(
        "--health-port", type=int, metavar="PORT", help="answer there on /health while it polls"
    )
    parser.set_defaults(run=run_worker)


def run_deploy(options: argparse.Namespace) -> int:
    """Show what differs from the declaration, and change it.

    Raises:
        EspalierError: the declaration, a PEX or the server is not as it must be; nothing was
            changed then, but for PEXes added to the store.
    """
    settings = configuration.load()
    declared = deployments.read(options.file)
    found = deploy.programs(
        declared.deployments,
        folder=options.pexes,
        store=options.store or settings.pex_store,
        record=options.record and not options.dry_run,
    )
    with deploy.connected(settings.prefect_api_url) as client:
        changes = deploy.plan(client, declared, found)
        print(deploy.told(changes))
        count = sum(change.kind != "same" for change in changes)
        if options.dry_run:
            print(f"{count} of {len(changes)} would change; nothing was done")
            return 0
        # Before a deployment names them.
        put = sum(distribution.publish(one.path, one.url) for one in found.values())
        deploy.apply(client, changes)
    print(f"{count} of {len(changes)} changed, {put} of {len(found)} PEXes put into the store")
    return 0


def run_worker(options: argparse.Namespace) -> int:
    """Become a Prefect worker; returns only by an error.

    Raises:
        ConfigurationError: PREFECT_API_URL is not set, or the cache cannot be written.
        DependencyUnreachable: the server does not answer.
    """
    settings = configuration.load()
    if not settings.prefect_api_url:
        raise ConfigurationError(
            "PREFECT_API_URL is not set", fix="set it, such as http://127.0.0.1:4200/api"
        )
    recorded.check(settings.prefect_api_url)
    health = options.health_port is not None
    argv = worker.command(options.pool, name=options.name, limit=options.limit, health=health)
    listening = {
        "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1",
        "PREFECT_WORKER_WEBSERVER_PORT": str(options.health_port),
    }
    worker.become(argv, {**worker.environment(settings), **(listening if health else {})})
    raise AssertionError("exec does not return")
