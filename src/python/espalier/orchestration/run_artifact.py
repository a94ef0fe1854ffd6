"""What a deployment has a worker run: fetch a PEX by its digest, and become it.

`espalier-run --sha256 DIGEST URL` needs nothing on the host but the worker that put it on the
PATH. Its process becomes the PEX's, so that the worker's signals and exit codes are the flow's.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from espalier import commandline, settings
from espalier.commandline import OneLineParser
from espalier.errors import EspalierError, UsageError
from espalier.orchestration import distribution

PROGRAM = "espalier-run"
# What would let the host's sources reach into the PEX.
_NOT_HANDED_ON = ("PYTHONPATH", "PYTHONHOME", "PEX", "PEX_PATH")


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch and run; gives an exit code only when that fails."""
    return commandline.run(PROGRAM, lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    try:
        cache = settings.load().pex_cache.expanduser().absolute()
        program = distribution.fetch(options.url, options.sha256, cache)
    except EspalierError as error:
        _tell_server(str(error))
        raise
    for name in _NOT_HANDED_ON:
        os.environ.pop(name, None)
    # The interpreter beneath the worker's own environment, whatever the PATH is.
    python = str(Path(sys.executable).resolve())
    os.execv(python, [python, str(program)])  # noqa: S606  # no shell is wanted
    raise AssertionError("exec does not return")


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(PROGRAM, description="Run a PEX of the store, for a Prefect worker.")
    parser.add_argument("--sha256", required=True, type=_digest, help="the digest it must have")
    parser.add_argument("url", help="where it is: a path, or any URL that fsspec knows")
    return parser


def _digest(text: str) -> str:
    if not distribution.is_digest(text):
        raise UsageError(f"{text!r} is no sha256", fix="deploy again")
    return text


def _tell_server(message: str) -> None:
    """Give the flow run its reason; the worker alone would say no more than an exit code."""
    identity = os.environ.get("PREFECT__FLOW_RUN_ID")
    if not identity:
        return
    from uuid import UUID

    from prefect.client.orchestration import get_client
    from prefect.states import Failed

    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(identity), Failed(message=message), force=True)


if __name__ == "__main__":
    sys.exit(main())
