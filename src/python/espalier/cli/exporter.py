"""`espalier exporter`: what monitoring stored, for Prometheus."""

from __future__ import annotations

import argparse
import threading

from espalier import settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--address", help="HOST:PORT to answer on; default: ESPALIER_EXPORTER_ADDRESS"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Answer until told to end."""
    # Only now: --help needs none of it.
    from espalier.monitoring.exporter import exporting

    configured = settings.load()
    address = options.address or configured.exporter_address
    with exporting(configured.dsn, address) as running:
        print(f"espalier exporter: ready on http://{running.address}/metrics", flush=True)
        # A signal ends it.
        threading.Event().wait()
    return 0
