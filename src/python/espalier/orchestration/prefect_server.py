"""The command that runs a Prefect server over files of its own.

Quickstart and tests start it as a child process. This module does not import prefect.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from espalier.probe import answers


def prefect_server_command(port: int, *, host: str = "127.0.0.1") -> list[str]:
    """The argument vector of a server that listens on a TCP port of `host`."""
    return [
        *(sys.executable, "-m", "prefect", "server", "start"),
        *("--host", host, "--port", str(port)),
    ]


def prefect_environment(home: Path) -> Mapping[str, str]:
    """What keeps the files of a server and its clients in `home`, and news to themselves."""
    return {
        "PREFECT_HOME": str(home.absolute()),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


def healthy(api_url: str) -> bool:
    """Whether a Prefect server's API answers there."""
    return answers(f"{api_url}/health")
