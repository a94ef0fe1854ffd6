"""`espalier env`: the `.env` of a checkout, with a password and a block of ports of its own."""

from __future__ import annotations

import argparse
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from espalier.errors import ConfigurationError, UsageError

# The stack's ports by the variables that deploy/process-compose.yaml reads, as block 0 has them.
PORTS: Mapping[str, int] = {
    "POSTGRES_PORT": 5432,
    "ESPALIER_MLFLOW_PORT": 5000,
    "ESPALIER_PREFECT_PORT": 4200,
    "ESPALIER_GRPC_PORT": 50051,
    "ESPALIER_HTTP_PORT": 8000,
    "ESPALIER_EXPORTER_PORT": 9108,
    "ESPALIER_WORKER_PORT": 8081,
    "ESPALIER_PROMETHEUS_PORT": 9090,
    "ESPALIER_ALERTMANAGER_PORT": 9093,
    "ESPALIER_GRAFANA_PORT": 3001,
}
# What programs read, by the port in it.
ADDRESSES: Mapping[str, str] = {
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:{ESPALIER_MLFLOW_PORT}",
    "PREFECT_API_URL": "http://127.0.0.1:{ESPALIER_PREFECT_PORT}/api",
    "ESPALIER_GRPC_ADDRESS": "127.0.0.1:{ESPALIER_GRPC_PORT}",
    "ESPALIER_HTTP_ADDRESS": "127.0.0.1:{ESPALIER_HTTP_PORT}",
    "ESPALIER_EXPORTER_ADDRESS": "127.0.0.1:{ESPALIER_EXPORTER_PORT}",
    "ESPALIER_PROMETHEUS_URL": "http://127.0.0.1:{ESPALIER_PROMETHEUS_PORT}",
    "ESPALIER_GRAFANA_URL": "http://127.0.0.1:{ESPALIER_GRAFANA_PORT}",
}
_FIRST_BLOCK, _BLOCK_SIZE, _LAST_BLOCK = 20000, 20, 500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--block",
        type=int,
        default=0,
        metavar="N",
        help=f"the ports: 0 for the usual ones, up to {_LAST_BLOCK} for others; default: 0",
    )
    parser.add_argument("--keep", action="store_true", help="leave a .env that is there as it is")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write `.env` in the working directory.

    Raises:
        ConfigurationError: it is there already.
        UsageError: there is no such block.
    """
    text = written(options.block)
    path = Path(".env")
    try:
        # None but its owner may read the password, from its first moment on.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        if options.keep:
            print(".env is there and stays")
            return 0
        raise ConfigurationError(
            ".env is there already", fix="change it by hand, or move it away first"
        ) from error
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    print(f".env written: a random password, ports of block {options.block}")
    return 0


def ports(block: int) -> Mapping[str, int]:
    """The ports of a block, by their variables.

    Raises:
        UsageError: there is no such block.
    """
    if not 0 <= block <= _LAST_BLOCK:
        raise UsageError(f"--block {block} is not between 0 and {_LAST_BLOCK}")
    if block == 0:
        return PORTS
    first = _FIRST_BLOCK + block * _BLOCK_SIZE
    return {name: first + offset for offset, name in enumerate(PORTS)}


def written(block: int) -> str:
    """The text of a `.env`; the password is another one at each call."""
    given = ports(block)
    lines = {
        "POSTGRES_HOST": "127.0.0.1",
        "POSTGRES_USER": "espalier",
        "POSTGRES_PASSWORD": secrets.token_hex(16),
        "POSTGRES_DB": "espalier",
        **{name: str(port) for name, port in given.items()},
        **{name: address.format(**given) for name, address in ADDRESSES.items()},
    }
    head = f"# Of `espalier.pex env --block {block}`; .env.example tells all variables.\n"
    return head + "".join(f"{name}={value}\n" for name, value in lines.items())
